//! The first process of a box. It runs in namespaces that `unshare` made, lays out what the box sees of the file system,
//! buries the dead, and ends when the lab does.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// What it says when the box can be used.
pub const READY: &str = "ready";
/// What a box may change without the machine noticing: a layer over each of these, kept when the box is rebooted.
const OWN: [&str; 6] = ["etc", "root", "usr", "opt", "var/lib", "var/log"];
/// Where Docker keeps images. Its own layers cannot lie on a layer, so this is a plain folder.
const DOCKER: &str = "/var/lib/docker";

/// Becomes the box that keeps its files below `home`; returns when nobody holds the other end of standard input.
pub fn run(home: &Path, name: &str) -> Result<()> {
    // Blocked before there are threads, so that only `bury` gets it.
    let mut deaths = SigSet::empty();
    deaths.add(Signal::SIGCHLD);
    deaths.thread_block()?;
    nix::unistd::sethostname(name).context("the box's host name")?;
    mount_all(home).context("the box's mounts")?;
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
    ensure!(up.success(), "the loopback interface does not come up");
    std::thread::spawn(move || bury(&deaths));
    let mut out = std::io::stdout();
    writeln!(out, "{READY}")?;
    out.flush()?;
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).map(drop).or_else(|_| drain())
}

/// Reading may be interrupted; the end is what counts.
fn drain() -> Result<()> {
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest)?;
    Ok(())
}

/// Waits for whoever dies without a parent.
fn bury(deaths: &SigSet) {
    while deaths.wait().is_ok() {
        while waitpid(None, Some(WaitPidFlag::WNOHANG)).is_ok_and(|status| status != WaitStatus::StillAlive) {}
    }
}

fn mount_all(home: &Path) -> Result<()> {
    mount_sys()?;
    for place in OWN.iter().filter(|place| Path::new("/").join(place).is_dir()) {
        let flat = place.replace('/', "-");
        let (upper, work) = (home.join("files").join(place), home.join("work").join(flat));
        std::fs::create_dir_all(&upper)?;
        std::fs::create_dir_all(&work)?;
        let layers = format!("lowerdir=/{place},upperdir={},workdir={}", upper.display(), work.display());
        let target = Path::new("/").join(place);
        mount(Some("overlay"), &target, Some("overlay"), MsFlags::empty(), Some(layers.as_str()))
            .with_context(|| format!("a layer over /{place}"))?;
    }
    let images = home.join("docker");
    std::fs::create_dir_all(&images)?;
    std::fs::create_dir_all(DOCKER)?;
    mount(Some(&images), DOCKER, None::<&str>, MsFlags::MS_BIND, None::<&str>).context(DOCKER)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755")).context("/run")
}

/// `/sys` shows the interfaces of the network namespace it was mounted in. The control groups below it stay.
fn mount_sys() -> Result<()> {
    let none = None::<&str>;
    mount(Some("tmpfs"), "/mnt", Some("tmpfs"), MsFlags::empty(), none).context("/mnt")?;
    let groups = Path::new("/mnt/cgroup");
    std::fs::create_dir(groups)?;
    mount(Some("/sys/fs/cgroup"), groups, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).context("control groups")?;
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none).context("/sys")?;
    mount(Some(groups), "/sys/fs/cgroup", none, MsFlags::MS_MOVE, none).context("control groups")?;
    nix::mount::umount("/mnt").context("/mnt")
}
