//! A pod's volumes: each has a name of its own and exactly one source.

mod sources;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodSpec, Volume};

use crate::field::{ErrorList, Path, duplicate, forbidden, required};
use crate::kinds::rules;

/// The volumes that mounts may name: those nothing is wrong with.
pub(super) struct Known<'a>(BTreeMap<&'a str, &'a Volume>);

impl Known<'_> {
    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether the volume is a claim, which can be a block device; `None` for an unknown volume.
    pub(super) fn is_claim(&self, name: &str) -> Option<bool> {
        self.0.get(name).map(|v| v.persistent_volume_claim.is_some() || v.ephemeral.is_some())
    }
}

pub(super) fn volumes<'a>(spec: &'a PodSpec, path: &Path, errors: &mut ErrorList) -> Known<'a> {
    let mut known = BTreeMap::new();
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = path.index(index);
        let before = errors.len();
        source(volume, &path, errors);
        rules::dns_label(&volume.name, &path.child("name"), errors);
        if known.contains_key(volume.name.as_str()) {
            errors.push(duplicate(&path.child("name"), volume.name.as_str()));
        }
        if errors.len() == before {
            known.insert(volume.name.as_str(), volume);
        }
    }
    Known(known)
}

/// Exactly one source; of several only the first is looked at.
fn source(volume: &Volume, path: &Path, errors: &mut ErrorList) {
    let mut fields = fields(volume).into_iter().filter(|(is_set, _)| *is_set).map(|(_, field)| field);
    match fields.next() {
        Some(field) => sources::validate(volume, field, path, errors),
        None => errors.push(required(path, "must specify a volume type")),
    }
    for field in fields {
        errors.push(forbidden(&path.child(field), "may not specify more than 1 volume type"));
    }
}

/// Every source there is, in the order upstream looks at them.
fn fields(volume: &Volume) -> [(bool, &'static str); 30] {
    [
        (volume.empty_dir.is_some(), "emptyDir"),
        (volume.host_path.is_some(), "hostPath"),
        (volume.git_repo.is_some(), "gitRepo"),
        (volume.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (volume.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (volume.secret.is_some(), "secret"),
        (volume.nfs.is_some(), "nfs"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.glusterfs.is_some(), "glusterfs"),
        (volume.flocker.is_some(), "flocker"),
        (volume.persistent_volume_claim.is_some(), "persistentVolumeClaim"),
        (volume.rbd.is_some(), "rbd"),
        (volume.cinder.is_some(), "cinder"),
        (volume.cephfs.is_some(), "cephfs"),
        (volume.quobyte.is_some(), "quobyte"),
        (volume.downward_api.is_some(), "downwardAPI"),
        (volume.fc.is_some(), "fc"),
        (volume.flex_volume.is_some(), "flexVolume"),
        (volume.config_map.is_some(), "configMap"),
        (volume.azure_file.is_some(), "azureFile"),
        (volume.vsphere_volume.is_some(), "vsphereVolume"),
        (volume.photon_persistent_disk.is_some(), "photonPersistentDisk"),
        (volume.portworx_volume.is_some(), "portworxVolume"),
        (volume.azure_disk.is_some(), "azureDisk"),
        (volume.storageos.is_some(), "storageos"),
        (volume.projected.is_some(), "projected"),
        (volume.scale_io.is_some(), "scaleIO"),
        (volume.csi.is_some(), "csi"),
        (volume.ephemeral.is_some(), "ephemeral"),
        (volume.image.is_some(), "image"),
    ]
}
