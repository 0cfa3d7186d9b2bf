//! Puts a set of files into a directory all at once, so that a reader sees the old set or the new one, never a mixture.
//! The layout is upstream's (`pkg/volume/util/atomic_writer.go`), because programs watch for it:
//!
//! ```text
//!  volume/..2026_11_22_19_30_01.123456789/key    the files
//!  volume/..data -> ..2026_11_22_19_30_01.123456789    exchanged by one rename
//!  volume/key -> ..data/key    what the container opens
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use super::payload::{File, Payload};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";

/// Makes the files of the volume `dir` be `payload`, owned by `group` if given. Does nothing if they are.
pub fn write(dir: &Path, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    let old = current(dir)?;
    if let Some(old) = &old
        && holds(&dir.join(old), payload)?
    {
        return links(dir, payload);
    }
    let new = format!("..{}", jiff::Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S.%9f"));
    let new_dir = dir.join(&new);
    fs::create_dir(&new_dir)?;
    set_mode(&new_dir, 0o755)?;
    own(&new_dir, group)?;
    for (path, file) in payload {
        let path = new_dir.join(path);
        make_parents(&new_dir, &path, group)?;
        write_file(&path, file, group)?;
    }
    let new_data = dir.join(NEW_DATA);
    remove_if_there(&new_data)?;
    symlink(&new, &new_data)?;
    fs::rename(&new_data, dir.join(DATA))?;
    links(dir, payload)?;
    match old {
        Some(old) => fs::remove_dir_all(dir.join(old)),
        None => Ok(()),
    }
}

/// The directory `..data` points to.
fn current(dir: &Path) -> io::Result<Option<PathBuf>> {
    match fs::read_link(dir.join(DATA)) {
        Ok(target) => Ok(Some(target)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether `dir` has exactly the files of `payload`.
fn holds(dir: &Path, payload: &Payload) -> io::Result<bool> {
    let mut found = BTreeSet::new();
    if !dir.is_dir() {
        return Ok(false);
    }
    list(dir, dir, &mut found)?;
    if !found.iter().eq(payload.keys()) {
        return Ok(false);
    }
    for (path, file) in payload {
        let path = dir.join(path);
        if fs::metadata(&path)?.permissions().mode() & 0o777 != file.mode || fs::read(&path)? != file.data {
            return Ok(false);
        }
    }
    Ok(true)
}

fn list(root: &Path, dir: &Path, found: &mut BTreeSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            list(root, &path, found)?;
        } else if let Some(relative) = path.strip_prefix(root).ok().and_then(Path::to_str) {
            found.insert(relative.to_owned());
        }
    }
    Ok(())
}

fn make_parents(root: &Path, path: &Path, group: Option<u32>) -> io::Result<()> {
    let Some(parent) = path.parent() else { return Ok(()) };
    let mut dir = root.to_owned();
    for part in parent.strip_prefix(root).into_iter().flatten() {
        dir.push(part);
        if !dir.is_dir() {
            fs::create_dir(&dir)?;
            set_mode(&dir, 0o755)?;
            own(&dir, group)?;
        }
    }
    Ok(())
}

/// Written closed, then opened up: the exact mode, whatever the umask, and never wider in between.
fn write_file(path: &Path, file: &File, group: Option<u32>) -> io::Result<()> {
    let mut written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut written, &file.data)?;
    if file.owner.is_some() || group.is_some() {
        chown(path, file.owner, group)?;
    }
    set_mode(path, file.mode)
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn own(path: &Path, group: Option<u32>) -> io::Result<()> {
    match group {
        Some(_) => chown(path, None, group),
        None => Ok(()),
    }
}

/// One link in the volume for each first part of a path, and none for parts that are gone.
fn links(dir: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let stale = name.to_str().is_some_and(|name| !name.starts_with("..") && !wanted.contains(name));
        if stale {
            remove_if_there(&dir.join(name))?;
        }
    }
    for name in wanted {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), link)?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
