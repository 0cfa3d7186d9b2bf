//! Sockets inside the network of a sandbox. A socket belongs to the network namespace of the thread that made it, for
//! good: a thread enters the namespace, makes the socket and ends; connecting is done outside.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use tokio::net::{TcpSocket, TcpStream};

/// How long a port may take to accept.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Connects to `port` on loopback, IPv4 first, in the network namespace of the process `pid`.
pub(super) async fn connect(pid: i64, port: u16) -> io::Result<TcpStream> {
    let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match connect_to(pid, v4).await {
        Err(refused) => {
            let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
            // What IPv4 said is the better explanation.
            connect_to(pid, v6).await.map_err(|_| refused)
        }
        connected => connected,
    }
}

async fn connect_to(pid: i64, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket_in(pid, address.is_ipv4()).await?;
    let connected = tokio::time::timeout(CONNECT_LIMIT, socket.connect(address)).await;
    let stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn socket_in(pid: i64, v4: bool) -> io::Result<TcpSocket> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let make = move || {
        let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        if v4 { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
    };
    std::thread::Builder::new().name("netns".to_owned()).spawn(move || sender.send(make()))?;
    receiver.await.map_err(|_| io::Error::other("the thread that entered the network namespace failed"))?
}
