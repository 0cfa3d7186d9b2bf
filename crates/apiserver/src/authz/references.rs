//! Which Secrets, ConfigMaps, claims and service accounts the pods of a node need.

use serde_json::Value;

use super::Resource;
use crate::server::Shared;
use crate::status::ApiError;

/// Whether the one Secret or ConfigMap it is about belongs to a pod of the node.
pub(super) fn needs(shared: &Shared, node: &str, target: &Resource<'_>) -> bool {
    let (name, namespace) = (&*target.name, target.namespace);
    if name.is_empty() || namespace.is_empty() {
        return false;
    }
    let Some(pods) = api::kinds::by_kind("v1", "Pod") else { return false };
    let secrets = target.resource == "secrets";
    shared.cache.of(pods).with_indexed_value(node).iter().any(|entry| {
        entry.namespace(pods.info) == Some(namespace)
            && serde_json::from_slice(entry.json()).is_ok_and(|pod: Value| refers(&pod["spec"], secrets, name))
    })
}

/// Whether a pod of the node runs as the service account a request is about. Which pod the token is for is in the body:
/// NodeRestriction looks there, see `subresources::token`.
pub(super) async fn runs_as(shared: &Shared, node: &str, target: &Resource<'_>) -> Result<bool, ApiError> {
    let (account, namespace) = (&*target.name, target.namespace);
    let Some(pods) = api::kinds::by_kind("v1", "Pod") else { return Ok(false) };
    let runs_as = || {
        shared.cache.of(pods).with_indexed_value(node).iter().any(|entry| {
            entry.namespace(pods.info) == Some(namespace)
                && serde_json::from_slice(entry.json())
                    .is_ok_and(|pod: Value| pod["spec"]["serviceAccountName"].as_str() == Some(account))
        })
    };
    if runs_as() {
        return Ok(true);
    }
    // Perhaps it is only too new for the cache.
    shared.cache.catch_up().await?;
    Ok(runs_as())
}

/// Whether a pod of the node names the claim.
pub(super) fn claims(shared: &Shared, node: &str, namespace: &str, name: &str) -> bool {
    let Some(pods) = api::kinds::by_kind("v1", "Pod") else { return false };
    shared.cache.of(pods).with_indexed_value(node).iter().any(|entry| {
        entry.namespace(pods.info) == Some(namespace)
            && serde_json::from_slice(entry.json()).is_ok_and(|pod: Value| names_claim(&pod["spec"], name))
    })
}

/// Whether the volume is bound to a claim that a pod of the node names.
pub(super) async fn mounts(shared: &Shared, node: &str, name: &str) -> Result<bool, ApiError> {
    let Some(volumes) = api::kinds::by_kind("v1", "PersistentVolume") else { return Ok(false) };
    let mounts = || {
        let entry = shared.cache.of(volumes).get(&volumes.info.registry_key(None, name))?;
        let volume: Value = serde_json::from_slice(entry.json()).ok()?;
        let claim = &volume["spec"]["claimRef"];
        Some(claims(shared, node, claim["namespace"].as_str()?, claim["name"].as_str()?))
    };
    if mounts() == Some(true) {
        return Ok(true);
    }
    // Perhaps its claim was bound a moment ago.
    shared.cache.catch_up().await?;
    Ok(mounts() == Some(true))
}

fn names_claim(spec: &Value, name: &str) -> bool {
    let volumes = spec["volumes"].as_array().into_iter().flatten();
    volumes.map(|volume| &volume["persistentVolumeClaim"]["claimName"]).any(|claim| claim.as_str() == Some(name))
}

/// Whether a pod's spec names the Secret or ConfigMap.
fn refers(spec: &Value, secret: bool, name: &str) -> bool {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let is = |value: &Value| value.as_str() == Some(name);
    let (volume, key_ref, env_from) = match secret {
        true => ("secret", "secretKeyRef", "secretRef"),
        false => ("configMap", "configMapKeyRef", "configMapRef"),
    };
    let in_volumes = list(&spec["volumes"]).iter().any(|v| {
        is(&v[volume]["secretName"])
            || is(&v[volume]["name"])
            || list(&v["projected"]["sources"]).iter().any(|s| is(&s[volume]["name"]))
    });
    let in_containers = ["containers", "initContainers", "ephemeralContainers"].iter().any(|containers| {
        list(&spec[*containers]).iter().any(|c| {
            list(&c["env"]).iter().any(|e| is(&e["valueFrom"][key_ref]["name"]))
                || list(&c["envFrom"]).iter().any(|e| is(&e[env_from]["name"]))
        })
    });
    in_volumes || in_containers || (secret && list(&spec["imagePullSecrets"]).iter().any(|s| is(&s["name"])))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_names_the_claims_of_its_volumes() {
        let spec = json!({"volumes": [{"emptyDir": {}}, {"persistentVolumeClaim": {"claimName": "x"}}]});
        assert!(names_claim(&spec, "x") && !names_claim(&spec, "y") && !names_claim(&json!({}), "x"));
    }

    #[test]
    fn every_way_a_pod_names_a_secret_or_config_map_counts() {
        let cases = [
            (true, json!({"volumes": [{"secret": {"secretName": "x"}}]})),
            (true, json!({"volumes": [{"projected": {"sources": [{"secret": {"name": "x"}}]}}]})),
            (true, json!({"containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "x"}}}]}]})),
            (true, json!({"initContainers": [{"envFrom": [{"secretRef": {"name": "x"}}]}]})),
            (true, json!({"imagePullSecrets": [{"name": "x"}]})),
            (false, json!({"volumes": [{"configMap": {"name": "x"}}]})),
            (false, json!({"containers": [{"envFrom": [{"configMapRef": {"name": "x"}}]}]})),
        ];
        for (secret, spec) in cases {
            assert!(refers(&spec, secret, "x"), "{spec}");
            assert!(!refers(&spec, !secret, "x") && !refers(&spec, secret, "y"), "{spec}");
        }
    }
}
