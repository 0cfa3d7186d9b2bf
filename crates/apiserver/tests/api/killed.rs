//! What writers and watchers may rely on while the server is killed under them, on both stores.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use store::Store;
use store::embedded::{Embedded, Options};
use store::etcd::{self, Etcd};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::common::*;
use crate::support::EtcdServer;

/// Names the folder of the process that is to be killed, and the etcd it has its store in, if it is one.
const DIR_VARIABLE: &str = "API_KILLED_TEST_DIR";
const ETCD_VARIABLE: &str = "API_KILLED_TEST_ETCD";
/// What it says when it serves, before its port.
const SERVES: &str = "serves at port ";
const TOKENS: &str = "s3cret,admin,1,system:masters\n";
const KILLS: usize = 3;
/// So many events a watcher has seen before the server is killed, each time.
const EVENTS_BETWEEN: usize = 20;
const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process that is killed"]
async fn serves_until_it_is_killed() {
    let Ok(directory) = std::env::var(DIR_VARIABLE) else { return };
    let store: Arc<dyn Store> = match std::env::var(ETCD_VARIABLE) {
        Ok(url) => Arc::new(Etcd::connect(&[url], etcd::Options::default()).await.unwrap()),
        Err(_) => Arc::new(Embedded::open(&Path::new(&directory).join("store"), Options::default()).unwrap()),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = Server::start_on(store, |config| {
        config.data_dir = Path::new(&directory).join("data");
        config.token_auth_file = Some(Path::new(&directory).join("tokens"));
        config.secure_port = port;
    })
    .await;
    println!("{SERVES}{port}");
    server.api.serve(listener).await.unwrap();
}

/// The server's process; killed when dropped.
struct Process(Child);

impl Process {
    /// Starts it, and waits until it serves; its port.
    fn start(directory: &Path, etcd: Option<&EtcdServer>) -> (Process, u16) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "killed::serves_until_it_is_killed", "--ignored", "--nocapture"]);
        command.env(DIR_VARIABLE, directory).envs(etcd.map(|etcd| (ETCD_VARIABLE, &etcd.url)));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let process = Process(child);
        let port = said.filter_map(|line| line.split_once(SERVES)?.1.parse().ok()).next();
        (process, port.expect("it serves"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where the server is reached: how often it has been started, and its port.
type Place = (usize, u16);

/// Somebody who asks the server that is there, and waits for the next one when it is gone.
#[derive(Clone)]
struct Client {
    tls: tokio_rustls::TlsConnector,
    places: watch::Receiver<Place>,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Client {
    fn new(directory: &Path, places: watch::Receiver<Place>) -> Client {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(directory.join("data/ca.crt")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
        Client { tls: tokio_rustls::TlsConnector::from(Arc::new(config)), places }
    }

    async fn send(&self, port: u16, method: &str, path: &str, body: &str) -> Result<http::Response<Incoming>, Failure> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let stream = self.tls.connect(ServerName::try_from("127.0.0.1")?, stream).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = http::Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.header("authorization", "Bearer s3cret").body(body.to_owned())?;
        Ok(sender.send_request(request).await?)
    }

    async fn ask(&self, port: u16, method: &str, path: &str, body: &str) -> Result<(u16, Value), Failure> {
        let (parts, body) = self.send(port, method, path, body).await?.into_parts();
        Ok((parts.status.as_u16(), serde_json::from_slice(&body.collect().await?.to_bytes())?))
    }

    /// Tries with every server there is until one was there long enough.
    async fn until_done<T>(&mut self, mut attempt: impl AsyncFnMut(&Client, u16) -> Result<T, Failure>) -> T {
        loop {
            let (starts, port) = *self.places.borrow();
            if let Ok(done) = attempt(self, port).await {
                return done;
            }
            self.places.wait_for(|(now, _)| *now > starts).await.expect("there is a next server");
        }
    }
}

/// Creates one object after the other until told to stop; the names of those that are there for certain.
async fn write(mut client: Client, path: &'static str, writer: usize, stop: watch::Receiver<bool>) -> BTreeSet<String> {
    let mut written = BTreeSet::new();
    while !*stop.borrow() {
        let name = format!("w{writer}-{}", written.len());
        let body = json!({"metadata": {"name": name}}).to_string();
        let code = client.until_done(async |client, port| Ok(client.ask(port, "POST", path, &body).await?.0)).await;
        // A write whose answer was lost with the server may have been done.
        assert!(matches!(code, 201 | 409), "{code}");
        written.insert(name);
    }
    written
}

/// Watches, and goes on where it was whenever the server is gone. Tells how many events there were, until `last` is one.
async fn follow(
    mut client: Client,
    path: &'static str,
    after: i64,
    last: &str,
    seen: watch::Sender<usize>,
) -> Vec<String> {
    let (mut names, mut revision) = (Vec::new(), after);
    client
        .until_done(async |client, port| {
            let path = format!("{path}?watch=1&resourceVersion={revision}");
            let response = client.send(port, "GET", &path, "").await?;
            let (mut body, mut buffer) = (response.into_body(), Vec::new());
            while let Some(frame) = body.frame().await {
                buffer.extend_from_slice(frame?.data_ref().ok_or("no data")?);
                while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                    let event: Value = serde_json::from_slice(&buffer[..end])?;
                    buffer.drain(..=end);
                    assert_eq!(event["type"], "ADDED", "{event}");
                    let metadata = &event["object"]["metadata"];
                    let next: i64 = metadata["resourceVersion"].as_str().unwrap().parse()?;
                    assert!(next > revision, "{event} after {revision}");
                    revision = next;
                    names.push(metadata["name"].as_str().unwrap().to_owned());
                    seen.send_replace(names.len());
                    if names.last().is_some_and(|name| name == last) {
                        return Ok(());
                    }
                }
            }
            Err("the watch ended".into())
        })
        .await;
    names
}

async fn nothing_is_lost_or_told_twice(etcd: Option<EtcdServer>) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("tokens"), TOKENS).unwrap();
    let (mut process, port) = Process::start(directory.path(), etcd.as_ref());
    let (tell, places) = watch::channel((0, port));
    let mut client = Client::new(directory.path(), places);
    let (_, list) = client.ask(port, "GET", CONFIG_MAPS, "").await.unwrap();
    let start = list["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
    let (stop, stopped) = watch::channel(false);
    let kinds = [CONFIG_MAPS, ENDPOINTS].map(|path| {
        let (seen, count) = watch::channel(0);
        let writers = (0..3).map(|n| tokio::task::spawn_local(write(client.clone(), path, n, stopped.clone())));
        (
            path,
            tokio::task::spawn_local(follow(client.clone(), path, start, "last", seen)),
            count,
            writers.collect::<Vec<_>>(),
        )
    });
    for kill in 1..=KILLS {
        for (_, _, count, _) in &kinds {
            let mut count = count.clone();
            let more = *count.borrow() + EVENTS_BETWEEN;
            tokio::time::timeout(PATIENCE, count.wait_for(|count| *count >= more)).await.unwrap().unwrap();
        }
        drop(process);
        let port;
        (process, port) = Process::start(directory.path(), etcd.as_ref());
        tell.send_replace((kill, port));
    }
    stop.send_replace(true);
    for (path, follower, _, writers) in kinds {
        let mut written = BTreeSet::from(["last".to_owned()]);
        for writer in futures::future::join_all(writers).await {
            written.extend(writer.unwrap());
        }
        let last = json!({"metadata": {"name": "last"}}).to_string();
        client.until_done(async |client, port| client.ask(port, "POST", path, &last).await).await;
        let told = tokio::time::timeout(PATIENCE, follower).await.unwrap().unwrap();
        assert_eq!(told.len(), written.len(), "nothing is told twice: {told:?}");
        assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), written, "and nothing is lost");
    }
    drop(process);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_loses_nothing_and_tells_nothing_twice_on_the_embedded_store() {
    tokio::task::LocalSet::new().run_until(nothing_is_lost_or_told_twice(None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_loses_nothing_and_tells_nothing_twice_on_etcd() {
    if let Some(etcd) = EtcdServer::start() {
        tokio::task::LocalSet::new().run_until(nothing_is_lost_or_told_twice(Some(etcd))).await;
    }
}
