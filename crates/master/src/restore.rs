//! `master restore`: a store, and the keys that go with it, made of a backup.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use nix::fcntl::OFlag;
use store::etcd::snapshot::{Attached, Restored, Snapshot};

use crate::data::{has_store, is_running};
use crate::place::{self, KEYS, STORE};

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

impl Restore {
    pub(crate) async fn run(&self) -> Result<String> {
        let data_dir = &self.data_dir;
        let snapshot = Snapshot::open(&self.file)?;
        let keys = snapshot.files()?;
        if let Some(unknown) = keys.iter().find(|key| !KEYS.contains(&key.name.as_str())) {
            bail!("{}: it holds {:?}, which no backup has; nothing was changed", self.file.display(), unknown.name);
        }
        fs::create_dir_all(data_dir).with_context(|| format!("cannot make {}", data_dir.display()))?;
        let in_use = || format!("a master runs on {}; stop it first", data_dir.display());
        let _alone = place::alone(data_dir)?.with_context(in_use)?;
        ensure!(!is_running(data_dir).await, in_use());
        // One that was cut short has happened: what is restored now comes after it.
        place::finish(data_dir)?;
        self.check_place(&keys)?;
        let written = self.write(&snapshot, &keys);
        let restored = written.inspect_err(|_| drop(fs::remove_dir_all(place::unfinished(data_dir))))?;
        let unsure = "it is not sure whether the restore has happened: the next start goes by what is on the disk";
        place::decide(data_dir).context(unsure)?;
        let late = "the restore has happened; the next start, backup or restore completes it";
        place::finish(data_dir).context(late)?;
        Ok(self.done(restored, &keys))
    }

    /// Nothing that is there is touched without being told so.
    fn check_place(&self, keys: &[Attached]) -> Result<()> {
        let store = self.data_dir.join(STORE);
        let place = store.display();
        ensure!(
            self.force || !has_store(&store),
            "{place} holds a store already; with --force it is kept beside the restored one"
        );
        for key in keys {
            let path = self.data_dir.join(&key.name);
            let place = path.display();
            ensure!(
                self.force || !path.exists() || is_there(&self.data_dir, key),
                "{place} is another key than the backup's; with --force it is kept beside that"
            );
        }
        Ok(())
    }

    /// Writes everything beside what is there. Whoever runs the master must be able to open what root restored.
    fn write(&self, snapshot: &Snapshot, keys: &[Attached]) -> Result<Restored> {
        let dir = place::unfinished(&self.data_dir);
        drop(fs::remove_dir_all(&dir));
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        let restored = snapshot.restore(&dir.join(STORE), self.bump_revision)?;
        let owner = fs::metadata(&self.data_dir)?;
        if !keys.is_empty() {
            make_pki(&self.data_dir, &owner)?;
            fs::create_dir_all(dir.join("pki"))?;
        }
        for key in keys.iter().filter(|key| !is_there(&self.data_dir, key)) {
            write_key(&dir, key)?;
        }
        give(&dir, &owner)?;
        place::sync(&self.data_dir)?;
        Ok(restored)
    }

    fn done(&self, restored: Restored, keys: &[Attached]) -> String {
        let of_keys = match keys {
            [] => {
                "the backup holds no CA and no service account key: those in the data directory stay, if there are any"
            }
            _ => "the cluster's CA and service account key were restored, too",
        };
        let Restored { keys, leases, from, revision } = restored;
        let (store, next) = (self.data_dir.join(STORE), revision + 1);
        format!(
            "restored {keys} keys and {leases} leases of revision {from} to {}; revisions go on at {next}; {of_keys}",
            store.display()
        )
    }
}

/// Whether a key is in its place already.
pub(crate) fn is_there(data_dir: &Path, key: &Attached) -> bool {
    fs::read(data_dir.join(&key.name)).is_ok_and(|there| there == key.content)
}

pub(crate) fn write_key(dir: &Path, key: &Attached) -> Result<()> {
    let mode = if key.name.ends_with(".crt") { 0o644 } else { 0o600 };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(dir.join(&key.name))?;
    file.write_all(&key.content)?;
    Ok(file.sync_all()?)
}

/// Makes the folder of the keys, for the owner of the data directory alone.
pub(crate) fn make_pki(data_dir: &Path, owner: &fs::Metadata) -> Result<()> {
    let pki = data_dir.join("pki");
    fs::create_dir_all(&pki)?;
    let folder = open_itself(&pki)?;
    folder.set_permissions(Permissions::from_mode(0o700))?;
    fchown(&folder, Some(owner.uid()), Some(owner.gid()))?;
    Ok(folder.sync_all()?)
}

/// Gives a file or a folder and all in it to the owner of another, and brings it to the disk.
pub(crate) fn give(path: &Path, owner: &fs::Metadata) -> Result<()> {
    let file = open_itself(path)?;
    if file.metadata()?.is_dir() {
        // By the open folder: its name may be another one's by now.
        for entry in fs::read_dir(format!("/proc/self/fd/{}", file.as_raw_fd()))? {
            give(&entry?.path(), owner).with_context(|| format!("in {}", path.display()))?;
        }
    }
    let given = fchown(&file, Some(owner.uid()), Some(owner.gid()));
    given.with_context(|| format!("cannot give {} away", path.display()))?;
    Ok(file.sync_all()?)
}

/// Opens a file or a folder that has no other name: who runs the master owns the data directory, and what root gives away,
/// or changes, is never what they could have put in its place, a link to what is not theirs.
fn open_itself(path: &Path) -> Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    let metadata = file.metadata()?;
    let is_its_own = metadata.is_dir() || (metadata.is_file() && metadata.nlink() == 1);
    ensure!(is_its_own, "{} is neither a folder nor a file with one name", path.display());
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_leads_out_of_the_data_directory_is_not_given_away() {
        let dir = tempfile::tempdir().unwrap();
        let [data, folder, secret] = ["data", "folder", "secret"].map(|name| dir.path().join(name));
        for folder in [data.join("pki/old"), folder.clone()] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(&secret, "secret").unwrap();
        fs::write(data.join("pki/old/sa.key"), "key").unwrap();
        let owner = fs::metadata(&data).unwrap();
        give(&data, &owner).unwrap();
        make_pki(&data, &owner).unwrap();
        let link = data.join("pki/old/ca.key");
        for target in [&secret, &folder] {
            symlink(target, &link).unwrap();
            for given in [&link, &data] {
                let refused = format!("{:#}", give(given, &owner).unwrap_err());
                assert!(refused.contains("ca.key: Too many levels of symbolic links"), "{refused}");
            }
            fs::remove_file(&link).unwrap();
        }
        fs::hard_link(&secret, &link).unwrap();
        assert!(
            format!("{:#}", give(&data, &owner).unwrap_err()).contains("neither a folder nor a file with one name")
        );
        fs::remove_dir_all(data.join("pki")).unwrap();
        symlink(&folder, data.join("pki")).unwrap();
        let mode = || fs::metadata(&folder).unwrap().mode();
        let before = mode();
        make_pki(&data, &owner).unwrap_err();
        assert_eq!(mode(), before);
    }
}
