//! From Docker's containers to what the kubelet observes.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::Docker;
use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, ContainerSummary, ContainerSummaryStateEnum,
};
use bollard::query_parameters::ListContainersOptionsBuilder;
use futures::StreamExt;
use futures::stream;
use jiff::Timestamp;

use super::super::{Container, Error, Exit, KnownPod, Phase, PodState, Result, Sandbox, fingerprint};
use super::DockerOptions;
use crate::names;

/// Containers of one pod that are inspected at a time.
const MAX_INSPECTS: usize = 8;

/// Every container of the node, or of one of its pods.
pub(super) async fn list(docker: &Docker, node: &str, uid: Option<&str>) -> Result<Vec<ContainerSummary>> {
    let mut labels = vec![format!("{}={node}", names::NODE)];
    labels.extend(uid.map(|uid| format!("{}={uid}", names::POD_UID)));
    let filters = HashMap::from([("label", labels)]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    docker.list_containers(Some(options)).await.map_err(super::error)
}

/// The pods that `found` are of.
pub(super) fn known_pods(found: &[ContainerSummary]) -> Vec<KnownPod> {
    let mut pods: BTreeMap<String, KnownPod> = BTreeMap::new();
    for container in found {
        let Some(identity) = container.labels.as_ref().and_then(names::pod_identity) else { continue };
        let id = container.id.as_deref().unwrap_or_default();
        let running = matches!(
            container.state,
            Some(
                ContainerSummaryStateEnum::RUNNING
                    | ContainerSummaryStateEnum::PAUSED
                    | ContainerSummaryStateEnum::RESTARTING
            )
        );
        let known = pods.entry(identity.uid.clone()).or_insert(KnownPod { identity, fingerprint: 0 });
        known.fingerprint ^= fingerprint(std::iter::once((id, running)));
    }
    pods.into_values().collect()
}

/// Everything of the pod with this UID, newest first.
pub(super) async fn pod_state(docker: &Docker, options: &DockerOptions, uid: &str) -> Result<PodState> {
    let found = list(docker, &options.node_name, Some(uid)).await?;
    let ids = found.into_iter().filter_map(|container| container.id);
    let inspects =
        stream::iter(ids.map(|id| async move { docker.inspect_container(&id, None).await.map_err(super::error) }));
    let inspected: Vec<Result<ContainerInspectResponse>> = inspects.buffered(MAX_INSPECTS).collect().await;
    let mut state = PodState::default();
    for inspected in inspected {
        let inspected = match inspected {
            Ok(inspected) => inspected,
            // It went between the two calls.
            Err(Error::NotFound(_)) => continue,
            Err(error) => return Err(error),
        };
        if let Some(sandbox) = sandbox(&inspected, &options.network) {
            state.sandboxes.push(sandbox);
        } else if let Some(container) = container(&inspected) {
            state.containers.push(container);
        }
    }
    state.sandboxes.sort_by_key(|s| std::cmp::Reverse((s.attempt, s.created_at)));
    state.containers.sort_by_key(|c| std::cmp::Reverse((c.restart_count, c.created_at)));
    Ok(state)
}

fn labels(inspected: &ContainerInspectResponse) -> Option<&HashMap<String, String>> {
    inspected.config.as_ref()?.labels.as_ref()
}

fn is_running(state: Option<&ContainerState>) -> bool {
    state.is_some_and(|s| s.running == Some(true))
}

/// A sandbox, if that is what it is.
pub(super) fn sandbox(inspected: &ContainerInspectResponse, network: &str) -> Option<Sandbox> {
    let labels = labels(inspected)?;
    if labels.get(names::CONTAINER_TYPE).map(String::as_str) != Some(names::TYPE_SANDBOX) {
        return None;
    }
    let networks = inspected.network_settings.as_ref().and_then(|n| n.networks.as_ref());
    let address = networks.and_then(|n| n.get(network)).and_then(|n| n.ip_address.as_deref());
    Some(Sandbox {
        id: inspected.id.clone()?,
        attempt: names::number(labels, names::ATTEMPT).unwrap_or(0),
        created_at: inspected.created.as_deref().and_then(time).unwrap_or(Timestamp::UNIX_EPOCH),
        running: is_running(inspected.state.as_ref()),
        ip: address.and_then(|address| address.parse().ok()),
    })
}

fn container(inspected: &ContainerInspectResponse) -> Option<Container> {
    let labels = labels(inspected)?;
    let label = |key: &str| labels.get(key).cloned().unwrap_or_default();
    let state = inspected.state.as_ref();
    Some(Container {
        id: inspected.id.clone()?,
        name: labels.get(names::CONTAINER_NAME)?.clone(),
        hash: label(names::HASH),
        restart_count: names::number(labels, names::RESTART_COUNT).unwrap_or(0),
        backoff: Duration::from_secs(names::number(labels, names::BACKOFF).unwrap_or(0)),
        sandbox_id: label(names::SANDBOX_ID),
        image: label(names::IMAGE),
        image_id: Some(label(names::IMAGE_ID))
            .filter(|id| !id.is_empty())
            .unwrap_or_else(|| super::images::status_id(inspected.image.as_deref().unwrap_or_default(), &[])),
        created_at: inspected.created.as_deref().and_then(time).unwrap_or(Timestamp::UNIX_EPOCH),
        started_at: state.and_then(|s| s.started_at.as_deref()).and_then(time),
        phase: phase(state),
        message: None,
        resources: super::create::resources(inspected.host_config.as_ref(), &label(names::RESOURCES)),
    })
}

/// A container that never started and says why has ended, too.
fn phase(state: Option<&ContainerState>) -> Phase {
    let Some(state) = state else { return Phase::Created };
    if state.running == Some(true) {
        return Phase::Running;
    }
    let start_error = state.error.clone().filter(|error| !error.is_empty());
    let started = state.started_at.as_deref().and_then(time).is_some();
    if state.status == Some(ContainerStateStatusEnum::CREATED) && start_error.is_none() {
        return Phase::Created;
    }
    Phase::Exited(Exit {
        code: state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(0),
        finished_at: state.finished_at.as_deref().and_then(time),
        oom_killed: state.oom_killed == Some(true),
        start_error: start_error.filter(|_| !started || state.exit_code == Some(127) || state.exit_code == Some(128)),
    })
}

/// Docker writes the year 1 for never.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok().filter(|time| time.as_second() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(status: ContainerStateStatusEnum) -> ContainerState {
        ContainerState {
            running: Some(status == ContainerStateStatusEnum::RUNNING),
            status: Some(status),
            started_at: Some("0001-01-01T00:00:00Z".into()),
            finished_at: Some("0001-01-01T00:00:00Z".into()),
            exit_code: Some(0),
            error: Some(String::new()),
            ..ContainerState::default()
        }
    }

    #[test]
    fn phases_follow_dockers_states() {
        use ContainerStateStatusEnum as Status;
        assert_eq!(phase(Some(&state(Status::RUNNING))), Phase::Running);
        assert_eq!(phase(Some(&state(Status::CREATED))), Phase::Created);
        let failed =
            ContainerState { error: Some("no such file".into()), exit_code: Some(127), ..state(Status::CREATED) };
        let Phase::Exited(exit) = phase(Some(&failed)) else { panic!("it did not start") };
        assert_eq!((exit.code, exit.finished_at, exit.start_error.as_deref()), (127, None, Some("no such file")));
        let killed = ContainerState {
            started_at: Some("2026-01-01T00:00:00.5Z".into()),
            finished_at: Some("2026-01-01T00:00:01Z".into()),
            exit_code: Some(137),
            oom_killed: Some(true),
            ..state(Status::EXITED)
        };
        let Phase::Exited(exit) = phase(Some(&killed)) else { panic!("it ended") };
        assert!(exit.oom_killed && exit.finished_at.is_some() && exit.start_error.is_none());
    }
}
