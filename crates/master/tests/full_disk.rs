//! A disk without room, seen by a client of the API: an error it knows, and nothing lost.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::path::Path;
use std::process::Command;

use apiserver::User;
use clap::Parser;
use master::{Master, Options};

/// Room for the journal and some MiB.
const DISK: &str = "size=40m";

/// A small file system of its own, gone when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    /// `None` where this machine does not let us mount; in CI that is a failure.
    fn mount() -> Option<Disk> {
        let dir = tempfile::tempdir().unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(dir.path()).output().unwrap();
        if !mount.status.success() {
            let reason = String::from_utf8_lossy(&mount.stderr).into_owned();
            assert!(std::env::var("CI").as_deref() != Ok("true"), "cannot mount a small disk: {reason}");
            println!("skipped: cannot mount a small disk: {reason}");
            return None;
        }
        Some(Disk(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn fill(&self) {
        let mut filler = std::fs::File::create(self.path().join("filler")).unwrap();
        while std::io::Write::write_all(&mut filler, &[1; 4096]).is_ok() {}
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg("-l").arg(self.path()).status().unwrap().success());
    }
}

async fn start(data_dir: &Path) -> Master {
    let flags = ["--bind-address", "127.0.0.1", "--secure-port", "0", "--components", "apiserver"];
    let flags = ["master", "--data-dir", data_dir.to_str().unwrap()].into_iter().chain(flags);
    Master::start(Options::try_parse_from(flags).unwrap()).await.unwrap()
}

async fn ask(master: &Master, method: &str, path: &str, body: String) -> Result<String, String> {
    let client = kube::Client::new(master.api_server().unwrap().service_as(User::master("admin")), "default");
    let request = http::Request::builder().method(method).uri(path).header("Content-Type", "application/json");
    client.request_text(request.body(body.into_bytes()).unwrap()).await.map_err(|error| format!("{error:?}"))
}

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn create(master: &Master, n: usize) -> Result<String, String> {
    let text = "x".repeat(200_000);
    let body = format!(
        r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"map-{n}"}},"data":{{"text":"{text}"}}}}"#
    );
    ask(master, "POST", CONFIG_MAPS, body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_an_error_and_goes_by() {
    let Some(disk) = Disk::mount() else { return };
    let data_dir = disk.path().join("data");
    let master = start(&data_dir).await;
    disk.fill();
    let mut taken = 0;
    let refused = loop {
        match create(&master, taken).await {
            Ok(_) => taken += 1,
            Err(refused) => break refused,
        }
        assert!(taken < 1000, "200 MB do not fit on this disk");
    };
    let words = "Internal error occurred: etcdserver: mvcc: database space exceeded";
    assert!(refused.contains(words) && refused.contains("500") && refused.contains("InternalError"), "{refused}");

    let get = async |path: &str| ask(&master, "GET", path, String::new()).await;
    assert!(get("/readyz/etcd-readiness").await.is_err() && get("/livez").await.is_ok());
    let status = get("/api/v1/componentstatuses/etcd-0").await.unwrap();
    assert!(status.contains("\"False\"") && status.contains("space exceeded"), "{status}");
    if taken > 0 {
        get(&format!("{CONFIG_MAPS}/map-{}", taken - 1)).await.unwrap();
    }
    let missing = get(&format!("{CONFIG_MAPS}/map-{taken}")).await.unwrap_err();
    assert!(missing.contains("not found"), "{missing}");

    std::fs::remove_file(disk.path().join("filler")).unwrap();
    create(&master, taken).await.unwrap();
    get("/readyz/etcd-readiness").await.unwrap();
    master.stop().await;

    let master = start(&data_dir).await;
    for n in 0..=taken {
        ask(&master, "GET", &format!("{CONFIG_MAPS}/map-{n}"), String::new()).await.unwrap();
    }
    master.stop().await;
}
