//! What the sources of volumes must say that pods and PersistentVolumes share. No node of ours serves most of them, and the
//! kubelet says so by name; what is wrong with them is said here, as upstream does
//! (`pkg/apis/core/validation/validation.go`).

mod forms;

use serde_json::Value;

use crate::field::{ErrorList, Path, invalid, not_supported, required, too_long};
use crate::kinds::rules;
use crate::names;
use forms::{is_host_and_port, is_initiator};

/// The texts that must be given, by source.
const REQUIRED: &[(&str, &[&str])] = &[
    ("awsElasticBlockStore", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("azureFile", &["secretName", "shareName"]),
    ("cinder", &["volumeID"]),
    ("flexVolume", &["driver"]),
    ("gcePersistentDisk", &["pdName"]),
    ("glusterfs", &["endpoints", "path"]),
    ("hostPath", &["path"]),
    ("iscsi", &["targetPortal", "iqn"]),
    ("nfs", &["server", "path"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("vsphereVolume", &["volumePath"]),
];

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
const HOST_AND_PORT: &str = "must be a host:port pair or multiple pairs separated by commas";
const MAX_CSI_DRIVER: usize = 63;
const MAX_TENANT: usize = 64;
/// How long the name of a volume (or of the pod's volume) and the portal may be together, with a colon between them.
const MAX_ISCSI_NAME: usize = 64;

/// Who has the source.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder<'a> {
    /// A volume of a pod, with its name and where that stands.
    Pod(&'a str, &'a Path),
    /// A PersistentVolume of this name.
    PersistentVolume(&'a str),
}

/// A source, where it stands and whose it is.
struct Source<'a> {
    value: &'a Value,
    path: Path,
    holder: Holder<'a>,
}

/// Checks the source `field`, which stands below `parent`.
pub(super) fn validate(field: &str, value: &Value, parent: &Path, holder: Holder<'_>, errors: &mut ErrorList) {
    // Upstream calls this one so.
    let name = if field == "gcePersistentDisk" { "persistentDisk" } else { field };
    let source = Source { value, path: parent.child(name), holder };
    let given = REQUIRED.iter().filter(|(source, _)| *source == field).flat_map(|(_, fields)| *fields);
    for field in given {
        rules::given(source.text(field), &source.path.child(field), errors);
    }
    match field {
        "awsElasticBlockStore" | "gcePersistentDisk" => source.partition(errors),
        "azureDisk" => source.azure_disk(errors),
        "azureFile" => source.azure_file(errors),
        "cephfs" => source.monitors(errors),
        "cinder" => source.secret(errors),
        "csi" => source.csi(errors),
        "fc" => source.fibre_channel(errors),
        "flexVolume" => source.flex(errors),
        "flocker" => source.flocker(errors),
        "glusterfs" => source.glusterfs(errors),
        "hostPath" => source.host_path(errors),
        "iscsi" => source.iscsi(errors),
        "nfs" if !source.text("path").starts_with('/') => {
            errors.push(invalid(&source.path.child("path"), source.text("path"), "must be an absolute path"));
        }
        "quobyte" => source.quobyte(errors),
        "rbd" => {
            source.monitors(errors);
            rules::given(source.text("image"), &source.path.child("image"), errors);
        }
        "storageos" => source.storageos(errors),
        _ => {}
    }
}

impl Source<'_> {
    fn text(&self, field: &str) -> &str {
        self.value[field].as_str().unwrap_or("")
    }

    fn has(&self, field: &str) -> bool {
        !self.value[field].is_null()
    }

    fn count(&self, field: &str) -> usize {
        self.value[field].as_array().map_or(0, Vec::len)
    }

    fn is_of_pod(&self) -> bool {
        matches!(self.holder, Holder::Pod(..))
    }

    fn partition(&self, errors: &mut ErrorList) {
        let partition = self.value["partition"].as_i64().unwrap_or(0);
        if !(0..=255).contains(&partition) {
            errors.push(invalid(&self.path.child("partition"), partition, "must be between 1 and 255, inclusive"));
        }
    }

    fn lun(&self, errors: &mut ErrorList) {
        let lun = self.value["lun"].as_i64().unwrap_or(0);
        if !(0..=255).contains(&lun) {
            errors.push(invalid(&self.path.child("lun"), lun, "must be between 0 and 255, inclusive"));
        }
    }

    fn monitors(&self, errors: &mut ErrorList) {
        if self.count("monitors") == 0 {
            errors.push(required(&self.path.child("monitors"), ""));
        }
    }

    /// A secret that is named; a PersistentVolume's is in a namespace.
    fn secret(&self, errors: &mut ErrorList) {
        let (secret, path) = (&self.value["secretRef"], self.path.child("secretRef"));
        if secret.is_null() {
            return;
        }
        rules::given(secret["name"].as_str().unwrap_or(""), &path.child("name"), errors);
        if !self.is_of_pod() {
            rules::given(secret["namespace"].as_str().unwrap_or(""), &path.child("namespace"), errors);
        }
    }

    fn azure_disk(&self, errors: &mut ErrorList) {
        let (kind, uri) = (self.value["kind"].as_str(), self.text("diskURI"));
        let mode = self.value["cachingMode"].as_str();
        rules::optional_one_of(mode, &["None", "ReadOnly", "ReadWrite"], &self.path.child("cachingMode"), errors);
        rules::optional_one_of(kind, &["Dedicated", "Managed", "Shared"], &self.path.child("kind"), errors);
        let (start, form) = match kind {
            None => return,
            Some("Managed") => (
                "/subscriptions/",
                "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
            ),
            Some(_) => ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"),
        };
        if !uri.starts_with(start) {
            errors.push(not_supported(&self.path.child("diskURI"), uri, &[form]));
        }
    }

    fn azure_file(&self, errors: &mut ErrorList) {
        if self.value["secretNamespace"] == "" {
            errors.push(required(&self.path.child("secretNamespace"), ""));
        }
    }

    fn csi(&self, errors: &mut ErrorList) {
        let (driver, path) = (self.text("driver"), self.path.child("driver"));
        rules::given(driver, &path, errors);
        if driver.len() > MAX_CSI_DRIVER {
            errors.push(too_long(&path, MAX_CSI_DRIVER));
        }
        rules::all(names::is_dns1123_subdomain(&driver.to_lowercase()), driver, &path, errors);
        if self.is_of_pod() {
            self.published_secret(errors);
            return;
        }
        rules::given(self.text("volumeHandle"), &self.path.child("volumeHandle"), errors);
        for field in
            ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"]
        {
            self.csi_secret(field, errors);
        }
    }

    /// The secret of a pod's own volume. The paths are upstream's, blank and all.
    fn published_secret(&self, errors: &mut ErrorList) {
        if self.has("nodePublishSecretRef") {
            let name = self.value["nodePublishSecretRef"]["name"].as_str().unwrap_or("");
            if rules::given(name, &self.path.child("nodePublishSecretRef ").child("name"), errors) {
                rules::dns_subdomain(name, &self.path.child("name"), errors);
            }
        }
    }

    fn csi_secret(&self, field: &str, errors: &mut ErrorList) {
        if !self.has(field) {
            return;
        }
        let (secret, path) = (&self.value[field], self.path.child(field));
        let text = |field: &str| secret[field].as_str().unwrap_or("");
        if rules::given(text("name"), &path.child("name"), errors) {
            rules::dns_subdomain(text("name"), &path.child("name"), errors);
        }
        rules::dns_label(text("namespace"), &path.child("namespace"), errors);
    }

    fn fibre_channel(&self, errors: &mut ErrorList) {
        let path = self.path.child("targetWWNs");
        match (self.count("targetWWNs"), self.count("wwids")) {
            (0, 0) => errors.push(required(&path, "must specify either targetWWNs or wwids, but not both")),
            (0, _) => {}
            (_, 0) if self.has("lun") => self.lun(errors),
            (_, 0) => {
                errors.push(required(&self.path.child("lun"), "lun is required if targetWWNs is specified"));
            }
            _ => {
                let detail = "targetWWNs and wwids can not be specified simultaneously";
                errors.push(invalid(&path, self.value["targetWWNs"].clone(), detail));
            }
        }
    }

    fn flex(&self, errors: &mut ErrorList) {
        for key in self.value["options"].as_object().into_iter().flat_map(|options| options.keys()) {
            let namespace = key.split_once('/').map_or(key.as_str(), |(namespace, _)| namespace);
            let namespace = format!(".{}", namespace.to_lowercase());
            if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
                let detail = "kubernetes.io and k8s.io namespaces are reserved";
                errors.push(invalid(&self.path.child("options").key(key), key.as_str(), detail));
            }
        }
    }

    fn flocker(&self, errors: &mut ErrorList) {
        let (name, uuid) = (self.text("datasetName"), self.text("datasetUUID"));
        if name.is_empty() && uuid.is_empty() {
            errors.push(required(&self.path, "one of datasetName and datasetUUID is required"));
        }
        if !name.is_empty() && !uuid.is_empty() {
            let detail = "datasetName and datasetUUID can not be specified simultaneously";
            errors.push(invalid(&self.path, "resource", detail));
        }
        if name.contains('/') {
            errors.push(invalid(&self.path.child("datasetName"), name, "must not contain '/'"));
        }
    }

    fn glusterfs(&self, errors: &mut ErrorList) {
        let path = self.path.child("endpointsNamespace");
        match self.value["endpointsNamespace"].as_str() {
            None => {}
            Some("") => {
                let detail = "if the endpointnamespace is set, it must be a valid namespace name";
                errors.push(invalid(&path, "", detail));
            }
            Some(namespace) => rules::dns_label(namespace, &path, errors),
        }
    }

    fn host_path(&self, errors: &mut ErrorList) {
        if !self.text("path").is_empty() {
            rules::no_backsteps(self.text("path"), &self.path.child("path"), errors);
            rules::optional_one_of(self.value["type"].as_str(), HOST_PATH_TYPES, &self.path.child("type"), errors);
        }
    }

    fn iscsi(&self, errors: &mut ErrorList) {
        let iqn = self.text("iqn");
        if !iqn.is_empty() {
            self.initiator(iqn, "iqn", errors);
        }
        self.lun(errors);
        let is_chap = ["chapAuthDiscovery", "chapAuthSession"].iter().any(|field| self.value[*field] == true);
        if is_chap && !self.has("secretRef") {
            errors.push(required(&self.path.child("secretRef"), ""));
        }
        if !self.is_of_pod() && self.has("secretRef") {
            let name = self.value["secretRef"]["name"].as_str().unwrap_or("");
            rules::given(name, &self.path.child("secretRef").child("name"), errors);
        }
        let Some(initiator) = self.value["initiatorName"].as_str() else { return };
        self.initiator(initiator, "initiatorname", errors);
        self.iscsi_name(errors);
    }

    fn initiator(&self, name: &str, field: &str, errors: &mut ErrorList) {
        let detail = match ["iqn", "eui", "naa"].iter().find(|start| name.starts_with(**start)) {
            None if self.is_of_pod() => "must be valid format starting with iqn, eui, or naa",
            Some(start) if is_initiator(name, start) => return,
            _ => "must be valid format",
        };
        errors.push(invalid(&self.path.child(field), name, detail));
    }

    fn iscsi_name(&self, errors: &mut ErrorList) {
        let portal = self.text("targetPortal");
        let path = self.path.child("targetportal");
        let (name, path, value) = match self.holder {
            Holder::Pod(name, path) => (name, path, name),
            Holder::PersistentVolume(name) => (name, &path, portal),
        };
        if name.len() + 1 + portal.len() > MAX_ISCSI_NAME {
            let detail = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if \
                          iscsi.initiatorName is specified.";
            errors.push(invalid(path, value, detail));
        }
    }

    fn quobyte(&self, errors: &mut ErrorList) {
        let (registry, path) = (self.text("registry"), self.path.child("registry"));
        if registry.is_empty() {
            errors.push(required(&path, HOST_AND_PORT));
        } else if self.text("tenant").len() > MAX_TENANT {
            let detail = "must be a UUID and may not exceed a length of 64 characters";
            errors.push(required(&self.path.child("tenant"), detail));
        } else {
            let wrong = registry.split(',').filter(|pair| !is_host_and_port(pair));
            errors.extend(wrong.map(|_| invalid(&path, registry, HOST_AND_PORT)));
        }
        rules::given(self.text("volume"), &self.path.child("volume"), errors);
    }

    fn storageos(&self, errors: &mut ErrorList) {
        rules::dns_label(self.text("volumeName"), &self.path.child("volumeName"), errors);
        if !self.text("volumeNamespace").is_empty() {
            rules::dns_label(self.text("volumeNamespace"), &self.path.child("volumeNamespace"), errors);
        }
        self.secret(errors);
    }
}

#[cfg(test)]
mod tests;
