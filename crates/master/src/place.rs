//! The data directory as a place: whether somebody is in it, and a restore that was decided but not done.
//!
//! ```text
//!  restoring.unfinished/      being written; whoever finds it may throw it away
//!      │ one rename: from here on the restore has happened
//!      ▼
//!  restoring/                 what is moved to its place, one rename at a time, by whoever comes next
//! ```
//!
//! So a restore that is cut short at any moment has either not happened or happens at the next start, and never in part.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

/// What every identity in the cluster hangs on. Everything else in the data directory is made anew at the next start.
pub(crate) const KEYS: [&str; 3] = ["pki/ca.crt", "pki/ca.key", "pki/sa.key"];

/// The store's folder.
pub(crate) const STORE: &str = "store";

/// Somebody is in the place for as long as this lives.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "it is held")] File);

/// Enters as one who may have company: a master, or who looks at its data. A restore that is under way is not entered; one
/// that was cut short is done first.
pub(crate) fn enter(data_dir: &Path) -> Result<Lock> {
    if decided(data_dir).exists() {
        let _alone = alone(data_dir)?.with_context(|| format!("{} is in use", data_dir.display()))?;
        finish(data_dir)?;
        tracing::info!("a restore that was cut short is done");
    }
    let place = open(data_dir)?;
    match place.try_lock_shared() {
        Ok(()) => Ok(Lock(place)),
        Err(TryLockError::WouldBlock) => {
            bail!("a restore is under way in {}, or keys are taken in", data_dir.display())
        }
        // No reason not to run: some file systems have no locks for folders.
        Err(TryLockError::Error(error)) => {
            tracing::warn!(%error, "cannot lock {}: restore nothing there while this runs", data_dir.display());
            Ok(Lock(place))
        }
    }
}

/// Enters to change everything; `None` where somebody is.
pub(crate) fn alone(data_dir: &Path) -> Result<Option<Lock>> {
    let place = open(data_dir)?;
    match place.try_lock() {
        Ok(()) => Ok(Some(Lock(place))),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", data_dir.display())),
    }
}

fn open(data_dir: &Path) -> Result<File> {
    File::open(data_dir).with_context(|| format!("cannot open {}", data_dir.display()))
}

/// Where a restore is written.
pub(crate) fn unfinished(data_dir: &Path) -> PathBuf {
    data_dir.join("restoring.unfinished")
}

/// Where it lies once it has happened.
pub(crate) fn decided(data_dir: &Path) -> PathBuf {
    data_dir.join("restoring")
}

/// Lets what was written happen. Everything in it must be on the disk.
pub(crate) fn decide(data_dir: &Path) -> Result<()> {
    Ok(rename(&unfinished(data_dir), &decided(data_dir))?)
}

/// Moves what was restored to its place; what was there is kept beside it.
pub(crate) fn finish(data_dir: &Path) -> Result<()> {
    for (from, to) in renames(data_dir, suffix(data_dir)) {
        rename(&from, &to).with_context(|| format!("cannot move {} to {}", from.display(), to.display()))?;
    }
    match fs::remove_dir_all(decided(data_dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(sync(data_dir)?),
    }
}

/// Keeps what is there under these names, beside them.
pub(crate) fn put_aside(data_dir: &Path, names: &[&str]) -> io::Result<()> {
    let suffix = suffix(data_dir);
    let there = names.iter().map(|name| (data_dir.join(name), before(data_dir, name, suffix)));
    there.filter(|(path, _)| path.exists()).try_for_each(|(path, kept)| rename(&path, &kept))
}

/// What is left to do of a restore that is decided: nothing, once it is done.
fn renames(data_dir: &Path, suffix: u64) -> Vec<(PathBuf, PathBuf)> {
    let mut renames = Vec::new();
    for name in KEYS.iter().chain([&STORE]) {
        let (restored, place) = (decided(data_dir).join(name), data_dir.join(name));
        if !restored.exists() {
            continue;
        }
        if place.exists() {
            renames.push((place.clone(), before(data_dir, name, suffix)));
        }
        renames.push((restored, place));
    }
    renames
}

/// The name under which something is kept.
fn before(data_dir: &Path, name: &str, suffix: u64) -> PathBuf {
    data_dir.join(format!("{name}.before-{suffix}"))
}

/// The time, or a little later where something of that time is kept already.
fn suffix(data_dir: &Path) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let is_free = |suffix: &u64| KEYS.iter().chain([&STORE]).all(|name| !before(data_dir, name, *suffix).exists());
    (now..).find(is_free).unwrap_or(now)
}

/// A rename that is on the disk when this returns, so that a later one is not there before it.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    [from, to].iter().filter_map(|path| path.parent()).try_for_each(sync)
}

/// What is in a folder is on the disk.
pub(crate) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place with old keys and an old store, and new ones to be restored. One key is not there yet.
    fn place() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (folder, text, names) in
            [(dir.path().to_owned(), "old", &KEYS[..2]), (unfinished(dir.path()), "new", &KEYS[..])]
        {
            fs::create_dir_all(folder.join("pki")).unwrap();
            fs::create_dir_all(folder.join(STORE)).unwrap();
            for name in names.iter().copied().chain(["store/store.redb"]) {
                fs::write(folder.join(name), text).unwrap();
            }
        }
        dir
    }

    /// What of the restored is in its place.
    fn is_new(dir: &Path) -> Vec<bool> {
        let read = |name: &&str| fs::read(dir.join(name)).is_ok_and(|found| found == b"new");
        KEYS.iter().chain([&"store/store.redb"]).map(read).collect()
    }

    /// How many old things are kept.
    fn kept(dir: &Path) -> usize {
        let in_it = |dir: &Path| fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        let names = [in_it(dir), in_it(&dir.join("pki"))].concat();
        names.iter().filter(|name| name.to_str().unwrap().contains(".before-")).count()
    }

    #[test]
    fn wherever_a_restore_is_cut_short_the_next_start_finds_all_old_or_all_new() {
        let dir = place();
        drop(enter(dir.path()).unwrap());
        assert_eq!(is_new(dir.path()), [false; 4], "nothing was decided");
        let steps = {
            decide(dir.path()).unwrap();
            renames(dir.path(), 7).len()
        };
        assert_eq!(steps, 7);
        for cut in 0..=steps {
            let dir = place();
            decide(dir.path()).unwrap();
            for (from, to) in renames(dir.path(), 7).into_iter().take(cut) {
                rename(&from, &to).unwrap();
            }
            drop(enter(dir.path()).unwrap());
            assert_eq!(is_new(dir.path()), [true; 4], "after {cut} steps");
            assert_eq!(kept(dir.path()), 3, "after {cut} steps");
            assert_eq!(renames(dir.path(), 8), [], "planning again finds nothing to do");
            assert!(!decided(dir.path()).exists());
            finish(dir.path()).unwrap();
        }
        // Cut short while the empty folders were removed.
        let dir = place();
        decide(dir.path()).unwrap();
        for (from, to) in renames(dir.path(), 7) {
            rename(&from, &to).unwrap();
        }
        fs::remove_dir(decided(dir.path()).join("pki")).unwrap();
        drop(enter(dir.path()).unwrap());
        assert_eq!((is_new(dir.path()), kept(dir.path())), (vec![true; 4], 3));
    }

    #[test]
    fn masters_share_a_place_and_a_restore_does_not() {
        let dir = place();
        let (one, two) = (enter(dir.path()).unwrap(), enter(dir.path()).unwrap());
        assert!(alone(dir.path()).unwrap().is_none());
        drop((one, two));
        let alone = alone(dir.path()).unwrap().unwrap();
        assert!(enter(dir.path()).unwrap_err().to_string().contains("a restore is under way"));
        drop(alone);
        enter(dir.path()).unwrap();
    }

    #[test]
    fn what_was_kept_is_never_written_over() {
        let dir = place();
        decide(dir.path()).unwrap();
        let taken = suffix(dir.path());
        for later in 0..3 {
            fs::write(before(dir.path(), KEYS[0], taken + later), "older").unwrap();
        }
        assert!(suffix(dir.path()) >= taken + 3);
    }
}
