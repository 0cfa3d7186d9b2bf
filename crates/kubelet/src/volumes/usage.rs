//! How much is in the volumes that are a pod's own, counted as `du` does: blocks, each file once, nothing behind a mount.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use k8s_openapi::api::core::v1::{Pod, Volume};

use super::Claims;

/// Bytes of a block as `stat` counts them.
const BLOCK: u64 = 512;

/// Bytes of each local volume of the pod, by the volume's name. Blocks on the file system.
pub fn of_pod(data_dir: &Path, pod: &Pod) -> BTreeMap<String, u64> {
    let uid = crate::pod::uid(pod);
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).filter(|volume| is_local(volume));
    volumes
        .map(|volume| (volume.name.clone(), bytes(&super::volume_path(data_dir, uid, volume, &Claims::new()))))
        .collect()
}

/// Whether the volume is a directory of the pod's own, so that what is in it counts as the pod's.
fn is_local(volume: &Volume) -> bool {
    volume.empty_dir.is_some() || super::payload::is_payload(volume)
}

/// Bytes of everything below `dir` on the file system it is on.
pub fn bytes(dir: &Path) -> u64 {
    let Ok(root) = fs::symlink_metadata(dir) else { return 0 };
    let (device, mut seen) = (root.dev(), HashSet::new());
    let mut sum = root.blocks() * BLOCK;
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        // What goes while it is counted does not count.
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let Ok(found) = fs::symlink_metadata(entry.path()) else { continue };
            if found.dev() != device || (found.nlink() > 1 && !found.is_dir() && !seen.insert(found.ino())) {
                continue;
            }
            sum += found.blocks() * BLOCK;
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
        let empty = bytes(dir.path());
        fs::create_dir(dir.path().join("deep")).unwrap();
        fs::write(dir.path().join("deep/file"), vec![1_u8; 100_000]).unwrap();
        fs::hard_link(dir.path().join("deep/file"), dir.path().join("same")).unwrap();
        std::os::unix::fs::symlink(other.path(), dir.path().join("away")).unwrap();
        let found = bytes(dir.path()) - empty;
        assert!((100_000..200_000).contains(&found), "{found}");
        assert_eq!(bytes(Path::new("/no/such/dir")), 0);
    }
}
