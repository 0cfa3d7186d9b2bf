//! What runs in pods, and what comes out of it. Files are copied where there are files: `streams.rs`.

use harness::kubectl::{Kubectl, line};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{judge, start_web, until_shown};

/// The first kubectl that knows `--subresource resize`.
const RESIZES: u32 = 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_run_print_and_listen() {
    judge(2, async |kubectl| {
        runs(&kubectl).await;
        executes(&kubectl).await;
        start_web(&kubectl).await;
        logs(&kubectl).await;
        forwards(&kubectl).await;
        proxies(&kubectl).await;
        if kubectl.minor >= RESIZES {
            resizes(&kubectl).await;
        }
    })
    .await;
}

async fn runs(kubectl: &Kubectl) {
    kubectl.prints("run box --image=example/box:1 --labels=app=box -- serve --port=80", "pod/box created\n").await;
    kubectl.prints("wait --for=condition=Ready pod/box --timeout=60s", "pod/box condition met\n").await;
    let look = "get pod box -o 'jsonpath={.spec.containers[0].args} {.spec.restartPolicy}'";
    kubectl.prints(look, r#"["serve","--port=80"] Always"#).await;
    let mut job = "run job --image=example/box:1 --restart=Never --rm -i --command -- echo hello".to_owned();
    kubectl.mentions(&job, &["pod \"job\" deleted"]).await;
    job = job.replace("echo hello", "sh -c 'exit 4'");
    let failed = kubectl.ends(&job).await;
    assert_eq!(failed.status.code(), Some(4), "{failed:?}");
    kubectl.fails("get pod job", "not found").await;
}

/// In place, and where that cannot be with a reason.
async fn resizes(kubectl: &Kubectl) {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/resize.yaml");
    kubectl.prints(&format!("apply -f {example}"), "pod/resize created\n").await;
    kubectl.prints("wait --for=condition=Ready pod/resize --timeout=60s", "pod/resize condition met\n").await;
    let resources = r#"{"requests": {"cpu": "100m"}, "limits": {"cpu": "200m"}}"#;
    let patch = format!(r#"{{"spec": {{"containers": [{{"name": "web", "resources": {resources}}}]}}}}"#);
    kubectl.prints(&format!("patch pod resize --subresource resize -p '{patch}'"), "pod/resize patched\n").await;
    until_shown(kubectl, "pod/resize", "{.status.containerStatuses[0].resources.limits.cpu}", "200m").await;
    kubectl.prints("get pod resize -o 'jsonpath={.status.containerStatuses[0].restartCount}'", "0").await;
    let other = patch.replace("200m", "300m");
    kubectl.fails(&format!("patch pod resize -p '{other}'"), "pod updates may not change fields other than").await;
    let guaranteed = patch.replace("\"200m\"", "\"100m\", \"memory\": \"16Mi\"");
    let refused = "Pod QOS Class may not change as a result of resizing";
    kubectl.fails(&format!("patch pod resize --subresource resize -p '{guaranteed}'"), refused).await;
    let never = patch.replace("200m", "900").replace("100m", "900");
    kubectl.prints(&format!("patch pod resize --subresource resize -p '{never}'"), "pod/resize patched\n").await;
    let look = r#"{.status.conditions[?(@.type=="PodResizePending")].reason}"#;
    until_shown(kubectl, "pod/resize", look, "Infeasible").await;
    kubectl.prints("delete pod resize", "pod \"resize\" deleted\n").await;
}

async fn executes(kubectl: &Kubectl) {
    kubectl.prints("exec box -- echo hello you", "hello you\n").await;
    kubectl.prints("exec pod/box -c box -- sh -c 'echo one'", "one\n").await;
    let failed = kubectl.run(&["exec", "-i", "box", "--", "sh"], b"echo in\nnonsense\nexit 7\n").await;
    assert_eq!((failed.status.code(), &failed.stdout[..]), (Some(7), &b"in\n"[..]), "{failed:?}");
    let complaint = "sh: nonsense: not found\ncommand terminated with exit code 7\n";
    assert_eq!(String::from_utf8_lossy(&failed.stderr), complaint);
    kubectl.fails("exec box -c other -- true", "container other is not valid for pod box").await;
    kubectl.fails("exec nothing -- true", r#"pods "nothing" not found"#).await;
    let mut attached = kubectl.spawn(&["attach", "-i", "box"]);
    attached.stdin.as_mut().unwrap().write_all(b"back\n").await.unwrap();
    assert_eq!(line(&mut BufReader::new(attached.stdout.take().unwrap())).await, "back");
    attached.kill().await.unwrap();
}

async fn logs(kubectl: &Kubectl) {
    kubectl.prints("logs box", "serve --port=80\n").await;
    kubectl.prints("logs box --tail=0", "").await;
    kubectl.prints("logs box --since=1h --limit-bytes=5", "serve").await;
    let stamped = kubectl.says("logs box --timestamps").await;
    let (time, text) = stamped.split_once(' ').unwrap();
    assert!(time.parse::<k8s_openapi::jiff::Timestamp>().is_ok() && text == "serve --port=80\n", "{stamped}");
    let prefixed = kubectl.says("logs -l app=web --prefix --all-containers").await;
    assert_eq!(prefixed.lines().count(), 2, "{prefixed}");
    for said in prefixed.lines() {
        assert!(said.starts_with("[pod/web-") && said.ends_with("/web] serve everything"), "{said}");
    }
    kubectl.mentions("logs rc/web", &["serve everything"]).await;
    kubectl.fails("logs box -c other", "container other is not valid for pod box").await;
    kubectl.fails("logs box -p", r#"previous terminated container "box" in pod "box" not found"#).await;
    let restarted = "run again --image=example/box:1 --restart=OnFailure --command -- sh -c 'exit 3'";
    kubectl.prints(restarted, "pod/again created\n").await;
    until_shown(kubectl, "pod/again", "{.status.containerStatuses[0].restartCount}", "1").await;
    kubectl.prints("logs again -p", "").await;
    follows(kubectl).await;
}

/// The log ends with the pod.
async fn follows(kubectl: &Kubectl) {
    let mut following = kubectl.spawn(&["logs", "-f", "box"]);
    let mut lines = BufReader::new(following.stdout.take().unwrap());
    assert_eq!(line(&mut lines).await, "serve --port=80");
    kubectl.prints("delete pod box --now", "pod \"box\" deleted\n").await;
    assert_eq!(line(&mut lines).await, "", "the end");
    assert!(following.wait().await.unwrap().success());
}

async fn echoes(port: u16) {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    connection.write_all(b"through and back").await.unwrap();
    connection.shutdown().await.unwrap();
    let mut back = String::new();
    connection.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "through and back");
}

async fn forwards(kubectl: &Kubectl) {
    for (target, port) in [("rc/web", 80), ("svc/web", 80)] {
        let mut forward = kubectl.forward(target, port).await;
        echoes(forward.port).await;
        echoes(forward.port).await;
        forward.child.kill().await.unwrap();
    }
    kubectl.fails("port-forward svc/web 81", "Service web does not have a service port 81").await;
}

async fn proxies(kubectl: &Kubectl) {
    let mut proxy = kubectl.spawn(&["proxy", "--port=0"]);
    let started = line(&mut BufReader::new(proxy.stdout.take().unwrap())).await;
    let address = started.strip_prefix("Starting to serve on ").unwrap();
    let get = |path: &str| harness::docker::output("curl", &["-s", &format!("http://{address}{path}")]).unwrap();
    assert!(get("/version").contains("v1.35.0"));
    assert_eq!(get("/api/v1/nodes/box-0/proxy/healthz"), "ok");
    assert!(get("/api/v1/namespaces/default/services/kubernetes").contains("\"clusterIP\": \"10.96.0.1\""));
    proxy.kill().await.unwrap();
}
