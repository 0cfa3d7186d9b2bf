//! What files a volume made from API objects has: Secret, ConfigMap, downward API and projected volumes.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    ConfigMap, DownwardAPIVolumeFile, KeyToPath, PodSpec, Secret, ServiceAccountTokenProjection, Volume,
    VolumeProjection,
};

use crate::env::{Sources, downward};
use crate::tokens::Wanted;

/// A file: what is in it and its permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its bytes.
    pub data: Vec<u8>,
    /// Its permission bits, exactly.
    pub mode: u32,
    /// Its user, if not root.
    pub owner: Option<u32>,
}

/// Files by path relative to the volume.
pub type Payload = BTreeMap<String, File>;

/// Permissions where nobody names any.
const DEFAULT_MODE: i32 = 0o644;

/// Whether the volume is made from API objects.
pub fn is_payload(volume: &Volume) -> bool {
    volume.secret.is_some()
        || volume.config_map.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

/// The files of `volume`, or why there are none; `None` if it is no such volume.
pub fn payload(volume: &Volume, sources: &Sources<'_>) -> Option<Result<Payload, String>> {
    if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        return Some(secret(name, &source.items, source.default_mode, source.optional, sources));
    }
    if let Some(source) = &volume.config_map {
        return Some(config_map(&source.name, &source.items, source.default_mode, source.optional, sources));
    }
    if let Some(source) = &volume.downward_api {
        return Some(downward_files(source.items.as_deref().unwrap_or_default(), source.default_mode, sources));
    }
    let source = volume.projected.as_ref()?;
    let mut files = Payload::new();
    for projection in source.sources.iter().flatten() {
        match projected(projection, source.default_mode, sources) {
            Ok(more) => files.extend(more),
            Err(message) => return Some(Err(message)),
        }
    }
    Some(Ok(files))
}

fn projected(projection: &VolumeProjection, mode: Option<i32>, sources: &Sources<'_>) -> Result<Payload, String> {
    if let Some(source) = &projection.secret {
        return secret(&source.name, &source.items, mode, source.optional, sources);
    }
    if let Some(source) = &projection.config_map {
        return config_map(&source.name, &source.items, mode, source.optional, sources);
    }
    if let Some(source) = &projection.downward_api {
        return downward_files(source.items.as_deref().unwrap_or_default(), mode, sources);
    }
    if let Some(source) = &projection.service_account_token {
        return token(source, mode, sources);
    }
    Err("projected sources other than serviceAccountToken, secret, configMap and downwardAPI are not supported"
        .to_owned())
}

/// Readable for the one user the pod's containers run as, or for the pod's group; for everybody where there is neither
/// (`pkg/volume/projected/projected.go`).
fn token(source: &ServiceAccountTokenProjection, mode: Option<i32>, sources: &Sources<'_>) -> Result<Payload, String> {
    let token = sources.objects.tokens.get(&Wanted::by(source)).ok_or("failed to fetch token: there is none")?;
    let spec = sources.pod.spec.as_ref();
    let owner = spec.and_then(only_user);
    let has_group = spec.and_then(|s| s.security_context.as_ref()?.fs_group).is_some();
    let mode = if owner.is_some() || has_group { 0o600 } else { bits(mode.unwrap_or(DEFAULT_MODE)) };
    Ok(Payload::from([(checked(&source.path)?, File { data: token.text.clone().into_bytes(), mode, owner })]))
}

/// The user all containers run as (`FsUserFrom` in `pkg/volume/util`).
fn only_user(spec: &PodSpec) -> Option<u32> {
    let of_pod = spec.security_context.as_ref().and_then(|s| s.run_as_user);
    let containers = crate::pod::init_containers(spec).iter().chain(&spec.containers);
    let users = containers.map(|c| c.security_context.as_ref().and_then(|s| s.run_as_user).or(of_pod));
    let users: BTreeSet<Option<i64>> = users.collect();
    match Vec::from_iter(users).as_slice() {
        [Some(user)] => u32::try_from(*user).ok(),
        _ => None,
    }
}

fn secret(
    name: &str,
    items: &Option<Vec<KeyToPath>>,
    mode: Option<i32>,
    optional: Option<bool>,
    sources: &Sources<'_>,
) -> Result<Payload, String> {
    let object: Option<&Secret> = sources.objects.secrets.get(name).and_then(|o| o.as_deref());
    let optional = optional == Some(true);
    if object.is_none() && !optional {
        return Err(format!("secret \"{name}\" not found"));
    }
    let data = object.iter().flat_map(|o| o.data.iter().flatten()).map(|(key, value)| (key.clone(), value.0.clone()));
    pick(data.collect(), items, mode, optional)
}

fn config_map(
    name: &str,
    items: &Option<Vec<KeyToPath>>,
    mode: Option<i32>,
    optional: Option<bool>,
    sources: &Sources<'_>,
) -> Result<Payload, String> {
    let object: Option<&ConfigMap> = sources.objects.config_maps.get(name).and_then(|o| o.as_deref());
    let optional = optional == Some(true);
    if object.is_none() && !optional {
        return Err(format!("configmap \"{name}\" not found"));
    }
    let text = object.iter().flat_map(|o| o.data.iter().flatten()).map(|(k, v)| (k.clone(), v.clone().into_bytes()));
    let binary = object.iter().flat_map(|o| o.binary_data.iter().flatten()).map(|(k, v)| (k.clone(), v.0.clone()));
    pick(text.chain(binary).collect(), items, mode, optional)
}

/// All of `data`, or the items of it that are asked for.
fn pick(
    data: BTreeMap<String, Vec<u8>>,
    items: &Option<Vec<KeyToPath>>,
    mode: Option<i32>,
    optional: bool,
) -> Result<Payload, String> {
    let default = mode.unwrap_or(DEFAULT_MODE);
    let Some(items) = items.as_ref().filter(|items| !items.is_empty()) else {
        return Ok(data
            .into_iter()
            .map(|(key, data)| (key, File { data, mode: bits(default), owner: None }))
            .collect());
    };
    let mut files = Payload::new();
    for item in items {
        match data.get(&item.key) {
            Some(data) => {
                let file = File { data: data.clone(), mode: bits(item.mode.unwrap_or(default)), owner: None };
                files.insert(checked(&item.path)?, file);
            }
            None if optional => {}
            None => return Err(format!("references non-existent config key: {}", item.key)),
        }
    }
    Ok(files)
}

fn downward_files(
    items: &[DownwardAPIVolumeFile],
    mode: Option<i32>,
    sources: &Sources<'_>,
) -> Result<Payload, String> {
    let default = mode.unwrap_or(DEFAULT_MODE);
    let mut files = Payload::new();
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => downward::field(sources.pod, sources.pod_ip, sources.node, &field.field_path),
            (None, Some(resource)) => downward::resource(sources.pod, &Default::default(), sources.node, resource),
            (None, None) => Ok(String::new()),
        };
        let data = text.map_err(|error| error.to_string())?.into_bytes();
        files.insert(checked(&item.path)?, File { data, mode: bits(item.mode.unwrap_or(default)), owner: None });
    }
    Ok(files)
}

/// Paths stay inside the volume and clear of the names its upkeep uses. The API server refuses others at the door.
fn checked(path: &str) -> Result<String, String> {
    let inside = !path.is_empty() && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    if inside && !path.starts_with("..") { Ok(path.to_owned()) } else { Err(format!("invalid path: {path}")) }
}

fn bits(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(0o644) & 0o777
}
