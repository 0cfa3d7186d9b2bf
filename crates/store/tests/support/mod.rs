//! What the store's tests share: an etcd of their own, and words to write and watch with.
#![allow(dead_code, unreachable_pub)] // each test file uses its part

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use store::embedded::Embedded;
use store::etcd::server::Etcd3;
use store::{Action, Error, Event, Expect, LeaseId, ListRequest, Op, Revision, Store, WatchStream};

/// Nothing here takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// An etcd on loopback with a folder of its own, ended and removed when dropped.
pub struct EtcdServer {
    child: Child,
    pub url: String,
    peer_url: String,
    dir: tempfile::TempDir,
}

impl EtcdServer {
    /// `None` where etcd is not installed; in CI that is a failure.
    pub fn start() -> Option<EtcdServer> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "etcd is not installed");
            println!("skipped: etcd is not installed (Debian's package is etcd-server)");
            return None;
        }
        // A port found free may be taken by the time etcd binds it.
        Some((0..10).find_map(|_| EtcdServer::try_start(None)).expect("etcd starts"))
    }

    /// One that begins with a snapshot.
    pub fn restored(snapshot: &Path) -> EtcdServer {
        (0..10).find_map(|_| EtcdServer::try_start(Some(snapshot))).expect("etcd starts from the snapshot")
    }

    fn try_start(snapshot: Option<&Path>) -> Option<EtcdServer> {
        let dir = tempfile::tempdir().unwrap();
        let [url, peer_url] = [free_port(), free_port()].map(|port| format!("http://127.0.0.1:{port}"));
        if let Some(snapshot) = snapshot {
            let restored = Command::new("etcdctl")
                .env("ETCDCTL_API", "3")
                .args(["snapshot", "restore"])
                .arg(snapshot)
                .args(["--name", "test", "--initial-cluster", &format!("test={peer_url}"), "--data-dir"])
                .arg(dir.path().join("data"))
                .args(["--initial-advertise-peer-urls", &peer_url])
                .output()
                .unwrap();
            assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
        }
        let (child, is_ready) = run(dir.path(), &url, &peer_url);
        let server = EtcdServer { child, url, peer_url, dir };
        is_ready.then_some(server)
    }

    /// Kills it; its data and addresses stay.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn restart(&mut self) {
        let (child, is_ready) = run(self.dir.path(), &self.url, &self.peer_url);
        self.child = child;
        assert!(is_ready, "etcd starts again");
    }
}

/// Starts etcd and reads what it says until it serves clients (or ends).
fn run(dir: &Path, url: &str, peer_url: &str) -> (Child, bool) {
    let mut child = Command::new("etcd")
        .args(["--name", "test", "--data-dir"])
        .arg(dir.join("data"))
        .args(["--listen-client-urls", url, "--advertise-client-urls", url])
        .args(["--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url])
        .args(["--initial-cluster", &format!("test={peer_url}"), "--logger", "zap", "--log-outputs", "stderr"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let is_ready = lines.any(|line| line.contains("serving") && line.contains("client"));
    std::thread::spawn(move || lines.for_each(drop));
    (child, is_ready)
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An embedded store behind its etcd face on loopback.
pub struct Face {
    pub url: String,
    pub store: Arc<Embedded>,
    dir: Option<tempfile::TempDir>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Face {
    pub async fn of_a_new_store() -> Face {
        let dir = tempfile::tempdir().unwrap();
        let store = Embedded::open(dir.path(), store::embedded::Options::default()).unwrap();
        Face { dir: Some(dir), ..Face::of(Arc::new(store)).await }
    }

    pub async fn of(store: Arc<Embedded>) -> Face {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let incoming = futures::stream::unfold(listener, |listener| async move {
            let accepted = listener.accept().await.map(|(stream, _)| {
                stream.set_nodelay(true).unwrap();
                stream
            });
            Some((accepted, listener))
        });
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let face = Etcd3::new(store.clone(), vec![url.clone()]);
        tokio::spawn(face.serve(incoming, async { drop(stopped.await) }));
        Face { url, store, dir: None, stop: Some(stop) }
    }

    /// Runs `etcdctl` against it: whether that succeeded, and what it said. `None` where it is not installed; in CI that
    /// is a failure.
    pub async fn etcdctl(&self, arguments: &[&str]) -> Option<(bool, String)> {
        etcdctl(&self.url, arguments, "").await
    }
}

/// Runs `etcdctl` with something to read.
pub async fn etcdctl(url: &str, arguments: &[&str], input: &str) -> Option<(bool, String)> {
    let mut child = match etcdctl_command(url, arguments).stdin(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "etcdctl is not installed: {error}");
            println!("skipped: etcdctl is not installed (Debian's package is etcd-client)");
            return None;
        }
    };
    let mut stdin = child.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = within(child.wait_with_output()).await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8(said).unwrap()))
}

pub fn etcdctl_command(url: &str, arguments: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new("etcdctl");
    // It would send what is before the address in the header that names the server, which no HTTP/2 server need take.
    let endpoint = url.trim_start_matches("http://");
    command.env("ETCDCTL_API", "3").args(["--endpoints", endpoint]).args(arguments).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

pub fn put(key: &str, value: &str, expect: Expect) -> Op {
    Op { key: key.into(), expect, action: Action::Put(Bytes::copy_from_slice(value.as_bytes()), None) }
}

pub fn put_leased(key: &str, lease: LeaseId) -> Op {
    Op { key: key.into(), expect: Expect::Any, action: Action::Put(Bytes::from_static(b"leased"), Some(lease)) }
}

pub fn delete(key: &str, expect: Expect) -> Op {
    Op { key: key.into(), expect, action: Action::Delete }
}

pub fn check(key: &str, expect: Expect) -> Op {
    Op { key: key.into(), expect, action: Action::Check }
}

/// Writes one key whatever it is.
pub async fn set(store: &dyn Store, key: &str, value: &str) -> Revision {
    within(store.commit(vec![put(key, value, Expect::Any)])).await.unwrap()
}

/// The value of a key at a revision.
pub async fn value(store: &dyn Store, key: &str, revision: Option<Revision>) -> Result<Option<String>, Error> {
    let (found, _) = within(store.get(key, revision)).await?;
    Ok(found.map(|found| String::from_utf8(found.value.to_vec()).unwrap()))
}

pub fn prefix(prefix: &str) -> ListRequest {
    ListRequest { prefix: prefix.into(), ..ListRequest::default() }
}

/// The next events of a watch, until there are `count`.
pub async fn events(watch: &mut WatchStream, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        let batch = within(watch.next()).await.expect("the watch goes on").unwrap();
        assert!(batch.events.iter().all(|event| event.revision() <= batch.revision));
        events.extend(batch.events);
    }
    events
}

/// An event in short: `revision key=value`.
pub fn told(event: &Event) -> String {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    match event {
        Event::Put { current } => format!("{} {}={}", current.mod_revision, current.key, text(&current.value)),
        Event::Delete { key, revision } => format!("{revision} {key} gone"),
    }
}
