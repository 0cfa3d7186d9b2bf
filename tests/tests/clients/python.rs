//! The official Python client (`python.py`), as `deploy/setup.sh test` fetches it.

use std::process::Stdio;

use harness::boxes::Boxes;
use harness::kubectl::{fetched_clients, nothing_may_be_missing};
use harness::wait::PATIENCE;
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_client_finds_what_it_expects() {
    let python = fetched_clients().join("python/bin/python");
    if !python.exists() {
        assert!(!nothing_may_be_missing(), "CI needs the Python client: deploy/setup.sh test");
        eprintln!("skipped: there is no Python client; deploy/setup.sh test fetches it");
        return;
    }
    let boxes = Boxes::hollow(1).await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut script = Command::new(python);
    script.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/python.py"));
    script.env("KUBECONFIG", boxes.kubeconfig()).env("HOME", home.path()).env("TMPDIR", home.path());
    script.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let output = tokio::time::timeout(3 * PATIENCE, script.output()).await.unwrap().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    boxes.stop().await.unwrap();
}
