//! A bus of our own (`dbus-daemon`), and on it a logind that shuts nothing down.
#![allow(clippy::print_stderr)] // why a test was skipped

use std::net::IpAddr;
use std::process::Stdio;

use client::Tasks;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};

use super::bus::Bus;
use super::wire::{Body, Kind, Message};
use super::*;
use crate::Config;
use crate::runtime::Runtime;
use crate::runtime::hollow::Hollow;

const LIMIT: Duration = Duration::from_secs(30);
const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>custom</type><listen>unix:path=SOCKET</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>"#;

#[test]
fn logind_is_left_as_it_was_found() {
    let dir = tempfile::tempdir().unwrap();
    let (own, other) = (dir.path().join("99-minion.conf"), dir.path().join("99-kubelet.conf"));
    logind::forget_patience(dir.path()).unwrap();
    std::fs::write(&own, "").unwrap();
    std::fs::write(&other, "").unwrap();
    logind::forget_patience(dir.path()).unwrap();
    assert!(!own.exists() && other.exists(), "only what we wrote");
}

/// Waits for what must come.
pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, what).await.expect("it comes in time")
}

struct Login1 {
    dir: tempfile::TempDir,
    _daemon: tokio::process::Child,
    /// How many inhibitors are held.
    held: watch::Receiver<usize>,
    /// What it is to say next: whether there is a shutdown.
    shutdowns: mpsc::Sender<bool>,
}

/// A bus that listens at `bus` in `dir`; `None`, said why, where there is no `dbus-daemon`.
pub(super) async fn start_bus(dir: &std::path::Path) -> Option<tokio::process::Child> {
    let (config, socket) = (dir.join("bus.conf"), dir.join("bus"));
    std::fs::write(&config, CONFIG.replace("SOCKET", socket.to_str().unwrap())).unwrap();
    let mut daemon = tokio::process::Command::new("dbus-daemon");
    daemon.args(["--nofork", "--print-address=1"]).arg(format!("--config-file={}", config.display()));
    let mut daemon = match daemon.stdout(Stdio::piped()).kill_on_drop(true).spawn() {
        Ok(daemon) => daemon,
        Err(error) if std::env::var("CI").is_ok_and(|ci| ci == "true") => panic!("dbus is needed: {error}"),
        Err(error) => {
            eprintln!("skipped: dbus-daemon: {error}");
            return None;
        }
    };
    let mut said = BufReader::new(daemon.stdout.take().unwrap()).lines();
    assert!(soon(said.next_line()).await.unwrap().is_some_and(|address| address.starts_with("unix:")));
    Some(daemon)
}

impl Login1 {
    /// `None`, said why, where there is no `dbus-daemon`.
    async fn start() -> Option<Login1> {
        let dir = tempfile::tempdir().unwrap();
        let daemon = start_bus(dir.path()).await?;
        let mut bus = Bus::connect(&dir.path().join("bus")).await.unwrap();
        for name in ["org.freedesktop.login1", "org.freedesktop.systemd1"] {
            bus.request_name(name).await.unwrap();
        }
        let (count, held) = watch::channel(0);
        let (shutdowns, next) = mpsc::channel(1);
        tokio::spawn(serve(bus, dir.path().to_owned(), count, next));
        Some(Login1 { dir, _daemon: daemon, held, shutdowns })
    }

    fn policy(&self, grace: u64, critical: u64) -> Policy {
        let (grace, critical) = (Duration::from_secs(grace), Duration::from_secs(critical));
        let (bus, logind_conf_dir) = (self.dir.path().join("bus"), self.dir.path().join("logind.conf.d"));
        Policy { bus, logind_conf_dir, ..Policy::new(grace, critical) }
    }

    async fn until_held(&mut self, count: usize) {
        soon(self.held.wait_for(|held| *held == count)).await.unwrap();
    }
}

/// Answers as logind does: it waits for five seconds at most, or for as long as the file says once it is told to look.
async fn serve(mut bus: Bus, dir: PathBuf, held: watch::Sender<usize>, mut shutdowns: mpsc::Receiver<bool>) {
    let mut delay = 5u64;
    loop {
        let message = tokio::select! {
            message = bus.read() => message.unwrap(),
            Some(shutting_down) = shutdowns.recv() => {
                let body = Body::raw("b", u32::from(shutting_down).to_le_bytes().to_vec());
                let (path, interface) = ("/org/freedesktop/login1", "org.freedesktop.login1.Manager");
                bus.emit(path, interface, "PrepareForShutdown", &body).await.unwrap();
                continue;
            }
        };
        if message.kind == Kind::Call {
            answer(&mut bus, &message, &dir, &mut delay, &held).await;
        }
    }
}

async fn answer(bus: &mut Bus, call: &Message, dir: &std::path::Path, delay: &mut u64, held: &watch::Sender<usize>) {
    match call.member.as_str() {
        "Get" => {
            let mut bytes = vec![1, b't', 0, 0, 0, 0, 0, 0];
            bytes.extend((*delay * 1_000_000).to_le_bytes());
            bus.reply(call, &Body::raw("v", bytes), None).await.unwrap();
        }
        "KillUnit" => {
            let text = std::fs::read_to_string(dir.join("logind.conf.d/99-minion.conf")).unwrap();
            let said = text.lines().find_map(|line| line.strip_prefix("InhibitDelayMaxSec=")).unwrap();
            *delay = said.parse().unwrap();
            bus.reply(call, &Body::default(), None).await.unwrap();
        }
        "Inhibit" => {
            let wanted: Vec<String> = call.strings().collect();
            assert_eq!((wanted[0].as_str(), wanted[3].as_str()), ("shutdown", "delay"));
            let (sender, mut receiver) = pipe::pipe().unwrap();
            let file = sender.into_blocking_fd().unwrap();
            bus.reply(call, &Body::raw("h", 0u32.to_le_bytes().to_vec()), Some(file)).await.unwrap();
            held.send_modify(|count| *count += 1);
            let held = held.clone();
            tokio::spawn(async move {
                // It ends when the other side lets go.
                let _ = receiver.read_u8().await;
                held.send_modify(|count| *count -= 1);
            });
        }
        other => panic!("{other} is not for us"),
    }
}

pub(super) fn pod(name: &str, priority: i32, grace: i64) -> Arc<k8s_openapi::api::core::v1::Pod> {
    let pod: Value = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name},
        "spec": {"priority": priority, "terminationGracePeriodSeconds": grace, "containers": [{"name": "c", "image": "i"}]},
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_end_in_order_before_the_machine_does() {
    let Some(mut logind) = Login1::start().await else { return };
    let hollow = Hollow::default();
    hollow.ensure_network("10.0.0.0/24".parse().unwrap()).await.unwrap();
    let mut config = Config::new("box1", IpAddr::from([127, 0, 0, 1]), "/nonexistent");
    config.shutdown = Some(logind.policy(12, 10));
    let client = crate::testing::empty_api();
    let machine = hollow.machine().await.unwrap();
    let kubelet = crate::testing::kubelet(&hollow, &machine, config, &client);
    let tasks = Tasks::new();
    let pods = Pods::new(kubelet.clone(), client, &tasks);
    tasks.spawn(pods.clone().follow_runtime());
    pods.set(pod("web", 0, 1));
    pods.set(pod("dns", 2_000_001_000, 5));
    soon(hollow.until_running(2)).await;
    tasks.spawn(watch(kubelet.clone(), pods.clone()));
    logind.until_held(1).await;

    // Nobody ends by himself: each is killed when his own grace is over.
    hollow.ignore_terminate(true);
    logind.shutdowns.send(true).await.unwrap();
    soon(hollow.until_running(1)).await;
    let left = hollow.pod_state("dns").await.unwrap();
    assert!(left.containers[0].is_running(), "the critical pod has its own time");
    assert!(*kubelet.node.shutting_down.borrow());
    assert_eq!(*logind.held.borrow(), 1);
    logind.until_held(0).await;
    assert_eq!(hollow.running(), 0, "logind may go on when nothing runs any more");

    logind.shutdowns.send(false).await.unwrap();
    logind.until_held(1).await;
    assert!(!*kubelet.node.shutting_down.borrow(), "it was cancelled");
    assert!(tasks.stop(Duration::from_secs(5)).await);
    logind.until_held(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logind_without_patience_is_named() {
    let Some(login1) = Login1::start().await else { return };
    let policy = login1.policy(60, 10);
    let mut logind = Logind::connect(&policy.bus).await.unwrap();
    assert_eq!(logind.max_delay().await.unwrap(), Duration::from_secs(5));
    logind.be_patient(Duration::from_secs(5), &policy.logind_conf_dir).await.unwrap();
    assert!(!policy.logind_conf_dir.exists(), "it is patient enough");
    logind.be_patient(policy.grace, &policy.logind_conf_dir).await.unwrap();
    assert_eq!(logind.max_delay().await.unwrap(), policy.grace);
    assert!(Logind::connect(&login1.dir.path().join("nothing")).await.is_err());
}
