//! Workers on real Docker. Each test has a node, a network and pods of its own, and leaves nothing behind.
#![allow(clippy::print_stderr)] // figures, and why a test was skipped

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::PodStatus;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use super::bench::{Api, Bench, first, pod, waits_for};
use crate::Config;
use crate::runtime::docker::{DockerOptions, DockerRuntime, pause};
use crate::runtime::{LogOptions, Runtime};

/// A test that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(90);
pub(super) const IMAGE: &str = "coracle-test/busybox:kubelet";

pub(super) struct Node {
    pub(super) runtime: DockerRuntime,
    options: DockerOptions,
    pub(super) dir: tempfile::TempDir,
    pub(super) uid: String,
    api: Api,
}

impl Node {
    /// A node on this machine's Docker; `None`, said why, where there is none. Where tests must not be skipped
    /// (`CI=true`) that is a failure.
    async fn new() -> Option<Node> {
        let unique = format!("{:06x}", rand::random::<u32>() & 0xff_ffff);
        let dir = tempfile::tempdir().unwrap();
        let node_name = format!("test-{unique}");
        let bridge = format!("ct{unique}");
        let options = DockerOptions { network: bridge.clone(), bridge, ..DockerOptions::new(&node_name, dir.path()) };
        let runtime = match DockerRuntime::connect(options.clone()).await {
            Ok(runtime) => runtime,
            Err(error) if std::env::var("CI").is_ok_and(|ci| ci == "true") => panic!("Docker is needed: {error}"),
            Err(error) => {
                eprintln!("skipped: {error}");
                return None;
            }
        };
        let busybox = std::fs::read("/bin/busybox").expect("busybox-static is installed");
        let programs = ["bin/busybox", "bin/sh"].map(|path| (path, busybox.as_slice()));
        pause::load(runtime.docker(), pause::archive(IMAGE, &programs, &["/bin/busybox"]).unwrap()).await.unwrap();
        let cidr = format!("10.{}.{}.0/24", 180 + rand::random::<u8>() % 16, rand::random::<u8>());
        runtime.ensure_network(cidr.parse().unwrap()).await.unwrap();
        Some(Node { runtime, options, dir, uid: unique, api: Api::new() })
    }

    pub(super) fn bench(&self, spec: Value) -> Bench<DockerRuntime> {
        self.bench_of(pod(&self.uid, spec))
    }

    pub(super) fn bench_of(&self, pod: k8s_openapi::api::core::v1::Pod) -> Bench<DockerRuntime> {
        let config = Config::new(&self.options.node_name, "127.0.0.1".parse().unwrap(), self.dir.path());
        Bench::new(self.runtime.clone(), self.api.clone(), config, pod)
    }

    async fn output(&self, status: &PodStatus) -> String {
        let id = first(status).container_id.clone().unwrap();
        let logs = self.runtime.logs(id.trim_start_matches("docker://"), &LogOptions::default()).await.unwrap();
        let chunks: Vec<_> = futures::StreamExt::collect(logs).await;
        chunks.into_iter().map(|chunk| String::from_utf8_lossy(&chunk.unwrap()).into_owned()).collect()
    }

    pub(super) async fn exec(&self, status: &PodStatus, script: &str) -> String {
        let id = first(status).container_id.clone().unwrap();
        let command = ["/bin/sh", "-c", script].map(str::to_owned);
        let id = id.trim_start_matches("docker://");
        self.runtime.exec_sync(id, &command, Duration::from_secs(10)).await.unwrap().output
    }

    async fn clean_up(&self) {
        self.runtime.clean_up().await.unwrap();
    }
}

/// Runs a test on a node of its own, and cleans up whatever becomes of it.
pub(super) async fn on_docker<F: Future<Output = ()> + Send + 'static>(test: impl FnOnce(std::sync::Arc<Node>) -> F) {
    let Some(node) = Node::new().await else { return };
    let node = std::sync::Arc::new(node);
    let mut ran = tokio::spawn(test(node.clone()));
    let ended = tokio::time::timeout(LIMIT, &mut ran).await;
    ran.abort();
    node.clean_up().await;
    let _ = crate::volumes::tear_down(node.dir.path(), &node.uid);
    ended.expect("the test takes too long").unwrap();
}

pub(super) fn script(script: &str) -> Value {
    json!({"name": "c", "image": IMAGE, "imagePullPolicy": "Never", "command": ["/bin/sh", "-c", script]})
}

/// Where pods find what they need to talk to the API.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
pub(super) const SERVES: &str =
    "trap 'echo bye; exit 0' TERM; echo started; while :; do busybox sleep 1000 & wait $!; done";

fn id(status: &PodStatus) -> String {
    first(status).container_id.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_lives_restarts_is_adopted_and_ends() {
    on_docker(|node| async move {
        let spec = json!({"containers": [script(SERVES)], "terminationGracePeriodSeconds": 20});
        let begun = Instant::now();
        let mut web = node.bench(spec);
        let status = web.until_phase("Running").await;
        eprintln!("pod running after {:?}", begun.elapsed());
        assert!(status.pod_ip.as_deref().unwrap().starts_with("10."), "{status:?}");

        // Killed from outside, it runs again within a second.
        let container = id(&status).trim_start_matches("docker://").to_owned();
        let killed = Instant::now();
        node.runtime.kill(&container).await.unwrap();
        let again = web.until("a restart", |s| first(s).restart_count == 1 && first(s).ready).await;
        eprintln!("killed container running again after {:?}", killed.elapsed());
        let last = first(&again).last_state.as_ref().unwrap().terminated.as_ref().unwrap();
        assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("Error")));

        // A kubelet that starts again adopts it.
        web.worker.abort();
        let mut object = web.handle.desired().pod.as_ref().clone();
        object.status = Some((*again).clone());
        let mut adopted = node.bench_of(object);
        adopted.delete(20);
        let last = adopted.until_deleted().await;
        let ended = first(&last).state.as_ref().unwrap().terminated.as_ref().unwrap();
        assert_eq!((id(&last), ended.exit_code), (id(&again), 0), "the same container, ended by SIGTERM");
        adopted.end().await;
        assert!(!crate::volumes::pod_dir(node.dir.path(), &node.uid).exists());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn container_sees_its_files_variables_and_names() {
    on_docker(|node| async move {
        node.api.put(json!({"kind": "Secret", "metadata": {"name": "sec"}, "data": {"pw": "aHVzaA=="}}));
        node.api.put(json!({"kind": "ConfigMap", "metadata": {"name": "cm"}, "data": {"color": "red"}}));
        node.api.put(json!({"kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "PEM"}}));
        node.api.put_token("tok", jiff::Timestamp::now() + Duration::from_secs(3600));
        let mut container = script(SERVES);
        container["env"] = json!([{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]);
        container["resources"] = json!({"limits": {"memory": "64Mi", "cpu": "500m"}});
        container["volumeMounts"] = json!([{"name": "sec", "mountPath": "/sec"}, {"name": "cm", "mountPath": "/cm"},
            {"name": "mem", "mountPath": "/mem"}, {"name": "dir", "mountPath": "/sub", "subPath": "a/b"},
            {"name": "api", "mountPath": ACCOUNT, "readOnly": true}]);
        let access = json!({"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]});
        let spec = json!({"containers": [container], "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["other"]}],
            "volumes": [{"name": "sec", "secret": {"secretName": "sec", "defaultMode": 256}},
                {"name": "cm", "configMap": {"name": "cm"}}, {"name": "mem", "emptyDir": {"medium": "Memory"}},
                {"name": "dir", "emptyDir": {}}, {"name": "api", "projected": access}],
            "serviceAccountName": "robot"});
        let mut web = node.bench(spec);
        let status = web.until_phase("Running").await;
        let ip = status.pod_ip.clone().unwrap();
        for (script, expected) in [
            ("busybox cat /sec/pw /cm/color", "hushred".to_owned()),
            ("busybox stat -L -c %a /sec/pw", "400\n".to_owned()),
            ("busybox stat -f -c %T /sec /mem", "tmpfs\ntmpfs\n".to_owned()),
            (
                "cd /var/run/secrets/kubernetes.io/serviceaccount; busybox cat token ca.crt namespace",
                "tokPEMns".to_owned(),
            ),
            ("busybox stat -f -c %T /var/run/secrets/kubernetes.io/serviceaccount", "tmpfs\n".to_owned()),
            ("echo $IP", format!("{ip}\n")),
            ("busybox hostname", "web\n".to_owned()),
            ("busybox hostname -i", format!("{ip}\n")),
            ("busybox grep -c 1.2.3.4 /etc/hosts", "1\n".to_owned()),
            ("echo x >/sub/f; (echo x >/cm/f) 2>/dev/null || echo read-only", "read-only\n".to_owned()),
        ] {
            assert_eq!(node.exec(&status, script).await, expected, "{script}");
        }
        // A changed ConfigMap shows up in the running container.
        node.api.put(json!({"kind": "ConfigMap", "metadata": {"name": "cm"}, "data": {"color": "blue"}}));
        let limit = tokio::time::timeout(Duration::from_secs(20), async {
            let watches = "while [ \"$(busybox cat /cm/color)\" != blue ]; do busybox usleep 10000; done; echo seen";
            node.exec(&status, watches).await
        });
        assert_eq!(limit.await.unwrap(), "seen\n");
        web.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_pod_keeps_its_log_and_last_words() {
    on_docker(|node| async move {
        let container = script("echo hello; echo why >/dev/termination-log; exit 3");
        let of = |name: &str, command: &str, policy: &str| {
            let mut container = script(command);
            container["name"] = json!(name);
            container["terminationMessagePolicy"] = json!(policy);
            container
        };
        let containers = [
            container,
            of("log", "echo first; echo last; exit 4", "FallbackToLogsOnError"),
            of("both", "echo logged; echo said >/dev/termination-log; exit 4", "FallbackToLogsOnError"),
            of("well", "echo logged", "FallbackToLogsOnError"),
            of("file", "echo logged; exit 4", "File"),
        ];
        let mut web = node.bench(json!({"restartPolicy": "Never", "containers": containers}));
        let status = web.until_phase("Failed").await;
        let said = |name: &str| {
            let ended =
                status.container_statuses.iter().flatten().find(|s| s.name == name)?.state.clone()?.terminated?;
            Some((ended.exit_code, ended.message.unwrap_or_default()))
        };
        for (name, code, message) in
            [("c", 3, "why\n"), ("log", 4, "first\nlast\n"), ("both", 4, "said\n"), ("well", 0, ""), ("file", 4, "")]
        {
            assert_eq!(said(name), Some((code, message.to_owned())), "{name}");
        }
        assert_eq!(node.output(&status).await, "hello\n");
        web.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_whose_secret_is_missing_is_waited_for_by_name() {
    on_docker(|node| async move {
        let mut container = script(SERVES);
        container["volumeMounts"] = json!([{"name": "keys", "mountPath": "/keys"}]);
        let volumes = json!([{"name": "keys", "secret": {"secretName": "late"}}]);
        let mut web = node.bench(json!({"containers": [container], "volumes": volumes}));
        let message = "MountVolume.SetUp failed for volume \"keys\" : secret \"late\" not found";
        web.api.until_event("FailedMount", message).await;
        node.api.put(json!({"kind": "Secret", "metadata": {"name": "late"}, "data": {"pw": "aHVzaA=="}}));
        let status = web.until_phase("Running").await;
        assert_eq!(node.exec(&status, "busybox cat /keys/pw").await, "hush");
        web.end().await;
    })
    .await;
}

/// A file system of its own at a directory, whose later mounts others may see.
struct Shared(std::path::PathBuf);

impl Shared {
    fn at(dir: std::path::PathBuf) -> Shared {
        std::fs::create_dir_all(&dir).unwrap();
        let (none, tmpfs) = (None::<&str>, Some("tmpfs"));
        mount(tmpfs, &dir, tmpfs, MsFlags::empty(), none).unwrap();
        let shared = Shared(dir);
        mount(none, &shared.0, none, MsFlags::MS_SHARED, none).unwrap();
        shared
    }

    fn mount_below(&self, name: &str) {
        let (below, tmpfs) = (self.0.join(name), Some("tmpfs"));
        std::fs::create_dir(&below).unwrap();
        mount(tmpfs, &below, tmpfs, MsFlags::empty(), None::<&str>).unwrap();
        std::fs::write(below.join("f"), name).unwrap();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_come_from_a_named_place_and_as_they_are_made_later_where_asked() {
    on_docker(|node| async move {
        let shared = Shared::at(node.dir.path().join("shared"));
        let mut container = script(SERVES);
        container["env"] = json!([{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]);
        container["volumeMounts"] = json!([{"name": "dir", "mountPath": "/own", "subPathExpr": "of/$(POD)"},
            {"name": "dir", "mountPath": "/all"},
            {"name": "host", "mountPath": "/sees", "mountPropagation": "HostToContainer"},
            {"name": "host", "mountPath": "/private"}]);
        let volumes = json!([{"name": "dir", "emptyDir": {}}, {"name": "host", "hostPath": {"path": shared.0}}]);
        let mut web = node.bench(json!({"containers": [container], "volumes": volumes}));
        let status = web.until_phase("Running").await;
        shared.mount_below("later");
        for (script, expected) in [
            ("echo x >/own/f; busybox cat /all/of/web/f", "x\n"),
            ("busybox cat /sees/later/f", "later"),
            ("busybox ls /private/later", ""),
        ] {
            assert_eq!(node.exec(&status, script).await, expected, "{script}");
        }
        web.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_why() {
    on_docker(|node| async move {
        let mut container = script("");
        container["command"] = json!(["/no/such/program"]);
        let mut web = node.bench(json!({"containers": [container]}));
        web.until("RunContainerError", |s| waits_for(s, "RunContainerError")).await;
        let status = web.until("CrashLoopBackOff", |s| waits_for(s, "CrashLoopBackOff")).await;
        let last = first(&status).last_state.as_ref().unwrap().terminated.as_ref().unwrap();
        assert_eq!((last.reason.as_deref(), last.exit_code), (Some("StartError"), 128));
        web.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_limit_kills_and_is_told() {
    on_docker(|node| async move {
        let mut container = script("busybox tail /dev/zero");
        container["resources"] = json!({"limits": {"memory": "16Mi"}});
        let mut web = node.bench(json!({"restartPolicy": "Never", "containers": [container]}));
        let status = web.until_phase("Failed").await;
        let ended = first(&status).state.as_ref().unwrap().terminated.as_ref().unwrap();
        assert_eq!(ended.reason.as_deref(), Some("OOMKilled"));
        web.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_sandbox_is_replaced() {
    on_docker(|node| async move {
        let mut web = node.bench(json!({"containers": [script(SERVES)], "terminationGracePeriodSeconds": 5}));
        web.until_phase("Running").await;
        let state = node.runtime.pod_state(&node.uid).await.unwrap();
        node.runtime.kill(&state.sandboxes[0].id).await.unwrap();
        web.until("the pod to run again", |s| first(s).restart_count == 1 && first(s).ready).await;
        let state = node.runtime.pod_state(&node.uid).await.unwrap();
        assert_eq!((state.live_sandbox().unwrap().attempt, state.sandboxes.len()), (1, 1));
        web.end().await;
    })
    .await;
}
