use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde_json::json;

use super::*;
use crate::env::{NodeResources, Objects};
use crate::tokens::{Token, Wanted};

struct Fixture {
    dir: tempfile::TempDir,
    pod: Pod,
    objects: Objects,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = tear_down(self.dir.path(), "u1");
    }
}

impl Fixture {
    fn new(volume: serde_json::Value) -> Fixture {
        let pod = json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u1", "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c"}], "volumes": [volume]}
        });
        let objects = Objects {
            config_maps: [("cm".into(), Some(config_map(&[("one", "1"), ("two", "2")])))].into(),
            secrets: [("sec".into(), Some(Arc::new(secret())))].into(),
            tokens: [(wanted("vault"), Arc::new(token()))].into(),
            claims: Claims::new(),
        };
        Fixture { dir: tempfile::tempdir().unwrap(), pod: serde_json::from_value(pod).unwrap(), objects }
    }

    fn set_up(&self) -> Result<(), Error> {
        let ip = "10.0.0.1".parse().unwrap();
        let node =
            NodeResources { ip, milli_cpu: 1000, memory: 1 << 30, ephemeral_storage: 0, machine_memory: 2 << 30 };
        let (pod, objects) = (&self.pod, &self.objects);
        set_up(self.dir.path(), &Sources { pod, objects, services: &[], pod_ip: None, node: &node })
    }

    fn path(&self) -> PathBuf {
        let volume = &self.pod.spec.as_ref().unwrap().volumes.as_ref().unwrap()[0];
        volume_path(self.dir.path(), "u1", volume, &self.objects.claims)
    }

    fn files(&self) -> BTreeMap<String, String> {
        let entries = fs::read_dir(self.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let visible = entries.filter(|name| !name.starts_with(".."));
        visible.map(|name| (name.clone(), fs::read_to_string(self.path().join(&name)).unwrap_or_default())).collect()
    }
}

fn config_map(data: &[(&str, &str)]) -> Arc<ConfigMap> {
    let data = data.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Arc::new(ConfigMap { data: Some(data), ..Default::default() })
}

fn secret() -> Secret {
    Secret { data: Some([("pw".to_owned(), ByteString(b"hush".to_vec()))].into()), ..Default::default() }
}

fn wanted(audience: &str) -> Wanted {
    Wanted { audience: audience.to_owned(), expiration_seconds: 600 }
}

fn token() -> Token {
    let never = jiff::Timestamp::MAX;
    Token { text: "tok".to_owned(), refresh_at: never, expires_at: never }
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn config_map_volume_follows_its_object_atomically() {
    let mut fixture = Fixture::new(json!({"name": "v", "configMap": {"name": "cm"}}));
    fixture.set_up().unwrap();
    assert_eq!(fixture.files(), map(&[("one", "1"), ("two", "2")]));
    let before = fs::read_link(fixture.path().join("..data")).unwrap();
    fixture.set_up().unwrap();
    assert_eq!(fs::read_link(fixture.path().join("..data")).unwrap(), before, "unchanged files are left alone");

    fixture.objects.config_maps.insert("cm".into(), Some(config_map(&[("one", "new"), ("three", "3")])));
    fixture.set_up().unwrap();
    assert_eq!(fixture.files(), map(&[("one", "new"), ("three", "3")]));
    assert!(!fixture.path().join(before).exists(), "the old files are gone");
}

#[test]
fn items_choose_paths_and_exact_modes() {
    let fixture = Fixture::new(json!({"name": "v", "configMap": {"name": "cm", "defaultMode": 0o606, "items": [
        {"key": "one", "path": "deep/er/file"}, {"key": "two", "path": "t", "mode": 0o777}]}}));
    let old = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let made = fixture.set_up();
    nix::sys::stat::umask(old);
    made.unwrap();
    assert_eq!(mode(&fixture.path().join("deep/er/file")), 0o606);
    assert_eq!(mode(&fixture.path().join("t")), 0o777);
}

#[test]
fn missing_objects_and_keys_are_named_unless_optional() {
    for (volume, expected) in [
        (json!({"name": "v", "configMap": {"name": "no"}}), Some("configmap \"no\" not found")),
        (json!({"name": "v", "secret": {"secretName": "no"}}), Some("secret \"no\" not found")),
        (json!({"name": "v", "configMap": {"name": "no", "optional": true}}), None),
        (
            json!({"name": "v", "configMap": {"name": "cm", "items": [{"key": "k", "path": "p"}]}}),
            Some("references non-existent config key: k"),
        ),
        (
            json!({"name": "v", "iscsi": {"iqn": "i", "lun": 0, "targetPortal": "t"}}),
            Some("no volume plugin matched for iscsi"),
        ),
        (
            json!({"name": "v", "configMap": {"name": "cm", "items": [{"key": "one", "path": "../../etc/x"}]}}),
            Some("invalid path: ../../etc/x"),
        ),
    ] {
        let result = Fixture::new(volume.clone()).set_up();
        match expected {
            None => result.unwrap(),
            Some(expected) => {
                let error = result.unwrap_err().to_string();
                let prefix = "MountVolume.SetUp failed for volume \"v\" : ";
                assert_eq!(error, format!("{prefix}{expected}"), "{volume}");
            }
        }
    }
}

#[test]
fn downward_volume_holds_the_pods_own_fields() {
    let fixture = Fixture::new(json!({"name": "v", "downwardAPI": {"items": [
        {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}},
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}));
    fixture.set_up().unwrap();
    assert_eq!(fixture.files(), map(&[("name", "p"), ("labels", "a=\"b\"")]));
}

#[test]
fn a_token_belongs_to_the_one_user_of_the_pod() {
    if !is_root() {
        return;
    }
    let token = json!({"serviceAccountToken": {"path": "t", "audience": "vault", "expirationSeconds": 600}});
    let volume = json!({"name": "v", "projected": {"sources": [token], "defaultMode": 0o644}});
    let user = |user: i64| json!({"runAsUser": user});
    let cases = [
        ("nobody says who they are", json!({}), json!({}), (0, 0, 0o644)),
        ("the pod does", user(7), json!({}), (7, 0, 0o600)),
        ("all containers do", json!({}), user(7), (7, 0, 0o600)),
        ("a container says another", user(7), user(8), (8, 0, 0o600)),
        ("the pod has a group", json!({"fsGroup": 9}), json!({}), (0, 9, 0o640)),
        ("the pod has both", json!({"fsGroup": 9, "runAsUser": 7}), json!({}), (7, 9, 0o640)),
    ];
    for (sentence, of_pod, of_container, expected) in cases {
        let mut fixture = Fixture::new(volume.clone());
        let spec = fixture.pod.spec.as_mut().unwrap();
        spec.security_context = serde_json::from_value(of_pod).unwrap();
        spec.containers[0].security_context = serde_json::from_value(of_container).unwrap();
        fixture.set_up().unwrap();
        let file = fs::metadata(fixture.path().join("t")).unwrap();
        let found = (file.uid(), file.gid(), file.permissions().mode() & 0o7777);
        assert_eq!((found, fixture.files()), (expected, map(&[("t", "tok")])), "{sentence}");
    }
}

#[test]
fn empty_dir_keeps_its_files_and_is_open_to_all() {
    let fixture = Fixture::new(json!({"name": "v", "emptyDir": {}}));
    fixture.set_up().unwrap();
    fs::write(fixture.path().join("kept"), "x").unwrap();
    fixture.set_up().unwrap();
    assert_eq!((mode(&fixture.path()), fixture.files()), (0o777, map(&[("kept", "x")])));
    tear_down(fixture.dir.path(), "u1").unwrap();
    assert_eq!(pods_on_disk(fixture.dir.path()), Vec::<String>::new());
}

#[test]
fn secrets_and_memory_volumes_live_on_one_tmpfs_each() {
    if !is_root() {
        return;
    }
    for volume in [
        json!({"name": "v", "secret": {"secretName": "sec"}}),
        json!({"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
    ] {
        let fixture = Fixture::new(volume);
        fixture.set_up().unwrap();
        fixture.set_up().unwrap();
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounted = table.lines().filter(|line| line.contains(fixture.path().to_str().unwrap()));
        assert_eq!(mounted.filter(|line| line.contains(" - tmpfs ")).count(), 1);
        tear_down(fixture.dir.path(), "u1").unwrap();
        assert!(!fixture.path().exists());
    }
}

#[test]
fn an_unknown_medium_is_named() {
    for medium in ["HugePages", "HugePages-2Mi", "memory"] {
        let fixture = Fixture::new(json!({"name": "v", "emptyDir": {"medium": medium}}));
        let expected = format!("MountVolume.SetUp failed for volume \"v\" : unknown storage medium \"{medium}\"");
        assert_eq!(fixture.set_up().unwrap_err().to_string(), expected);
        assert!(!fixture.path().exists(), "no directory on disk takes its place");
    }
}

#[test]
fn memory_is_bounded_by_node_pod_and_volume() {
    let limits = |memory: &str| json!({"limits": {"memory": memory}});
    for (sentence, size, containers, inits, expected) in [
        ("the node", None, json!([{"name": "c"}]), json!([]), 1000),
        ("the volume", Some("100"), json!([{"name": "c", "resources": limits("900")}]), json!([]), 100),
        ("the pod", None, json!([{"resources": limits("200")}, {"resources": limits("300")}]), json!([]), 500),
        ("a pod with more than the node", Some("2000"), json!([{"resources": limits("3000")}]), json!([]), 1000),
        ("one container has no limit", None, json!([{"resources": limits("200")}, {}]), json!([]), 1000),
        (
            "one that initializes has more",
            None,
            json!([{"resources": limits("200")}]),
            json!([{"resources": limits("600")}]),
            600,
        ),
        ("one that initializes has none", None, json!([{"resources": limits("200")}]), json!([{}]), 1000),
        ("no size is no bound", Some("0"), json!([{}]), json!([]), 1000),
    ] {
        let named = |containers: serde_json::Value| -> serde_json::Value {
            let name = |mut container: serde_json::Value| {
                container["name"] = json!("c");
                container
            };
            containers.as_array().unwrap().iter().cloned().map(name).collect()
        };
        let spec = json!({"containers": named(containers), "initContainers": named(inits)});
        let pod: Pod = serde_json::from_value(json!({ "spec": spec })).unwrap();
        let source = serde_json::from_value(json!({"medium": "Memory", "sizeLimit": size})).unwrap();
        assert_eq!(memory_size(&source, &pod, 1000), expected, "{sentence}");
    }
}

#[test]
fn tear_down_never_deletes_what_is_mounted() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(json!({"name": "v", "emptyDir": {}}));
    fixture.set_up().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("precious"), "x").unwrap();
    let inside = fixture.path().join("mounted");
    fs::create_dir(&inside).unwrap();
    let flags = nix::mount::MsFlags::MS_BIND;
    nix::mount::mount(Some(outside.path()), &inside, None::<&str>, flags, None::<&str>).unwrap();
    tear_down(fixture.dir.path(), "u1").unwrap();
    assert!(outside.path().join("precious").exists());
    assert!(!fixture.path().exists());
}

#[test]
fn sub_paths_cannot_leave_their_volume() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(json!({"name": "v", "emptyDir": {}}));
    fixture.set_up().unwrap();
    std::os::unix::fs::symlink("/etc", fixture.path().join("out")).unwrap();
    let bind = |sub_path: &str, create| {
        subpath::bind(
            &fixture.path(),
            sub_path,
            &pod_dir(fixture.dir.path(), "u1").join("volume-subpaths/v/c/0"),
            create,
        )
    };
    assert!(bind("out", false).is_err());
    assert!(bind("out/passwd", true).is_err());
    assert!(bind("../x", true).is_err());
    let place = bind("a/b", true).unwrap();
    fs::write(place.join("file"), "x").unwrap();
    assert!(fixture.path().join("a/b/file").exists());
}

/// A container that changes a directory of its volume for a link to somewhere else, and back, while it is looked at.
#[test]
fn a_link_that_takes_a_directorys_place_leads_nowhere() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(json!({"name": "v", "emptyDir": {}}));
    fixture.set_up().unwrap();
    let (outside, volume) = (tempfile::tempdir().unwrap(), fixture.path());
    fs::create_dir(outside.path().join("b")).unwrap();
    fs::write(outside.path().join("b/secret"), "").unwrap();
    fs::create_dir_all(volume.join("a/b")).unwrap();
    std::os::unix::fs::symlink(outside.path(), volume.join("link")).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let place = pod_dir(fixture.dir.path(), "u1").join("volume-subpaths/v/c/0");
    let (mut bound, mut escaped) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
            let (link, dir) = (volume.join("link"), volume.join("a"));
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = renameat2(AT_FDCWD, &link, AT_FDCWD, &dir, RenameFlags::RENAME_EXCHANGE);
            }
        });
        for number in 0..2000 {
            if let Ok(place) = subpath::bind(&volume, "a/b", &place, number % 2 == 0) {
                bound += 1;
                escaped += usize::from(place.join("secret").exists());
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(bound > 0 && escaped == 0, "{escaped} of {bound} led out of the volume");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "nothing was made outside either");
    tear_down(fixture.dir.path(), "u1").unwrap();
    assert!(outside.path().join("b/secret").exists());
}

#[test]
fn claims_lead_to_the_places_of_their_volumes() {
    if !is_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("file"), "x").unwrap();
    let claim = |spec: serde_json::Value| {
        let volume = json!({"metadata": {"name": "pv"}, "spec": spec});
        let mut fixture = Fixture::new(json!({"name": "v", "persistentVolumeClaim": {"claimName": "data"}}));
        fixture.objects.claims.insert("data".into(), Arc::new(serde_json::from_value(volume).unwrap()));
        fixture.pod.spec.as_mut().unwrap().security_context = serde_json::from_value(json!({"fsGroup": 4242})).unwrap();
        fixture
    };
    let local = claim(json!({"local": {"path": place.path()}}));
    local.set_up().unwrap();
    assert_eq!(local.path(), place.path());
    assert_eq!(fs::metadata(place.path().join("file")).unwrap().gid(), 4242);
    tear_down(local.dir.path(), "u1").unwrap();
    assert!(place.path().join("file").exists(), "what a claim holds stays");

    let host = claim(json!({"hostPath": {"path": place.path(), "type": "File"}}));
    assert!(host.set_up().unwrap_err().to_string().contains("hostPath type check failed"));
    let missing = claim(json!({"local": {"path": "/no/such/path"}}));
    let error = missing.set_up().unwrap_err().to_string();
    assert_eq!(error, "MountVolume.SetUp failed for volume \"pv\" : path \"/no/such/path\" does not exist");
    let other = claim(json!({"iscsi": {"iqn": "i", "lun": 0, "targetPortal": "t"}}));
    assert!(other.set_up().unwrap_err().to_string().ends_with("no volume plugin matched for iscsi"));
    let unbound = Fixture::new(json!({"name": "v", "persistentVolumeClaim": {"claimName": "data"}}));
    assert!(unbound.set_up().unwrap_err().to_string().ends_with("PVC is not bound"));
}

#[test]
fn volumes_from_elsewhere_are_named_with_their_places() {
    let fixture = Fixture::new(json!({"name": "v", "nfs": {"server": "nas", "path": "/e", "readOnly": true}}));
    fixture.set_up().unwrap();
    let found = elsewhere(fixture.dir.path(), &fixture.pod, &Claims::new());
    let export = nfs::Export { server: "nas".into(), path: "/e".into(), read_only: true, options: Vec::new() };
    assert_eq!(found, [("v".to_owned(), Elsewhere::Nfs(export), fixture.path())]);
    let fixture = Fixture::new(json!({"name": "v", "image": {"reference": "app:1", "pullPolicy": "Never"}}));
    let found = elsewhere(fixture.dir.path(), &fixture.pod, &Claims::new());
    assert_eq!(found[0].1, Elsewhere::Image("app:1".into(), Some("Never".into())));
    assert!(fixture.path().ends_with("kubernetes.io~image/v"));
}
