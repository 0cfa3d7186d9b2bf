//! Backup and restore, of a master that runs and of one that does not.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use apiserver::User;
use clap::Parser;
use master::{DataCommand, Master, Options};

async fn start(data_dir: &Path) -> Master {
    let flags = ["--bind-address", "127.0.0.1", "--secure-port", "0", "--components", "apiserver"];
    let data_dir = data_dir.to_str().unwrap();
    let options = Options::try_parse_from(["master", "--data-dir", data_dir].into_iter().chain(flags)).unwrap();
    Master::start(options).await.unwrap()
}

/// Runs a command; what it said, or why it refused.
async fn run(arguments: &[&str]) -> Result<String, String> {
    let command = DataCommand::try_parse_from(["master"].iter().chain(arguments)).map_err(|e| e.to_string())?;
    command.run().await.map_err(|error| format!("{error:#}"))
}

/// A request as the admin; the answer's text, or the Status it was refused with.
async fn ask(master: &Master, method: &str, path: &str, body: &str) -> Result<String, String> {
    let client = kube::Client::new(master.api_server().unwrap().service_as(User::master("admin")), "default");
    let request = http::Request::builder().method(method).uri(path).header("Content-Type", "application/json");
    client.request_text(request.body(body.as_bytes().to_vec()).unwrap()).await.map_err(|error| format!("{error:?}"))
}

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn create(master: &Master, name: &str) {
    let body = format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}"}}}}"#);
    ask(master, "POST", CONFIG_MAPS, &body).await.unwrap();
}

/// The list's revision, and the names in it.
async fn list(master: &Master) -> (i64, Vec<String>) {
    let text = ask(master, "GET", CONFIG_MAPS, "").await.unwrap();
    let after = |key: &str| {
        let rests = text.split(&format!("\"{key}\":\"")).skip(1).map(str::to_owned).collect::<Vec<_>>();
        rests.into_iter().map(|rest| rest.split('"').next().unwrap().to_owned())
    };
    let names = after("name").filter(|name| name.starts_with("map-")).collect();
    (after("resourceVersion").next().unwrap().parse().unwrap(), names)
}

/// An etcd of its own, ended when dropped.
struct Etcd {
    child: Child,
    url: String,
    _dir: tempfile::TempDir,
}

impl Etcd {
    /// `None` where it is not installed; in CI that is a failure. A port found free may be taken by the time etcd binds it.
    fn start() -> Option<Etcd> {
        if Command::new("etcd").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "etcd is not installed");
            return None;
        }
        Some((0..10).find_map(|_| Etcd::try_start()).expect("etcd starts"))
    }

    fn try_start() -> Option<Etcd> {
        let dir = tempfile::tempdir().unwrap();
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let [url, peer] = [free(), free()].map(|address| format!("http://{address}"));
        let mut child = Command::new("etcd")
            .args(["--name", "test", "--logger", "zap", "--log-outputs", "stderr", "--data-dir"])
            .arg(dir.path())
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url, "--listen-peer-urls", &peer])
            .args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("test={peer}")])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let is_ready = lines.any(|line| line.contains("serving") && line.contains("client"));
        std::thread::spawn(move || lines.for_each(drop));
        let etcd = Etcd { child, url, _dir: dir };
        is_ready.then_some(etcd)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_running_master_becomes_another_master_with_the_same_identity() {
    let place = Place { dir: tempfile::tempdir().unwrap() };
    let (old, new) = (place.text("old"), place.text("new"));
    let master = start(&place.path("old")).await;
    create(&master, "map-1").await;
    let backup = place.text("backup.db");
    let said = run(&["backup", &backup, "--data-dir", &old, "--pki"]).await.unwrap();
    assert!(said.contains("keep it as secret as those"), "{said}");
    create(&master, "map-2").await;
    let (seen, names) = list(&master).await;
    assert_eq!(names, ["map-1", "map-2"]);
    let refused = run(&["restore", &backup, "--data-dir", &old, "--force"]).await.unwrap_err();
    assert!(refused.contains("a master runs on"), "{refused}");
    master.stop().await;

    let said = run(&["restore", &backup, "--data-dir", &new]).await.unwrap();
    assert!(said.contains("revisions go on at 1000000"), "{said}");
    let read = |name: &str| std::fs::read(place.path(name)).unwrap();
    for key in ["pki/ca.crt", "pki/ca.key", "pki/sa.key"] {
        assert_eq!(read(&format!("old/{key}")), read(&format!("new/{key}")), "{key}");
    }
    let master = start(&place.path("new")).await;
    let (revision, names) = list(&master).await;
    assert_eq!(names, ["map-1"], "what was written after the backup is gone");
    assert!(revision > seen + 900_000_000, "{revision} after {seen}");
    let watch = format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1&resourceVersion={seen}");
    let told = ask(&master, "GET", &watch, "").await;
    let told = told.unwrap_or_else(|error| error);
    assert!(told.contains("410") && told.contains("Expired"), "who saw what is gone lists again: {told}");
    create(&master, "map-3").await;
    master.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_there_is_lost_by_restoring() {
    let place = Place { dir: tempfile::tempdir().unwrap() };
    let data = place.text("data");
    let backup = place.text("backup.db");
    let nothing = run(&["backup", &backup, "--data-dir", &data]).await.unwrap_err();
    assert!(nothing.contains("holds no embedded store") && !place.path("backup.db").exists(), "{nothing}");
    let master = start(&place.path("data")).await;
    create(&master, "map-1").await;
    master.stop().await;
    let said = run(&["backup", &backup, "--data-dir", &data]).await.unwrap();
    assert!(said.contains("without the cluster's CA"), "{said}");
    let again = run(&["backup", &backup, "--data-dir", &data]).await.unwrap_err();
    assert!(again.contains("exists already"), "{again}");
    let there = run(&["restore", &backup, "--data-dir", &data]).await.unwrap_err();
    assert!(there.contains("holds a store already") && there.contains("--force"), "{there}");

    let damaged = place.text("damaged.db");
    let mut bytes = std::fs::read(&backup).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let refused = run(&["restore", &damaged, "--data-dir", &data, "--force"]).await.unwrap_err();
    assert!(refused.contains("it is damaged; nothing was changed"), "{refused}");

    run(&["restore", &backup, "--data-dir", &data, "--force"]).await.unwrap();
    let kept = std::fs::read_dir(place.path("data")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(kept.filter(|name| name.to_str().unwrap().starts_with("store.before-")).count(), 1);
    let master = start(&place.path("data")).await;
    assert_eq!(list(&master).await.1, ["map-1"]);
    master.stop().await;
}

/// The files in a folder and what is in them.
fn files(dir: &Path) -> BTreeMap<std::ffi::OsString, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_stopped_master_changes_no_byte_of_it() {
    let place = Place { dir: tempfile::tempdir().unwrap() };
    let master = start(&place.path("data")).await;
    create(&master, "map-1").await;
    master.stop().await;
    let before = files(&place.path("data/store"));
    run(&["backup", &place.text("backup.db"), "--data-dir", &place.text("data"), "--pki"]).await.unwrap();
    assert!(files(&place.path("data/store")) == before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_restored_under_a_master_that_keeps_its_state_in_an_etcd() {
    let place = Place { dir: tempfile::tempdir().unwrap() };
    let other = start(&place.path("other")).await;
    create(&other, "map-1").await;
    let backup = place.text("backup.db");
    run(&["backup", &backup, "--data-dir", &place.text("other"), "--pki"]).await.unwrap();
    let Some(etcd) = Etcd::start() else { return other.stop().await };
    let flags = ["--bind-address", "127.0.0.1", "--secure-port", "0", "--components", "apiserver", "--etcd-servers"];
    let data = place.text("data");
    let flags = ["master", "--data-dir", &data].into_iter().chain(flags).chain([etcd.url.as_str()]);
    let master = Master::start(Options::try_parse_from(flags).unwrap()).await.unwrap();
    let keys = files(&place.path("data/pki"));
    let refused = run(&["restore", &backup, "--data-dir", &data, "--force"]).await.unwrap_err();
    assert!(refused.contains(&format!("a master runs on {data}; stop it first")), "{refused}");
    assert!(files(&place.path("data/pki")) == keys && !place.path("data/store").exists());
    master.stop().await;
    run(&["restore", &backup, "--data-dir", &data, "--force"]).await.unwrap();
    assert!(files(&place.path("data/pki")) != keys && place.path("data/store/store.redb").exists());
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_was_decided_is_done_by_the_next_start() {
    let place = Place { dir: tempfile::tempdir().unwrap() };
    let backup = place.text("backup.db");
    let other = start(&place.path("other")).await;
    create(&other, "map-restored").await;
    run(&["backup", &backup, "--data-dir", &place.text("other"), "--pki"]).await.unwrap();
    other.stop().await;
    let master = start(&place.path("data")).await;
    create(&master, "map-old").await;
    master.stop().await;
    // As far as a restore came that was killed right after it was decided: all of it is there, and nothing in its place.
    run(&["restore", &backup, "--data-dir", &place.text("restored")]).await.unwrap();
    let restoring = place.path("data/restoring");
    std::fs::create_dir_all(restoring.join("pki")).unwrap();
    for name in ["pki/ca.crt", "pki/ca.key", "pki/sa.key", "store"] {
        std::fs::rename(place.path("restored").join(name), restoring.join(name)).unwrap();
    }
    let master = start(&place.path("data")).await;
    assert_eq!(list(&master).await.1, ["map-restored"]);
    for name in ["pki/ca.crt", "pki/ca.key", "pki/sa.key"] {
        let of = |dir: &str| std::fs::read(place.path(dir).join(name)).unwrap();
        assert!(of("data") == of("other"), "{name}");
    }
    master.stop().await;
    assert!(!restoring.exists());
    // And one that was not decided is no restore at all.
    std::fs::create_dir_all(place.path("data/restoring.unfinished/store")).unwrap();
    let master = start(&place.path("data")).await;
    assert_eq!(list(&master).await.1, ["map-restored"]);
    master.stop().await;
}

/// A package starts its master at once; the keys of another cluster are taken in all the same, until it is used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_taken_in_by_a_master_that_was_started_but_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second, file] = ["first", "second", "keys"].map(|name| dir.path().join(name));
    start(&first).await.stop().await;
    let [at_first, at_second, in_file] = [&first, &second, &file].map(|path| path.to_str().unwrap());
    run(&["export-keys", in_file, "--data-dir", at_first]).await.unwrap();
    let import = ["import-keys", in_file, "--data-dir", at_second];
    let read = |dir: &Path, name: &str| std::fs::read_to_string(dir.join(name)).unwrap();

    let running = start(&second).await;
    let own = read(&second, "pki/ca.crt");
    let refused = run(&import).await.unwrap_err();
    assert!(refused.contains(&format!("a master runs on {at_second}; stop it first")), "{refused}");
    create(&running, "map-mine").await;
    running.stop().await;
    let before = files(&second.join("store"));
    let refused = run(&import).await.unwrap_err();
    assert!(refused.contains("it has /registry/configmaps/default/map-mine. Nothing was changed"), "{refused}");
    assert!(files(&second.join("store")) == before, "not a byte");
    assert_eq!(read(&second, "pki/ca.crt"), own);

    let running = start(&second).await;
    ask(&running, "DELETE", &format!("{CONFIG_MAPS}/map-mine"), "").await.unwrap();
    running.stop().await;
    let said = run(&import).await.unwrap();
    assert!(said.contains("kept beside them"), "{said}");
    for name in ["pki/ca.crt", "pki/ca.key", "pki/sa.key", "join-token"] {
        assert_eq!(read(&first, name), read(&second, name), "{name}");
    }
    let kept = std::fs::read_dir(second.join("pki")).unwrap().map(|entry| entry.unwrap().path());
    let kept = kept.filter(|path| path.to_str().unwrap().contains("ca.crt.before-")).map(std::fs::read_to_string);
    assert_eq!(kept.map(Result::unwrap).collect::<Vec<_>>(), [own]);
    // The store that was not used is no reason to take in those of a third cluster.
    let [third, file] = ["third", "more-keys"].map(|name| dir.path().join(name));
    start(&third).await.stop().await;
    let [at_third, in_file] = [&third, &file].map(|path| path.to_str().unwrap());
    run(&["export-keys", in_file, "--data-dir", at_third]).await.unwrap();
    let refused = run(&["import-keys", in_file, "--data-dir", at_second]).await.unwrap_err();
    assert!(refused.contains("ca.crt is there already, and another one: nothing was changed"), "{refused}");

    let running = start(&second).await;
    assert_eq!(running.api_server().unwrap().ca_certificate(), read(&first, "pki/ca.crt"));
    let tokens = ask(&running, "GET", "/api/v1/namespaces/kube-system/secrets", "").await.unwrap();
    let token = read(&first, "join-token").split('.').next().unwrap().to_owned();
    assert!(tokens.contains(&format!("bootstrap-token-{token}")), "who has the cluster's token may join: {tokens}");
    running.stop().await;
    // As far as an import came that was cut short before the store was put aside.
    for name in ["pki/ca.crt", "pki/ca.key", "pki/sa.key", "join-token"] {
        std::fs::remove_file(second.join(name)).unwrap();
    }
    run(&import).await.unwrap();
    assert!(!second.join("store").exists());
    run(&import).await.unwrap();
}
