//! Pods and observations for tests.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Value, json};

use super::container_hash;
use super::observed::{Hold, Observed, Termination};
use super::probe::Health;
use super::resize::Standing;
use crate::runtime::{Container, Exit, Phase, PodState, Resources, Sandbox};

/// A second of the tests' time.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

/// The pod `ns/web` with this spec.
pub(crate) fn pod(spec: Value) -> Pod {
    let metadata = json!({"name": "web", "namespace": "ns", "uid": "u1", "generation": 1});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

/// Everything an observation is made from, owned.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) state: PodState,
    pub(crate) history: PodStatus,
    pub(crate) holds: BTreeMap<String, Hold>,
    pub(crate) terminations: BTreeMap<String, Termination>,
    pub(crate) health: BTreeMap<String, Health>,
    pub(crate) messages: BTreeMap<String, String>,
    pub(crate) network_missing: bool,
    pub(crate) gone: bool,
    pub(crate) actuated: BTreeMap<String, Resources>,
    pub(crate) resize: Standing,
    pub(crate) refused: Option<super::admit::Refusal>,
    pub(crate) dead: crate::node::container_gc::Policy,
}

impl World {
    pub(crate) fn observed(&self) -> Observed<'_> {
        Observed {
            state: &self.state,
            history: &self.history,
            holds: &self.holds,
            terminations: &self.terminations,
            network_ready: !self.network_missing,
            gone: self.gone,
            health: &self.health,
            messages: &self.messages,
            actuated: &self.actuated,
            resize: &self.resize,
            dead: self.dead,
            abilities: super::admit::Abilities::default(),
            refused: self.refused.as_ref(),
        }
    }

    /// With a sandbox that runs.
    pub(crate) fn sandbox(mut self, id: &str) -> World {
        let attempt = self.state.sandboxes.len() as u32;
        let ip = Some("10.244.0.2".parse().unwrap());
        self.state.sandboxes.insert(0, Sandbox { id: id.into(), attempt, created_at: at(0), running: true, ip });
        self
    }

    /// With a container of `pod` in `sandbox`, newer than those before it.
    pub(crate) fn container(mut self, pod: &Pod, name: &str, sandbox: &str, phase: Phase) -> World {
        let spec = super::container(pod.spec.as_ref().unwrap(), name);
        let restart_count = self.state.containers.iter().filter(|c| c.name == name).count() as i32;
        self.state.containers.insert(
            0,
            Container {
                id: format!("{name}-{restart_count}"),
                name: name.into(),
                hash: spec.as_ref().map(|(_, spec)| container_hash(spec)).unwrap_or_default(),
                restart_count,
                backoff: Duration::from_secs(if restart_count == 0 { 0 } else { 5 << restart_count }),
                sandbox_id: sandbox.into(),
                image: "i".into(),
                image_id: "docker://i".into(),
                created_at: at(0),
                started_at: Some(at(0)),
                phase,
                message: None,
                resources: spec.map(|(_, spec)| crate::container_spec::resources(&spec)).unwrap_or_default(),
            },
        );
        self
    }
}

/// Ended with `code` at `second`.
pub(crate) fn exited(code: i32, second: i64) -> Phase {
    Phase::Exited(Exit { code, finished_at: Some(at(second)), oom_killed: false, start_error: None })
}
