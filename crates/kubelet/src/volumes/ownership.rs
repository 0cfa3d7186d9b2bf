//! A pod's group (`fsGroup`) on a volume that outlives pods: every file becomes the group's, and directories hand it on
//! to what is made in them (`pkg/volume/volume_linux.go`). Links are not followed and file systems not left.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

/// Reading and writing for the owner and the group.
const READ_WRITE: u32 = 0o660;
/// What directories get beside: entering, and handing on the group.
const DIRECTORY: u32 = 0o2110;

/// Gives everything below `root` to `group`. With `only_on_mismatch` (`fsGroupChangePolicy: OnRootMismatch`), nothing if
/// the root itself is as it should be.
pub fn give(root: &Path, group: u32, only_on_mismatch: bool) -> io::Result<()> {
    let found = fs::symlink_metadata(root)?;
    if only_on_mismatch && fits(&found, group) {
        return Ok(());
    }
    below(root, group, found.dev())?;
    // The root comes last: if this is cut short, it does not fit and everything is done again.
    one(root, &found, group)
}

fn fits(root: &fs::Metadata, group: u32) -> bool {
    let wanted = READ_WRITE | DIRECTORY;
    root.gid() == group && root.mode() & wanted == wanted
}

fn below(dir: &Path, group: u32, device: u64) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let found = match fs::symlink_metadata(&path) {
            Ok(found) => found,
            // It went meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if found.dev() != device {
            continue;
        }
        if found.is_dir() {
            below(&path, group, device)?;
        }
        one(&path, &found, group)?;
    }
    Ok(())
}

fn one(path: &Path, found: &fs::Metadata, group: u32) -> io::Result<()> {
    if found.gid() != group {
        lchown(path, None, Some(group))?;
    }
    if found.is_symlink() {
        return Ok(());
    }
    let wanted = if found.is_dir() { READ_WRITE | DIRECTORY } else { READ_WRITE };
    let mode = found.mode() & 0o7777 | wanted;
    if found.mode() & 0o7777 != mode || found.gid() != group {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_becomes_the_groups_unless_the_root_is_already() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = dir.path();
        fs::create_dir(root.join("deep")).unwrap();
        fs::write(root.join("deep/file"), "x").unwrap();
        fs::set_permissions(root.join("deep/file"), fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.join("away")).unwrap();
        give(root, 4242, false).unwrap();
        let of = |path: &Path| fs::symlink_metadata(path).map(|m| (m.gid(), m.mode() & 0o7777)).unwrap();
        assert_eq!(of(&root.join("deep/file")), (4242, 0o660));
        assert_eq!((of(root).0, of(root).1 & 0o2770), (4242, 0o2770));
        assert_eq!(of(&root.join("away")).0, 4242, "the link itself");
        assert_ne!(of(outside.path()).0, 4242, "not what it leads to");

        fs::write(root.join("new"), "x").unwrap();
        lchown(root.join("new"), None, Some(0)).unwrap();
        give(root, 4242, true).unwrap();
        assert_eq!(of(&root.join("new")).0, 0, "the root fits");
        give(root, 4242, false).unwrap();
        assert_eq!(of(&root.join("new")).0, 4242);
    }
}
