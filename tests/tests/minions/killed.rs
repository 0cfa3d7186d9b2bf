//! A minion's process that is killed at any moment of a pod's life, and the next that takes over: the same containers run,
//! none twice, none forgotten, and at the end nothing is left.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use harness::boxes::{Boxes, IMAGE};
use harness::engine::{self, Engine, Wanted, mounts_below};
use harness::wait::until;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::lab::{Lab, Statuses, statuses};

/// A running minion, killed when it is dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    fn start(lab: &Lab) -> Process {
        Process::with(&lab.flags(&[]), Stdio::null())
    }

    /// One that is told this, the program's name first, and logs there.
    pub(crate) fn with(flags: &[String], log: Stdio) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_programs"));
        command
            .arg0("minion")
            .args(&flags[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true);
        Process { child: command.spawn().unwrap() }
    }

    /// Kills it, and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// A pod with one of everything that is made for it: an init container, a sidecar, hooks, and volumes that are mounts.
fn whole() -> serde_json::Value {
    let mounts = json!([{"name": "memory", "mountPath": "/memory"}, {"name": "secret", "mountPath": "/secret"},
        {"name": "conf", "mountPath": "/conf/file", "subPath": "file"}]);
    let runs = json!(["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done"]);
    json!({
        "volumes": [{"name": "memory", "emptyDir": {"medium": "Memory"}}, {"name": "conf", "configMap": {"name": "conf"}},
            {"name": "secret", "secret": {"secretName": "secret"}}],
        "initContainers": [
            {"name": "init", "image": IMAGE, "command": ["sh", "-c", "echo once >> /memory/started"], "volumeMounts": mounts},
            {"name": "side", "image": IMAGE, "command": runs, "restartPolicy": "Always"}],
        "containers": [{"name": "c", "image": IMAGE, "command": runs, "volumeMounts": mounts,
            "readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1},
            "lifecycle": {"postStart": {"exec": {"command": ["true"]}}, "preStop": {"exec": {"command": ["true"]}}}}],
    })
}

/// A lab without a minion; what its pods mount is there.
pub(crate) async fn lab() -> Lab {
    let engine = Engine::start(&Wanted::default()).await.unwrap();
    let lab = Lab { boxes: Boxes::beside(&engine).await.unwrap(), engine };
    let secret: Secret =
        serde_json::from_value(json!({"metadata": {"name": "secret"}, "stringData": {"a": "b"}})).unwrap();
    Api::default_namespaced(lab.boxes.client()).create(&PostParams::default(), &secret).await.unwrap();
    let conf: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "conf"}, "data": {"file": "x"}})).unwrap();
    Api::default_namespaced(lab.boxes.client()).create(&PostParams::default(), &conf).await.unwrap();
    lab
}

/// The ids of what runs of the pod.
fn running(lab: &Lab) -> BTreeSet<String> {
    let label = "label=io.kubernetes.pod.name=whole";
    lab.engine.docker(&["ps", "-q", "--filter", label]).unwrap().lines().map(str::to_owned).collect()
}

const ALL: [&str; 4] = ["POD running", "c running", "init exited", "side running"];

/// Waits until the pod runs, with none of these containers, and each of its own once; they are given back.
async fn is_up(lab: &Lab, not: &Statuses) -> Statuses {
    let other = |pod: &Pod| statuses(pod).values().all(|now| !not.values().any(|before| before.0 == now.0));
    let pod = lab.until("whole", "the pod runs", |pod| api::pods::is_ready(pod) && other(pod)).await;
    assert_eq!(lab.containers("whole"), ALL, "each container once");
    statuses(&pod)
}

/// A minion runs for so long, and is killed.
async fn killed_after(lab: &Lab, after: Duration) {
    let minion = Process::start(lab);
    // The moment is what is tested: it comes whatever happens.
    tokio::time::sleep(after).await;
    minion.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minion_may_be_killed_at_any_moment() {
    if !engine::available() {
        eprintln!("skipped: no Docker Engine here, or not root");
        return;
    }
    let lab = lab().await;
    // Joins once, so that the times below are those of pods.
    let minion = Process::start(&lab);
    lab.until_node("the node is ready", "True", "").await;
    minion.kill().await;
    for round in 0..6 {
        lab.create("whole", whole()).await;
        for step in 0..4 {
            killed_after(&lab, Duration::from_millis(300 + 170 * (round * 4 + step) % 1500)).await;
        }
        let before = running(&lab);
        let minion = Process::start(&lab);
        let up = is_up(&lab, &Statuses::new()).await;
        let now = running(&lab);
        assert!(before.is_subset(&now), "round {round}: {before:?} ran, {now:?} runs");
        minion.kill().await;
        let rebooted = round % 3 == 2;
        if rebooted {
            reboot(&lab);
        } else {
            killed_after(&lab, Duration::from_millis(400)).await;
            assert_eq!(running(&lab), now, "round {round}: a minion that comes and goes changes nothing");
        }
        let minion = Process::start(&lab);
        // What the API says may be of before.
        is_up(&lab, if rebooted { &up } else { const { &Statuses::new() } }).await;
        minion.kill().await;
        lab.pods().delete("whole", &DeleteParams::default()).await.unwrap();
        for step in 0..2 {
            killed_after(&lab, Duration::from_millis(350 + 230 * (round + step) % 1200)).await;
        }
        let minion = Process::start(&lab);
        until::<Pod>(&lab.boxes.client(), "the pod goes", "app=whole", <[_]>::is_empty).await.unwrap();
        minion.kill().await;
        let data = lab.boxes.data("box");
        assert_eq!(lab.containers("whole"), [""; 0], "round {round}");
        assert_eq!(mounts_below(&data), Vec::<std::path::PathBuf>::new(), "round {round}: a mount is left");
        let left = std::fs::read_dir(data.join("pods")).into_iter().flatten().count();
        assert_eq!(left, 0, "round {round}: a pod's directory is left");
    }
    lab.stop().await;
}

/// What a reboot takes: every container and every mount.
fn reboot(lab: &Lab) {
    let ids = lab.engine.docker(&["ps", "-aq"]).unwrap();
    lab.engine.docker(&[&["rm", "-f"][..], &ids.lines().collect::<Vec<_>>()].concat()).unwrap();
    for mount in mounts_below(&lab.boxes.data("box")) {
        nix::mount::umount2(&mount, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minion_that_is_asked_to_stop_says_so_and_ends_well() {
    if !engine::available() {
        eprintln!("skipped: no Docker Engine here, or not root");
        return;
    }
    let lab = lab().await;
    let mut minion = Process::with(&lab.flags(&[]), Stdio::piped());
    let mut lines = BufReader::new(minion.child.stderr.take().unwrap()).lines();
    while !lines.next_line().await.unwrap().unwrap().contains("minion runs") {}
    let id = i32::try_from(minion.child.id().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(minion.child.wait().await.unwrap().success());
    let mut rest = String::new();
    lines.into_inner().read_to_string(&mut rest).await.unwrap();
    assert!(rest.contains("containers and rules stay"), "{rest}");
    lab.stop().await;
}
