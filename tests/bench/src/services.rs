//! Services and names as the kernel and the network see them: a minion on this machine's nftables, asked by connecting and
//! by questions.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::StreamExt;
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::docker::{self, IMAGE, SOCKET};
use crate::http::Target;
use crate::load;
use crate::parts::Bench;
use crate::report::Samples;

const SERVICES: usize = 5000;
const ENDPOINTS: usize = 4;
/// How often a change is measured.
const CHANGES: usize = 50;
/// A connection that is not there by then is tried again.
const ATTEMPT: Duration = Duration::from_millis(4);
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the services' common endpoint listens.
const PORT: u16 = 18_099;
/// Where Docker publishes the container that is compared with.
const PUBLISHED: u16 = 18_098;
const NODE_PORT: u16 = 31_998;
const EXCHANGES: usize = 2000;
/// What the endpoint says to whoever connects.
const WORD: &[u8; 4] = b"here";

/// The cluster IP of a service: from the middle of the range, away from what was given out by chance.
fn cluster_ip(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 100, 0, 1)) + u32::try_from(number).unwrap_or(0))
}

fn service(number: usize) -> Bytes {
    let object = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": format!("many-{number}") },
        "spec": { "clusterIP": cluster_ip(number).to_string(), "ports": [{ "name": "http", "port": 80 }] }
    });
    Bytes::from(object.to_string())
}

fn slice(number: usize, endpoints: &[Value], port: u16) -> Bytes {
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": format!("many-{number}"),
                      "labels": { "kubernetes.io/service-name": format!("many-{number}") } },
        "ports": [{ "name": "http", "port": port, "protocol": "TCP" }], "endpoints": endpoints,
    });
    Bytes::from(object.to_string())
}

/// Addresses nobody has.
fn nobodys(number: usize) -> Vec<Value> {
    let ip = |i: usize| Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 0, 1)) + u32::try_from(i).unwrap_or(0));
    (0..ENDPOINTS).map(|i| json!({ "addresses": [ip(number * ENDPOINTS + i)] })).collect()
}

/// Programming, changes and latency; then questions for names.
pub(crate) async fn services(bench: &mut Bench) -> Result<()> {
    if !Path::new(SOCKET).exists() {
        bench.report.add("services programmed", "no Docker here".to_owned(), "");
        return Ok(());
    }
    let master = bench.master(&["--components", "apiserver,controller-manager"]).await?;
    let minion = docker::start_minion(bench, &master, "services").await?;
    docker::node_ready(&master.target, "services").await?;
    let node_ip = own_address()?;
    let listener = TcpListener::bind((node_ip, PORT)).await?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // Whoever went away does not want it.
            let _ = stream.write_all(WORD).await;
        }
    });
    create(&master.target).await?;
    let measured = measure(bench, &master.target, node_ip).await;
    minion.stop();
    docker::cleanup(bench, "services")?;
    measured
}

async fn measure(bench: &mut Bench, target: &Target, node_ip: Ipv4Addr) -> Result<()> {
    // The last service leads to ourselves: when it answers, all before it are in force.
    let last = SERVICES - 1;
    let here = [json!({ "addresses": [node_ip.to_string()] })];
    set_slice(target, last, &here, PORT).await?;
    connected(last).await?;
    let mut whole = Vec::new();
    for _ in 0..5 {
        ensure!(Command::new("nft").args(["delete", "table", "ip", "coracle"]).status()?.success(), "nft failed");
        let begun = Instant::now();
        connected(last).await?;
        whole.push(begun.elapsed());
    }
    let median = Samples::new(whole).milliseconds(0.5);
    let what = "5,000 services with 20,000 endpoints in force after the table was deleted, median of 5";
    bench.report.add(what, format!("{median:.0} ms"), "≤ 1,000 ms");
    let changes = changes(target, &here).await?;
    let figure = format!("{:.1} ms, p99 {:.1} ms", changes.milliseconds(0.5), changes.milliseconds(0.99));
    bench.report.add("a new endpoint among 5,000 services in force, from the request, median of 50", figure, "≤ 20 ms");
    latency(bench, target, node_ip).await?;
    names(bench).await
}

async fn create(target: &Target) -> Result<()> {
    load::run(target, 16, SERVICES, |connection, number| {
        Box::pin(async move {
            connection.call(Method::POST, "/api/v1/namespaces/default/services", service(number)).await?;
            let body = slice(number, &nobodys(number), 80);
            let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
            connection.call(Method::POST, path, body).await.map(|_| ())
        })
    })
    .await?;
    Ok(())
}

async fn set_slice(target: &Target, number: usize, endpoints: &[Value], port: u16) -> Result<()> {
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/many-{number}");
    target.connect().await?.call(Method::PUT, &path, slice(number, endpoints, port)).await?;
    Ok(())
}

/// Waits until a connection to a service leads to us: on some networks somebody else accepts whatever leaves the machine.
async fn connected(number: usize) -> Result<()> {
    says(number, b"", WORD).await
}

/// Waits until what a service leads to says `word` when it is asked `question`.
async fn says(number: usize, question: &[u8], word: &[u8; 4]) -> Result<()> {
    let address = SocketAddr::new(IpAddr::V4(cluster_ip(number)), 80);
    let heard = async || {
        let mut said = [0; 4];
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(question).await?;
        stream.read_exact(&mut said).await?;
        std::io::Result::Ok(said == *word)
    };
    let trying = async { while !matches!(tokio::time::timeout(ATTEMPT, heard()).await, Ok(Ok(true))) {} };
    tokio::time::timeout(PATIENCE, trying).await.with_context(|| format!("{address} does not answer"))
}

/// From the request that gives a service an endpoint until a connection finds it.
async fn changes(target: &Target, here: &[Value]) -> Result<Samples> {
    let mut taken = Vec::new();
    for number in 0..CHANGES {
        // Refused until then: nobody may be at any of its addresses.
        set_slice(target, number, &[], PORT).await?;
        refused(number).await?;
        let begun = Instant::now();
        set_slice(target, number, here, PORT).await?;
        connected(number).await?;
        taken.push(begun.elapsed());
    }
    Ok(Samples::new(taken))
}

async fn refused(number: usize) -> Result<()> {
    let address = SocketAddr::new(IpAddr::V4(cluster_ip(number)), 80);
    let trying = async {
        loop {
            let tried = tokio::time::timeout(ATTEMPT, TcpStream::connect(address)).await;
            if matches!(tried, Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, trying).await.context("it is never refused")
}

/// The same container by its own address, by the port Docker publishes, and by a node port of ours.
async fn latency(bench: &mut Bench, target: &Target, node_ip: Ipv4Addr) -> Result<()> {
    docker::make_image(&bench.folder)?;
    let port = format!("{PUBLISHED}:80");
    let run = ["run", "-d", "--rm", "--name", "coracle-bench-published", "-p", &port, IMAGE, "busybox", "httpd", "-f"];
    ensure!(Command::new("docker").args(run).output()?.status.success(), "docker run failed");
    let measured = compare(bench, target, node_ip).await;
    let _ = Command::new("docker").args(["rm", "-f", "coracle-bench-published"]).output();
    measured
}

async fn compare(bench: &mut Bench, target: &Target, node_ip: Ipv4Addr) -> Result<()> {
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let shown = Command::new("docker").args(["inspect", "-f", format, "coracle-bench-published"]).output()?;
    let ip: Ipv4Addr = String::from_utf8_lossy(&shown.stdout).trim().parse().context("the container has no address")?;
    let body = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": format!("many-{SERVICES}") },
        "spec": { "type": "NodePort", "clusterIP": cluster_ip(SERVICES).to_string(),
                  "ports": [{ "name": "http", "port": 80, "nodePort": NODE_PORT }] }
    });
    let mut connection = target.connect().await?;
    let services = "/api/v1/namespaces/default/services";
    connection.call(Method::POST, services, Bytes::from(body.to_string())).await?;
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    connection.call(Method::POST, slices, slice(SERVICES, &[json!({ "addresses": [ip.to_string()] })], 80)).await?;
    says(SERVICES, b"GET / HTTP/1.0\r\n\r\n", b"HTTP").await?;
    let ways = [(ip, 80), (node_ip, PUBLISHED), (node_ip, NODE_PORT), (cluster_ip(SERVICES), 80)];
    let mut taken = [const { Vec::new() }; 4];
    for _ in 0..EXCHANGES {
        for (way, taken) in ways.iter().zip(&mut taken) {
            taken.push(exchange(SocketAddr::from(*way)).await?);
        }
    }
    let names = ["its own address", "a port Docker publishes", "a node port", "a cluster IP"];
    for (name, taken) in names.iter().zip(taken) {
        let samples = Samples::new(taken);
        let figure = format!("{:.3} ms, p99 {:.3} ms", samples.milliseconds(0.5), samples.milliseconds(0.99));
        bench.report.add(&format!("connection and answer of a container by {name}, median of 2,000"), figure, "");
    }
    Ok(())
}

async fn exchange(address: SocketAddr) -> Result<Duration> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    ensure!(answer.starts_with(b"HTTP/1"), "no answer from {address}");
    Ok(begun.elapsed())
}

const ASKERS: usize = 32;
const QUESTIONS: usize = 2000;

/// Questions for names of the cluster.
async fn names(bench: &mut Bench) -> Result<()> {
    let server = SocketAddr::from(([10, 96, 0, 10], 53));
    let question = question("many-7.default.svc.cluster.local");
    let begun = Instant::now();
    let askers = (0..ASKERS).map(|_| ask(server, &question));
    let answers: Vec<Result<Vec<Duration>>> = futures::stream::iter(askers).buffer_unordered(ASKERS).collect().await;
    let seconds = begun.elapsed().as_secs_f64();
    let mut taken = Vec::new();
    for answers in answers {
        taken.extend(answers?);
    }
    #[allow(clippy::cast_precision_loss)]
    let rate = taken.len() as f64 / seconds;
    let samples = Samples::new(taken);
    let figure = format!("{rate:.0}, p99 {:.2} ms", samples.milliseconds(0.99));
    bench.report.add("names of the cluster answered a second, 32 clients", figure, "≥ 20,000");
    Ok(())
}

async fn ask(server: SocketAddr, question: &[u8]) -> Result<Vec<Duration>> {
    let socket = UdpSocket::bind("0.0.0.0:0").await?;
    socket.connect(server).await?;
    let mut taken = Vec::with_capacity(QUESTIONS);
    let mut buffer = [0; 512];
    for _ in 0..QUESTIONS {
        let begun = Instant::now();
        socket.send(question).await?;
        let length = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer)).await??;
        ensure!(length > question.len() && buffer[3] & 0xf == 0, "not an answer");
        taken.push(begun.elapsed());
    }
    Ok(taken)
}

/// A question for the address of `name`.
fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap_or(0));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

/// This machine's address, as others see it.
fn own_address() -> Result<Ipv4Addr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    socket.connect("192.0.2.1:53")?;
    match socket.local_addr()?.ip() {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(ip) => anyhow::bail!("{ip} is no IPv4 address"),
    }
}
