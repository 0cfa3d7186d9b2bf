//! A real logind (Debian's `elogind`, unpacked and not installed) on a bus of its own. It is asked to power the machine off,
//! and would call `/sbin/poweroff` in a mount namespace in which that only says so; it may not reboot anything either.
#![allow(clippy::print_stderr)] // why a test was skipped

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use client::Tasks;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use super::bus::{Bus, Call};
use super::tests::{pod, soon, start_bus};
use super::wire::Body;
use super::*;
use crate::Config;
use crate::runtime::Runtime;
use crate::runtime::hollow::Hollow;

const APPEARS: &str =
    "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='org.freedesktop.login1'";
const CHANGES: &str = "type='signal',interface='org.freedesktop.DBus.Properties',path='/org/freedesktop/login1'";

/// The program, where `deploy/setup.sh test` puts it; `None`, said why, where it cannot be run.
fn elogind() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
    let places = ["lib/elogind/elogind", "usr/lib/elogind/elogind", "usr/libexec/elogind"];
    let found = places.iter().map(|place| cache.join("coracle/elogind").join(place)).find(|path| path.is_file());
    if let Some(found) = found.filter(|_| nix::unistd::geteuid().is_root() && Path::new("/sbin/poweroff").exists()) {
        return Some(found);
    }
    assert!(std::env::var("CI").map_or(true, |ci| ci != "true"), "elogind is needed");
    eprintln!("skipped: no elogind here, or not root");
    None
}

/// Runs it for the bus in `dir`; what would turn the machine off writes a line into `down` there.
fn start(program: &Path, dir: &Path) -> Child {
    let place = dir.display();
    let down = dir.join("poweroff");
    std::fs::write(&down, format!("#!/bin/sh\necho down >{place}/down\n")).unwrap();
    std::fs::set_permissions(&down, PermissionsExt::from_mode(0o755)).unwrap();
    let script = format!(
        "set -e; mount --make-rprivate /; mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /sys/fs/cgroup; mkdir -p /run/systemd /run/user
         for file in /sbin/halt /sbin/poweroff /sbin/reboot /sbin/shutdown; do
             [ ! -e $file ] || mount --bind {place}/poweroff \"$(readlink -f $file)\"
         done
         exec setpriv --bounding-set=-sys_boot {}",
        program.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).kill_on_drop(true);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={place}/bus"));
    command.env("LD_LIBRARY_PATH", program.parent().unwrap());
    command.stdin(std::process::Stdio::null()).spawn().unwrap()
}

/// Waits for a signal with both words in it.
async fn until(bus: &mut Bus, member: &str, word: &str) {
    let said = |body: &[u8]| body.windows(word.len()).any(|window| window == word.as_bytes());
    let signal = async {
        loop {
            let signal = bus.signal().await.unwrap();
            if signal.member == member && said(&signal.body) {
                return;
            }
        }
    };
    soon(signal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_logind_waits_until_the_pods_have_ended() {
    let Some(program) = elogind() else { return };
    let dir = tempfile::tempdir().unwrap();
    let Some(_daemon) = start_bus(dir.path()).await else { return };
    let made = Command::new("mkfifo").arg(dir.path().join("down")).status().await.unwrap();
    assert!(made.success());
    // Also open for writing, lest it ends before anyone wrote.
    let mut down = pipe::OpenOptions::new().read_write(true).open_receiver(dir.path().join("down")).unwrap();
    let mut bus = Bus::connect(&dir.path().join("bus")).await.unwrap();
    bus.add_match(APPEARS).await.unwrap();
    bus.add_match(CHANGES).await.unwrap();
    let _logind = start(&program, dir.path());
    until(&mut bus, "NameOwnerChanged", "org.freedesktop.login1").await;

    let hollow = Hollow::default();
    hollow.ensure_network("10.0.0.0/24".parse().unwrap()).await.unwrap();
    let mut config = Config::new("box1", IpAddr::from([127, 0, 0, 1]), "/nonexistent");
    // logind waits for five seconds where nobody told it otherwise.
    let policy = Policy::new(Duration::from_secs(4), Duration::from_secs(1));
    config.shutdown =
        Some(Policy { bus: dir.path().join("bus"), logind_conf_dir: dir.path().join("logind.conf.d"), ..policy });
    let client = crate::testing::empty_api();
    let machine = hollow.machine().await.unwrap();
    let kubelet = crate::testing::kubelet(&hollow, &machine, config, &client);
    let tasks = Tasks::new();
    let pods = Pods::new(kubelet.clone(), client, &tasks);
    tasks.spawn(pods.clone().follow_runtime());
    pods.set(pod("web", 0, 1));
    soon(hollow.until_running(1)).await;
    tasks.spawn(watch(kubelet.clone(), pods.clone()));
    until(&mut bus, "PropertiesChanged", "DelayInhibited").await;
    assert!(!dir.path().join("logind.conf.d").exists(), "it is patient enough");

    let power_off = Call {
        destination: "org.freedesktop.login1",
        path: "/org/freedesktop/login1",
        interface: "org.freedesktop.login1.Manager",
        member: "PowerOff",
    };
    bus.call(power_off, &Body::raw("b", 0u32.to_le_bytes().to_vec())).await.unwrap();
    let mut line = [0; 5];
    soon(down.read_exact(&mut line)).await.unwrap();
    assert_eq!((&line, hollow.running()), (b"down\n", 0), "the machine goes down after its pods");
    assert!(*kubelet.node.shutting_down.borrow());
    assert!(tasks.stop(Duration::from_secs(5)).await);
}
