//! The Docker Engine of a box, and the image of test pods.

use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::machine::Machine;
use crate::process::Process;

/// The image of test pods: a static busybox.
pub const IMAGE: &str = "coracle/test-web:1";
/// What the engine is called among a box's processes.
pub const DOCKERD: &str = "dockerd";
/// How long it may take until it answers: after a power failure it looks at every container, beside others that do.
const PATIENCE: Duration = Duration::from_secs(180);
/// What it says when it answers.
const ANSWERS: &str = "API listen on";

impl Machine {
    /// Starts the box's Docker Engine; returns when it answers.
    pub async fn start_docker(&mut self) -> Result<&Process> {
        // Registries of the lab have no certificates. The control group says whose containers these are.
        let settings = json!({
            "insecure-registries": ["10.55.0.0/16"],
            "cgroup-parent": format!("/{}", self.control_group()),
        });
        self.write("/etc/docker/daemon.json", &settings.to_string()).await?;
        let docker = self.start(DOCKERD, &[DOCKERD]).await?;
        docker.says_within(ANSWERS, PATIENCE).await?;
        Ok(docker)
    }

    /// Brings the image of test pods to the box.
    pub async fn import_image(&self, reference: &str, archive: &[u8]) -> Result<()> {
        self.feed(&["docker", "import", "--change", "ENV PATH=/bin", "-", reference], archive).await.map(drop)
    }

    /// The containers of a pod that run, as the box's engine has them: those made from an image of its own, not the
    /// sandbox.
    pub async fn containers(&self, pod: &str) -> Result<Vec<String>> {
        let (by_pod, kind) =
            (format!("label=io.kubernetes.pod.name={pod}"), "label=io.kubernetes.docker.type=container");
        let listed = self.run(&["docker", "ps", "-q", "--no-trunc", "--filter", &by_pod, "--filter", kind]).await?;
        Ok(listed.lines().map(str::to_owned).collect())
    }
}

/// A small image: the machine's static busybox with all its programs in `/bin`.
pub fn image() -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let bin = folder.path().join("bin");
    for made in ["bin", "www", "tmp", "etc"] {
        std::fs::create_dir_all(folder.path().join(made))?;
    }
    std::fs::copy("/bin/busybox", bin.join("busybox")).context("busybox-static is not installed")?;
    let listed = Command::new("/bin/busybox").arg("--list").output()?;
    for program in String::from_utf8(listed.stdout)?.lines().filter(|program| *program != "busybox") {
        symlink("busybox", bin.join(program))?;
    }
    let archive = Command::new("tar").arg("-C").arg(folder.path()).args(["-c", "."]).output()?;
    ensure!(archive.status.success(), "tar failed");
    Ok(archive.stdout)
}
