//! How much is in the volumes that are a pod's own, counted as `du` does: blocks and entries, each file once, nothing behind
//! a mount.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use k8s_openapi::api::core::v1::{Pod, Volume};

use super::Claims;

/// Bytes of a block as `stat` counts them.
const BLOCK: u64 = 512;

/// What is in a directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Bytes.
    pub bytes: u64,
    /// Files and directories, itself included.
    pub inodes: u64,
}

/// What is in each local volume of the pod, by the volume's name. Blocks on the file system.
pub fn of_pod(data_dir: &Path, pod: &Pod) -> BTreeMap<String, Used> {
    let uid = crate::pod::uid(pod);
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).filter(|volume| is_local(volume));
    volumes
        .map(|volume| (volume.name.clone(), used(&super::volume_path(data_dir, uid, volume, &Claims::new()))))
        .collect()
}

/// Whether the volume is a directory of the pod's own, so that what is in it counts as the pod's.
fn is_local(volume: &Volume) -> bool {
    volume.empty_dir.is_some() || super::payload::is_payload(volume)
}

/// Everything below `dir` on the file system it is on.
pub fn used(dir: &Path) -> Used {
    let Ok(root) = fs::symlink_metadata(dir) else { return Used::default() };
    let (device, mut seen) = (root.dev(), HashSet::new());
    let mut sum = Used { bytes: root.blocks() * BLOCK, inodes: 1 };
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        // What goes while it is counted does not count.
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let Ok(found) = fs::symlink_metadata(entry.path()) else { continue };
            if found.dev() != device || (found.nlink() > 1 && !found.is_dir() && !seen.insert(found.ino())) {
                continue;
            }
            sum.bytes += found.blocks() * BLOCK;
            sum.inodes += 1;
            if found.is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_once_and_links_do_not_lead_away() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("big"), vec![0_u8; 1 << 20]).unwrap();
        let empty = used(dir.path());
        fs::create_dir(dir.path().join("deep")).unwrap();
        fs::write(dir.path().join("deep/file"), vec![1_u8; 100_000]).unwrap();
        fs::hard_link(dir.path().join("deep/file"), dir.path().join("same")).unwrap();
        std::os::unix::fs::symlink(other.path(), dir.path().join("away")).unwrap();
        let found = used(dir.path());
        let bytes = found.bytes - empty.bytes;
        assert!((100_000..200_000).contains(&bytes), "{bytes}");
        assert_eq!(found.inodes - empty.inodes, 3, "a directory, a file with two names, a link");
        assert_eq!(used(Path::new("/no/such/dir")), Used::default());
    }
}
