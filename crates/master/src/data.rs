//! `master backup` and `master restore`: everything the cluster is, in a file and out of it.
//!
//! A backup is a snapshot in etcd's own format ([`store::etcd::snapshot`]), of one revision, with its checksum at the end.
//! So this is also how a cluster moves: a backup becomes an etcd by `etcdctl snapshot restore`, and what `master backup
//! --etcd-servers` or `etcdctl snapshot save` took of an etcd becomes an embedded store by `master restore`.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser};
use store::etcd::Etcd;
use store::etcd::snapshot::{self, Attached, Snapshot};

use crate::etcd::EtcdFlags;
use crate::etcd_face;
use crate::keys::{ExportKeys, ImportKeys};
use crate::place::{self, KEYS};
use crate::restore::Restore;

/// What is done to the data, instead of running a master.
#[derive(Debug, Parser)]
#[command(name = "master", version, max_term_width = 110)]
pub enum DataCommand {
    /// Write everything in the store to a file, whether the master runs or not
    Backup(Backup),
    /// Make a store of a backup, or of a snapshot of etcd
    Restore(Restore),
    /// Write the keys that masters which share an etcd have in common to a file
    ExportKeys(ExportKeys),
    /// Take them in, before the master is first used
    ImportKeys(ImportKeys),
}

/// `master backup`.
#[derive(Debug, Args)]
pub struct Backup {
    /// The file to write; it must not exist
    pub file: PathBuf,
    /// The master's data directory
    #[arg(long, value_name = "DIR", required_unless_present = "etcd_servers")]
    pub data_dir: Option<PathBuf>,
    /// Take along the cluster's CA and the key that signs service account tokens. Whoever has such a file is everyone in
    /// the cluster; without it a restored cluster needs a data directory that has them, or every node joins again
    #[arg(long, requires = "data_dir")]
    pub pki: bool,
    /// The etcd to take the state from, instead of from the embedded store.
    #[command(flatten)]
    pub etcd: EtcdFlags,
}

impl DataCommand {
    /// The command that `arguments`, which begin with the program's name, give, if they give one.
    pub fn given(arguments: &[OsString]) -> Option<DataCommand> {
        let first = arguments.get(1)?;
        ["backup", "restore", "export-keys", "import-keys"]
            .iter()
            .any(|c| first == c)
            .then(|| DataCommand::parse_from(arguments))
    }

    /// Does it; returns what to tell whoever asked for it.
    pub async fn run(self) -> Result<String> {
        match self {
            DataCommand::Backup(backup) => backup.run().await,
            DataCommand::Restore(restore) => restore.run().await,
            DataCommand::ExportKeys(export) => export.run(),
            DataCommand::ImportKeys(import) => import.run(),
        }
    }
}

/// A file that is being written, beside the one it will be; gone unless it was finished.
struct Unfinished(PathBuf);

impl Unfinished {
    fn create(wanted: &Path) -> Result<(Unfinished, File)> {
        let mut name = wanted.file_name().context("a backup is a file")?.to_owned();
        name.push(".unfinished");
        let path = wanted.with_file_name(name);
        drop(fs::remove_file(&path));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok((Unfinished(path), file))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

impl Backup {
    async fn run(&self) -> Result<String> {
        let file = &self.file;
        self.etcd.validate()?;
        ensure!(!file.exists(), "{} exists already; choose another name", file.display());
        // Also finishes a restore that was cut short, before anything is read.
        let _lock = self.data_dir.as_deref().filter(|dir| dir.exists()).map(place::enter).transpose()?;
        let (mut unfinished, out) = Unfinished::create(file)?;
        self.take(out, &unfinished.0).await?;
        let mut snapshot = Snapshot::open(&unfinished.0)?;
        if let Some(data_dir) = self.data_dir.as_deref().filter(|_| self.pki) {
            let keys = keys_in(data_dir)?;
            let (with_keys, mut out) = Unfinished::create(&unfinished.0)?;
            snapshot.save_with(&keys, &mut out)?;
            out.sync_all()?;
            snapshot = Snapshot::open(&with_keys.0)?;
            unfinished = with_keys;
        }
        fs::rename(&unfinished.0, file).with_context(|| format!("cannot write {}", file.display()))?;
        File::open(parent(file)).and_then(|folder| folder.sync_all())?;
        let keys = match self.pki {
            true => "the cluster's CA and service account key are in it: keep it as secret as those",
            false => "without the cluster's CA and service account key (--pki takes them along), but with every Secret",
        };
        let (count, revision) = (snapshot.keys(), snapshot.revision());
        Ok(format!("backed up {count} keys at revision {revision} to {}, {keys}", file.display()))
    }

    /// Takes the snapshot: from etcd, from the master that runs, or from its files.
    async fn take(&self, mut out: File, path: &Path) -> Result<()> {
        let etcd = match self.data_dir.as_deref() {
            _ if self.etcd.are_given() => self.etcd.connect().await?,
            Some(data_dir) if is_running(data_dir).await => {
                let socket = format!("unix://{}", etcd_face::socket(data_dir).display());
                let etcd = Etcd::connect(std::slice::from_ref(&socket), store::etcd::Options::default()).await;
                etcd.with_context(|| format!("cannot reach {socket}"))?
            }
            Some(data_dir) => {
                let dir = data_dir.join("store");
                ensure!(has_store(&dir), "{} holds no embedded store", data_dir.display());
                snapshot::save_files(&dir, &mut out, path)?;
                return Ok(out.sync_all()?);
            }
            None => bail!("neither --data-dir nor --etcd-servers says what to take"),
        };
        etcd.snapshot(&mut out).await?;
        Ok(out.sync_all()?)
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(crate) fn has_store(dir: &Path) -> bool {
    dir.join("store.redb").exists()
}

/// Whether somebody answers on the store's socket.
pub(crate) async fn is_running(data_dir: &Path) -> bool {
    tokio::net::UnixStream::connect(etcd_face::socket(data_dir)).await.is_ok()
}

fn keys_in(data_dir: &Path) -> Result<Vec<Attached>> {
    let mut keys = Vec::new();
    for name in KEYS {
        let key = snapshot::attach(data_dir, name)?;
        keys.push(key.with_context(|| format!("{} holds no {name}", data_dir.display()))?);
    }
    Ok(keys)
}
