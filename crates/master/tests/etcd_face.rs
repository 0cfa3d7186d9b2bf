//! The embedded store as an etcd on the network, judged by Debian's `etcdctl`: for whoever shows the right certificate only.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use master::{Master, Options};

async fn start(data_dir: &Path, flags: &[&str]) -> Master {
    let all =
        ["master", "--bind-address", "127.0.0.1", "--secure-port", "0", "--components", "apiserver", "--data-dir"];
    let all = all.into_iter().chain([data_dir.to_str().unwrap()]).chain(flags.iter().copied());
    Master::start(Options::try_parse_from(all).unwrap()).await.unwrap()
}

/// What `etcdctl` says, with flags that name files in the data directory; `None` where it is not installed.
async fn etcdctl(data_dir: &Path, url: &str, tls: &[(&str, &str)], arguments: &[&str]) -> Option<(bool, String)> {
    let mut command = tokio::process::Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--dial-timeout", "2s", "--command-timeout", "5s", "--endpoints", url]);
    for (flag, file) in tls {
        command.arg(flag).arg(data_dir.join(file));
    }
    let output = tokio::time::timeout(Duration::from_secs(60), command.args(arguments).kill_on_drop(true).output());
    match output.await.expect("etcdctl ends") {
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
        }
        Err(error) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "etcdctl is not installed: {error}");
            println!("skipped: etcdctl is not installed (Debian's package is etcd-client)");
            None
        }
    }
}

const CA: (&str, &str) = ("--cacert", "pki/etcd/ca.crt");
const CLIENT: [(&str, &str); 2] = [("--cert", "pki/etcd/client.crt"), ("--key", "pki/etcd/client.key")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_is_heard_with_the_etcd_cas_certificate_and_with_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let master = start(dir.path(), &["--etcd-listen-client-urls", "https://127.0.0.1:0"]).await;
    let url = format!("https://{}", master.etcd_addresses()[0]);
    let get = ["get", "--prefix", "/registry/namespaces/", "--keys-only"];
    let run = async |tls: &[(&str, &str)], arguments: &[&str]| etcdctl(dir.path(), &url, tls, arguments).await;
    let ours = [CA, CLIENT[0], CLIENT[1]];
    let Some((succeeded, said)) = run(&ours, &get).await else { return master.stop().await };
    assert!(succeeded && said.contains("/registry/namespaces/default"), "{said}");
    let (succeeded, said) = run(&ours, &["member", "list"]).await.unwrap();
    assert!(succeeded && said.contains(&url), "{said}");
    let (succeeded, said) = run(&ours, &["put", "/registry/x", "1"]).await.unwrap();
    assert!(succeeded, "{said}");
    let snapshot = dir.path().join("snapshot.db");
    let (succeeded, said) = run(&ours, &["snapshot", "save", snapshot.to_str().unwrap()]).await.unwrap();
    assert!(succeeded && store::etcd::snapshot::Snapshot::open(&snapshot).is_ok(), "{said}");

    let admin = [("--cert", "pki/apiserver-kubelet-client.crt"), ("--key", "pki/apiserver-kubelet-client.key")];
    let server = [("--cert", "pki/etcd/server.crt"), ("--key", "pki/etcd/server.key")];
    let plain = url.replace("https://", "http://");
    let refused = [
        ("nobody", &url, vec![CA]),
        ("an administrator of the cluster", &url, vec![CA, admin[0], admin[1]]),
        ("the server itself", &url, vec![CA, server[0], server[1]]),
        ("who believes the cluster's CA", &url, vec![("--cacert", "pki/ca.crt"), CLIENT[0], CLIENT[1]]),
        ("without TLS", &plain, vec![]),
    ];
    // All at once: each tries until its time is over.
    let said = refused.iter().map(|(_, url, tls)| etcdctl(dir.path(), url, tls, &get));
    for ((who, ..), said) in refused.iter().zip(futures::future::join_all(said).await) {
        let (succeeded, said) = said.unwrap();
        assert!(!succeeded && !said.contains("/registry"), "{who}: {said}");
    }
    master.stop().await;

    // The keys stay; and without the flag nobody listens.
    let ca = std::fs::read(dir.path().join("pki/etcd/ca.crt")).unwrap();
    let master = start(dir.path(), &[]).await;
    assert!(master.etcd_addresses().is_empty());
    master.stop().await;
    let master = start(dir.path(), &["--etcd-listen-client-urls", "https://127.0.0.1:0"]).await;
    let url = format!("https://{}", master.etcd_addresses()[0]);
    let (succeeded, said) = etcdctl(dir.path(), &url, &ours, &get).await.unwrap();
    assert!(succeeded && ca == std::fs::read(dir.path().join("pki/etcd/ca.crt")).unwrap(), "{said}");
    master.stop().await;
}
