//! What each source of a volume must say. Sources that no node of ours serves are accepted if nothing is wrong with them: the
//! kubelet says so when the pod starts.

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use crate::field::{ErrorList, Path, forbidden, invalid, required};
use crate::kinds::rules;
use crate::kinds::volume_sources::{self, Holder};

use super::super::env;

/// The shortest life of a projected token.
const TOKEN_MIN_SECONDS: i64 = 10 * 60;
/// The longest life of a projected token.
const TOKEN_MAX_SECONDS: i64 = 1 << 32;

/// Checks the source `field` of `volume`, which stands at `parent`.
pub(super) fn validate(volume: &Volume, field: &str, parent: &Path, errors: &mut ErrorList) {
    let path = &parent.child(field);
    match field {
        "emptyDir" => empty_dir(volume, path, errors),
        "secret" => volume.secret.iter().for_each(|s| {
            rules::given(s.secret_name.as_deref().unwrap_or(""), &path.child("secretName"), errors);
            rules::file_mode(s.default_mode, &path.child("defaultMode"), errors);
            keys(s.items.as_deref(), &path.child("items"), errors);
        }),
        "configMap" => volume.config_map.iter().for_each(|s| {
            rules::given(&s.name, &path.child("name"), errors);
            rules::file_mode(s.default_mode, &path.child("defaultMode"), errors);
            keys(s.items.as_deref(), &path.child("items"), errors);
        }),
        "downwardAPI" => volume.downward_api.iter().for_each(|s| {
            rules::file_mode(s.default_mode, &path.child("defaultMode"), errors);
            for file in s.items.iter().flatten() {
                downward_file(file, path, errors);
            }
        }),
        "projected" => projected(volume, path, errors),
        _ => elsewhere(volume, field, parent, errors),
    }
}

fn empty_dir(volume: &Volume, path: &Path, errors: &mut ErrorList) {
    let Some(limit) = volume.empty_dir.as_ref().and_then(|e| e.size_limit.as_ref()) else { return };
    if limit.0.parse::<crate::quantity::Quantity>().map_or(true, |q| q.is_negative()) {
        errors.push(forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity"));
    }
}

/// Which keys become which files.
fn keys(items: Option<&[KeyToPath]>, path: &Path, errors: &mut ErrorList) {
    for (index, item) in items.unwrap_or(&[]).iter().enumerate() {
        let path = path.index(index);
        rules::given(&item.key, &path.child("key"), errors);
        rules::given(&item.path, &path.child("path"), errors);
        rules::descending_unreserved_path(&item.path, &path.child("path"), errors);
        rules::file_mode(item.mode, &path.child("mode"), errors);
    }
}

fn downward_file(file: &DownwardAPIVolumeFile, path: &Path, errors: &mut ErrorList) {
    rules::given(&file.path, &path.child("path"), errors);
    rules::descending_unreserved_path(&file.path, &path.child("path"), errors);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), other) => {
            env::object_field(field, env::VOLUME_FIELDS, &path.child("fieldRef"), errors);
            if other.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(invalid(path, "resource", detail));
            }
        }
        (None, Some(field)) => env::resource_field(field, true, &path.child("resourceFieldRef"), errors),
        (None, None) => errors.push(required(path, "one of fieldRef and resourceFieldRef is required")),
    }
    rules::file_mode(file.mode, &path.child("mode"), errors);
}

fn projected(volume: &Volume, path: &Path, errors: &mut ErrorList) {
    let Some(source) = volume.projected.as_ref() else { return };
    rules::file_mode(source.default_mode, &path.child("defaultMode"), errors);
    let mut files: Vec<&str> = Vec::new();
    for (index, projection) in source.sources.iter().flatten().enumerate() {
        one_projection(projection, &path.child("sources").index(index), errors);
        for (file, shown) in projected_files(projection).into_iter().filter(|(file, _)| !file.is_empty()) {
            if files.contains(&file) {
                errors.push(invalid(path, shown, "conflicting duplicate paths"));
            } else {
                files.push(file);
            }
        }
    }
}

fn one_projection(projection: &VolumeProjection, path: &Path, errors: &mut ErrorList) {
    let set = [
        (projection.secret.is_some(), "secret"),
        (projection.config_map.is_some(), "configMap"),
        (projection.downward_api.is_some(), "downwardAPI"),
        (projection.service_account_token.is_some(), "serviceAccountToken"),
        (projection.cluster_trust_bundle.is_some(), "clusterTrustBundle"),
        (projection.pod_certificate.is_some(), "podCertificate"),
    ];
    let mut fields = set.into_iter().filter(|(is_set, _)| *is_set).map(|(_, field)| field);
    match fields.next() {
        Some(field) => projection_source(projection, &path.child(field), errors),
        None => errors.push(required(path, "must specify a volume type")),
    }
    for field in fields {
        errors.push(forbidden(&path.child(field), "may not specify more than 1 volume type per source"));
    }
}

fn projection_source(projection: &VolumeProjection, path: &Path, errors: &mut ErrorList) {
    if let Some(secret) = &projection.secret {
        rules::given(&secret.name, &path.child("name"), errors);
        keys(secret.items.as_deref(), &path.child("items"), errors);
    } else if let Some(config_map) = &projection.config_map {
        rules::given(&config_map.name, &path.child("name"), errors);
        keys(config_map.items.as_deref(), &path.child("items"), errors);
    } else if let Some(downward_api) = &projection.downward_api {
        for file in downward_api.items.iter().flatten() {
            downward_file(file, path, errors);
        }
    } else if let Some(token) = &projection.service_account_token {
        self::token(token, path, errors);
    } else if let Some(bundle) = &projection.cluster_trust_bundle {
        rules::given(&bundle.path, &path.child("path"), errors);
    }
}

fn token(token: &ServiceAccountTokenProjection, path: &Path, errors: &mut ErrorList) {
    let seconds = token.expiration_seconds.unwrap_or(TOKEN_MIN_SECONDS);
    let expiration = path.child("expirationSeconds");
    if seconds < TOKEN_MIN_SECONDS {
        errors.push(invalid(&expiration, seconds, "may not specify a duration less than 10 minutes"));
    }
    if seconds > TOKEN_MAX_SECONDS {
        errors.push(invalid(&expiration, seconds, "may not specify a duration larger than 2^32 seconds"));
    }
    if rules::given(&token.path, &path.child("path"), errors) {
        rules::descending_unreserved_path(&token.path, &path.child("path"), errors);
    }
}

/// Each file, and by what it is named where it is there twice: that of a secret or config map by the source.
fn projected_files(projection: &VolumeProjection) -> Vec<(&str, &str)> {
    let secret = projection
        .secret
        .iter()
        .flat_map(|s| s.items.iter().flatten().map(move |i| (i.path.as_str(), s.name.as_str())));
    let config_map = projection
        .config_map
        .iter()
        .flat_map(|s| s.items.iter().flatten().map(move |i| (i.path.as_str(), s.name.as_str())));
    let downward = projection.downward_api.iter().flat_map(|s| s.items.iter().flatten()).map(|i| i.path.as_str());
    let token = projection.service_account_token.iter().map(|t| t.path.as_str());
    secret.chain(config_map).chain(downward.chain(token).map(|path| (path, path))).collect()
}

/// Sources that only name something.
fn elsewhere(volume: &Volume, field: &str, parent: &Path, errors: &mut ErrorList) {
    let path = &parent.child(field);
    match field {
        "gitRepo" => volume.git_repo.iter().for_each(|s| {
            rules::given(&s.repository, &path.child("repository"), errors);
            let directory = s.directory.as_deref().unwrap_or("");
            rules::descending_path(directory, &path.child("directory"), errors);
        }),
        "persistentVolumeClaim" => volume.persistent_volume_claim.iter().for_each(|s| {
            rules::given(&s.claim_name, &path.child("claimName"), errors);
        }),
        "ephemeral" if volume.ephemeral.as_ref().is_some_and(|e| e.volume_claim_template.is_none()) => {
            errors.push(required(&path.child("volumeClaimTemplate"), ""));
        }
        "image" => volume.image.iter().for_each(|s| {
            rules::given(s.reference.as_deref().unwrap_or(""), &path.child("reference"), errors);
        }),
        "ephemeral" => {}
        _ => {
            let value = serde_json::to_value(volume).unwrap_or_default();
            let name = parent.child("name");
            volume_sources::validate(field, &value[field], parent, Holder::Pod(&volume.name, &name), errors);
        }
    }
}
