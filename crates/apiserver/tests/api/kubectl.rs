//! Stock kubectl as an outside judge, over TLS with the admin's kubeconfig.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::common::*;
use crate::tls::Secure;

/// Every kubectl on this machine; without one there is nothing to judge and the test says so.
fn kubectls() -> Vec<PathBuf> {
    let versions = ["1.27", "1.28", "1.29", "1.30", "1.31", "1.32", "1.33"]
        .map(|v| PathBuf::from(format!("/usr/lib/google-cloud-sdk/bin/kubectl.{v}")));
    let mut found: Vec<PathBuf> = versions.into_iter().filter(|p| p.exists()).collect();
    let plain = PathBuf::from("/usr/bin/kubectl");
    if found.is_empty() && plain.exists() {
        found.push(plain);
    }
    found
}

struct Kubectl<'a> {
    program: &'a PathBuf,
    secure: &'a Secure,
    home: tempfile::TempDir,
}

impl Kubectl<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.arg("--kubeconfig").arg(self.secure.path("admin.kubeconfig")).args(arguments);
        command.env("HOME", self.home.path()).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs to the end; standard output on success, else a panic with all there is.
    async fn run(&self, arguments: &[&str]) -> String {
        let output = tokio::time::timeout(3 * PATIENCE, self.command(arguments).output()).await.unwrap().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{:?} {arguments:?}\n{out}\n{err}", self.program);
        out.into_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stderr)] // A test that could not run says so.
async fn stock_kubectl_works() {
    let programs = kubectls();
    if programs.is_empty() {
        eprintln!("skipped: there is no kubectl on this machine");
        return;
    }
    for program in &programs {
        let secure = Secure::start(|_| {}).await;
        judge(&Kubectl { program, secure: &secure, home: tempfile::tempdir().unwrap() }).await;
        secure.stop().await;
    }
}

/// `create token` makes one that lets its bearer in.
async fn judge_tokens(kubectl: &Kubectl<'_>) {
    kubectl
        .secure
        .server
        .create("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "robot"}}))
        .await;
    let token = kubectl.run(&["create", "token", "robot", "--duration=20m"]).await;
    let (code, text) = kubectl.secure.get("/api/v1/namespaces/default", None, Some(token.trim()), true).await;
    assert!(code == 200 || text.contains("system:serviceaccount:default:robot"), "{code}: {text}");
    let yaml = kubectl.run(&["create", "token", "robot", "--audience=vault", "-o", "yaml"]).await;
    assert!(yaml.contains("kind: TokenRequest") && yaml.contains("- vault"), "{yaml}");
}

/// What typed clients create, which they send as protobuf from 1.32 on, arrives as it was meant.
async fn judge_creates(kubectl: &Kubectl<'_>) {
    let creates: [&[&str]; 9] = [
        &["serviceaccount", "clerk"],
        &["configmap", "hours", "--from-literal=open=9"],
        &["secret", "generic", "creds", "--from-literal=key=value"],
        &["role", "reader", "--verb=get,list", "--resource=pods,services", "--resource-name=web"],
        &["rolebinding", "readers", "--role=reader", "--serviceaccount=default:clerk"],
        &["clusterrole", "prober", "--verb=get", "--non-resource-url=/healthz"],
        &["quota", "few", "--hard=pods=3,requests.cpu=1500m"],
        &["priorityclass", "urgent", "--value=1000", "--description=first"],
        &["service", "clusterip", "web", "--tcp=80:8080"],
    ];
    for arguments in creates {
        let said = kubectl.run(&[&["create"], arguments].concat()).await;
        assert!(said.ends_with(" created\n"), "{arguments:?}: {said}");
    }
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let arrived = [
        ("/api/v1/namespaces/default/serviceaccounts/clerk".to_owned(), "/metadata/name", json!("clerk")),
        ("/api/v1/namespaces/default/configmaps/hours".to_owned(), "/data", json!({"open": "9"})),
        ("/api/v1/namespaces/default/secrets/creds".to_owned(), "/data", json!({"key": "dmFsdWU="})),
        (format!("{rbac}/namespaces/default/roles/reader"), "/rules/0/resourceNames", json!(["web"])),
        (format!("{rbac}/namespaces/default/rolebindings/readers"), "/subjects/0/name", json!("clerk")),
        (format!("{rbac}/clusterroles/prober"), "/rules/0/nonResourceURLs", json!(["/healthz"])),
        (
            "/api/v1/namespaces/default/resourcequotas/few".to_owned(),
            "/spec/hard",
            json!({"pods": "3", "requests.cpu": "1500m"}),
        ),
        ("/apis/scheduling.k8s.io/v1/priorityclasses/urgent".to_owned(), "/value", json!(1000)),
        ("/api/v1/namespaces/default/services/web".to_owned(), "/spec/ports/0/targetPort", json!(8080)),
    ];
    for (path, pointer, expected) in arrived {
        let object = kubectl.secure.server.get(&path).await.json();
        assert_eq!(object.pointer(pointer), Some(&expected), "{path}: {object}");
    }
    kubectl.run(&["delete", "quota/few", "service/web"]).await;
}

/// From the client's apply to the server's, with another manager who disagrees.
async fn judge_server_side_apply(kubectl: &Kubectl<'_>) {
    let file = |name: &str, value: &str| {
        let path = kubectl.secure.path(name);
        let config = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied", "namespace": "default"},
            "data": {"a": value},
        });
        std::fs::write(&path, config.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (one, two, three) = (file("one.json", "1"), file("two.json", "2"), file("three.json", "3"));
    assert_eq!(kubectl.run(&["apply", "-f", &one]).await, "configmap/applied created\n");
    for config in [&one, &two, &two] {
        let said = kubectl.run(&["apply", "--server-side", "-f", config]).await;
        assert_eq!(said, "configmap/applied serverside-applied\n");
    }
    let other = ["apply", "--server-side", "--field-manager=other", "-f", &three];
    let refused = kubectl.command(&other).output().await.unwrap();
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(message.contains(r#"Apply failed with 1 conflict: conflict with "kubectl": .data.a"#), "{message}");
    let difference = kubectl.command(&["diff", "--server-side", "-f", &one]).output().await.unwrap();
    assert_eq!(difference.status.code(), Some(1), "{}", String::from_utf8_lossy(&difference.stderr));
    assert!(String::from_utf8_lossy(&difference.stdout).contains("+  a: \"1\""), "{difference:?}");
    assert_eq!(kubectl.run(&["diff", "--server-side", "-f", &two]).await, "");
    kubectl.run(&[&other[..], &["--force-conflicts"]].concat()).await;
    let get = ["get", "configmap", "applied", "-o", "yaml"];
    let (plain, whole) = (kubectl.run(&get).await, kubectl.run(&[&get[..], &["--show-managed-fields"]].concat()).await);
    assert!(plain.contains("a: \"3\"") && !plain.contains("managedFields"), "{plain}");
    assert!(whole.contains("manager: other") && whole.contains("operation: Apply"), "{whole}");
    kubectl.run(&["delete", "configmap", "applied"]).await;
}

/// `auth` says what happens.
async fn judge_auth(kubectl: &Kubectl<'_>) {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/examples/rbac.yaml");
    kubectl.run(&["create", "namespace", "shop"]).await;
    assert!(kubectl.run(&["auth", "reconcile", "-f", manifest]).await.contains("reconciled"));
    assert!(kubectl.run(&["auth", "reconcile", "-f", manifest]).await.contains("reconciled"));
    let roles = kubectl.run(&["get", "roles,rolebindings", "-n", "shop", "-o", "wide"]).await;
    assert!(roles.contains("Role/operator") && roles.contains("CREATED AT") && roles.contains("shop/robot"), "{roles}");
    let can = async |arguments: &[&str]| {
        let output = kubectl.command(&[&["auth", "can-i"], arguments].concat()).output().await.unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(can(&["create", "pods"]).await, "yes");
    let robot = "--as=system:serviceaccount:shop:robot";
    assert_eq!(can(&["get", "pods", "-n", "shop", robot]).await, "yes");
    assert!(can(&["delete", "pods", "-n", "shop", robot]).await.starts_with("no"));
    assert!(can(&["get", "/metrics", robot]).await.starts_with("no"));
    let list = can(&["--list", "-n", "shop", robot]).await;
    assert!(list.contains("pods/log") && list.contains("selfsubjectaccessreviews"), "{list}");
    assert!(kubectl.run(&["get", "pods", "-n", "shop", robot]).await.is_empty());
    let refused = kubectl.command(&["get", "secrets", "-n", "shop", robot]).output().await.unwrap();
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(message.contains(r#"cannot list resource "secrets" in API group "" in the namespace "shop""#), "{message}");
    if kubectl.program.ends_with("kubectl.1.27") {
        // Its `whoami` asks for the alpha and beta of the review.
        return;
    }
    assert!(kubectl.run(&["auth", "whoami"]).await.contains("system:masters"));
}

async fn judge(kubectl: &Kubectl<'_>) {
    judge_tokens(kubectl).await;
    judge_creates(kubectl).await;
    judge_server_side_apply(kubectl).await;
    judge_auth(kubectl).await;
    let file = kubectl.secure.path("rc.json");
    std::fs::write(&file, rc("web").to_string()).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(kubectl.run(&["create", "-f", file]).await, "replicationcontroller/web created\n");
    let mut changed = rc("web");
    changed["metadata"]["labels"] = json!({"tier": "front"});
    std::fs::write(file, changed.to_string()).unwrap();
    assert_eq!(kubectl.run(&["apply", "-f", file]).await, "replicationcontroller/web configured\n");
    assert_eq!(kubectl.run(&["apply", "-f", file]).await, "replicationcontroller/web unchanged\n");
    assert!(kubectl.run(&["scale", "rc", "web", "--replicas=5"]).await.contains("scaled"));
    let table = kubectl.run(&["get", "rc"]).await;
    let columns = |line: Option<&str>| line.unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(columns(table.lines().next()), ["NAME", "DESIRED", "CURRENT", "READY", "AGE"]);
    assert_eq!(columns(table.lines().nth(1))[..2], ["web", "5"]);
    assert!(kubectl.run(&["label", "rc", "web", "x=y"]).await.contains("labeled"));
    assert_eq!(kubectl.run(&["get", "rc", "-l", "x=y", "-o", "name"]).await, "replicationcontroller/web\n");
    assert!(kubectl.run(&["explain", "rc.spec.replicas"]).await.contains("integer"));
    watch_shows_a_new_pod(kubectl).await;
    assert!(kubectl.run(&["delete", "rc", "web", "--cascade=background"]).await.contains("deleted"));
    assert_eq!(kubectl.run(&["delete", "pods", "--all"]).await, "pod \"late\" deleted\n");
    let mut unknown = rc("bad");
    unknown["spec"]["nonsense"] = json!(1);
    std::fs::write(file, unknown.to_string()).unwrap();
    let refused = kubectl.command(&["create", "-f", file]).output().await.unwrap();
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(message.contains(r#"unknown field "spec.nonsense""#), "{message}");
}

async fn watch_shows_a_new_pod(kubectl: &Kubectl<'_>) {
    let mut watching =
        kubectl.command(&["get", "pods", "-w"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    kubectl.secure.server.pod("late", "").await;
    let shown = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.starts_with("late") {
                return;
            }
        }
        panic!("the watch ended");
    };
    tokio::time::timeout(3 * PATIENCE, shown).await.unwrap();
    watching.kill().await.unwrap();
}
