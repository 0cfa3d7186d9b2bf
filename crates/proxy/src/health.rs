//! Tells load balancers whether this node has endpoints of a service whose external traffic stays on the node
//! (`healthCheckNodePort`, `pkg/proxy/healthcheck/service_health.go` upstream).

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use client::Tasks;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::ruleset::Health;

/// How long a client may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest request.
const REQUEST_BYTES_MAX: usize = 8192;
/// Clients of one port at a time.
const CLIENTS_MAX: usize = 32;
/// The first pause before a port is tried again; it doubles.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// The servers that are open, by port. Each ends when what it tells is dropped.
#[derive(Default)]
pub struct HealthServers {
    open: HashMap<u16, watch::Sender<Health>>,
}

impl HealthServers {
    /// Leaves exactly the `wanted` ports open, each telling what belongs to it.
    pub fn update<'a>(&mut self, wanted: impl IntoIterator<Item = (&'a u16, &'a Health)>, tasks: &Tasks) {
        let wanted: HashMap<u16, &Health> = wanted.into_iter().map(|(port, health)| (*port, health)).collect();
        self.open.retain(|port, _| wanted.contains_key(port));
        for (port, health) in wanted {
            match self.open.get(&port) {
                Some(told) => {
                    told.send_if_modified(|told| {
                        let changed = told != health;
                        told.clone_from(health);
                        changed
                    });
                }
                None => {
                    let (told, what) = watch::channel(health.clone());
                    self.open.insert(port, told);
                    tasks.spawn(serve(port, what));
                }
            }
        }
    }
}

async fn serve(port: u16, told: watch::Receiver<Health>) {
    let mut dropped = told.clone();
    let gone = async move { while dropped.changed().await.is_ok() {} };
    tokio::select! {
        () = gone => {}
        () = listen(port, told) => {}
    }
}

async fn listen(port: u16, told: watch::Receiver<Health>) {
    let mut backoff = BACKOFF_MIN;
    let clients = Arc::new(Semaphore::new(CLIENTS_MAX));
    loop {
        let error = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await {
            Ok(listener) => {
                backoff = BACKOFF_MIN;
                let Err(error) = accept(&listener, &told, &clients).await;
                error
            }
            Err(error) => error,
        };
        tracing::warn!(%error, port, retry_after = ?backoff, "cannot tell load balancers about a service");
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

async fn accept(
    listener: &TcpListener,
    told: &watch::Receiver<Health>,
    clients: &Arc<Semaphore>,
) -> io::Result<std::convert::Infallible> {
    loop {
        let place = clients.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (stream, _) = listener.accept().await?;
        let health = told.borrow().clone();
        // Ends within `PATIENCE`, whatever the client does.
        tokio::spawn(async move {
            let _ = tokio::time::timeout(PATIENCE, answer(stream, &health)).await;
            drop(place);
        });
    }
}

/// One answer, whatever is asked, as upstream has it.
async fn answer(mut stream: TcpStream, health: &Health) -> io::Result<()> {
    let (mut request, mut buffer) = (Vec::new(), [0; 1024]);
    while !request.windows(4).any(|w| w == b"\r\n\r\n") && request.len() < REQUEST_BYTES_MAX {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            length => request.extend_from_slice(&buffer[..length]),
        }
    }
    stream.write_all(response(health).as_bytes()).await?;
    stream.shutdown().await
}

fn response(health: &Health) -> String {
    let Health { service: (namespace, name), local_endpoints } = health;
    let status = if *local_endpoints > 0 { "200 OK" } else { "503 Service Unavailable" };
    let body = json!({
        "service": {"namespace": namespace, "name": name},
        "localEndpoints": local_endpoints, "serviceProxyHealthy": true,
    });
    let body = body.to_string();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\n\
         X-Load-Balancing-Endpoint-Weight: {local_endpoints}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(local_endpoints: usize) -> Health {
        Health { service: ("shop".to_owned(), "web".to_owned()), local_endpoints }
    }

    async fn ask(port: u16) -> io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn a_node_is_healthy_while_it_has_endpoints() {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let (tasks, mut servers) = (Tasks::new(), HealthServers::default());
        servers.update([(&port, &health(2))], &tasks);
        // It listens as soon as its task has run once.
        tokio::task::yield_now().await;
        let answer = ask(port).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("Endpoint-Weight: 2\r\n"), "{answer}");
        assert!(answer.contains(r#""localEndpoints":2"#) && answer.contains(r#""namespace":"shop""#), "{answer}");
        servers.update([(&port, &health(0))], &tasks);
        assert!(ask(port).await.unwrap().starts_with("HTTP/1.1 503 "));
        servers.update([], &tasks);
        tokio::task::yield_now().await;
        assert!(ask(port).await.is_err(), "closed");
        assert!(tasks.stop(PATIENCE).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_that_somebody_else_has_is_tried_again_after_longer_and_longer() {
        let other = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = other.local_addr().unwrap().port();
        let (tasks, mut servers) = (Tasks::new(), HealthServers::default());
        servers.update([(&port, &health(1))], &tasks);
        let after = |seconds: f64| tokio::time::sleep(Duration::from_secs_f64(seconds));
        // Tried at once, then after a second, two, four: at 0, 1, 3, 7 seconds, and at 15.
        after(7.5).await;
        drop(other);
        let is_open = || std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_err();
        after(7.0).await;
        assert!(!is_open(), "it waits eight seconds by now");
        after(1.0).await;
        assert!(is_open());
        servers.update([], &tasks);
        assert!(tasks.stop(PATIENCE).await);
    }
}
