use serde_json::json;

use super::super::actions::pod_actions;
use super::super::testing::{World, at, exited, pod};
use super::*;

fn status_of(pod: &Pod, world: &World, second: i64) -> PodStatus {
    let observed = world.observed();
    let plan = pod_actions(pod, &observed, at(second));
    let node = NodeFacts { ip: "10.0.0.1".parse().unwrap(), scheme: "docker" };
    status(pod, &observed, &plan, node, at(second))
}

fn web(policy: &str) -> Pod {
    pod(json!({"restartPolicy": policy, "containers": [{"name": "c", "image": "i"}]}))
}

fn conditions_of(status: &PodStatus) -> Vec<(String, String)> {
    let conditions = status.conditions.iter().flatten();
    let mut pairs: Vec<_> = conditions.map(|c| (c.type_.clone(), c.status.clone())).collect();
    pairs.sort();
    pairs
}

fn container(status: &PodStatus) -> &ContainerStatus {
    &status.container_statuses.as_ref().unwrap()[0]
}

fn waiting(status: &ContainerStatus) -> Option<&str> {
    status.state.as_ref()?.waiting.as_ref()?.reason.as_deref()
}

fn terminated(status: &ContainerStatus) -> Option<&str> {
    status.state.as_ref()?.terminated.as_ref()?.reason.as_deref()
}

const CONDITIONS: [&str; 5] = ["ContainersReady", "Initialized", "PodReadyToStartContainers", "PodScheduled", "Ready"];

fn expect_conditions(status: &PodStatus, expected: [&str; 5]) {
    let expected: Vec<_> = CONDITIONS.iter().zip(expected).map(|(t, s)| ((*t).to_owned(), s.to_owned())).collect();
    assert_eq!(conditions_of(status), expected);
}

#[test]
fn conditions_are_complete_in_every_phase() {
    let pod = web("Never");
    let sandbox = World::default().sandbox("s");
    let cases = [
        ("Pending", World::default(), ["False", "True", "False", "True", "False"]),
        ("Running", sandbox.clone().container(&pod, "c", "s", Phase::Running), ["True"; 5]),
        (
            "Succeeded",
            sandbox.clone().container(&pod, "c", "s", exited(0, 3)),
            ["False", "True", "True", "True", "False"],
        ),
        ("Failed", sandbox.container(&pod, "c", "s", exited(1, 3)), ["False", "True", "True", "True", "False"]),
    ];
    for (phase, world, expected) in cases {
        let status = status_of(&pod, &world, 5);
        assert_eq!(status.phase.as_deref(), Some(phase));
        expect_conditions(&status, expected);
    }
}

#[test]
fn a_pod_on_its_way_says_how_far_it_is() {
    let status = status_of(&web("Always"), &World::default(), 5);
    assert_eq!(waiting(container(&status)), Some("ContainerCreating"));
    assert_eq!((status.start_time, status.pod_ip), (Some(seconds(at(5))), None));
    let pod = pod(json!({"initContainers": [{"name": "i"}], "containers": [{"name": "c"}]}));
    let status = status_of(&pod, &World::default().sandbox("s").container(&pod, "i", "s", Phase::Running), 5);
    assert_eq!(waiting(container(&status)), Some("PodInitializing"));
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    let initialized = status.conditions.as_ref().unwrap().iter().find(|c| c.type_ == "Initialized").unwrap();
    assert_eq!(initialized.message.as_deref(), Some("containers with incomplete status: [i]"));
}

#[test]
fn a_running_pod_shows_its_container() {
    let pod = web("Always");
    let world = World::default().sandbox("s").container(&pod, "c", "s", Phase::Running);
    let status = status_of(&pod, &world, 5);
    let container = container(&status);
    assert_eq!(container.container_id.as_deref(), Some("docker://c-0"));
    assert_eq!((container.ready, container.started, container.restart_count), (true, Some(true), 0));
    assert_eq!((status.pod_ip.as_deref(), status.host_ip.as_deref()), (Some("10.244.0.2"), Some("10.0.0.1")));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
}

#[test]
fn a_restarted_container_remembers_its_last_end() {
    let pod = web("Always");
    let world =
        World::default().sandbox("s").container(&pod, "c", "s", exited(3, 2)).container(&pod, "c", "s", Phase::Running);
    let status = status_of(&pod, &world, 5);
    let last = container(&status).last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref(), container(&status).restart_count), (3, Some("Error"), 1));
    // The older life is removed later: the status still knows it.
    let mut later = world;
    later.history = status.clone();
    later.state.containers.pop();
    assert_eq!(container(&status_of(&pod, &later, 6)).last_state, container(&status).last_state);
}

#[test]
fn a_crash_loop_waits_with_its_last_end() {
    let pod = web("Always");
    let world =
        World::default().sandbox("s").container(&pod, "c", "s", exited(1, 1)).container(&pod, "c", "s", exited(2, 4));
    let status = status_of(&pod, &world, 5);
    assert_eq!(waiting(container(&status)), Some("CrashLoopBackOff"));
    let last = container(&status).last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((last.exit_code, status.phase.as_deref()), (2, Some("Running")));
}

#[test]
fn ends_are_told_by_their_reason() {
    let pod = web("Never");
    let exit = |code, oom_killed, start_error: Option<&str>| {
        Phase::Exited(Exit { code, finished_at: Some(at(3)), oom_killed, start_error: start_error.map(str::to_owned) })
    };
    for (phase, expected) in [
        (exit(0, false, None), "Completed"),
        (exit(1, false, None), "Error"),
        (exit(137, true, None), "OOMKilled"),
        (exit(127, false, Some("no such file")), "StartError"),
    ] {
        let mut world = World::default().sandbox("s").container(&pod, "c", "s", phase);
        world.messages.insert("c-0".into(), "bye".into());
        let status = status_of(&pod, &world, 5);
        assert_eq!(terminated(container(&status)), Some(expected));
        let message = container(&status).state.as_ref().unwrap().terminated.as_ref().unwrap().message.clone();
        let said = if expected == "StartError" { "no such file" } else { "bye" };
        assert_eq!(message.as_deref(), Some(said));
    }
}

#[test]
fn readiness_probes_gates_and_other_conditions_count() {
    let mut pod = pod(json!({"readinessGates": [{"conditionType": "gate"}], "containers": [
        {"name": "c", "readinessProbe": {"exec": {}}}]}));
    let mut world = World::default().sandbox("s").container(&pod, "c", "s", Phase::Running);
    assert!(!container(&status_of(&pod, &world, 5)).ready, "a container with a readiness probe starts not ready");
    world.health.insert("c-0".into(), crate::pod::probe::Health { ready: Some(true), ..Default::default() });
    let foreign = json!([{"type": "gate", "status": "False"}, {"type": "PodScheduled", "status": "True"}]);
    world.history.conditions = serde_json::from_value(foreign).unwrap();
    pod.status = Some(world.history.clone());
    let status = status_of(&pod, &world, 5);
    assert!(status.conditions.iter().flatten().any(|c| c.type_ == "gate"), "what others own is kept");
    let ready = status.conditions.iter().flatten().find(|c| c.type_ == "Ready").unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("False", Some("ReadinessGatesNotReady")));
}

#[test]
fn nothing_changes_while_nothing_changes() {
    let pod = web("Always");
    let mut world = World::default().sandbox("s").container(&pod, "c", "s", Phase::Running);
    world.history = status_of(&pod, &world, 5);
    assert_eq!(status_of(&pod, &world, 500), world.history);
    // What the API gives back is what was written.
    let text = serde_json::to_string(&world.history).unwrap();
    assert_eq!(serde_json::from_str::<PodStatus>(&text).unwrap(), world.history);
}

#[test]
fn a_deadline_and_a_terminal_phase_stay() {
    let pod = pod(json!({"activeDeadlineSeconds": 1, "containers": [{"name": "c"}]}));
    let mut world = World::default().sandbox("s").container(&pod, "c", "s", Phase::Running);
    world.history.start_time = Some(Time(at(0)));
    let status = status_of(&pod, &world, 5);
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
    world.history = status;
    let later = status_of(&pod, &world, 6);
    assert_eq!((later.phase.as_deref(), later.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
}

#[test]
fn refused_pods_say_why_and_stay_so() {
    let pod = pod(json!({"hostUsers": false, "containers": [{"name": "c"}]}));
    let mut world = World::default();
    let status = status_of(&pod, &world, 5);
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("UnsupportedField")));
    let message = "Pod was rejected: this node does not serve spec.hostUsers";
    assert_eq!((status.message.as_deref(), status.container_statuses.as_ref()), (Some(message), None));
    world.history = status.clone();
    assert_eq!(status_of(&pod, &world, 9), status);
    // What runs, runs: it was taken once.
    let running = World::default().sandbox("s").container(&pod, "c", "s", Phase::Running);
    assert_eq!(status_of(&pod, &running, 5).phase.as_deref(), Some("Running"));
}

#[test]
fn ephemeral_containers_have_statuses_of_their_own() {
    let pod = pod(json!({"containers": [{"name": "c"}], "ephemeralContainers": [{"name": "debug", "image": "i"}]}));
    let world = World::default().sandbox("s").container(&pod, "c", "s", Phase::Running);
    let debug = |world: &World| status_of(&pod, world, 5).ephemeral_container_statuses.unwrap()[0].clone();
    assert_eq!(waiting(&debug(&world)), Some("ContainerCreating"));
    let world = world.container(&pod, "debug", "s", Phase::Running);
    assert!(debug(&world).state.as_ref().unwrap().running.is_some());
    let status = status_of(&pod, &world, 5);
    assert!(status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True"));
}
