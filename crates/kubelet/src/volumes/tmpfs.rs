//! File systems in memory, and the mounts below a directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Once;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Mounts a file system in memory at `dir`, at most `limit` bytes large, unless one is there. What is in it never reaches a
/// disk, where the kernel can promise that (from 6.4 on).
pub fn ensure(dir: &Path, limit: Option<i64>) -> io::Result<()> {
    if is_mounted(dir)? {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let stays = first_taken(limit, |options| mount(Some("tmpfs"), dir, Some("tmpfs"), flags, Some(options)))?;
    if !stays && fs::read_to_string("/proc/swaps").is_ok_and(|table| has_swap(&table)) {
        static TOLD: Once = Once::new();
        TOLD.call_once(|| {
            tracing::warn!(
                "this machine has swap, and its kernel does not know the tmpfs option noswap: secrets and volumes in memory may reach a disk"
            );
        });
    }
    Ok(())
}

/// Mounts without swap, or with where the kernel has no such option; whether it is without.
fn first_taken(limit: Option<i64>, mount: impl Fn(&str) -> nix::Result<()>) -> io::Result<bool> {
    let size = limit.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
    match mount(&format!("noswap{size}")) {
        Ok(()) => Ok(true),
        Err(Errno::EINVAL) => Ok(mount(size.trim_start_matches(',')).map(|()| false)?),
        Err(error) => Err(error.into()),
    }
}

/// Whether anything is swapped to: the table has a line more than its head.
fn has_swap(table: &str) -> bool {
    table.lines().skip(1).any(|line| !line.trim().is_empty())
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn a_kernel_that_can_keep_memory_off_the_disk_is_asked_to() {
        let old = |options: &str| if options.contains("noswap") { Err(Errno::EINVAL) } else { Ok(()) };
        // What it is, what it takes, what comes of it, and what it was asked.
        type Case<'a> = (&'a str, &'a dyn Fn(&str) -> nix::Result<()>, Result<bool, i32>, &'a [&'a str]);
        let cases: [Case<'_>; 3] = [
            ("one that can", &|_| Ok(()), Ok(true), &["noswap,size=7"]),
            ("one that does not know the word", &old, Ok(false), &["noswap,size=7", "size=7"]),
            ("one that refuses anything", &|_| Err(Errno::EPERM), Err(Errno::EPERM as i32), &["noswap,size=7"]),
        ];
        for (sentence, kernel, expected, asked) in cases {
            let seen = RefCell::new(Vec::new());
            let mount = |options: &str| {
                seen.borrow_mut().push(options.to_owned());
                kernel(options)
            };
            let taken = first_taken(Some(7), mount).map_err(|error| error.raw_os_error().unwrap());
            assert_eq!(taken, expected, "{sentence}");
            assert_eq!(*seen.borrow(), asked, "{sentence}");
        }
        assert!(first_taken(None, |options| if options.is_empty() { Ok(()) } else { Err(Errno::EINVAL) }).is_ok());
    }

    #[test]
    fn swap_is_a_line_below_the_head() {
        let head = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert!(!has_swap(head) && !has_swap(""));
        assert!(has_swap(&format!("{head}/swap.img file 4194300 0 -2\n")));
    }
}
