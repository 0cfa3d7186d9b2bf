//! The Nginx sites of `deploy/nginx`, with the distribution's Nginx, before a master and a hollow minion.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use harness::boxes::Boxes;
use harness::docker::output;
use harness::wait::{PATIENCE, until};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::{Api, AttachParams, ListParams, ObjectMeta, PostParams, WatchEvent, WatchParams};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

/// An Nginx of its own, with the two sites.
struct Nginx {
    folder: tempfile::TempDir,
    site: u16,
    stream: u16,
}

impl Nginx {
    /// Starts it before the master at `address`. Returns when it listens: a daemon's parent ends then.
    fn start(address: &str, master: &Path) -> Nginx {
        let folder = tempfile::tempdir().unwrap();
        let (site, stream) = (free_port(), free_port());
        let shown = |path: PathBuf| path.to_str().unwrap().to_owned();
        let (certificate, key) = (shown(master.join("pki/apiserver.crt")), shown(master.join("pki/apiserver.key")));
        let changed = [
            ("127.0.0.1:6443", address.to_owned()),
            ("listen 443 ssl http2", format!("listen 127.0.0.1:{site} ssl http2")),
            ("listen 8443", format!("listen 127.0.0.1:{stream}")),
            ("/etc/nginx/coracle.crt", certificate),
            ("/etc/nginx/coracle.key", key),
            ("/var/lib/coracle/ca.crt", shown(master.join("ca.crt"))),
        ];
        let sites = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/nginx");
        let mut uses: BTreeMap<&str, usize> = BTreeMap::new();
        for name in ["coracle.conf", "coracle-stream.conf"] {
            let mut text = std::fs::read_to_string(sites.join(name)).unwrap();
            for (from, to) in &changed {
                *uses.entry(from).or_default() += text.matches(from).count();
                text = text.replace(from, to);
            }
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        assert!(changed.iter().all(|(from, _)| uses[from] > 0), "the sites have what is replaced: {uses:?}");
        let here = folder.path().display();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary: String = temporary.iter().map(|t| format!("{t}_temp_path {here}/{t};\n")).collect();
        let main = format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\npid {here}/pid;\nerror_log {here}/error.log;\n\
             worker_processes 1;\nuser root;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}\
             include {here}/coracle.conf;\n}}\ninclude {here}/coracle-stream.conf;\n"
        );
        std::fs::write(folder.path().join("nginx.conf"), main).unwrap();
        let nginx = Nginx { folder, site, stream };
        nginx.run(&[]);
        nginx
    }

    fn run(&self, more: &[&str]) {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        let (config, log) = (file("nginx.conf"), file("error.log"));
        output("/usr/sbin/nginx", &[&["-c", &config, "-e", &log], more].concat()).unwrap();
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let config = self.folder.path().join("nginx.conf");
        let _ = Command::new("/usr/sbin/nginx").arg("-c").arg(config).args(["-s", "stop"]).output();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The token of an account that may do everything.
async fn token(boxes: &Boxes) -> String {
    let client = boxes.client();
    let named = |name: &str| ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let account = ServiceAccount { metadata: named("visitor"), ..ServiceAccount::default() };
    Api::default_namespaced(client.clone()).create(&PostParams::default(), &account).await.unwrap();
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": "visitor"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "visitor", "namespace": "default"}],
    }))
    .unwrap();
    Api::all(client.clone()).create(&PostParams::default(), &binding).await.unwrap();
    let path = "/api/v1/namespaces/default/serviceaccounts/visitor/token";
    let request = http::Request::post(path).header("content-type", "application/json");
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}).to_string();
    let answer: Value = client.request(request.body(body.into_bytes()).unwrap()).await.unwrap();
    answer["status"]["token"].as_str().unwrap().to_owned()
}

/// The admin's configuration with another address.
async fn config(boxes: &Boxes, port: u16) -> Config {
    let kubeconfig = Kubeconfig::read_from(boxes.kubeconfig()).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.cluster_url = format!("https://127.0.0.1:{port}").parse().unwrap();
    config
}

async fn status(client: &kube::Client, path: &str) -> u16 {
    let request = http::Request::get(path).body(kube::client::Body::empty()).unwrap();
    client.send(request).await.unwrap().status().as_u16()
}

async fn a_watch_is_not_held_back(client: &kube::Client) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let version = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let mut events = Box::pin(maps.watch(&WatchParams::default(), &version).await.unwrap());
    for name in ["first", "second"] {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let map = ConfigMap { metadata, ..ConfigMap::default() };
        let begun = Instant::now();
        maps.create(&PostParams::default(), &map).await.unwrap();
        let event = tokio::time::timeout(PATIENCE, events.try_next()).await.unwrap().unwrap().unwrap();
        let seen = begun.elapsed();
        assert!(
            matches!(event, WatchEvent::Added(ConfigMap { metadata, .. }) if metadata.name.as_deref() == Some(name))
        );
        assert!(seen < Duration::from_secs(1), "{name} was seen after {seen:?}");
    }
}

async fn commands_run(client: &kube::Client) {
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let ready = |pods: &[std::sync::Arc<Pod>]| pods.len() == 1 && api::pods::is_ready(&pods[0]);
    until::<Pod>(client, "the pod runs", "", ready).await.unwrap();
    let said = async {
        let mut session = pods.exec("p", ["echo", "through"], &AttachParams::default()).await.unwrap();
        let mut text = String::new();
        session.stdout().unwrap().read_to_string(&mut text).await.unwrap();
        text
    };
    assert_eq!(tokio::time::timeout(PATIENCE, said).await.unwrap(), "through\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_is_whole_behind_nginx() {
    if !Path::new("/usr/sbin/nginx").exists() {
        assert!(!harness::kubectl::nothing_may_be_missing(), "CI needs Nginx");
        eprintln!("skipped: there is no Nginx (deploy/setup.sh test)");
        return;
    }
    let boxes = Boxes::hollow(1).await.unwrap();
    let master = boxes.kubeconfig().parent().unwrap().to_owned();
    let nginx = Nginx::start(boxes.url().trim_start_matches("https://"), &master);

    let mut visitor = config(&boxes, nginx.site).await;
    visitor.auth_info = kube::config::AuthInfo::default();
    let nobody = kube::Client::try_from(visitor.clone()).unwrap();
    visitor.auth_info.token = Some(token(&boxes).await.into());
    let client = kube::Client::try_from(visitor).unwrap();
    assert_eq!(status(&nobody, "/healthz").await, 200);
    assert_eq!(status(&nobody, "/api/v1/nodes").await, 403);
    for path in ["/api", "/apis", "/swagger-ui/", "/openapi/v2", "/metrics"] {
        assert_eq!(status(&client, path).await, 200, "{path}");
    }
    a_watch_is_not_held_back(&client).await;
    commands_run(&client).await;

    // Handed on as it is, the connection keeps the admin's certificate.
    let admin = kube::Client::try_from(config(&boxes, nginx.stream).await).unwrap();
    assert_eq!(Api::<Node>::all(admin).list(&ListParams::default()).await.unwrap().items.len(), 1);
    // Where TLS ends it does not come through.
    let admin = kube::Client::try_from(config(&boxes, nginx.site).await).unwrap();
    assert_eq!(status(&admin, "/api/v1/nodes").await, 403);
    drop(nginx);
    boxes.stop().await.unwrap();
}
