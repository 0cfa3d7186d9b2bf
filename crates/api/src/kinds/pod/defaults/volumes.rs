//! What a volume's author may leave out.

use k8s_openapi::api::core::v1::{
    AzureDiskVolumeSource, DownwardAPIVolumeFile, EmptyDirVolumeSource, Volume, VolumeProjection,
};

use super::{divisor, or_text, pull_policy};
use crate::quantity::canonicalize;

/// Permission bits of files in volumes: 0644.
const DEFAULT_MODE: i32 = 0o644;
/// How long a projected token is valid: an hour.
const TOKEN_EXPIRATION_SECONDS: i64 = 3600;

pub(super) fn volume(volume: &mut Volume) {
    if *volume == (Volume { name: volume.name.clone(), ..Volume::default() }) {
        volume.empty_dir = Some(EmptyDirVolumeSource::default());
    }
    if let Some(limit) = volume.empty_dir.as_mut().and_then(|e| e.size_limit.as_mut()) {
        canonicalize(limit);
    }
    if let Some(host_path) = volume.host_path.as_mut() {
        host_path.type_.get_or_insert_default();
    }
    if let Some(secret) = volume.secret.as_mut() {
        secret.default_mode.get_or_insert(DEFAULT_MODE);
    }
    if let Some(config_map) = volume.config_map.as_mut() {
        config_map.default_mode.get_or_insert(DEFAULT_MODE);
    }
    if let Some(downward_api) = volume.downward_api.as_mut() {
        downward_api.default_mode.get_or_insert(DEFAULT_MODE);
        downward_api.items.iter_mut().flatten().for_each(downward_file);
    }
    if let Some(projected) = volume.projected.as_mut() {
        projected.default_mode.get_or_insert(DEFAULT_MODE);
        projected.sources.iter_mut().flatten().for_each(projection);
    }
    if let Some(image) = volume.image.as_mut() {
        or_text(&mut image.pull_policy, pull_policy(image.reference.as_deref().unwrap_or("")));
    }
    if let Some(template) = volume.ephemeral.as_mut().and_then(|e| e.volume_claim_template.as_mut()) {
        or_text(&mut template.spec.volume_mode, "Filesystem");
    }
    network_volume(volume);
}

fn projection(projection: &mut VolumeProjection) {
    if let Some(downward_api) = projection.downward_api.as_mut() {
        downward_api.items.iter_mut().flatten().for_each(downward_file);
    }
    if let Some(token) = projection.service_account_token.as_mut() {
        token.expiration_seconds.get_or_insert(TOKEN_EXPIRATION_SECONDS);
    }
}

fn downward_file(file: &mut DownwardAPIVolumeFile) {
    if let Some(field) = file.field_ref.as_mut() {
        or_text(&mut field.api_version, "v1");
    }
    if let Some(field) = file.resource_field_ref.as_mut() {
        divisor(field);
    }
}

/// Volumes served by machines elsewhere.
fn network_volume(volume: &mut Volume) {
    if let Some(iscsi) = volume.iscsi.as_mut() {
        or_text(&mut iscsi.iscsi_interface, "default");
    }
    if let Some(rbd) = volume.rbd.as_mut() {
        or_text(&mut rbd.pool, "rbd");
        or_text(&mut rbd.user, "admin");
        or_text(&mut rbd.keyring, "/etc/ceph/keyring");
    }
    if let Some(scale_io) = volume.scale_io.as_mut() {
        or_text(&mut scale_io.storage_mode, "ThinProvisioned");
        or_text(&mut scale_io.fs_type, "xfs");
    }
    if let Some(disk) = volume.azure_disk.as_mut() {
        azure_disk(disk);
    }
}

/// What is empty here was given.
pub(in crate::kinds) fn azure_disk(disk: &mut AzureDiskVolumeSource) {
    disk.caching_mode.get_or_insert_with(|| "ReadWrite".to_owned());
    disk.kind.get_or_insert_with(|| "Shared".to_owned());
    disk.fs_type.get_or_insert_with(|| "ext4".to_owned());
    disk.read_only.get_or_insert(false);
}
