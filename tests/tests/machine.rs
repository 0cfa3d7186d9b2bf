//! A Debian with a kernel and a systemd of its own, in an emulator: the packages are installed there, pods use what this machine's
//! kernel may not have, the machine shuts down and loses its power, and in the end nothing is left. What is shown is in
//! `tests/machine/scenario.sh`.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use std::path::Path;
use std::process::Command;

use harness::docker::output;
use harness::packages::{self, repository};

/// Whether there is a machine to boot; where there is none a test says so and does nothing, and in CI (`CI=true`) it fails.
fn available(scripts: &Path) -> bool {
    let found = Command::new(scripts.join("image.sh")).arg("find").output().unwrap();
    let missing = String::from_utf8_lossy(&found.stderr).into_owned();
    assert!(found.status.success() || std::env::var("CI").as_deref() != Ok("true"), "{missing}");
    if !found.status.success() {
        eprintln!("skipped: {missing}");
    }
    found.status.success()
}

/// What the machine sees as /mnt.
fn fill(folder: &Path, repository: &Path) {
    let programs = tempfile::tempdir().unwrap();
    packages::programs(Path::new(env!("CARGO_BIN_EXE_programs")), programs.path()).unwrap();
    for (version, place) in [("0.1.0", "old"), ("0.2.0", "new")] {
        std::fs::rename(packages::make(programs.path(), version).unwrap(), folder.join(place)).unwrap();
    }
    let scripts = repository.join("tests/machine");
    output("cp", &["-r", repository.join("deploy").to_str().unwrap(), folder.to_str().unwrap()]).unwrap();
    for file in ["pods.yaml", "ends.yaml", "sctp.py"] {
        std::fs::copy(scripts.join(file), folder.join(file)).unwrap();
    }
    std::fs::copy(scripts.join("scenario.sh"), folder.join("run")).unwrap();
}

/// Needs what `deploy/setup.sh test` made; three boots take some minutes where the processor has to be emulated.
#[test]
fn a_debian_machine_runs_pods_and_is_left_as_it_was() {
    let repository = repository().unwrap();
    let scripts = repository.join("tests/machine");
    if !available(&scripts) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path(), &repository);
    let ran = Command::new(scripts.join("machine.sh")).arg(folder.path()).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    eprintln!("{text}");
    assert!(ran.status.success() && text.contains("all of it holds"), "it does not hold");
}

/// What the emulator is linked with may be another one after an upgrade of the machine the tests run on.
#[test]
fn an_emulator_that_does_not_start_is_no_machine() {
    use std::os::unix::fs::PermissionsExt;
    let scripts = repository().unwrap().join("tests/machine");
    if !available(&scripts) {
        return;
    }
    let find = |cache: Option<&Path>| {
        let mut command = Command::new(scripts.join("image.sh"));
        cache.map(|cache| command.env("XDG_CACHE_HOME", cache));
        let found = command.arg("find").output().unwrap();
        found.status.success().then(|| String::from_utf8(found.stdout).unwrap().trim().to_owned())
    };
    let image = find(None).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("coracle/machine");
    let [image, programs] = [cache.join(Path::new(&image).file_name().unwrap()), cache.join("qemu/usr/bin")];
    [&image, &programs].into_iter().for_each(|folder| std::fs::create_dir_all(folder).unwrap());
    std::fs::write(image.join("root.img"), "").unwrap();
    let emulator = programs.join("qemu-system-x86_64");
    for (status, expected) in [(0, Some(image.to_str().unwrap().to_owned())), (127, None)] {
        std::fs::write(&emulator, format!("#!/bin/sh\nexit {status}\n")).unwrap();
        std::fs::set_permissions(&emulator, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find(Some(dir.path())), expected, "it ends with {status}");
    }
}
