//! What labs leave on disk, and how it goes: folders, and the control groups of their containers. Processes, mounts and
//! networks need no sweeping: the kernel ends them with the lab.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::machine::LOG;

/// How the folders of labs, and their control groups, begin.
const PREFIX: &str = "coracle-lab-";
/// The file in a lab's folder that its maker holds locked while it lives.
const LOCK: &str = "alive";
/// How many seconds a box may take to end.
const END_SECONDS: &str = "30";
/// Where control groups are.
const GROUPS: &str = "/sys/fs/cgroup";

/// The folder of a lab. It goes when this is dropped, or is swept away later.
pub struct Home {
    path: PathBuf,
    _alive: File,
}

impl Home {
    /// A new folder, after sweeping away those of labs that live no more.
    pub fn new() -> Result<Home> {
        let parent = std::env::temp_dir();
        let _alone = alone(&parent)?;
        sweep(&parent);
        let path = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&parent)?.keep();
        let alive = File::create(path.join(LOCK))?;
        alive.try_lock().context("a new file is nobody's")?;
        Ok(Home { path, _alive: alive })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        clear(&self.path);
    }
}

/// Nobody may sweep between the making of a folder and the locking of its file.
fn alone(parent: &Path) -> Result<File> {
    let file = File::create(parent.join("coracle-lab.lock"))?;
    file.lock()?;
    Ok(file)
}

/// Removes what dead labs left, and says what of it stays: groups, say, whose last process is still dying.
pub fn dead_labs() -> Result<Vec<PathBuf>> {
    let parent = std::env::temp_dir();
    let _alone = alone(&parent)?;
    sweep(&parent);
    let dead = |path: &PathBuf| File::open(path.join(LOCK)).is_ok_and(|file| file.try_lock().is_ok());
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
    let folders =
        std::fs::read_dir(&parent)?.flatten().map(|entry| entry.path()).filter(|path| named(path) && dead(path));
    let orphans = groups().into_iter().filter(|group| named(group) && !parent.join(lab_of(group)).exists());
    Ok(folders.chain(orphans).collect())
}

/// The lab that a control group is of: `coracle-lab-x` of `coracle-lab-x-box1`.
fn lab_of(group: &Path) -> String {
    let name = group.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.rsplit_once('-').map_or(name.clone(), |(lab, _)| lab.to_owned())
}

/// Removes the folders of dead labs.
fn sweep(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        let named = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if named && File::open(path.join(LOCK)).is_ok_and(|file| file.try_lock().is_ok()) {
            clear(&path);
        }
    }
    // A group whose last process was still dying when its lab ended.
    for group in groups() {
        let lab = lab_of(&group);
        if lab.starts_with(PREFIX) && !parent.join(lab).exists() {
            remove_group(&group);
        }
    }
}

/// Removes a lab's folder and control groups, once its boxes have ended: nobody holds them any more.
fn clear(home: &Path) {
    for machine in std::fs::read_dir(home).into_iter().flatten().flatten() {
        let log = machine.path().join(LOG);
        if log.exists() {
            // As long as it takes, but not for ever.
            let _ = Command::new("flock").args(["-w", END_SECONDS]).arg(log).arg("true").status();
        }
    }
    control_groups(&home.file_name().unwrap_or_default().to_string_lossy());
    // What cannot be removed now is tried again by the next lab: its lock file goes last only if all goes.
    let _ = std::fs::remove_dir_all(home);
}

/// Removes the control groups whose names begin so, with all below them. They are empty, or the kernel keeps them.
pub(crate) fn control_groups(prefix: &str) {
    for group in groups() {
        let name = group.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if prefix.starts_with(PREFIX) && name.starts_with(prefix) {
            remove_group(&group);
        }
    }
}

/// The control groups right below the root of each tree.
fn groups() -> Vec<PathBuf> {
    let root = Path::new(GROUPS);
    let below = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let trees = below(root).filter(|tree| tree.is_dir()).chain([root.to_owned()]);
    trees.flat_map(|tree| below(&tree).collect::<Vec<_>>()).filter(|path| path.is_dir()).collect()
}

fn remove_group(group: &Path) {
    let below = std::fs::read_dir(group).into_iter().flatten().flatten().map(|entry| entry.path());
    below.filter(|path| path.is_dir()).for_each(|path| remove_group(&path));
    let _ = std::fs::remove_dir(group);
}
