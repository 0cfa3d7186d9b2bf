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
use store::etcd::snapshot::{self, Attached};

use crate::data::has_store;
use crate::place::{self, KEYS, STORE};
use crate::restore::{give, is_there, make_pki, write_key};

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
/// The roles that every cluster has, beside those of the system.
const ROLES: [&str; 5] = ["admin", "cluster-admin", "edit", "extension-apiserver-authentication-reader", "view"];
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
    pub(crate) fn run(&self) -> Result<String> {
        let (keys, place) = (self.read()?, self.data_dir.display());
        fs::create_dir_all(&self.data_dir).with_context(|| format!("cannot make {place}"))?;
        let is_missing = keys.iter().any(|key| !is_there(&self.data_dir, key));
        let kept = if is_missing { self.take_in(&keys)? } else { "" };
        Ok(format!("{place} holds the keys of the cluster{kept}; delete {}", self.file.display()))
    }

    /// Writes the keys, while no master runs: one that starts meanwhile would make its own. What to say of those before.
    fn take_in(&self, keys: &[Attached]) -> Result<&'static str> {
        let alone = place::alone(&self.data_dir)?;
        let _alone = alone.with_context(|| format!("a master runs on {}; stop it first", self.data_dir.display()))?;
        place::finish(&self.data_dir)?;
        let kept = self.make_room(keys)?;
        // Whoever runs the master must be able to read what root brought.
        let owner = fs::metadata(&self.data_dir)?;
        make_pki(&self.data_dir, &owner)?;
        for key in keys.iter().filter(|key| !is_there(&self.data_dir, key)) {
            write_key(&self.data_dir, key)?;
            give(&self.data_dir.join(&key.name), &owner)?;
        }
        place::sync(&self.data_dir.join("pki"))?;
        place::sync(&self.data_dir)?;
        Ok(kept)
    }

    /// Puts aside what a first start made that nobody has used, as a package starts its master at once: keys, and the store,
    /// whose tokens to join with are others. The store is the last: as long as it is there this has not been done.
    fn make_room(&self, keys: &[Attached]) -> Result<&'static str> {
        let store = self.data_dir.join(STORE);
        let used = if has_store(&store) { Some(first_use(&store)?) } else { None };
        let mut there = keys.iter().filter(|key| self.data_dir.join(&key.name).exists()).peekable();
        let is_empty = there.peek().is_none();
        match (there.find(|key| !is_there(&self.data_dir, key)), used) {
            (Some(other), None) => bail!("{} is there already, and another one: nothing was changed", self.path(other)),
            (Some(other), Some(Some(used))) => bail!(
                "{} is there already, and another one, of a cluster that is used: it has {used}. Nothing was changed",
                self.path(other)
            ),
            (Some(_), Some(None)) => {}
            // Cut short before the store was put aside.
            (None, Some(None)) if is_empty => {}
            (None, _) => return Ok(""),
        }
        let names: Vec<&str> = names().chain([ADMIN, STORE]).collect();
        place::put_aside(&self.data_dir, &names)?;
        Ok("; those that were there are kept beside them, and their store")
    }

    fn path(&self, key: &Attached) -> String {
        self.data_dir.join(&key.name).display().to_string()
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
fn first_use(dir: &Path) -> Result<Option<String>> {
    let keys = snapshot::keys_of_files(dir).with_context(|| format!("cannot read the store in {}", dir.display()))?;
    Ok(keys.into_iter().find(|key| is_use(key)))
}

/// Whether the key is of something that a cluster has only when it is used: a node, a pod or what makes pods, a request for
/// a certificate (which its CA may have signed), a namespace beside those every cluster has and so whatever is in it, an
/// account or a right that somebody gave, something in `default`.
fn is_use(key: &str) -> bool {
    let parts: Vec<&str> = key.strip_prefix(REGISTRY).unwrap_or(key).split('/').collect();
    match parts[..] {
        ["namespaces", name] => !NAMESPACES.contains(&name),
        ["events" | "leases" | "ranges", ..] => false,
        ["nodes" | "pods" | "replicationcontrollers" | "replicasets" | "deployments", ..] => true,
        ["daemonsets" | "statefulsets" | "jobs" | "cronjobs" | "persistentvolumes", ..] => true,
        ["certificatesigningrequests", ..] => true,
        ["serviceaccounts", _, name] => name != "default",
        ["secrets", NAMESPACE_SYSTEM, name] => !name.starts_with("bootstrap-token-"),
        ["clusterroles" | "clusterrolebindings" | "roles" | "rolebindings", .., name] => {
            !name.starts_with("system:") && !ROLES.contains(&name)
        }
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
            ("clusterroles/system:node", false),
            ("clusterrolebindings/cluster-admin", false),
            ("rolebindings/kube-system/system::leader-locking-kube-scheduler", false),
            ("roles/kube-system/extension-apiserver-authentication-reader", false),
            ("serviceaccounts/kube-system/default", false),
            ("serviceaccounts/default/default", false),
            ("configmaps/kube-system/kube-root-ca.crt", false),
            ("configmaps/kube-system/extension-apiserver-authentication", false),
            ("clusterrolebindings/system:node-autoapprove-bootstrap", false),
            ("secrets/kube-system/bootstrap-token-abcdef", false),
            ("ranges/serviceips/10.96.0.1", false),
            ("certificatesigningrequests/jane", true),
            ("serviceaccounts/kube-system/robot", true),
            ("secrets/kube-system/robot", true),
            ("clusterrolebindings/jane", true),
            ("rolebindings/kube-system/jane", true),
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

    #[test]
    fn keys_go_from_one_master_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second, file) = (master(dir.path()), dir.path().join("second"), dir.path().join("keys"));
        let export = ExportKeys { file: file.clone(), data_dir: first.clone() };
        export.run().unwrap();
        assert_eq!(mode(&file), 0o600);
        assert!(export.run().unwrap_err().to_string().contains("cannot write"), "nothing is overwritten");
        let import = ImportKeys { file: file.clone(), data_dir: second.clone() };
        fs::create_dir(&second).unwrap();
        let starting = place::enter(&second).unwrap();
        let refused = import.run().unwrap_err().to_string();
        assert!(
            refused.contains("a master runs on") && !second.join("pki").exists(),
            "it would make its own: {refused}"
        );
        drop(starting);
        for _ in 0..2 {
            import.run().unwrap();
        }
        for name in names() {
            assert_eq!(fs::read(first.join(name)).unwrap(), fs::read(second.join(name)).unwrap(), "{name}");
        }
        assert_eq!((mode(&second.join("pki")), mode(&second.join("pki/ca.key"))), (0o700, 0o600));
        assert_eq!((mode(&second.join("pki/sa.key")), mode(&second.join("join-token"))), (0o600, 0o600));
    }

    #[test]
    fn keys_that_others_saw_or_that_do_not_fit_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (first, file) = (master(dir.path()), dir.path().join("keys"));
        ExportKeys { file: file.clone(), data_dir: first.clone() }.run().unwrap();
        let good = fs::read_to_string(&file).unwrap();
        let import = |data_dir: PathBuf| ImportKeys { file: file.clone(), data_dir }.run().unwrap_err().to_string();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(import(dir.path().join("x")).contains("may be read by others (mode 640)"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let mut keys: Map<String, Value> = serde_json::from_str(&good).unwrap();
        keys.insert("pki/ca.key".to_owned(), other.clone().into());
        fs::write(&file, Value::Object(keys.clone()).to_string()).unwrap();
        assert!(import(dir.path().join("x")).contains("ca.crt and ca.key do not belong together"));
        keys.insert("../etc/passwd".to_owned(), "".into());
        fs::write(&file, Value::Object(keys).to_string()).unwrap();
        assert!(import(dir.path().join("x")).contains("which is no key of a cluster"));
        fs::write(&file, "{").unwrap();
        assert!(import(dir.path().join("x")).contains("is not what"));
        assert!(!dir.path().join("x").exists(), "nothing was changed");
        fs::write(&file, good).unwrap();
        fs::write(first.join("pki/sa.key"), other).unwrap();
        assert!(import(first.clone()).contains("is there already, and another one"));
    }
}
