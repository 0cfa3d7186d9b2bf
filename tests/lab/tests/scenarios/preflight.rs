//! A1: what the doctor says of boxes on which nothing runs yet, good ones and others.

use anyhow::{Result, ensure};
use lab::{Lab, Machine, Plan};

use crate::common::{refused, roomy};

/// What the doctor ends with.
const NOT_READY: &str = "error: this machine is not ready: ";

#[test]
fn a_box_that_is_not_ready_is_told_by_name() -> Result<()> {
    lab::lab::test(async || {
        let mut lab = Lab::start(Plan::default()).await?;
        for machine in &lab.boxes {
            roomy(machine).await?;
            is_refused(machine, "kctl doctor", "docker", "no Docker Engine answers on /var/run/docker.sock").await?;
            // A master needs none.
            machine.run(&["kctl", "doctor", "--role", "master"]).await?;
        }
        lab.start_dockers().await?;
        for machine in &lab.boxes {
            let said = machine.run(&["kctl", "doctor"]).await?;
            ensure!(!said.contains("FAILURE") && said.contains("not installed"), "{said}");
            // What the kernel says of itself to whoever is 32 bit.
            is_refused(machine, "linux32 kctl doctor", "architecture", "is not a 64-bit machine").await?;
            old_kernel(machine).await?;
            firewall(machine).await?;
        }
        lab.stop().await
    })
}

/// The doctor ends with an error that names the item, and says this of it.
async fn is_refused(machine: &Machine, command: &str, item: &str, says: &str) -> Result<()> {
    let all = machine.run(&["sh", "-c", &format!("{command}; test $? = 1")]).await?;
    let line = all.lines().find(|line| line.starts_with("FAILURE") && line.contains(item));
    ensure!(line.is_some_and(|line| line.contains(says)), "nothing of {item} and {says:?}: {all}");
    refused(machine.run(&["sh", "-c", command]).await, &format!("{NOT_READY}{item}"))
}

async fn old_kernel(machine: &Machine) -> Result<()> {
    machine.write("/etc/osrelease", "3.2.0-4-amd64\n").await?;
    let command = "unshare -m sh -c 'mount --bind /etc/osrelease /proc/sys/kernel/osrelease && kctl doctor'";
    is_refused(machine, command, "kernel", "Linux 3.2.0-4-amd64 is older than 3.10").await
}

/// UFW as Ubuntu has it, on and off; put right as the doctor says.
async fn firewall(machine: &Machine) -> Result<()> {
    machine.write("/etc/default/ufw", "# policies\nDEFAULT_FORWARD_POLICY=\"DROP\"\n").await?;
    machine.write("/etc/ufw/ufw.conf", "ENABLED=no\n").await?;
    let said = machine.run(&["kctl", "doctor"]).await?;
    ensure!(said.lines().any(|line| line.starts_with("warning") && line.contains("ufw")), "{said}");
    machine.write("/etc/ufw/ufw.conf", "ENABLED=yes\n").await?;
    is_refused(machine, "kctl doctor", "ufw", "DEFAULT_FORWARD_POLICY is DROP (/etc/default/ufw:2)").await?;
    // The one program of UFW that the doctor calls, on a box that has only its files.
    machine.write("/usr/local/bin/ufw", "#!/bin/sh\necho \"$@\" >>/etc/ufw/called\n").await?;
    machine.run(&["chmod", "+x", "/usr/local/bin/ufw"]).await?;
    machine.run(&["kctl", "doctor", "--fix"]).await?;
    ensure!(machine.run(&["cat", "/etc/ufw/called"]).await? == "reload");
    ensure!(machine.run(&["cat", "/etc/default/ufw"]).await? == "# policies\nDEFAULT_FORWARD_POLICY=\"ACCEPT\"");
    machine.run(&["kctl", "doctor"]).await.map(drop)
}
