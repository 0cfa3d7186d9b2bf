//! The machine's Docker Engine, for tests of the real path.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Whether a Docker Engine answers. Where none does, a test says so and does nothing; in CI (`CI=true`) it fails.
pub fn available() -> bool {
    let answers = Command::new("docker").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    needed(answers.is_ok_and(|s| s.success()))
}

/// Whether what is needed for containers is here, and we are root; in CI it has to be.
pub(crate) fn needed(is_here: bool) -> bool {
    let available = is_here && nix::unistd::geteuid().is_root();
    assert!(available || std::env::var("CI").as_deref() != Ok("true"), "CI needs root and a Docker Engine");
    available
}

/// Waits until no other test uses the machine's one pod network and nftables table; they are ours until the file is
/// dropped.
pub fn alone() -> Result<std::fs::File> {
    let file = std::fs::File::create(std::env::temp_dir().join("coracle-docker-tests.lock"))?;
    file.lock()?;
    Ok(file)
}

/// Runs a program and gives what it printed.
pub fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("run {program}"))?;
    ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Imports a small image of the static busybox under `reference`, with `sh`, `httpd` and friends in /bin.
pub fn import_busybox(reference: &str) -> Result<()> {
    import_busybox_on(&[], reference)
}

/// The same on the engine that these flags of `docker` name.
pub fn import_busybox_on(engine: &[&str], reference: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let bin = folder.path().join("bin");
    std::fs::create_dir_all(&bin)?;
    std::fs::create_dir_all(folder.path().join("www"))?;
    std::fs::copy("/bin/busybox", bin.join("busybox")).context("busybox-static is not installed")?;
    let applets = "sh httpd hostname sleep cat echo env wget true false tar nc stty sha256sum head dd ls mkdir rm ps wc kill nslookup";
    for applet in applets.split(' ') {
        std::os::unix::fs::symlink("busybox", bin.join(applet))?;
    }
    let archive = Command::new("tar").arg("-C").arg(folder.path()).args(["-c", "."]).output()?;
    ensure!(archive.status.success(), "tar failed");
    let arguments = ["import", "--change", "ENV PATH=/bin", "-", reference];
    let mut import =
        Command::new("docker").args(engine).args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    import.stdin.take().context("stdin is piped")?.write_all(&archive.stdout)?;
    ensure!(import.wait()?.success(), "docker import failed");
    Ok(())
}
