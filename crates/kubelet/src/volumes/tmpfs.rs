//! File systems in memory, and the mounts below a directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Mounts a file system in memory at `dir`, at most `limit` bytes large, unless one is there.
pub fn ensure(dir: &Path, limit: Option<i64>) -> io::Result<()> {
    if is_mounted(dir)? {
        return Ok(());
    }
    let options = limit.map(|bytes| format!("size={bytes}"));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), dir, Some("tmpfs"), flags, options.as_deref()).map_err(io::Error::from)
}

/// Whether something is mounted at `place`.
pub fn is_mounted(place: &Path) -> io::Result<bool> {
    Ok(mount_points()?.iter().any(|point| point == place))
}

/// Unmounts what is mounted at `place`, if anything is.
pub fn unmount(place: &Path) -> io::Result<()> {
    match umount2(place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Unmounts everything below `dir`, innermost first; fails if something stays, so that nothing behind it is deleted.
pub fn unmount_below(dir: &Path) -> io::Result<()> {
    for point in mount_points()?.iter().rev().filter(|point| point.starts_with(dir)) {
        unmount(point)?;
    }
    match mount_points()?.into_iter().find(|point| point.starts_with(dir)) {
        Some(left) => Err(io::Error::other(format!("{} is still mounted", left.display()))),
        None => Ok(()),
    }
}

/// Where something is mounted, outermost first.
fn mount_points() -> io::Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table.lines().filter_map(|line| line.split(' ').nth(4)).map(|field| PathBuf::from(unescape(field))).collect())
}

/// Spaces and the like stand in the table as `\040`.
fn unescape(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(code) => {
                text.push(char::from(code));
                text.push_str(&part[3..]);
            }
            None => text.push_str(part),
        }
    }
    text
}
