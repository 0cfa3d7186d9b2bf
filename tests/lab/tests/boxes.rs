//! The lab itself: boxes are apart from the machine and from each other, cables can be pulled, and nothing is left.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use anyhow::{Result, ensure};
use lab::engine::{DOCKERD, IMAGE, image};
use lab::network::Topology;
use lab::{Lab, Plan, lab as start};

/// The mounts and control groups of labs on this machine.
fn left(lab: &str) -> Vec<String> {
    let mut found: Vec<String> = std::fs::read_to_string("/proc/mounts")
        .unwrap()
        .lines()
        .map(str::to_owned)
        .filter(|m| m.contains(lab))
        .collect();
    for tree in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let groups = std::fs::read_dir(tree.path()).into_iter().flatten().flatten();
        found.extend(groups.map(|g| g.path().display().to_string()).filter(|g| g.contains(lab)));
    }
    found
}

#[test]
fn boxes_are_apart_and_leave_nothing() -> Result<()> {
    start::test(async || {
        let mut lab = Lab::start(Plan::default()).await?;
        let home = lab.home().to_owned();
        lab.start_dockers().await?;
        lab.machine(1).import_image(IMAGE, &image()?).await?;
        lab.machine(1).run(&["docker", "run", "-d", "--name", "sleeper", IMAGE, "sleep", "1000"]).await?;
        ensure!(lab.machine(2).run(&["docker", "ps", "-q"]).await?.is_empty(), "each has an engine of its own");
        ensure!(lab.machine(1).run(&["hostname"]).await? == "box1");
        lab.machine(1).run(&["sh", "-c", "echo mine > /etc/mine; echo mine > /usr/local/mine"]).await?;
        ensure!(!Path::new("/etc/mine").exists() && !Path::new("/usr/local/mine").exists(), "and files of its own");
        let devices = lab.machine(1).run(&["ls", "/sys/class/net"]).await?;
        ensure!(devices.contains("eth0") && !devices.contains("segment0"), "{devices}");

        let ping = ["busybox", "ping", "-c", "1", "-W", "1", "10.55.0.2"];
        lab.machine(1).run(&ping).await?;
        lab.cut(2).await?;
        ensure!(lab.machine(1).run(&ping).await.is_err(), "a cut box is reached");
        lab.mend(2).await?;
        lab.machine(1).run(&ping).await?;
        let (one, two) = (lab.machine(1).address(), lab.machine(2).address());
        lab.network.part(one, two).await?;
        ensure!(lab.machine(1).run(&ping).await.is_err(), "parted boxes reach each other");
        lab.machine(1).run(&["busybox", "ping", "-c", "1", "-W", "1", "10.55.0.254"]).await?;
        lab.network.join().await?;
        lab.machine(1).run(&ping).await?;

        lab.machine(1).kill(DOCKERD).await?;
        ensure!(lab.machine(1).run(&["docker", "ps"]).await.is_err());
        lab.machine(1).start_docker().await?;
        lab.machine(1).run(&["docker", "start", "sleeper"]).await?;
        lab.power_off(1).await?;
        lab.power_on(1).await?;
        lab.machine(1).start_docker().await?;
        ensure!(lab.machine(1).run(&["cat", "/etc/mine"]).await? == "mine", "files outlive a reboot");
        ensure!(lab.machine(1).run(&["docker", "ps", "-q"]).await?.is_empty(), "processes do not");
        lab.stop().await?;
        let name = home.file_name().unwrap().to_string_lossy();
        ensure!(!home.exists() && left(&name).is_empty(), "{home:?} {:?}", left(&name));
        Ok(())
    })
}

/// The boxes that are left to play with, and their end after a crash of what holds them.
#[test]
fn a_lab_to_play_with_ends_even_if_its_holder_was_killed() -> Result<()> {
    start::test(async || {
        let folder = tempfile::tempdir()?;
        let dir = folder.path().join("lab").display().to_string();
        let program = env!("CARGO_BIN_EXE_coracle-lab");
        let line = async |words: &[&str]| {
            let ended = tokio::process::Command::new(program).args(words).output().await?;
            let (said, complained) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
            ensure!(ended.status.success(), "{words:?}: {said}{complained}");
            anyhow::Ok(said.trim_end().to_owned())
        };
        let said = line(&["up", "--dir", &dir]).await?;
        ensure!(said.contains("export KUBECONFIG="), "{said}");
        let name = said.split("files in ").nth(1).and_then(|path| path.split('/').nth(2)).unwrap().to_owned();
        ensure!(line(&["on", "--dir", &dir, "box2", "hostname"]).await? == "box2");
        let client = client::connect::from_kubeconfig(Some(&Path::new(&dir).join("kubeconfig")), None, "lab").await?;
        let nodes = kube::Api::<k8s_openapi::api::core::v1::Node>::all(client).list(&Default::default()).await?;
        ensure!(nodes.items.len() == 2, "the machine reaches the cluster");
        ensure!(line(&["up", "--dir", &dir]).await.is_err(), "one lab in a place");

        let holder = std::fs::read_to_string(Path::new(&dir).join("alive"))?.trim().parse()?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(holder), nix::sys::signal::Signal::SIGKILL)?;
        line(&["down", "--dir", &dir]).await?;
        ensure!(!Path::new(&dir).exists() && left(&name).is_empty(), "{:?}", left(&name));
        ensure!(!std::env::temp_dir().join(&name).exists(), "{name} is left");
        line(&["down", "--dir", &dir]).await.map(drop)
    })
}

#[test]
fn a_router_stands_between_segments() -> Result<()> {
    start::test(async || {
        let mut lab = Lab::start(Plan { boxes: 2, topology: Topology::Routed }).await?;
        let two = lab.machine(2).address().to_string();
        let way = lab.machine(1).run(&["busybox", "traceroute", "-n", "-q", "1", "-w", "1", &two]).await?;
        ensure!(way.contains("10.55.0.254") && way.contains(&two), "{way}");
        lab.stop().await
    })
}
