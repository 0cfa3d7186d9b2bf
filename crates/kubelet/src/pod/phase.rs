//! The phase of a pod, from the states of its containers (`getPhase` in `pkg/kubelet/kubelet_pods.go`).

use k8s_openapi::api::core::v1::{ContainerStatus, PodSpec};

use super::{RestartPolicy, init_containers, is_sidecar, restart_policy};

/// The phase that container statuses of `spec` add up to. `ending`: nothing will be started again.
pub fn phase(spec: &PodSpec, init: &[ContainerStatus], containers: &[ContainerStatus], ending: bool) -> &'static str {
    let policy = restart_policy(spec);
    match initialization(spec, init) {
        Initialization::Failed if policy == RestartPolicy::Never || ending => return "Failed",
        Initialization::Failed | Initialization::Pending if !any_ended(containers) => return "Pending",
        _ => {}
    }
    let counts = Counts::of(containers);
    if counts.waiting > 0 {
        return if ending && counts.running == 0 && counts.stopped > 0 { "Failed" } else { "Pending" };
    }
    if counts.running > 0 {
        return "Running";
    }
    match policy {
        _ if counts.stopped == 0 => "Pending",
        RestartPolicy::Always if !ending => "Running",
        _ if counts.stopped == counts.succeeded => "Succeeded",
        RestartPolicy::OnFailure if !ending => "Running",
        _ => "Failed",
    }
}

enum Initialization {
    Done,
    Pending,
    Failed,
}

fn initialization(spec: &PodSpec, statuses: &[ContainerStatus]) -> Initialization {
    let mut pending = false;
    for init in init_containers(spec) {
        let status = statuses.iter().find(|s| s.name == init.name);
        let state = status.and_then(|s| s.state.as_ref());
        let ended = state.and_then(|s| s.terminated.as_ref());
        let before = status.and_then(|s| s.last_state.as_ref()).and_then(|s| s.terminated.as_ref());
        if is_sidecar(init) {
            pending |= status.is_none_or(|s| s.started != Some(true)) && ended.or(before).is_none();
            continue;
        }
        match ended.or(before) {
            Some(ended) if ended.exit_code != 0 => return Initialization::Failed,
            Some(_) => {}
            None => pending = true,
        }
    }
    if pending { Initialization::Pending } else { Initialization::Done }
}

fn any_ended(statuses: &[ContainerStatus]) -> bool {
    let running = |s: &ContainerStatus| s.state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some());
    statuses.iter().any(running)
}

#[derive(Default)]
struct Counts {
    running: usize,
    waiting: usize,
    stopped: usize,
    succeeded: usize,
}

impl Counts {
    fn of(statuses: &[ContainerStatus]) -> Counts {
        let mut counts = Counts::default();
        for status in statuses {
            let state = status.state.as_ref();
            let ended_before = status.last_state.as_ref().is_some_and(|s| s.terminated.is_some());
            match (state.and_then(|s| s.running.as_ref()), state.and_then(|s| s.terminated.as_ref())) {
                (Some(_), _) => counts.running += 1,
                (None, Some(ended)) => {
                    counts.stopped += 1;
                    counts.succeeded += usize::from(ended.exit_code == 0);
                }
                // A container between two lives has ended, and counts as such.
                (None, None) if ended_before => counts.stopped += 1,
                (None, None) => counts.waiting += 1,
            }
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    };

    use super::*;

    fn status(name: &str, state: &str) -> ContainerStatus {
        let ended = |code| ContainerState {
            terminated: Some(ContainerStateTerminated { exit_code: code, ..Default::default() }),
            ..Default::default()
        };
        let waiting = ContainerState { waiting: Some(ContainerStateWaiting::default()), ..Default::default() };
        let running = ContainerState { running: Some(ContainerStateRunning::default()), ..Default::default() };
        let (state, last_state) = match state {
            "running" => (running, None),
            "done" => (ended(0), None),
            "failed" => (ended(1), None),
            "crashing" => (waiting, Some(ended(1))),
            _ => (waiting, None),
        };
        ContainerStatus { name: name.into(), state: Some(state), last_state, ..Default::default() }
    }

    #[test]
    fn phases_add_up_from_container_states() {
        type Case = (&'static str, &'static [&'static str], &'static [&'static str], bool, &'static str);
        let cases: &[Case] = &[
            ("Always", &[], &["waiting"], false, "Pending"),
            ("Always", &[], &["running", "waiting"], false, "Pending"),
            ("Always", &[], &["running", "crashing"], false, "Running"),
            ("Always", &[], &["done"], false, "Running"),
            ("Always", &[], &["crashing"], false, "Running"),
            ("OnFailure", &[], &["done"], false, "Succeeded"),
            ("OnFailure", &[], &["done", "failed"], false, "Running"),
            ("Never", &[], &["done", "failed"], false, "Failed"),
            ("Never", &[], &["done", "done"], false, "Succeeded"),
            ("Never", &[], &["done", "running"], false, "Running"),
            ("Always", &[], &["failed"], true, "Failed"),
            ("Always", &[], &["done"], true, "Succeeded"),
            ("Always", &["running"], &["waiting"], false, "Pending"),
            ("Always", &["crashing"], &["waiting"], false, "Pending"),
            ("Never", &["failed"], &["waiting"], false, "Failed"),
            ("Always", &["done"], &["running"], false, "Running"),
        ];
        for (policy, init, containers, ending, expected) in cases {
            let named = |prefix: &str, states: &[&str]| -> Vec<ContainerStatus> {
                states.iter().enumerate().map(|(i, s)| status(&format!("{prefix}{i}"), s)).collect()
            };
            let (init, containers) = (named("i", init), named("c", containers));
            let init_spec = init.iter().map(|s| Container { name: s.name.clone(), ..Default::default() });
            let spec = PodSpec {
                restart_policy: Some((*policy).into()),
                init_containers: Some(init_spec.collect()),
                ..Default::default()
            };
            let said = phase(&spec, &init, &containers, *ending);
            assert_eq!(said, *expected, "{policy} {init:?} {containers:?} ending: {ending}");
        }
    }
}
