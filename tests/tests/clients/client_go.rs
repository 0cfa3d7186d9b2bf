//! Go's client-go (`go/`), as `deploy/client-go.sh` builds it: typed objects as JSON and as protobuf, lists that are asked
//! for and lists that are streamed.

use std::process::Stdio;

use harness::boxes::Boxes;
use harness::kubectl::{fetched_clients, nothing_may_be_missing};
use harness::wait::PATIENCE;
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_go_finds_what_it_expects() {
    let program = fetched_clients().join("client-go");
    if !program.exists() {
        assert!(!nothing_may_be_missing(), "CI needs the Go client: deploy/setup.sh test");
        eprintln!("skipped: there is no Go client; deploy/setup.sh test builds it");
        return;
    }
    let boxes = Boxes::hollow(1).await.unwrap();
    for (form, streamed) in [("json", "false"), ("protobuf", "true")] {
        let mut client = Command::new(&program);
        client.arg(form).env("KUBECONFIG", boxes.kubeconfig()).env("KUBE_FEATURE_WatchListClient", streamed);
        client.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let output = tokio::time::timeout(3 * PATIENCE, client.output()).await.unwrap().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{form}:\n{out}{err}");
    }
    boxes.stop().await.unwrap();
}
