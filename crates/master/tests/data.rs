//! Backup and restore, of a master that runs and of one that does not.
#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};

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
