//! The doctor on a machine that is made up of files.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use clap::Parser;
use kctl::{Cli, Console, run};

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What the doctor prints, notes, and fails with.
async fn said(root: &Path, flags: &[&str]) -> String {
    let own = ["kctl", "doctor", "--docker", "/does/not/exist", "--root", root.to_str().unwrap()];
    let cli = Cli::try_parse_from(own.iter().chain(flags)).unwrap();
    let out = Buffer::default();
    let mut console =
        Console { out: Box::new(out.clone()), err: Box::new(out.clone()), input: Box::new(std::io::empty()) };
    let ended = run(cli, &mut console).await.map_or_else(|error| error.to_string(), |()| "fine".to_owned());
    let printed = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
    format!("{printed}{ended}")
}

#[tokio::test]
async fn what_is_safe_to_put_right_is_put_right() {
    let folder = tempfile::tempdir().unwrap();
    let file = |path: &str| folder.path().join(path);
    for (path, text) in [
        ("proc/sys/kernel/osrelease", "6.1.0\n"),
        ("proc/sys/net/ipv4/ip_forward", "0\n"),
        ("etc/default/ufw", "IPV6=yes\nDEFAULT_FORWARD_POLICY=\"DROP\"\n"),
        ("etc/ufw/ufw.conf", "ENABLED=yes\n"),
        ("etc/sysctl.d/.keep", ""),
    ] {
        std::fs::create_dir_all(file(path).parent().unwrap()).unwrap();
        std::fs::write(file(path), text).unwrap();
    }
    let before = said(folder.path(), &[]).await;
    for expected in
        ["FAILURE   forwarding", "FAILURE   ufw", "/etc/default/ufw:2: write DEFAULT_FORWARD_POLICY=\"ACCEPT\""]
    {
        assert!(before.contains(expected), "{expected}: {before}");
    }
    assert!(before.contains("error: this machine is not ready: docker, "), "{before}");
    assert_eq!(std::fs::read_to_string(file("proc/sys/net/ipv4/ip_forward")).unwrap(), "0\n", "only looked at");

    let after = said(folder.path(), &["--fix"]).await;
    assert!(!after.contains("FAILURE   forwarding") && !after.contains("FAILURE   ufw"), "{after}");
    assert!(
        after.contains("FAILURE   docker") && after.contains("no Docker Engine answers on /does/not/exist"),
        "{after}"
    );
    let ufw = std::fs::read_to_string(file("etc/default/ufw")).unwrap();
    assert_eq!(ufw, "IPV6=yes\nDEFAULT_FORWARD_POLICY=\"ACCEPT\"\n");
    assert_eq!(std::fs::read_to_string(file("etc/sysctl.d/99-coracle.conf")).unwrap(), "net.ipv4.ip_forward = 1\n");
}

#[tokio::test]
async fn a_master_that_does_not_answer_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = format!("https://127.0.0.1:{port}");
    let text = said(folder.path(), &["--role", "master", "--server", &server]).await;
    assert!(text.contains("FAILURE   master") && text.contains("refused"), "{text}");
}
