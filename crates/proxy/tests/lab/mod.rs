//! A node, two pods on its bridge and a client outside, each a network namespace; gone when dropped.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Socket, Type};

/// Where every server listens.
pub(crate) const PORT: u16 = 8080;
/// The node as seen from outside.
pub(crate) const NODE_IP: &str = "192.0.2.1";
/// The client outside.
pub(crate) const OUTSIDE_IP: &str = "192.0.2.9";
/// An answer that takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(5);

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// The namespaces and the servers in them.
pub(crate) struct Lab {
    prefix: String,
    stop: Arc<AtomicBool>,
    servers: Vec<(String, JoinHandle<()>)>,
}

impl Lab {
    /// A lab, or the reason why there cannot be one here. With `CI` set that is a failure.
    pub(crate) fn new() -> Option<Lab> {
        let missing = if !nix::unistd::Uid::effective().is_root() {
            Some("not root")
        } else if Command::new("nft").arg("--version").output().is_err() {
            Some("nft is not installed")
        } else {
            None
        };
        if let Some(reason) = missing {
            assert!(std::env::var_os("CI").is_none(), "cannot run: {reason}");
            println!("skipped: {reason}");
            return None;
        }
        let prefix = format!("coracle-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let mut lab = Lab { prefix, stop: Arc::default(), servers: Vec::new() };
        lab.build();
        Some(lab)
    }

    /// The namespace's full name.
    pub(crate) fn ns(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// Runs `body` on a thread in a namespace; programs it starts are there as well.
    pub(crate) fn inside<T: Send>(&self, name: &str, body: impl FnOnce() -> T + Send) -> T {
        let ns = self.ns(name);
        std::thread::scope(|scope| scope.spawn(|| enter(&ns, body)).join().unwrap())
    }

    /// Asks over TCP who answers at `address`: `name peer-address`.
    pub(crate) fn tcp(&self, from: &str, address: &str) -> std::io::Result<String> {
        self.tcp_as(from, "0.0.0.0", address)
    }

    /// The same with one of the addresses there.
    pub(crate) fn tcp_as(&self, from: &str, own: &str, address: &str) -> std::io::Result<String> {
        self.inside(from, || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(own.parse().unwrap(), 0).into())?;
            socket.connect_timeout(&address.parse::<SocketAddr>().unwrap().into(), PATIENCE)?;
            let mut stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })
    }

    /// Asks over UDP.
    pub(crate) fn udp(&self, from: &str, address: &str) -> std::io::Result<String> {
        self.udp_as(from, "0.0.0.0", address)
    }

    /// The same with one of the addresses there.
    pub(crate) fn udp_as(&self, from: &str, own: &str, address: &str) -> std::io::Result<String> {
        self.inside(from, || ask_udp(&UdpSocket::bind((own, 0))?, address))
    }

    fn build(&mut self) {
        for name in ["node", "pod1", "pod2", "out"] {
            run(&format!("ip netns add {}", self.ns(name)));
            run(&format!("ip -n {} link set lo up", self.ns(name)));
        }
        let node = self.ns("node");
        run(&format!("ip -n {node} link add coracle0 type bridge"));
        run(&format!("ip -n {node} addr add 10.244.0.1/24 dev coracle0"));
        run(&format!("ip -n {node} link set coracle0 up"));
        for (name, address) in [("pod1", "10.244.0.11/24"), ("pod2", "10.244.0.12/24"), ("out", "192.0.2.9/24")] {
            let ns = self.ns(name);
            run(&format!("ip -n {node} link add {name} type veth peer name eth0 netns {ns}"));
            run(&format!("ip -n {node} link set {name} up"));
            run(&format!("ip -n {ns} addr add {address} dev eth0"));
            run(&format!("ip -n {ns} link set eth0 up"));
            if name == "out" {
                run(&format!("ip -n {node} addr add {NODE_IP}/24 dev {name}"));
            } else {
                run(&format!("ip -n {node} link set {name} master coracle0"));
                run(&format!("ip -n {ns} route add default via 10.244.0.1"));
            }
            self.serve(name);
        }
    }

    /// Starts the servers of a namespace, and returns when they listen.
    fn serve(&mut self, name: &'static str) {
        let (ns, stop) = (self.ns(name), self.stop.clone());
        let (tcp, udp) = self.inside(name, || {
            let any = (Ipv4Addr::UNSPECIFIED, PORT);
            (TcpListener::bind(any).unwrap(), UdpSocket::bind(any).unwrap())
        });
        let stopped = stop.clone();
        let tcp = std::thread::spawn(move || {
            for stream in tcp.incoming().map_while(Result::ok).take_while(|_| !stopped.load(Ordering::SeqCst)) {
                let peer = stream.peer_addr().unwrap().ip();
                let _ = (&stream).write_all(format!("{name} {peer}").as_bytes());
            }
        });
        let udp = std::thread::spawn(move || {
            while let Ok((_, peer)) = udp.recv_from(&mut [0; 64]) {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let _ = udp.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer);
            }
        });
        self.servers.extend([(ns.clone(), tcp), (ns, udp)]);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for (ns, server) in self.servers.drain(..) {
            let wake = || {
                let me = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
                let _ = TcpStream::connect_timeout(&me, PATIENCE);
                let _ = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"stop", me));
            };
            std::thread::scope(|scope| scope.spawn(|| enter(&ns, wake)).join()).ok();
            server.join().ok();
        }
        for name in ["node", "pod1", "pod2", "out"] {
            let _ = Command::new("ip").args(["netns", "del", &self.ns(name)]).output();
        }
    }
}

/// Sends a datagram through `socket` and returns the answer.
pub(crate) fn ask_udp(socket: &UdpSocket, address: &str) -> std::io::Result<String> {
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(address)?;
    socket.send(b"who?")?;
    let mut answer = [0; 64];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// Moves the calling thread into a namespace for the rest of its life.
fn enter<T>(ns: &str, body: impl FnOnce() -> T) -> T {
    setns(File::open(format!("/run/netns/{ns}")).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
    body()
}

/// Runs a program that must succeed.
pub(crate) fn run(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
