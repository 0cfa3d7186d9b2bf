//! Where a container sees the pod's volumes.

use k8s_openapi::api::core::v1::{Container, VolumeMount};

use super::volumes::Known;
use crate::field::{ErrorList, Path, forbidden, invalid, not_found};
use crate::kinds::rules;

const PROPAGATIONS: &[&str] = &["Bidirectional", "HostToContainer", "None"];
const RECURSIVE_READ_ONLY: &[&str] = &["Disabled", "Enabled", "IfPossible"];

pub(super) fn mounts(container: &Container, volumes: &Known, path: &Path, errors: &mut ErrorList) {
    let mounts = container.volume_mounts.as_deref().unwrap_or(&[]);
    let devices = container.volume_devices.as_deref().unwrap_or(&[]);
    for (index, mount) in mounts.iter().enumerate() {
        let (of_list, path) = (path, path.index(index));
        rules::given(&mount.name, &path.child("name"), errors);
        if !volumes.contains(&mount.name) {
            errors.push(not_found(&path.child("name"), mount.name.as_str()));
        }
        rules::given(&mount.mount_path, &path.child("mountPath"), errors);
        if mounts[..index].iter().any(|m| m.mount_path == mount.mount_path) {
            errors.push(invalid(&path.child("mountPath"), mount.mount_path.as_str(), "must be unique"));
        }
        if devices.iter().any(|d| d.name == mount.name) {
            let detail = "must not already exist in volumeDevices";
            errors.push(invalid(&path.child("name"), mount.name.as_str(), detail));
        }
        if devices.iter().any(|d| d.device_path == mount.mount_path) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.push(invalid(&path.child("mountPath"), mount.mount_path.as_str(), detail));
        }
        sub_path(mount, of_list, &path, errors);
        propagation(mount, container, &of_list.child("mountPropagation"), errors);
        recursive_read_only(mount, &of_list.child("recursiveReadOnly"), errors);
    }
}

fn sub_path(mount: &VolumeMount, of_list: &Path, path: &Path, errors: &mut ErrorList) {
    let sub_path = mount.sub_path.as_deref().unwrap_or("");
    if !sub_path.is_empty() {
        rules::descending_path(sub_path, &of_list.child("subPath"), errors);
    }
    let expression = mount.sub_path_expr.as_deref().unwrap_or("");
    if !expression.is_empty() {
        if !sub_path.is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errors.push(invalid(&path.child("subPathExpr"), expression, detail));
        }
        rules::descending_path(expression, &of_list.child("subPathExpr"), errors);
    }
}

fn propagation(mount: &VolumeMount, container: &Container, path: &Path, errors: &mut ErrorList) {
    rules::optional_one_of(mount.mount_propagation.as_deref(), PROPAGATIONS, path, errors);
    let is_privileged = container.security_context.as_ref().and_then(|s| s.privileged).unwrap_or(false);
    if mount.mount_propagation.as_deref() == Some("Bidirectional") && !is_privileged {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(forbidden(path, detail));
    }
}

fn recursive_read_only(mount: &VolumeMount, path: &Path, errors: &mut ErrorList) {
    let Some(mode) = mount.recursive_read_only.as_deref() else { return };
    rules::optional_one_of(Some(mode), RECURSIVE_READ_ONLY, path, errors);
    if matches!(mode, "Enabled" | "IfPossible") {
        if mount.read_only != Some(true) {
            errors.push(forbidden(path, "may only be specified when readOnly is true"));
        }
        if mount.mount_propagation.as_deref().is_some_and(|p| p != "None") {
            errors.push(forbidden(path, "may only be specified when mountPropagation is None or not specified"));
        }
    }
}

pub(super) fn devices(container: &Container, volumes: &Known, path: &Path, errors: &mut ErrorList) {
    let devices = container.volume_devices.as_deref().unwrap_or(&[]);
    for (index, device) in devices.iter().enumerate() {
        let (name, path_field) = (path.index(index).child("name"), path.index(index).child("devicePath"));
        rules::given(&device.name, &name, errors);
        if devices[..index].iter().any(|d| d.name == device.name) {
            errors.push(invalid(&name, device.name.as_str(), "must be unique"));
        }
        match volumes.is_claim(&device.name) {
            Some(true) => {}
            Some(false) => errors.push(invalid(
                &name,
                device.name.as_str(),
                "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
            )),
            None => errors.push(not_found(&name, device.name.as_str())),
        }
        rules::given(&device.device_path, &path_field, errors);
        if devices[..index].iter().any(|d| d.device_path == device.device_path) {
            errors.push(invalid(&path_field, device.device_path.as_str(), "must be unique"));
        }
        if device.device_path.split('/').any(|part| part == "..") {
            errors.push(invalid(&path_field, device.device_path.as_str(), "can not contain backsteps ('..')"));
        }
    }
}
