//! Makes the pause program (`pause/pause.rs`) for the target and leaves it where `runtime::docker::pause` includes it.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// Flags for a static program without a standard library, small and free of anything that differs between builds.
const FLAGS: &[&str] = &[
    "--edition=2024",
    "--crate-type=bin",
    "-Cpanic=abort",
    "-Copt-level=s",
    "-Cdebuginfo=0",
    "-Cstrip=symbols",
    "-Crelocation-model=static",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-static",
    "-Clink-arg=-Wl,--build-id=none",
];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=pause/pause.rs");
    println!("cargo:rerun-if-env-changed=RUSTC_LINKER");
    let rustc = env::var_os("RUSTC").expect("cargo tells build scripts which compiler it uses");
    let target = env::var("TARGET").expect("cargo tells build scripts the target");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo tells build scripts where to write")).join("pause");
    let mut command = Command::new(rustc);
    command.args(FLAGS).arg("--target").arg(&target).arg("-o").arg(&out).arg("pause/pause.rs");
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut flag = std::ffi::OsString::from("-Clinker=");
        flag.push(linker);
        command.arg(flag);
    }
    let status = command.status().expect("the compiler that builds this crate can be run");
    assert!(status.success(), "the pause program for {target} does not build: {status}");
}
