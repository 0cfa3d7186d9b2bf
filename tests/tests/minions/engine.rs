//! An engine that restarts, hangs, is killed, or is on another machine.

use harness::boxes::IMAGE;
use harness::engine::{self, Tls, Wanted};
use harness::wait::until;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams, DeleteParams, LogParams};
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::lab::{Lab, restarted, sleeps, statuses};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_run_on_while_their_engine_restarts_hangs_and_is_killed() {
    if !engine::available() {
        eprintln!("skipped: no Docker Engine here, or not root");
        return;
    }
    let mut lab = Lab::start(&Wanted { live_restore: true, ..Wanted::default() }, &[]).await;
    lab.create("stays", sleeps()).await;
    let before = statuses(lab.until("stays", "the pod runs", api::pods::is_ready).await.as_ref());

    lab.engine.stop().await.unwrap();
    lab.create("meanwhile", sleeps()).await;
    lab.engine.start_again().await.unwrap();
    lab.until("meanwhile", "a pod made while the engine was away runs", api::pods::is_ready).await;
    assert_eq!(lab.containers("meanwhile"), ["POD running", "c running"]);

    lab.engine.kill().await.unwrap();
    lab.pods().delete("meanwhile", &DeleteParams::default()).await.unwrap();
    lab.engine.start_again().await.unwrap();
    let client = lab.boxes.client();
    until::<Pod>(&client, "a pod goes that was deleted meanwhile", "app=meanwhile", <[_]>::is_empty).await.unwrap();
    assert_eq!(lab.containers("meanwhile"), [""; 0]);

    lab.engine.hang().unwrap();
    lab.create("late", sleeps()).await;
    lab.until_node("the node says that its engine hangs", "False", "container runtime is down").await;
    lab.engine.go_on().unwrap();
    lab.until_node("the node is ready again", "True", "").await;
    lab.until("late", "a pod made while the engine hung runs", |pod| restarted(pod, 0)).await;
    assert_eq!(lab.containers("late"), ["POD running", "c running"]);
    lab.delete("late").await;

    let stays = lab.until("stays", "the pod runs", api::pods::is_ready).await;
    assert_eq!(statuses(&stays), before, "the same containers run");
    assert_eq!(lab.containers("stays"), ["POD running", "c running"]);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_engine_took_with_it_runs_again() {
    if !engine::available() {
        eprintln!("skipped: no Docker Engine here, or not root");
        return;
    }
    let mut lab = Lab::start(&Wanted::default(), &[]).await;
    lab.create("web", sleeps()).await;
    lab.until("web", "the pod runs", api::pods::is_ready).await;
    for times in 1..=2 {
        if times == 1 {
            lab.engine.stop().await.unwrap()
        } else {
            lab.engine.kill().await.unwrap()
        }
        lab.engine.start_again().await.unwrap();
        lab.until("web", "it runs again", |pod| restarted(pod, times)).await;
        let runs: Vec<String> = lab.containers("web").into_iter().filter(|c| c.ends_with("running")).collect();
        assert_eq!(runs, ["POD running", "c running"]);
    }
    lab.delete("web").await;
    assert_eq!(lab.containers("web"), [""; 0]);
    lab.stop().await;
}

/// A certificate authority of engines and their clients; the flags with which a minion shows its own certificate.
fn certificates(folder: &std::path::Path) -> (Tls, Vec<String>) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
    let path = |name: &str| folder.join(name);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    std::fs::write(path("ca"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    for name in ["engine", "minion"] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        let certificate = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(path(name), certificate.pem()).unwrap();
        std::fs::write(path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let tls = Tls { address: free.to_string(), ca: path("ca"), certificate: path("engine"), key: path("engine.key") };
    let flags = [
        ("--docker-endpoint", format!("tcp://{free}")),
        ("--docker-tls-ca", path("ca").display().to_string()),
        ("--docker-tls-cert", path("minion").display().to_string()),
        ("--docker-tls-key", path("minion.key").display().to_string()),
    ];
    (tls, flags.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_run_on_an_engine_that_is_reached_over_tls() {
    if !engine::available() {
        eprintln!("skipped: no Docker Engine here, or not root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (tls, flags) = certificates(folder.path());
    let wanted = Wanted { tls: Some(tls), live_restore: true, ..Wanted::default() };
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut lab = Lab::start(&wanted, &flags).await;
    let script = "echo here; exec sleep 1000";
    lab.create(
        "far",
        json!({"containers": [{"name": "c", "image": IMAGE, "command": ["sh", "-c", script],
        "readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1}}]}),
    )
    .await;
    let before = statuses(lab.until("far", "the pod runs", api::pods::is_ready).await.as_ref());
    let log = lab.pods().logs("far", &LogParams::default()).await.unwrap();
    assert_eq!(log, "here\n");
    // Streams are had over a connection, not in this process.
    let outside = client::connect::from_kubeconfig(Some(&lab.boxes.kubeconfig()), None, "test").await.unwrap();
    let outside = Api::<Pod>::default_namespaced(outside);
    for tty in [false, true] {
        let params = AttachParams::default().stderr(false).stdin(false).tty(tty);
        let mut process = outside.exec("far", ["echo", "over there"], &params).await.unwrap();
        let mut printed = String::new();
        process.stdout().unwrap().read_to_string(&mut printed).await.unwrap();
        assert_eq!(printed.trim_end(), "over there");
        process.join().await.unwrap();
    }
    lab.engine.kill().await.unwrap();
    lab.create("next", sleeps()).await;
    lab.engine.start_again().await.unwrap();
    lab.until("next", "the engine is reached again", api::pods::is_ready).await;
    assert_eq!(statuses(lab.until("far", "the pod runs", api::pods::is_ready).await.as_ref()), before);
    lab.delete("next").await;
    lab.delete("far").await;
    lab.stop().await;
}
