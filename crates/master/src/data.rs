//! `master backup` and `master restore`: everything the cluster is, in a file and out of it.
//!
//! A backup is a snapshot in etcd's own format ([`store::etcd::snapshot`]), of one revision, with its checksum at the end.
//! So this is also how a cluster moves: a backup becomes an etcd by `etcdctl snapshot restore`, and what `master backup
//! --etcd-servers` or `etcdctl snapshot save` took of an etcd becomes an embedded store by `master restore`.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser};
use store::embedded::{Embedded, Options};
use store::etcd::Etcd;
use store::etcd::snapshot::{self, Attached, Snapshot};

use crate::etcd::EtcdFlags;
use crate::etcd_face;

/// What every identity in the cluster hangs on. Everything else in the data directory is made anew at the next start.
const KEYS: [&str; 3] = ["pki/ca.crt", "pki/ca.key", "pki/sa.key"];

/// What is done to the data, instead of running a master.
#[derive(Debug, Parser)]
#[command(name = "master", version, max_term_width = 110)]
pub enum DataCommand {
    /// Write everything in the store to a file, whether the master runs or not
    Backup(Backup),
    /// Make a store of a backup, or of a snapshot of etcd
    Restore(Restore),
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

/// `master restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// The backup, or what "etcdctl snapshot save" wrote
    pub file: PathBuf,
    /// The data directory of the master that is to run on it
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Put it in the place of a store or of keys that are there; those are kept beside it
    #[arg(long)]
    pub force: bool,
    /// How far revisions jump, so that none is given out twice: more than were written after the backup
    #[arg(long, value_name = "NUMBER", default_value_t = 1_000_000_000, value_parser = clap::value_parser!(i64).range(1..))]
    pub bump_revision: i64,
}

impl DataCommand {
    /// The command that `arguments`, which begin with the program's name, give, if they give one.
    pub fn given(arguments: &[OsString]) -> Option<DataCommand> {
        let first = arguments.get(1)?;
        ["backup", "restore"].iter().any(|c| first == c).then(|| DataCommand::parse_from(arguments))
    }

    /// Does it; returns what to tell whoever asked for it.
    pub async fn run(self) -> Result<String> {
        match self {
            DataCommand::Backup(backup) => backup.run().await,
            DataCommand::Restore(restore) => restore.run().await,
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
                let store = Embedded::open(&dir, Options::default())?;
                snapshot::save(&store, &[], &mut out, path)?;
                store.close();
                return Ok(out.sync_all()?);
            }
            None => bail!("neither --data-dir nor --etcd-servers says what to take"),
        };
        etcd.snapshot(&mut out).await?;
        Ok(out.sync_all()?)
    }
}

impl Restore {
    async fn run(&self) -> Result<String> {
        let snapshot = Snapshot::open(&self.file)?;
        let keys = snapshot.files()?;
        if let Some(unknown) = keys.iter().find(|key| !KEYS.contains(&key.name.as_str())) {
            bail!("{}: it holds {:?}, which no backup has; nothing was changed", self.file.display(), unknown.name);
        }
        self.check_place(&keys).await?;
        let fresh = self.data_dir.join("store.restoring");
        drop(fs::remove_dir_all(&fresh));
        let restored =
            snapshot.restore(&fresh, self.bump_revision).inspect_err(|_| drop(fs::remove_dir_all(&fresh)))?;
        // Whoever runs the master must be able to open what root restored.
        let owner = fs::metadata(&self.data_dir)?;
        give(&fresh, &owner)?;
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        for key in &keys {
            put_key(&self.data_dir, key, since)?;
        }
        if !keys.is_empty() {
            give(&self.data_dir.join("pki"), &owner)?;
        }
        let store = self.data_dir.join("store");
        if store.exists() {
            fs::rename(&store, self.data_dir.join(format!("store.before-{since}")))?;
        }
        fs::rename(&fresh, &store)?;
        File::open(&self.data_dir).and_then(|folder| folder.sync_all())?;
        Ok(format!(
            "restored {} keys and {} leases of revision {} to {}; revisions go on at {}; {}",
            restored.keys,
            restored.leases,
            restored.from,
            store.display(),
            restored.revision + 1,
            match keys.as_slice() {
                [] =>
                    "the backup holds no CA and no service account key: those in the data directory stay, if there are any",
                _ => "the cluster's CA and service account key were restored, too",
            }
        ))
    }

    /// Nothing that is there is touched without being told so, and nothing at all under a master that runs.
    async fn check_place(&self, keys: &[Attached]) -> Result<()> {
        let (data_dir, store) = (&self.data_dir, self.data_dir.join("store"));
        fs::create_dir_all(data_dir).with_context(|| format!("cannot make {}", data_dir.display()))?;
        let in_use = || bail!("a master runs on {}; stop it first", data_dir.display());
        if is_running(data_dir).await {
            return in_use();
        }
        if has_store(&store) {
            // A store that does not open at all is a good reason to restore one.
            if let Err(store::Error::Unavailable(reason)) = Embedded::open(&store, Options::default())
                && reason.contains("in use by another process")
            {
                return in_use();
            }
            let place = store.display();
            ensure!(self.force, "{place} holds a store already; with --force it is kept beside the restored one");
        }
        for key in keys {
            let path = data_dir.join(&key.name);
            let is_other = fs::read(&path).is_ok_and(|there| there != key.content);
            let place = path.display();
            ensure!(
                self.force || !is_other,
                "{place} is another key than the backup's; with --force it is kept beside that"
            );
        }
        Ok(())
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn has_store(dir: &Path) -> bool {
    dir.join("store.redb").exists()
}

/// Whether somebody answers on the store's socket.
async fn is_running(data_dir: &Path) -> bool {
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

/// Gives a file or a folder and all in it to the owner of another.
fn give(path: &Path, owner: &fs::Metadata) -> Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), owner)?;
        }
    }
    chown(path, Some(owner.uid()), Some(owner.gid())).with_context(|| format!("cannot give {} away", path.display()))
}

/// Writes a key; another one that was there is kept beside it.
fn put_key(data_dir: &Path, key: &Attached, since: u64) -> Result<()> {
    let path = data_dir.join(&key.name);
    if fs::read(&path).is_ok_and(|there| there == key.content) {
        return Ok(());
    }
    fs::create_dir_all(parent(&path))?;
    fs::set_permissions(parent(&path), Permissions::from_mode(0o700))?;
    if path.exists() {
        let mut kept = path.clone().into_os_string();
        kept.push(format!(".before-{since}"));
        fs::rename(&path, kept)?;
    }
    let mode = if key.name.ends_with(".crt") { 0o644 } else { 0o600 };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
    file.write_all(&key.content)?;
    Ok(file.sync_all()?)
}
