//! `kctl image` against two nodes in this process: which requests go where, what is printed, what is said.
#![allow(clippy::unwrap_used, missing_docs)]

use std::convert::Infallible;
use std::io::Write;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use clap::Parser;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use kctl::cli::run_verb;
use kctl::session::Session;
use kctl::{Cli, Console};
use kube::client::Body;
use serde_json::json;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// Nodes `a` and `b`; only `b` has `app:1`, which a container uses there.
fn answer(request: &str, body: &[u8]) -> (u16, String) {
    let image = json!({"id": "sha256:0123456789abcdef", "names": ["x/app@sha256:00", "app:1"], "size": 4_780_000, "inUse": true});
    let text = match request {
        nodes if nodes.split('?').next() == Some("GET /api/v1/nodes") => {
            json!({"items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]}).to_string()
        }
        "GET /api/v1/nodes/a/proxy/images" => json!({"items": []}).to_string(),
        "GET /api/v1/nodes/b/proxy/images" => json!({"items": [image]}).to_string(),
        "GET /api/v1/nodes/b/proxy/images/inspect?reference=app%3A1" => image.to_string(),
        "GET /api/v1/nodes/b/proxy/images/save?reference=app%3A1&reference=c" => "archive".to_owned(),
        "DELETE /api/v1/nodes/a/proxy/images?reference=old%3A1" => json!({"removed": ["old:1"]}).to_string(),
        "DELETE /api/v1/nodes/b/proxy/images?reference=app%3A1" => return (409, "image app:1 is in use".to_owned()),
        load if load.ends_with("/images/load") => json!({"loaded": [String::from_utf8_lossy(body)]}).to_string(),
        done if done.starts_with("POST ") => json!({}).to_string(),
        _ => return (404, "No such image".to_owned()),
    };
    (200, text)
}

async fn kctl(line: &str, input: &str) -> (String, String, Vec<String>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let log = log.clone();
        async move {
            let (parts, body) = request.into_parts();
            let auth = parts.headers.get("x-registry-auth").map_or(String::new(), |_| " with credentials".to_owned());
            let request = format!("{} {}", parts.method, parts.uri.path_and_query().unwrap());
            log.lock().unwrap().push(format!("{request}{auth}"));
            let (code, text) = answer(&request, &body.collect().await.unwrap().to_bytes());
            Ok::<_, Infallible>(Response::builder().status(code).body(Full::new(Bytes::from(text))).unwrap())
        }
    });
    let session = Session::new(kube::Client::new(service, "default"), "default");
    let cli = Cli::try_parse_from(std::iter::once("kctl").chain(line.split_whitespace())).unwrap();
    let (out, err) = (Buffer::default(), Buffer::default());
    let input = Box::new(std::io::Cursor::new(input.as_bytes().to_vec()));
    let mut console = Console { out: Box::new(out.clone()), err: Box::new(err.clone()), input };
    if let Err(error) = run_verb(&cli.verb, &session, &mut console).await {
        console.note(&error.to_string());
    }
    let asked = asked.lock().unwrap().clone();
    (out.text(), err.text(), asked)
}

#[tokio::test]
async fn images_are_listed_by_node() {
    let (out, err, _) = kctl("image ls", "").await;
    let row = "b      app:1   0123456789ab   4.8MB   yes\n";
    assert_eq!((out.as_str(), err.as_str()), (&*format!("NODE   IMAGE   ID             SIZE    IN USE\n{row}"), ""));
    let (out, ..) = kctl("image ls -o json --node b", "").await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap()["items"][0]["node"], "b");
    let (_, err, _) = kctl("image ls -o yaml", "").await;
    assert_eq!(err, "error: --output must be 'json'\n");
}

#[tokio::test]
async fn images_go_to_every_node_or_to_those_named() {
    let (out, _, asked) = kctl("image load", "app:9").await;
    assert_eq!((out.as_str(), asked.len()), ("a: app:9 loaded\nb: app:9 loaded\n", 3));
    let (out, _, asked) = kctl("image pull app:2 --node b --username me --password-stdin", "secret\n").await;
    let pulled = "POST /api/v1/nodes/b/proxy/images/pull?reference=app%3A2 with credentials";
    assert_eq!((out.as_str(), asked.as_slice()), ("b: app:2 pulled\n", [pulled.to_owned()].as_slice()));
    let (out, ..) = kctl("image tag app:1 app:new", "").await;
    assert_eq!(out, "a: app:1 tagged app:new\nb: app:1 tagged app:new\n");
    let (out, _, asked) = kctl("image push app:1", "").await;
    assert_eq!(out, "b: app:1 pushed\n", "from the first node that has it");
    assert_eq!(asked.last().unwrap(), "POST /api/v1/nodes/b/proxy/images/push?reference=app%3A1");
}

/// The size of an archive that is too large to be in memory.
const HUGE: usize = 64 << 20;

/// Such an archive, which notes how much of it was read, and may tear in the middle.
struct Huge {
    left: usize,
    tears: bool,
    read: Arc<std::sync::atomic::AtomicUsize>,
}

impl std::io::Read for Huge {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.tears && self.left < HUGE / 2 {
            return Err(std::io::Error::other("the tape tore"));
        }
        let length = buffer.len().min(self.left);
        buffer[..length].fill(b'x');
        self.left -= length;
        self.read.fetch_add(length, std::sync::atomic::Ordering::Relaxed);
        Ok(length)
    }
}

/// Loads a huge archive onto nodes `a` and `b`; the bytes each took, what was said, and how far reading was ahead at most.
async fn load_huge(tears: bool) -> ([usize; 2], String, usize) {
    let read = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (taken, ahead) = (Arc::new(Mutex::new([0; 2])), Arc::new(Mutex::new(0)));
    let (count, took, most) = (read.clone(), taken.clone(), ahead.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (count, took, most) = (count.clone(), took.clone(), most.clone());
        async move {
            let node = usize::from(request.uri().path().contains("/nodes/b/"));
            let mut body = request.into_body();
            while let Some(frame) = body.frame().await {
                let length = frame?.into_data().map_or(0, |data| data.len());
                let mut took = took.lock().unwrap();
                took[node] += length;
                let mut most = most.lock().unwrap();
                *most = (*most).max(count.load(std::sync::atomic::Ordering::Relaxed) - took.iter().min().unwrap());
            }
            Ok::<_, kube::Error>(Response::new(Full::new(Bytes::from(json!({"loaded": ["app:1"]}).to_string()))))
        }
    });
    let session = Session::new(kube::Client::new(service, "default"), "default");
    let cli = Cli::try_parse_from(["kctl", "image", "load", "--node", "a", "--node", "b"]).unwrap();
    let (out, err) = (Buffer::default(), Buffer::default());
    let input = Box::new(Huge { left: HUGE, tears, read });
    let mut console = Console { out: Box::new(out.clone()), err: Box::new(err.clone()), input };
    if let Err(error) = run_verb(&cli.verb, &session, &mut console).await {
        console.note(&error.to_string());
    }
    let (taken, ahead) = (*taken.lock().unwrap(), *ahead.lock().unwrap());
    (taken, out.text() + &err.text(), ahead)
}

#[tokio::test]
async fn an_archive_is_never_in_memory_as_a_whole() {
    let (taken, said, ahead) = load_huge(false).await;
    assert_eq!((taken, said.as_str()), ([HUGE; 2], "a: app:1 loaded\nb: app:1 loaded\n"));
    assert!(ahead <= 4 << 20, "{ahead} bytes were in memory");
    let (_, said, _) = load_huge(true).await;
    assert_eq!(said, "error: reading the archive: the tape tore\n", "half an archive is none");
}

#[tokio::test]
async fn archives_come_from_a_node_that_has_the_image() {
    let (out, ..) = kctl("image save app:1 c", "").await;
    assert_eq!(out, "archive");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.tar");
    let (out, ..) = kctl(&format!("image save app:1 c -o {}", file.display()), "").await;
    assert_eq!(
        (out, std::fs::read_to_string(&file).unwrap()),
        (format!("b: saved to {}\n", file.display()), "archive".into())
    );
    let (_, err, _) = kctl("image save none", "").await;
    assert_eq!(err, "Error from server (NotFound): b: No such image\n");
}

#[tokio::test]
async fn images_in_use_stay_and_missing_ones_are_missing_only_if_no_node_has_them() {
    let (out, err, _) = kctl("image rm old:1 app:1", "").await;
    assert_eq!(out, "a: old:1 removed\n");
    assert!(err.contains("image app:1 is in use"), "{err}");
    let (out, err, _) = kctl("image rm gone:1", "").await;
    assert_eq!(out, "");
    assert!(err.contains("No such image"), "{err}");
}
