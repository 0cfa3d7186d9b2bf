//! `ServiceAccount`: a pod runs as an account of its namespace, `default` unless it says otherwise, and finds in a volume
//! what it needs to speak to the API as that account.
//!
//! Compare `plugin/pkg/admission/serviceaccount`.

mod secrets;

use std::time::Duration;

use api::{Kind, Object, Subresource};
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath, ObjectFieldSelector, Pod,
    PodSpec, ProjectedVolumeSource, ServiceAccount as Account, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};

use super::{Attributes, Effects, Operation, Plugin};
use crate::authn::ADMISSION_EXPIRATION_SECONDS;
use crate::cache::Cache;
use crate::status::ApiError;

/// The account of pods that name none. Every namespace gets it from a controller.
const DEFAULT_ACCOUNT: &str = "default";
/// How long a pod waits for that controller in a namespace just made; upstream looks ten times in about as long.
const DEFAULT_ACCOUNT_WAIT: Duration = Duration::from_millis(1500);
/// Where containers find their account's token, the cluster's CA and their namespace.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// What the names of such volumes start with.
const VOLUME_PREFIX: &str = "kube-api-access-";
/// Where every namespace has the cluster's CA.
const ROOT_CA: &str = "kube-root-ca.crt";
/// Permissions of the files, 0644.
const FILE_MODE: i32 = 0o644;

pub(super) struct ServiceAccount;

impl Plugin for ServiceAccount {
    fn admit(&self, a: &Attributes<'_>, object: &mut dyn Object, _: &mut Effects) -> Result<(), ApiError> {
        if a.is(Operation::Create, "pods")
            && let Some(pod) = object.as_any_mut().downcast_mut::<Pod>()
        {
            if api::pods::is_mirror(pod) {
                return mirror_needs_nothing(a, pod);
            }
            if let Some(spec) = pod.spec.as_mut() {
                default_service_account(spec);
                complete(spec, &account(a, spec)?);
            }
        }
        Ok(())
    }

    fn validate(&self, a: &Attributes<'_>, object: Option<&dyn Object>, _: &mut Effects) -> Result<(), ApiError> {
        let Some(pod) = object.and_then(|o| o.as_any().downcast_ref::<Pod>()) else { return Ok(()) };
        let Some(spec) = pod.spec.as_ref() else { return Ok(()) };
        let is_new = a.is(Operation::Create, "pods");
        if is_new && api::pods::is_mirror(pod) {
            return mirror_needs_nothing(a, pod);
        }
        let joins = a.operation == Operation::Update && a.subresource == Some(Subresource::EphemeralContainers);
        if !(is_new || joins) {
            return Ok(());
        }
        let account = account(a, spec)?;
        if !limits_secrets(&account) {
            return Ok(());
        }
        match if joins { secrets::of_ephemeral(spec, &account) } else { secrets::of_pod(spec, &account) } {
            Some(why) => Err(a.forbidden(why)),
            None => Ok(()),
        }
    }
}

/// The picture of a static pod shows what runs already: nothing is added, and nothing of the API may be in it. Upstream says
/// so before anything else about it, as here.
fn mirror_needs_nothing(a: &Attributes<'_>, pod: &Pod) -> Result<(), ApiError> {
    let what = pod.spec.as_ref().and_then(needs_api);
    what.map_or(Ok(()), |what| Err(a.forbidden(format!("a mirror pod may not {what}"))))
}

/// Accounts with this annotation lend their pods no other secrets than they name.
const ENFORCE_MOUNTABLE_SECRETS: &str = "kubernetes.io/enforce-mountable-secrets";

/// What Go's `strconv.ParseBool` takes for true.
fn limits_secrets(account: &Account) -> bool {
    let text = account.metadata.annotations.as_ref().and_then(|all| all.get(ENFORCE_MOUNTABLE_SECRETS));
    text.is_some_and(|text| matches!(text.as_str(), "1" | "t" | "T" | "TRUE" | "true" | "True"))
}

/// Waits for an account whose lack was the reason of a refusal, if a controller is about to make it; whether it was worth
/// waiting.
pub(crate) async fn appears(cache: &Cache, refusal: &ApiError) -> bool {
    let ApiError::NoServiceAccount { account, .. } = refusal else { return false };
    let Some((namespace, DEFAULT_ACCOUNT)) = account.split_once('/') else { return false };
    let kind = accounts();
    cache.of(kind).appears(&kind.info.registry_key(Some(namespace), DEFAULT_ACCOUNT), DEFAULT_ACCOUNT_WAIT).await
}

fn accounts() -> &'static Kind {
    api::kinds::by_kind("v1", "ServiceAccount").expect("service accounts are in the table of kinds")
}

fn default_service_account(spec: &mut PodSpec) {
    let name = spec.service_account_name.take().filter(|n| !n.is_empty());
    let name = name.or_else(|| spec.service_account.take().filter(|n| !n.is_empty()));
    let name = name.unwrap_or_else(|| DEFAULT_ACCOUNT.to_owned());
    spec.service_account = Some(name.clone());
    spec.service_account_name = Some(name);
}

/// The account the pod runs as.
fn account(a: &Attributes<'_>, spec: &PodSpec) -> Result<Account, ApiError> {
    let (namespace, name) = (a.namespace.unwrap_or(""), spec.service_account_name.as_deref().unwrap_or(""));
    let key = accounts().info.registry_key(Some(namespace), name);
    let Some(entry) = a.cache.of(accounts()).get(&key) else {
        return Err(ApiError::NoServiceAccount { subject: a.subject(), account: format!("{namespace}/{name}") });
    };
    serde_json::from_slice(entry.json()).map_err(|e| ApiError::Internal(format!("service account {name}: {e}")))
}

/// Gives the pod what its account has.
fn complete(spec: &mut PodSpec, account: &Account) {
    let mounts = spec.automount_service_account_token.or(account.automount_service_account_token).unwrap_or(true);
    if mounts {
        mount_token(spec);
    }
    if spec.image_pull_secrets.as_ref().is_none_or(Vec::is_empty) {
        spec.image_pull_secrets = account.image_pull_secrets.clone().filter(|secrets| !secrets.is_empty());
    }
}

/// Mounts the account's token into every container that has nothing at its place.
fn mount_token(spec: &mut PodSpec) {
    let existing = spec.volumes.iter().flatten().find(|volume| volume.name.starts_with(VOLUME_PREFIX));
    let existing = existing.map(|volume| volume.name.clone());
    let name = existing.clone().unwrap_or_else(|| api::names::generate_name(VOLUME_PREFIX, &mut rand::rng()));
    let mut is_needed = false;
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        is_needed |= mount(container, &name);
    }
    if is_needed && existing.is_none() {
        spec.volumes.get_or_insert_default().push(volume(name));
    }
}

/// Whether the mount was missing.
fn mount(container: &mut Container, volume: &str) -> bool {
    let mounts = container.volume_mounts.get_or_insert_default();
    let is_missing = mounts.iter().all(|mount| mount.mount_path != MOUNT_PATH);
    if is_missing {
        mounts.push(VolumeMount {
            name: volume.to_owned(),
            mount_path: MOUNT_PATH.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
    is_missing
}

fn volume(name: String) -> Volume {
    let token = ServiceAccountTokenProjection {
        audience: None,
        expiration_seconds: Some(ADMISSION_EXPIRATION_SECONDS),
        path: "token".to_owned(),
    };
    let certificate = KeyToPath { key: "ca.crt".to_owned(), mode: None, path: "ca.crt".to_owned() };
    let field = ObjectFieldSelector { api_version: Some("v1".into()), field_path: "metadata.namespace".into() };
    let namespace = DownwardAPIVolumeFile {
        field_ref: Some(field),
        path: "namespace".to_owned(),
        ..DownwardAPIVolumeFile::default()
    };
    let certificates = ConfigMapProjection { name: ROOT_CA.to_owned(), items: Some(vec![certificate]), optional: None };
    let sources = vec![
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(certificates), ..VolumeProjection::default() },
        VolumeProjection {
            downward_api: Some(DownwardAPIProjection { items: Some(vec![namespace]) }),
            ..VolumeProjection::default()
        },
    ];
    let projected = ProjectedVolumeSource { default_mode: Some(FILE_MODE), sources: Some(sources) };
    Volume { name, projected: Some(projected), ..Volume::default() }
}

/// What a pod does that needs the API to know it, and a static pod so cannot do.
fn needs_api(spec: &PodSpec) -> Option<&'static str> {
    if spec.service_account_name.as_deref().is_some_and(|name| !name.is_empty()) {
        return Some("reference service accounts");
    }
    if refers_to_secrets(spec) {
        return Some("reference secrets");
    }
    let projected = spec.volumes.iter().flatten().filter_map(|v| v.projected.as_ref());
    let mut sources = projected.flat_map(|p| p.sources.iter().flatten());
    sources.any(|s| s.service_account_token.is_some()).then_some("use ServiceAccountToken volume projections")
}

fn refers_to_secrets(spec: &PodSpec) -> bool {
    let in_volume = |v: &Volume| {
        let mut projected = v.projected.iter().flat_map(|p| p.sources.iter().flatten());
        v.secret.is_some() || projected.any(|s| s.secret.is_some())
    };
    let in_container = |c: &Container| {
        let mut variables = c.env.iter().flatten().filter_map(|v| v.value_from.as_ref());
        let mut from = c.env_from.iter().flatten();
        variables.any(|v| v.secret_key_ref.is_some()) || from.any(|f| f.secret_ref.is_some())
    };
    let mut containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    spec.image_pull_secrets.as_ref().is_some_and(|secrets| !secrets.is_empty())
        || spec.volumes.iter().flatten().any(in_volume)
        || containers.any(in_container)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn completed(spec: Value, account: Value) -> PodSpec {
        let mut spec: PodSpec = serde_json::from_value(spec).unwrap();
        let account: Account = serde_json::from_value(account).unwrap();
        complete(&mut spec, &account);
        let once = spec.clone();
        complete(&mut spec, &account);
        assert_eq!(spec, once, "doing it again changes nothing");
        spec
    }

    fn mounted(spec: &PodSpec) -> Vec<bool> {
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let is_ours = |m: &VolumeMount| m.mount_path == MOUNT_PATH && m.name.starts_with(VOLUME_PREFIX);
        containers.map(|c| c.volume_mounts.iter().flatten().any(is_ours)).collect()
    }

    #[test]
    fn every_container_gets_the_token_unless_it_is_not_wanted() {
        let two = || json!({"initContainers": [{"name": "i"}], "containers": [{"name": "c"}]});
        let with = |extra: Value| {
            let mut spec = two();
            spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            spec
        };
        let own = json!({"name": "c", "volumeMounts": [{"name": "x", "mountPath": MOUNT_PATH}]});
        let no = json!({"automountServiceAccountToken": false});
        let yes = json!({"automountServiceAccountToken": true});
        let cases = [
            ("nobody says anything", two(), json!({}), vec![true, true], true),
            ("the account says no", two(), no.clone(), vec![false, false], false),
            ("the pod says no", with(no.clone()), yes.clone(), vec![false, false], false),
            ("the pod says yes", with(yes), no, vec![true, true], true),
            ("one has something there", with(json!({"containers": [own]})), json!({}), vec![true, false], true),
            ("all have", json!({"containers": [own]}), json!({}), vec![false], false),
        ];
        for (sentence, spec, account, mounts, volume) in cases {
            let spec = completed(spec, account);
            assert_eq!(mounted(&spec), mounts, "{sentence}");
            assert_eq!(spec.volumes.is_some_and(|v| v.len() == 1), volume, "{sentence}");
        }
    }

    #[test]
    fn the_volume_is_upstreams() {
        let spec = completed(json!({"containers": [{"name": "c"}]}), json!({}));
        let volume = serde_json::to_value(&spec.volumes.unwrap()[0]).unwrap();
        let field = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
        let expected = json!({"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}}]});
        assert_eq!(volume["projected"], expected);
        assert_eq!(volume["name"].as_str().unwrap().len(), VOLUME_PREFIX.len() + 5);
    }

    #[test]
    fn pull_secrets_come_from_the_account_unless_the_pod_has_its_own() {
        let account = json!({"imagePullSecrets": [{"name": "theirs"}]});
        for (own, expected) in [(json!([]), "theirs"), (json!([{"name": "own"}]), "own")] {
            let spec = completed(json!({"containers": [], "imagePullSecrets": own}), account.clone());
            assert_eq!(spec.image_pull_secrets.unwrap()[0].name, expected);
        }
    }

    #[test]
    fn mirror_pods_need_nothing_of_the_api() {
        let cases = [
            (json!({"containers": []}), None),
            (json!({"containers": [], "serviceAccountName": "a"}), Some("reference service accounts")),
            (json!({"containers": [], "volumes": [{"name": "v", "secret": {}}]}), Some("reference secrets")),
            (json!({"containers": [], "imagePullSecrets": [{"name": "s"}]}), Some("reference secrets")),
            (
                json!({"containers": [{"name": "c", "envFrom": [{"secretRef": {"name": "s"}}]}]}),
                Some("reference secrets"),
            ),
            (
                json!({"containers": [], "volumes": [
                    {"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
                Some("use ServiceAccountToken volume projections"),
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(needs_api(&serde_json::from_value(spec.clone()).unwrap()), expected, "{spec}");
        }
    }
}
