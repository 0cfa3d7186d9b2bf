//! The lab itself: boxes are apart from the machine and from each other, cables can be pulled, and nothing is left.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::Path;

use anyhow::{Context, Result, ensure};
use harness::wait::PATIENCE;
use lab::engine::{DOCKERD, IMAGE, image};
use lab::network::Topology;
use lab::{Lab, Plan, lab as start};
use tokio::io::AsyncBufReadExt;

/// The mounts, control groups and processes of a lab on this machine.
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
    // The first process of a box is told where its files are.
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        found.extend(Some(line).filter(|line| line.contains(lab)));
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
        packets_are_lost_and_wait(&mut lab).await?;

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

/// Some are lost, others wait; until the network is whole again.
#[allow(clippy::print_stderr)] // What cannot be shown here says so.
async fn packets_are_lost_and_wait(lab: &mut Lab) -> Result<()> {
    const DELAY_MILLISECONDS: u32 = 200;
    let (one, two, router) = (lab.boxes[0].address(), lab.boxes[1].address(), lab.boxes[0].gateway());
    let ping = async |lab: &Lab, to: std::net::Ipv4Addr, count: &str| {
        lab.boxes[0].run(&["busybox", "ping", "-c", count, "-i", "0.05", "-W", "2", &to.to_string()]).await
    };
    lab.network.lose(two, 100).await?;
    ensure!(ping(lab, two, "1").await.is_err(), "all is lost");
    ping(lab, router, "1").await?;
    lab.network.join().await?;
    // Of forty, both ways, some are lost and some are not: but for one in a trillion.
    lab.network.lose(one, 50).await?;
    let said = ping(lab, two, "40").await?;
    let received = said.split(" packets received").next().and_then(|text| text.rsplit(' ').next()?.parse::<u32>().ok());
    ensure!(received.is_some_and(|count| (1..40).contains(&count)), "half is lost: {said}");
    lab.network.join().await?;
    ping(lab, two, "1").await?;

    let port = lab.boxes[1].port()?.to_owned();
    // The second replaces the first.
    for delay in [DELAY_MILLISECONDS / 2, DELAY_MILLISECONDS] {
        if !lab.network.slow(&port, std::time::Duration::from_millis(delay.into())).await? {
            eprintln!("skipped: packets that wait, as this kernel has no netem");
            return Ok(());
        }
        let quickest = quickest(&ping(lab, two, "2").await?)?;
        ensure!(quickest >= f64::from(delay), "after {delay} ms, not {quickest}");
    }
    lab.network.join().await?;
    let quickest = quickest(&ping(lab, two, "2").await?)?;
    ensure!(quickest < f64::from(DELAY_MILLISECONDS), "they wait no more: {quickest} ms");
    Ok(())
}

/// The shortest round trip that `ping` tells of, in milliseconds.
fn quickest(said: &str) -> Result<f64> {
    let times = said.rsplit(" = ").next().and_then(|times| times.split('/').next()?.parse().ok());
    times.with_context(|| said.to_owned())
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
        // The lab's cable to this machine, as the kernel tells of it: when it is there, and when it goes with the networks.
        let mut links = tokio::process::Command::new("ip");
        let mut links =
            links.args(["-o", "monitor", "link"]).stdout(std::process::Stdio::piped()).kill_on_drop(true).spawn()?;
        let mut told = tokio::io::BufReader::new(links.stdout.take().context("it is piped")?).lines();
        let mut cable = async |gone: bool| {
            let wanted = async {
                while let Some(line) = told.next_line().await? {
                    if line.contains("coracle-lab") && line.contains("Deleted") == gone {
                        return Ok(());
                    }
                }
                anyhow::bail!("nothing more is told")
            };
            tokio::time::timeout(PATIENCE, wanted).await.context("the cable")?
        };
        let said = line(&["up", "--dir", &dir]).await?;
        cable(false).await?;
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
        cable(true).await?;
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
