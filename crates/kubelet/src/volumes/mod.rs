//! Volumes of pods on this node: directories below `<data_dir>/pods/<uid>/volumes`, laid out as upstream lays them out.
//!
//! - [`payload`]: what files a Secret, ConfigMap or downward volume has. Pure.
//! - [`atomic_writer`]: puts such files in place, all at once.
//! - [`host_path`]: paths of the host, checked against their type.
//! - [`subpath`]: a part of a volume, opened so that links cannot lead out of it.
//! - [`claims`]: PersistentVolumeClaims; [`nfs`], [`image`]: volumes that come from elsewhere.
//! - [`ownership`]: a pod's group on files that were there before.
//! - [`tmpfs`]: memory file systems, and who is mounted where.
//! - [`usage`]: how much is in them.
//! - [`network_files`]: `/etc/hosts` and `/etc/resolv.conf`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, EmptyDirVolumeSource, NFSVolumeSource, Pod, Volume};

use crate::env::{EnvError, Sources, expansion};
use crate::runtime::{Mount, Recursive};

pub mod atomic_writer;
pub mod claims;
pub mod host_path;
pub mod image;
pub mod network_files;
pub mod nfs;
pub mod ownership;
pub mod payload;
pub mod subpath;
pub mod tmpfs;
pub mod usage;

pub use claims::Claims;

/// Why a volume is not there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A volume could not be set up; upstream's words for the event.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {message}")]
    SetUp {
        /// Its name in the pod.
        volume: String,
        /// What went wrong.
        message: String,
    },
    /// A volume of a kind this kubelet does not know.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : no volume plugin matched for {kind}")]
    Unsupported {
        /// Its name in the pod.
        volume: String,
        /// The field of the volume that names its kind.
        kind: String,
    },
    /// A mount of a container could not be made.
    #[error("failed to prepare mount of volume \"{volume}\": {message}")]
    Mount {
        /// The volume's name in the pod.
        volume: String,
        /// What went wrong.
        message: String,
    },
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The directory of everything of one pod.
pub fn pod_dir(data_dir: &Path, uid: &str) -> PathBuf {
    data_dir.join("pods").join(uid)
}

/// Where the last words of one life of a container are written.
pub fn termination_log(data_dir: &Path, uid: &str, container: &str, restart_count: i32) -> PathBuf {
    pod_dir(data_dir, uid).join("containers").join(container).join(restart_count.to_string())
}

/// Makes every volume of the pod, or brings it up to date, but those that come from elsewhere. Blocks on the file system.
pub fn set_up(data_dir: &Path, sources: &Sources<'_>) -> Result<(), Error> {
    let pod = sources.pod;
    let fs_group = pod.spec.as_ref().and_then(|s| s.security_context.as_ref()?.fs_group);
    for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        set_up_one(data_dir, volume, sources, fs_group)?;
    }
    Ok(())
}

fn set_up_one(data_dir: &Path, volume: &Volume, sources: &Sources<'_>, fs_group: Option<i64>) -> Result<(), Error> {
    let dir = volume_path(data_dir, crate::pod::uid(sources.pod), volume, &sources.objects.claims);
    if let Some(source) = &volume.empty_dir {
        return empty_dir(&dir, volume, source, sources, fs_group);
    }
    if let Some(source) = &volume.host_path {
        return host_path::check(source).map_err(|message| failed(volume, message));
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        return claimed(volume, &claim.claim_name, sources, fs_group.filter(|_| claim.read_only != Some(true)));
    }
    if comes_from_elsewhere(volume) {
        return Ok(());
    }
    let Some(files) = payload::payload(volume, sources) else {
        let kind = kind(volume);
        return Err(Error::Unsupported { volume: volume.name.clone(), kind });
    };
    let mut files = files.map_err(|message| failed(volume, message))?;
    fs::create_dir_all(&dir).map_err(|source| io_error(&dir, source))?;
    if holds_secrets(volume) {
        tmpfs::ensure(&dir, None).map_err(|source| io_error(&dir, source))?;
    }
    if fs_group.is_some() {
        files.values_mut().for_each(|file| file.mode |= 0o440);
    }
    atomic_writer::write(&dir, &files, group(fs_group)).map_err(|source| io_error(&dir, source))
}

/// Whether making the volume means waiting for others: a server, a registry.
fn comes_from_elsewhere(volume: &Volume) -> bool {
    volume.nfs.is_some() || volume.image.is_some()
}

/// The volume behind a claim, where it is one of this machine.
fn claimed(volume: &Volume, claim: &str, sources: &Sources<'_>, fs_group: Option<i64>) -> Result<(), Error> {
    let bound = sources.objects.claims.get(claim).ok_or_else(|| failed(volume, "PVC is not bound".to_owned()))?;
    let name = bound.metadata.name.clone().unwrap_or_default();
    let unsupported = |kind| Error::Unsupported { volume: name.clone(), kind };
    let place = claims::place(bound).map_err(unsupported)?;
    claims::check(&place).map_err(|message| Error::SetUp { volume: name.clone(), message })?;
    if let (claims::Place::Local(path), Some(group)) = (&place, group(fs_group)) {
        let context = sources.pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
        let policy = context.and_then(|context| context.fs_group_change_policy.as_deref());
        let path = Path::new(path);
        ownership::give(path, group, policy == Some("OnRootMismatch")).map_err(|source| io_error(path, source))?;
    }
    Ok(())
}

/// A volume that comes from elsewhere, and where it is to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// An export to be mounted.
    Nfs(nfs::Export),
    /// An image to be unpacked: its name and pull policy.
    Image(String, Option<String>),
}

/// The volumes of the pod that come from elsewhere: name, what, and where to.
pub fn elsewhere(data_dir: &Path, pod: &Pod, claims: &Claims) -> Vec<(String, Elsewhere, PathBuf)> {
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let found = volumes.filter_map(|volume| {
        let place = volume_path(data_dir, crate::pod::uid(pod), volume, claims);
        let export = |source: &NFSVolumeSource, options: &[String]| {
            let read_only = source.read_only == Some(true);
            let (server, path, options) = (source.server.clone(), source.path.clone(), options.to_vec());
            Elsewhere::Nfs(nfs::Export { server, path, read_only, options })
        };
        let what = match volume {
            Volume { nfs: Some(source), .. } => export(source, &[]),
            Volume { image: Some(source), .. } => {
                Elsewhere::Image(source.reference.clone().unwrap_or_default(), source.pull_policy.clone())
            }
            Volume { persistent_volume_claim: Some(claim), .. } => {
                let spec = claims.get(&claim.claim_name)?.spec.as_ref()?;
                export(spec.nfs.as_ref()?, spec.mount_options.as_deref().unwrap_or_default())
            }
            _ => return None,
        };
        Some((volume.name.clone(), what, place))
    });
    found.collect()
}

fn failed(volume: &Volume, message: String) -> Error {
    Error::SetUp { volume: volume.name.clone(), message }
}

fn io_error(path: &Path, source: io::Error) -> Error {
    Error::Io { path: path.to_owned(), source }
}

fn group(fs_group: Option<i64>) -> Option<u32> {
    fs_group.and_then(|group| u32::try_from(group).ok())
}

/// Whether the volume's files must never reach a disk.
fn holds_secrets(volume: &Volume) -> bool {
    let projects = |v: &Volume| {
        v.projected.as_ref().is_some_and(|p| {
            p.sources.iter().flatten().any(|s| s.secret.is_some() || s.service_account_token.is_some())
        })
    };
    volume.secret.is_some() || projects(volume)
}

/// The volume's name for its kind, as the API spells it.
fn kind(volume: &Volume) -> String {
    let value = serde_json::to_value(volume).unwrap_or_default();
    let mut keys = value.as_object().into_iter().flat_map(|o| o.keys().cloned());
    keys.find(|key| key != "name").unwrap_or_else(|| "a volume without a source".to_owned())
}

/// Where the volume is on the host.
fn volume_path(data_dir: &Path, uid: &str, volume: &Volume, claims: &Claims) -> PathBuf {
    if let Some(source) = &volume.host_path {
        return PathBuf::from(&source.path);
    }
    let volumes = pod_dir(data_dir, uid).join("volumes");
    let bound = volume.persistent_volume_claim.as_ref().and_then(|claim| claims.get(&claim.claim_name));
    match bound.map(|bound| (bound, claims::place(bound))) {
        Some((_, Ok(claims::Place::HostPath(source)))) => return PathBuf::from(&source.path),
        Some((_, Ok(claims::Place::Local(path)))) => return PathBuf::from(path),
        Some((bound, _)) => {
            return volumes.join("kubernetes.io~nfs").join(bound.metadata.name.as_deref().unwrap_or_default());
        }
        None => {}
    }
    let plugin = match volume {
        Volume { empty_dir: Some(_), .. } => "empty-dir",
        Volume { secret: Some(_), .. } => "secret",
        Volume { config_map: Some(_), .. } => "configmap",
        Volume { downward_api: Some(_), .. } => "downward-api",
        Volume { nfs: Some(_), .. } => "nfs",
        Volume { image: Some(_), .. } => "image",
        _ => "projected",
    };
    volumes.join(format!("kubernetes.io~{plugin}")).join(&volume.name)
}

/// A directory of the pod's own: on disk, or one file system in memory that all its containers share.
fn empty_dir(
    dir: &Path,
    volume: &Volume,
    source: &EmptyDirVolumeSource,
    sources: &Sources<'_>,
    fs_group: Option<i64>,
) -> Result<(), Error> {
    let in_memory = match source.medium.as_deref() {
        None | Some("") => false,
        Some("Memory") => true,
        Some(medium) => return Err(failed(volume, format!("unknown storage medium \"{medium}\""))),
    };
    let made = || -> io::Result<()> {
        fs::create_dir_all(dir)?;
        if in_memory {
            tmpfs::ensure(dir, Some(memory_size(source, sources.pod, sources.node.memory)))?;
        }
        let mut mode = 0o777;
        if let Some(group) = group(fs_group) {
            chown(dir, None, Some(group))?;
            mode |= 0o2000;
        }
        if fs::metadata(dir)?.permissions().mode() & 0o7777 != mode {
            fs::set_permissions(dir, fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    };
    made().map_err(|source| io_error(dir, source))
}

/// How large an emptyDir in memory may become: no larger than the node's pods together, the pod, or the limit of its own
/// (`calculateEmptyDirMemorySize`).
fn memory_size(source: &EmptyDirVolumeSource, pod: &Pod, allocatable: i64) -> i64 {
    let own = source.size_limit.as_ref().map(|limit| api::quantity::of(limit).units());
    let bounds = [own, api::pods::memory_limit(pod)].into_iter().flatten().filter(|bound| *bound > 0);
    bounds.fold(allocatable, i64::min)
}

/// What of the pod's volumes `container` sees; the volumes are set up. Blocks on the file system.
pub fn mounts(
    data_dir: &Path,
    pod: &Pod,
    container: &Container,
    claims: &Claims,
    environment: &[(String, String)],
) -> Result<Vec<Mount>, Error> {
    let volumes: BTreeMap<&str, &Volume> =
        pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).map(|v| (v.name.as_str(), v)).collect();
    let mut mounts = Vec::new();
    for (index, wanted) in container.volume_mounts.iter().flatten().enumerate() {
        let mount_error = |message: String| Error::Mount { volume: wanted.name.clone(), message };
        let volume = volumes.get(wanted.name.as_str());
        let volume = volume.ok_or_else(|| mount_error("the pod has no such volume".to_owned()))?;
        let mut source = volume_path(data_dir, crate::pod::uid(pod), volume, claims);
        let expression = wanted.sub_path_expr.as_deref().filter(|e| !e.is_empty());
        let sub_path = match expression {
            Some(expression) => Some(expand_sub_path(expression, environment).map_err(|e| mount_error(e.to_string()))?),
            None => wanted.sub_path.clone().filter(|p| !p.is_empty()),
        };
        if let Some(sub_path) = sub_path {
            let place = pod_dir(data_dir, crate::pod::uid(pod)).join("volume-subpaths");
            let place = place.join(&wanted.name).join(&container.name).join(index.to_string());
            source = subpath::bind(&source, &sub_path, &place, !never_written(volume)).map_err(mount_error)?;
        }
        mounts.push(Mount {
            source,
            target: wanted.mount_path.clone(),
            read_only: wanted.read_only == Some(true) || never_written(volume),
            recursive_read_only: wanted.recursive_read_only.as_deref().map_or(Recursive::No, Recursive::of),
            propagation: match wanted.mount_propagation.as_deref() {
                Some("HostToContainer") => "rslave",
                Some("Bidirectional") => "rshared",
                _ => "rprivate",
            },
        });
    }
    Ok(mounts)
}

/// Whether nobody may write into the volume, whatever the mount says.
fn never_written(volume: &Volume) -> bool {
    let claim = volume.persistent_volume_claim.as_ref();
    payload::is_payload(volume) || volume.image.is_some() || claim.is_some_and(|claim| claim.read_only == Some(true))
}

/// `subPathExpr` with its references replaced; each must name something.
fn expand_sub_path(expression: &str, environment: &[(String, String)]) -> Result<String, EnvError> {
    let missing = std::cell::RefCell::new(None);
    let expanded = expansion::expand(expression, |name| {
        let value = environment.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
        if value.is_none() {
            missing.replace(Some(name.to_owned()));
        }
        value
    });
    match missing.into_inner() {
        Some(name) => Err(EnvError(format!("missing value for \"{name}\""))),
        None => Ok(expanded),
    }
}

/// Removes everything of the pod with this UID from disk; never anything behind a mount. Blocks.
pub fn tear_down(data_dir: &Path, uid: &str) -> io::Result<()> {
    let dir = pod_dir(data_dir, uid);
    if uid.is_empty() || uid.contains('/') || !dir.try_exists()? {
        return Ok(());
    }
    tmpfs::unmount_below(&dir)?;
    fs::remove_dir_all(&dir)
}

/// UIDs of pods of which something is on disk.
pub fn pods_on_disk(data_dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(data_dir.join("pods")) else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests;
