//! Join tokens as `kctl` makes them, shows them and takes them back.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use kctl::{Cli, Console};
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::wait::await_condition;
use master::{Master, Options};

#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs `kctl token ...` as the admin.
async fn kctl(data_dir: &Path, arguments: &[&str]) -> Result<String, String> {
    let kubeconfig = data_dir.join("admin.kubeconfig");
    let as_admin = ["--kubeconfig", kubeconfig.to_str().unwrap()];
    let flags = ["kctl", "token"].iter().chain(arguments).chain(&as_admin);
    let cli = Cli::try_parse_from(flags).map_err(|error| error.to_string())?;
    let said = Said::default();
    let (out, err) = (Box::new(said.clone()), Box::new(std::io::sink()));
    let mut console = Console { out, err, input: Box::new(std::io::empty()) };
    kctl::run(cli, &mut console).await.map_err(|error| error.to_string())?;
    let text = said.0.lock().unwrap().clone();
    Ok(String::from_utf8(text).unwrap())
}

/// What the server says to who comes with a token.
async fn answer_to(master: &Master, data_dir: &Path, bearer: &str) -> String {
    let url = format!("https://{}", master.address());
    let mut config = kube::Config::new(url.parse().unwrap());
    let kubeconfig = kube::config::Kubeconfig::read_from(data_dir.join("admin.kubeconfig")).unwrap();
    let admin = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    config.root_cert = admin.root_cert;
    config.auth_info.token = Some(bearer.to_owned().into());
    let client = kube::Client::try_from(config).unwrap();
    let request = http::Request::get("/api/v1/nodes").body(Vec::new()).unwrap();
    client.request_text(request).await.map_or_else(|error| format!("{error:?}"), |_| "welcome".to_owned())
}

/// A token names the CA as every namespace is told it; that is done a moment after the start.
async fn wait_for_root_ca(data_dir: &Path) {
    let kubeconfig = kube::config::Kubeconfig::read_from(data_dir.join("admin.kubeconfig")).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    let client = kube::Client::try_from(config).unwrap();
    let config_maps = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "ConfigMap"));
    let api: Api<DynamicObject> = Api::namespaced_with(client, "kube-system", &config_maps);
    let published = await_condition(api, "kube-root-ca.crt", |found: Option<&DynamicObject>| found.is_some());
    tokio::time::timeout(Duration::from_secs(30), published).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_lets_in_until_it_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let flags =
        ["master", "--bind-address", "127.0.0.1", "--secure-port", "0", "--data-dir", dir.path().to_str().unwrap()];
    let options = Options::try_parse_from(flags).unwrap();
    let master = Master::start(options.clone()).await.unwrap();
    wait_for_root_ca(dir.path()).await;
    let at_start = master.join_command(&options).await.unwrap();

    let line =
        kctl(dir.path(), &["create", "--print-join-command", "--ttl", "2h", "--description", "box 2"]).await.unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[..4], ["minion", "--server", format!("https://{}", master.address()).as_str(), "--token"]);
    let parts: Vec<&str> = words[4].split('.').collect();
    assert!(at_start.contains(parts[2]), "{line} pins the CA as {at_start}");
    let bearer = format!("{}.{}", parts[0], parts[1]);
    let listed = kctl(dir.path(), &["list"]).await.unwrap();
    assert!(
        listed.lines().any(|row| row.starts_with(&bearer) && row.contains("1h") && row.contains("box 2")),
        "{listed}"
    );
    let first = at_start.split("--token ").nth(1).unwrap().split('.').next().unwrap().to_owned();
    let day = |row: &str| row.starts_with(&first) && row.contains("   23h ") && row.contains("made at the first start");
    assert!(listed.lines().any(day), "the token of the first start ends after a day: {listed}");

    let known = answer_to(&master, dir.path(), &bearer).await;
    assert!(
        known.contains(&format!("system:bootstrap:{}", parts[0])),
        "who it is, and that it may not do this: {known}"
    );
    let deleted = kctl(dir.path(), &["delete", words[4]]).await.unwrap();
    assert_eq!(deleted, format!("bootstrap token {:?} deleted\n", parts[0]));
    let unknown = answer_to(&master, dir.path(), &bearer).await;
    assert!(unknown.contains("Unauthorized"), "{unknown}");

    for (arguments, reason) in [
        (&["delete", parts[0]][..], "not found"),
        (&["delete", "../x"], "neither a token nor the id of one"),
        (&["create", "short.token"], "must be of the form"),
        (&["create", "--ttl", "soon"], "invalid --ttl"),
    ] {
        let refused = kctl(dir.path(), arguments).await.unwrap_err();
        assert!(refused.contains(reason), "{arguments:?}: {refused}");
    }
    assert!(master.join_command(&options).await.unwrap().contains(&first), "as long as it counts");
    kctl(dir.path(), &["delete", &first]).await.unwrap();
    assert_eq!(master.join_command(&options).await, None, "a line that lets nobody in");
    master.stop().await;
}
