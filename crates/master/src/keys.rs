//! `master export-keys` and `master import-keys`: what a second master has to have of the first one before it starts, in
//! one file and out of it, with every check in between.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use api::well_known::{NAMESPACE_NODE_LEASE, NAMESPACE_PUBLIC, NAMESPACE_SYSTEM};
use clap::Args;
use serde_json::{Map, Value};
use store::embedded::Embedded;
use store::etcd::snapshot::{self, Attached};
use store::{ListRequest, Store};

use crate::data::has_store;
use crate::place::{self, KEYS, STORE};
use crate::restore::{give, is_there, write_key};

/// What minions of the first start join with: the same at every master.
const JOIN_TOKEN: &str = "join-token";
/// The largest file that is read.
const BYTES_MAX: u64 = 1 << 20;
/// What the first start makes with the CA, and the next one makes anew.
const ADMIN: &str = "admin.kubeconfig";
/// Where the objects are in a store.
const REGISTRY: &str = "/registry/";
/// The namespaces that every cluster has.
const NAMESPACES: [&str; 4] = [NAMESPACE_DEFAULT, NAMESPACE_SYSTEM, NAMESPACE_PUBLIC, NAMESPACE_NODE_LEASE];
const NAMESPACE_DEFAULT: &str = "default";
/// What every cluster has in that one.
const IN_DEFAULT: [(&str, &str); 5] = [
    ("configmaps", "kube-root-ca.crt"),
    ("endpoints", "kubernetes"),
    ("endpointslices", "kubernetes"),
    ("serviceaccounts", "default"),
    ("services", "kubernetes"),
];

/// `master export-keys`.
#[derive(Debug, Args)]
pub struct ExportKeys {
    /// The file to write; it must not exist. Whoever has it is everyone in the cluster
    pub file: PathBuf,
    /// The data directory of a master of the cluster
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// `master import-keys`.
#[derive(Debug, Args)]
pub struct ImportKeys {
    /// What "master export-keys" wrote; nobody but its owner may read it
    pub file: PathBuf,
    /// The data directory of the master that shall belong to the cluster
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
}

impl ExportKeys {
    pub(crate) fn run(&self) -> Result<String> {
        let mut keys = Map::new();
        for name in names() {
            let key = snapshot::attach(&self.data_dir, name)?;
            let key = key.with_context(|| format!("{} holds no {name}", self.data_dir.display()))?;
            let text = String::from_utf8(key.content).with_context(|| format!("{name} is no text"))?;
            keys.insert(name.to_owned(), Value::String(text));
        }
        check_ca(&keys)?;
        let file = self.file.display();
        let out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.file);
        let mut out = out.with_context(|| format!("cannot write {file}"))?;
        out.write_all(Value::Object(keys).to_string().as_bytes())?;
        out.sync_all()?;
        Ok(format!(
            "{file} holds the keys of the cluster: bring it to the other master by a way nobody reads, take it in \
                    there (master import-keys), and delete it on both"
        ))
    }
}

impl ImportKeys {
    pub(crate) async fn run(&self) -> Result<String> {
        let keys = self.read()?;
        fs::create_dir_all(&self.data_dir).with_context(|| format!("cannot make {}", self.data_dir.display()))?;
        // Whoever runs the master must be able to read what root brought.
        let (owner, pki) = (fs::metadata(&self.data_dir)?, self.data_dir.join("pki"));
        // Held until they are in their place: a master that starts meanwhile would make its own.
        let mut alone = None;
        for key in &keys {
            let path = self.data_dir.join(&key.name);
            if fs::read(&path).is_ok_and(|there| there != key.content) {
                alone = Some(self.make_room(&path, &owner).await?);
                break;
            }
        }
        fs::create_dir_all(&pki)?;
        fs::set_permissions(&pki, fs::Permissions::from_mode(0o700))?;
        for key in keys.iter().filter(|key| !is_there(&self.data_dir, key)) {
            write_key(&self.data_dir, key)?;
            give(&self.data_dir.join(&key.name), &owner)?;
        }
        give(&pki, &owner)?;
        let kept = if alone.is_some() { "; those that were there are kept beside them" } else { "" };
        Ok(format!("{} holds the keys of the cluster{kept}; delete {}", self.data_dir.display(), self.file.display()))
    }

    /// Puts aside the keys of a first start that nobody has used: a package starts its master at once. `other` is one of
    /// them.
    async fn make_room(&self, other: &Path, owner: &fs::Metadata) -> Result<place::Lock> {
        let (other, store) = (other.display(), self.data_dir.join(STORE));
        ensure!(has_store(&store), "{other} is there already, and another one: nothing was changed");
        let alone = place::alone(&self.data_dir)?;
        let alone = alone.with_context(|| format!("{other} is another one, and its master runs: stop that before"))?;
        let used = first_use(&store).await?;
        give(&store, owner)?;
        if let Some(used) = used {
            bail!(
                "{other} is there already, and another one, of a cluster that is used: it has {used}. Nothing was changed"
            );
        }
        let names: Vec<&str> = names().chain([ADMIN]).collect();
        place::put_aside(&self.data_dir, &names)?;
        Ok(alone)
    }

    /// The keys in the file, if nobody else could read it and they belong together.
    fn read(&self) -> Result<Vec<Attached>> {
        let file = self.file.display();
        let metadata = fs::metadata(&self.file).with_context(|| format!("cannot read {file}"))?;
        let mode = metadata.permissions().mode() & 0o777;
        ensure!(
            mode & 0o077 == 0,
            "{file} may be read by others (mode {mode:o}), who are then everyone in the cluster: if nobody did, chmod 600"
        );
        ensure!(metadata.len() <= BYTES_MAX, "{file} is too large: it holds no keys");
        let text = fs::read_to_string(&self.file).with_context(|| format!("cannot read {file}"))?;
        let Ok(Value::Object(keys)) = serde_json::from_str(&text) else {
            bail!("{file} is not what \"master export-keys\" writes");
        };
        if let Some(unknown) = keys.keys().find(|name| !names().any(|known| known == name.as_str())) {
            bail!("{file} holds {unknown:?}, which is no key of a cluster: nothing was changed");
        }
        check_ca(&keys)?;
        let key = |name: &str| {
            let content = keys.get(name).and_then(Value::as_str).with_context(|| format!("{file} holds no {name}"))?;
            Ok(Attached { name: name.to_owned(), content: content.as_bytes().to_vec() })
        };
        names().map(key).collect()
    }
}

/// The first thing in a store that no first start puts there.
async fn first_use(dir: &Path) -> Result<Option<String>> {
    let store = Embedded::open(dir, store::embedded::Options::default());
    let store = store.with_context(|| format!("cannot read the store in {}", dir.display()))?;
    let all = store.list(ListRequest { prefix: REGISTRY.to_owned(), ..ListRequest::default() }).await;
    store.close();
    Ok(all?.items.into_iter().map(|item| item.key.to_string()).find(|key| is_use(key)))
}

/// Whether the key is of something that a cluster has only when it is used: a node, a pod or what makes pods, a namespace
/// beside those every cluster has and so whatever is in it, something in `default`.
fn is_use(key: &str) -> bool {
    let parts: Vec<&str> = key.strip_prefix(REGISTRY).unwrap_or(key).split('/').collect();
    match parts[..] {
        ["namespaces", name] => !NAMESPACES.contains(&name),
        ["events" | "leases" | "ranges", ..] => false,
        ["nodes" | "pods" | "replicationcontrollers" | "replicasets" | "deployments", ..] => true,
        ["daemonsets" | "statefulsets" | "jobs" | "cronjobs" | "persistentvolumes", ..] => true,
        [resource, NAMESPACE_DEFAULT, name] => !IN_DEFAULT.contains(&(resource, name)),
        _ => false,
    }
}

fn names() -> impl Iterator<Item = &'static str> {
    KEYS.into_iter().chain([JOIN_TOKEN])
}

fn check_ca(keys: &Map<String, Value>) -> Result<()> {
    let text = |name: &str| keys.get(name).and_then(Value::as_str).unwrap_or_default();
    Ok(apiserver::check_ca(text("pki/ca.crt"), text("pki/ca.key"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &std::path::Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    /// The data directory of a master that has started once.
    fn master(dir: &std::path::Path) -> PathBuf {
        let data_dir = dir.join("master");
        fs::create_dir_all(data_dir.join("pki")).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let write = |name: &str, text: &str| fs::write(data_dir.join(name), text).unwrap();
        write("pki/ca.crt", &params.self_signed(&key).unwrap().pem());
        write("pki/ca.key", &key.serialize_pem());
        write("pki/sa.key", &rcgen::KeyPair::generate().unwrap().serialize_pem());
        write("join-token", "abcdef.0123456789abcdef.00");
        data_dir
    }

    #[test]
    fn a_cluster_is_used_when_it_has_what_no_first_start_makes() {
        for (key, expected) in [
            ("namespaces/kube-node-lease", false),
            ("services/default/kubernetes", false),
            ("configmaps/default/kube-root-ca.crt", false),
            ("events/default/kubernetes.17", false),
            ("leases/kube-system/kube-scheduler", false),
            ("clusterroles/edit", false),
            ("secrets/kube-system/bootstrap-token-abcdef", false),
            ("ranges/serviceips/10.96.0.1", false),
            ("namespaces/shop", true),
            ("nodes/box1", true),
            ("pods/kube-system/dns", true),
            ("daemonsets/kube-system/dns", true),
            ("configmaps/default/mine", true),
            ("services/default/web", true),
        ] {
            assert_eq!(is_use(&format!("{REGISTRY}{key}")), expected, "{key}");
        }
    }

    #[tokio::test]
    async fn keys_go_from_one_master_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second, file) = (master(dir.path()), dir.path().join("second"), dir.path().join("keys"));
        let export = ExportKeys { file: file.clone(), data_dir: first.clone() };
        export.run().unwrap();
        assert_eq!(mode(&file), 0o600);
        assert!(export.run().unwrap_err().to_string().contains("cannot write"), "nothing is overwritten");
        let import = ImportKeys { file: file.clone(), data_dir: second.clone() };
        for _ in 0..2 {
            import.run().await.unwrap();
        }
        for name in names() {
            assert_eq!(fs::read(first.join(name)).unwrap(), fs::read(second.join(name)).unwrap(), "{name}");
        }
        assert_eq!((mode(&second.join("pki")), mode(&second.join("pki/ca.key"))), (0o700, 0o600));
        assert_eq!((mode(&second.join("pki/sa.key")), mode(&second.join("join-token"))), (0o600, 0o600));
    }

    #[tokio::test]
    async fn keys_that_others_saw_or_that_do_not_fit_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (first, file) = (master(dir.path()), dir.path().join("keys"));
        ExportKeys { file: file.clone(), data_dir: first.clone() }.run().unwrap();
        let good = fs::read_to_string(&file).unwrap();
        let import =
            async |data_dir: PathBuf| ImportKeys { file: file.clone(), data_dir }.run().await.unwrap_err().to_string();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(import(dir.path().join("x")).await.contains("may be read by others (mode 640)"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let mut keys: Map<String, Value> = serde_json::from_str(&good).unwrap();
        keys.insert("pki/ca.key".to_owned(), other.clone().into());
        fs::write(&file, Value::Object(keys.clone()).to_string()).unwrap();
        assert!(import(dir.path().join("x")).await.contains("ca.crt and ca.key do not belong together"));
        keys.insert("../etc/passwd".to_owned(), "".into());
        fs::write(&file, Value::Object(keys).to_string()).unwrap();
        assert!(import(dir.path().join("x")).await.contains("which is no key of a cluster"));
        fs::write(&file, "{").unwrap();
        assert!(import(dir.path().join("x")).await.contains("is not what"));
        assert!(!dir.path().join("x").exists(), "nothing was changed");
        fs::write(&file, good).unwrap();
        fs::write(first.join("pki/sa.key"), other).unwrap();
        assert!(import(first.clone()).await.contains("is there already, and another one"));
    }
}
