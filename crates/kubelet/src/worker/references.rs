//! The Secrets and ConfigMaps a pod refers to: which they are (pure), and the watches on them while the pod lives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, PodSpec, Secret, Volume};
use tokio::sync::Notify;

use crate::Kubelet;
use crate::env::Objects;
use crate::objects::Reference;

/// Names of what a pod refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) config_maps: BTreeSet<String>,
    pub(crate) secrets: BTreeSet<String>,
}

/// Names of everything `spec` refers to.
pub(crate) fn names_of(spec: &PodSpec) -> Names {
    Names::of(spec)
}

impl Names {
    /// Of everything `spec` refers to.
    pub(crate) fn of(spec: &PodSpec) -> Names {
        let mut names = Names::default();
        spec.volumes.iter().flatten().for_each(|volume| names.volume(volume));
        let containers = crate::pod::init_containers(spec).iter().chain(&spec.containers);
        containers.for_each(|container| names.container(container));
        crate::pod::ephemeral_containers(spec).iter().for_each(|container| names.container(container));
        names.secrets.extend(spec.image_pull_secrets.iter().flatten().map(|s| s.name.clone()));
        names.secrets.remove("");
        names.config_maps.remove("");
        names
    }

    fn volume(&mut self, volume: &Volume) {
        self.secrets.extend(volume.secret.iter().filter_map(|s| s.secret_name.clone()));
        self.config_maps.extend(volume.config_map.iter().map(|c| c.name.clone()));
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            self.secrets.extend(source.secret.iter().map(|s| s.name.clone()));
            self.config_maps.extend(source.config_map.iter().map(|c| c.name.clone()));
        }
    }

    fn container(&mut self, container: &Container) {
        for from in container.env_from.iter().flatten() {
            self.secrets.extend(from.secret_ref.iter().map(|s| s.name.clone()));
            self.config_maps.extend(from.config_map_ref.iter().map(|c| c.name.clone()));
        }
        for source in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
            self.secrets.extend(source.secret_key_ref.iter().map(|s| s.name.clone()));
            self.config_maps.extend(source.config_map_key_ref.iter().map(|c| c.name.clone()));
        }
    }
}

/// The watches of one pod.
pub(crate) struct References {
    names: Names,
    config_maps: BTreeMap<String, Reference<ConfigMap>>,
    secrets: BTreeMap<String, Reference<Secret>>,
}

impl References {
    /// Whether these are still all that `spec` refers to: an ephemeral container may add some.
    pub(crate) fn are_of(&self, spec: &PodSpec) -> bool {
        self.names == Names::of(spec)
    }

    pub(crate) fn new(kubelet: &Kubelet, namespace: &str, spec: &PodSpec, wake: &Arc<Notify>) -> References {
        let names = Names::of(spec);
        let config_map = |name: String| (name.clone(), kubelet.config_maps.refer(namespace, &name, wake));
        let secret = |name: String| (name.clone(), kubelet.secrets.refer(namespace, &name, wake));
        References {
            names: names.clone(),
            config_maps: names.config_maps.into_iter().map(config_map).collect(),
            secrets: names.secrets.into_iter().map(secret).collect(),
        }
    }

    /// The objects as they are now; waits for the first word about each.
    pub(crate) async fn objects(&self) -> Result<Objects, String> {
        let mut objects = Objects::default();
        for (name, reference) in &self.config_maps {
            let got = reference.get().await.map_err(|e| format!("failed to sync configmap cache: {name}: {e}"))?;
            objects.config_maps.insert(name.clone(), got);
        }
        for (name, reference) in &self.secrets {
            let got = reference.get().await.map_err(|e| format!("failed to sync secret cache: {name}: {e}"))?;
            objects.secrets.insert(name.clone(), got);
        }
        Ok(objects)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_reference_of_a_pod_is_found() {
        let spec: PodSpec = serde_json::from_value(json!({
            "imagePullSecrets": [{"name": "s1"}],
            "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "s2"}}, {"configMapRef": {"name": "c1"}}]}],
            "containers": [{"name": "c", "env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "k"}}},
                {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c2", "key": "k"}}}]}],
            "volumes": [
                {"name": "v1", "secret": {"secretName": "s4"}}, {"name": "v2", "configMap": {"name": "c3"}},
                {"name": "v3", "projected": {"sources": [{"secret": {"name": "s5"}}, {"configMap": {"name": "c4"}}]}}]
        }))
        .unwrap();
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<_>>();
        let expected =
            Names { config_maps: set(&["c1", "c2", "c3", "c4"]), secrets: set(&["s1", "s2", "s3", "s4", "s5"]) };
        assert_eq!(Names::of(&spec), expected);
    }
}
