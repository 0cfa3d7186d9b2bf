//! Images from a real registry, open and with a password: what is asked of it by which pull policy, and what is said where it
//! refuses.

use std::io::Write;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use clap::Parser;
use harness::boxes::IMAGE;
use harness::engine::{self, Wanted};
use harness::registry::{self, PASSWORD, Registry, USER};
use harness::wait::until;
use k8s_openapi::api::core::v1::{Event, Pod, Secret, ServiceAccount};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::lab::Lab;

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

/// What `kctl` prints, and what it says went wrong.
async fn kctl(lab: &Lab, arguments: &[&str], input: &str) -> (String, String) {
    let config = lab.boxes.kubeconfig();
    let all = ["kctl", "--kubeconfig", config.to_str().unwrap()].into_iter().chain(arguments.iter().copied());
    let cli = kctl::Cli::try_parse_from(all).unwrap();
    let (out, err) = (Buffer::default(), Buffer::default());
    let input = Box::new(std::io::Cursor::new(input.as_bytes().to_vec()));
    let mut console = kctl::Console { out: Box::new(out.clone()), err: Box::new(err.clone()), input };
    if let Err(error) = kctl::run(cli, &mut console).await {
        console.note(&error.to_string());
    }
    let text = |buffer: &Buffer| String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
    (text(&out), text(&err))
}

fn pod_of(image: &str, policy: &str) -> Value {
    json!({"containers": [{"name": "c", "image": image, "imagePullPolicy": policy, "command": ["sleep", "1000"]}]})
}

fn secret(name: &str, registry: &Registry, password: &str) -> Secret {
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{password}"));
    let config = json!({"auths": {registry.address(): {"auth": auth}}}).to_string();
    serde_json::from_value(json!({"metadata": {"name": name}, "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": config}}))
    .unwrap()
}

/// Reason and message of what a pod's container waits for.
fn waits(pod: &Pod) -> (String, String) {
    let status = pod.status.as_ref().and_then(|s| s.container_statuses.as_ref()?.first()?.state.clone());
    let waiting = status.and_then(|state| state.waiting).unwrap_or_default();
    (waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default())
}

async fn until_waits(lab: &Lab, pod: &str, reason: &str) -> String {
    waits(lab.until(pod, reason, |pod| waits(pod).0 == reason).await.as_ref()).1
}

fn of_kind(asked: &[String], kind: &str) -> usize {
    asked.iter().filter(|asked| asked.contains(kind) && asked.ends_with(" 200")).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_is_asked_what_the_pull_policy_says() {
    if !(engine::available() && registry::available()) {
        eprintln!("skipped: no Docker Engine or no docker-registry here, or not root");
        return;
    }
    let registry = Registry::start(false).await.unwrap();
    let lab = Lab::start(&Wanted::default(), &[]).await;
    let image = registry.name("team/app:1");
    for (arguments, said) in [
        (vec!["image", "tag", IMAGE, &image], format!("box: {IMAGE} tagged {image}\n")),
        (vec!["image", "push", &image], format!("box: {image} pushed\n")),
        (vec!["image", "rm", &image], format!("box: {image} removed\n")),
        (vec!["image", "rm", IMAGE], format!("box: {IMAGE} removed\n")),
    ] {
        assert_eq!(kctl(&lab, &arguments, "").await, (said, String::new()), "{arguments:?}");
    }
    assert!(registry.asked().iter().any(|asked| asked == "PUT /v2/team/app/manifests/1 201"));

    lab.create("never", pod_of(&image, "Never")).await;
    let said = until_waits(&lab, "never", "ErrImageNeverPull").await;
    assert_eq!(said, format!("Container image \"{image}\" is not present with pull policy of Never"));
    assert_eq!(registry.asked(), [""; 0], "it is not asked");

    lab.create("first", pod_of(&image, "IfNotPresent")).await;
    let first = lab.until("first", "it runs", api::pods::is_ready).await;
    let asked = registry.asked();
    assert!(of_kind(&asked, "/manifests/") > 0 && of_kind(&asked, "/blobs/") > 0, "{asked:?}");
    lab.create("second", pod_of(&image, "IfNotPresent")).await;
    lab.until("second", "it runs", api::pods::is_ready).await;
    assert_eq!(registry.asked(), [""; 0], "what is there is not asked for");
    lab.create("always", pod_of(&image, "Always")).await;
    lab.until("always", "it runs", api::pods::is_ready).await;
    let asked = registry.asked();
    assert!(of_kind(&asked, "/manifests/1") > 0 && of_kind(&asked, "/blobs/") == 0, "{asked:?}");

    let id = first.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].image_id.clone();
    let digest = id.split_once('@').unwrap_or_else(|| panic!("{id}")).1.to_owned();
    for pod in ["never", "first", "second", "always"] {
        lab.delete(pod).await;
    }
    kctl(&lab, &["image", "rm", &image], "").await;
    lab.engine.docker(&["image", "prune", "-af"]).unwrap();
    registry.asked();
    let by_digest = registry.name(&format!("team/app@{digest}"));
    lab.create("exact", pod_of(&by_digest, "IfNotPresent")).await;
    let exact = lab.until("exact", "it runs", api::pods::is_ready).await;
    let status = exact.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].clone();
    assert_eq!((status.image_id, status.image), (format!("docker-pullable://{by_digest}"), by_digest));
    assert!(of_kind(&registry.asked(), &digest) > 0);
    lab.delete("exact").await;
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_hears_only_who_has_the_password() {
    if !(engine::available() && registry::available()) {
        eprintln!("skipped: no Docker Engine or no docker-registry here, or not root");
        return;
    }
    let registry = Registry::start(true).await.unwrap();
    let lab = Lab::start(&Wanted::default(), &[]).await;
    let (image, none) = (registry.name("app:1"), registry.name("none:1"));
    kctl(&lab, &["image", "tag", IMAGE, &image], "").await;
    let (_, refused) = kctl(&lab, &["image", "push", &image], "").await;
    assert!(refused.contains("no basic auth credentials"), "{refused}");
    let push = ["image", "push", &image, "--username", USER, "--password-stdin"];
    assert_eq!(kctl(&lab, &push, PASSWORD).await, (format!("box: {image} pushed\n"), String::new()));
    kctl(&lab, &["image", "rm", &image], "").await;

    let secrets: Api<Secret> = Api::default_namespaced(lab.boxes.client());
    secrets.create(&PostParams::default(), &secret("right", &registry, PASSWORD)).await.unwrap();
    secrets.create(&PostParams::default(), &secret("wrong", &registry, "guessed")).await.unwrap();
    for (name, image, secret, said) in [
        ("nobody", &image, None, "no basic auth credentials"),
        ("liar", &image, Some("wrong"), "unauthorized: authentication required"),
        ("dreamer", &none, Some("right"), "manifest unknown: manifest unknown"),
    ] {
        refused_pod(&lab, name, image, secret, said).await;
    }
    let mut spec = pod_of(&image, "Always");
    // Of several the first that is accepted counts.
    spec["imagePullSecrets"] = json!([{"name": "wrong"}, {"name": "right"}]);
    lab.create("friend", spec).await;
    lab.until("friend", "it runs", api::pods::is_ready).await;

    // Now it is here, for those who have the password.
    lab.create("guest", pod_of(&image, "IfNotPresent")).await;
    assert!(until_waits(&lab, "guest", "ErrImagePull").await.contains("no basic auth credentials"));
    lab.create("blind", pod_of(&image, "Never")).await;
    until_waits(&lab, "blind", "ErrImageNeverPull").await;
    lab.delete("guest").await;
    registry.asked();
    let mut spec = pod_of(&image, "IfNotPresent");
    spec["imagePullSecrets"] = json!([{"name": "right"}]);
    lab.create("kin", spec).await;
    lab.until("kin", "it runs", api::pods::is_ready).await;
    assert_eq!(registry.asked(), [""; 0], "who is known is not asked for again");

    let accounts: Api<ServiceAccount> = Api::default_namespaced(lab.boxes.client());
    let patch = Patch::Merge(json!({"imagePullSecrets": [{"name": "right"}]}));
    accounts.patch("default", &PatchParams::default(), &patch).await.unwrap();
    lab.create("member", pod_of(&image, "Always")).await;
    lab.until("member", "it runs with the secret of its account", api::pods::is_ready).await;
    for pod in ["nobody", "liar", "dreamer", "friend", "blind", "kin", "member"] {
        lab.delete(pod).await;
    }
    lab.stop().await;
}

/// A pod whose image is refused: what its status and its events say, at once and while it waits.
async fn refused_pod(lab: &Lab, name: &str, image: &str, secret: Option<&str>, said: &str) {
    let mut spec = pod_of(image, "Always");
    spec["imagePullSecrets"] = json!(secret.map(|name| json!({"name": name})).into_iter().collect::<Vec<_>>());
    lab.create(name, spec).await;
    let at_once = until_waits(lab, name, "ErrImagePull").await;
    assert!(at_once.starts_with("Error response from daemon: ") && at_once.contains(said), "{name}: {at_once}");
    let later = until_waits(lab, name, "ImagePullBackOff").await;
    assert_eq!(later, format!("Back-off pulling image \"{image}\": ErrImagePull: {at_once}"));
    let expected = [
        ("Pulling", format!("Pulling image \"{image}\"")),
        ("Failed", format!("Failed to pull image \"{image}\": {at_once}")),
        ("Failed", "Error: ErrImagePull".to_owned()),
        ("BackOff", format!("Back-off pulling image \"{image}\"")),
        ("Failed", "Error: ImagePullBackOff".to_owned()),
    ];
    let all_told = |events: &[Arc<Event>]| {
        let of_pod: Vec<&Arc<Event>> =
            events.iter().filter(|event| event.involved_object.name.as_deref() == Some(name)).collect();
        expected.iter().all(|(reason, message)| {
            let same = |event: &&&Arc<Event>| {
                event.reason.as_deref() == Some(*reason) && event.message.as_deref() == Some(message)
            };
            of_pod.iter().find(same).is_some()
        })
    };
    until::<Event>(&lab.boxes.client(), "the events", "", all_told).await.unwrap();
}
