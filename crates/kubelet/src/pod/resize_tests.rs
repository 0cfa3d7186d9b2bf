use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Value, json};

use super::super::actions::{Action, HOLD_RESIZE, KillReason, pod_actions};
use super::super::observed::Hold;
use super::super::status::{NodeFacts, status};
use super::super::testing::{World, at, exited, pod};
use super::*;
use crate::runtime::Phase;

/// A pod whose container requests and may use so much; `policy` for its memory.
fn sized(cpu: &str, memory: &str, policy: &str) -> Pod {
    let limits = json!({"cpu": "1", "memory": memory});
    pod(json!({"restartPolicy": "OnFailure", "containers": [{
        "name": "c", "resources": {"requests": {"cpu": cpu, "memory": "32Mi"}, "limits": limits},
        "resizePolicy": [{"resourceName": "memory", "restartPolicy": policy}],
    }]}))
}

/// The world in which the pod `before` runs.
fn running(before: &Pod) -> World {
    World::default().sandbox("s").container(before, "c", "s", Phase::Running)
}

fn said(pod: &Pod, world: &World, now: i64) -> PodStatus {
    let plan = pod_actions(pod, &world.observed(), at(now));
    status(pod, &world.observed(), &plan, NodeFacts { ip: [10, 0, 0, 1].into(), scheme: "docker" }, at(now))
}

fn container(status: &PodStatus) -> Value {
    serde_json::to_value(&status.container_statuses.as_ref().unwrap()[0]).unwrap()
}

#[test]
fn what_runs_is_given_what_is_set_aside() {
    let small = sized("100m", "64Mi", "NotRequired");
    for (sentence, wanted, expected) in [
        ("nothing changed", small.clone(), None),
        ("more cpu", sized("200m", "64Mi", "NotRequired"), Some((204, 64 << 20))),
        ("more memory", sized("100m", "128Mi", "NotRequired"), Some((102, 128 << 20))),
        (
            "more cpu, though memory would need a restart",
            sized("200m", "64Mi", "RestartContainer"),
            Some((204, 64 << 20)),
        ),
    ] {
        let mut world = running(&small);
        let plan = pod_actions(&wanted, &world.observed(), at(1));
        assert_eq!(plan.resizing, expected.is_some(), "{sentence}");
        let given = plan.actions.iter().find_map(|action| match action {
            Action::Resize { containers } => Some(containers[0].clone()),
            _ => None,
        });
        let amounts = given.as_ref().map(|g| (g.wanted.cpu_shares, g.wanted.memory.unwrap()));
        assert_eq!(amounts, expected, "{sentence}");
        assert_eq!(plan.actions.len(), usize::from(expected.is_some()), "{sentence}");
        if let Some(given) = given {
            world.state.containers[0].resources = given.wanted;
        }
        let again = pod_actions(&wanted, &world.observed(), at(1));
        assert!(again.actions.is_empty() && !again.resizing, "planned again: {sentence}");
    }
}

#[test]
fn an_engine_that_does_not_say_what_it_did_is_not_asked_again() {
    let (small, wanted) = (sized("100m", "64Mi", "NotRequired"), sized("200m", "64Mi", "NotRequired"));
    let mut world = running(&small);
    world.actuated.insert("c-0".into(), resources(&wanted.spec.as_ref().unwrap().containers[0]));
    assert!(pod_actions(&wanted, &world.observed(), at(1)).actions.is_empty());
}

#[test]
fn what_failed_is_held_back_and_shown() {
    let (large, wanted) = (sized("100m", "128Mi", "NotRequired"), sized("100m", "64Mi", "NotRequired"));
    let mut world = running(&large);
    let hold = Hold { until: at(5), reason: "Error".into(), message: "no".into() };
    world.holds.insert(HOLD_RESIZE.into(), hold);
    world.resize.error = Some("no".into());
    let plan = pod_actions(&wanted, &world.observed(), at(1));
    assert!(plan.actions.is_empty() && plan.resizing && plan.wake_at == Some(at(5)));
    let status = said(&wanted, &world, 1);
    let shown = condition(&status, IN_PROGRESS).unwrap();
    assert_eq!((shown.reason.as_deref(), shown.message.as_deref()), (Some("Error"), Some("no")));
    assert_eq!(shown.observed_generation, Some(1));
    assert_eq!(pod_actions(&wanted, &world.observed(), at(5)).actions.len(), 1, "and tried again");
}

#[test]
fn a_container_restarts_where_its_policy_says_so() {
    let (small, wanted) = (sized("100m", "64Mi", "RestartContainer"), sized("100m", "128Mi", "RestartContainer"));
    let mut world = running(&small);
    let plan = pod_actions(&wanted, &world.observed(), at(1));
    assert!(matches!(&plan.actions[0], Action::Terminate { reason: KillReason::Resize, .. }), "{:?}", plan.actions);
    assert_eq!(KillReason::Resize.message("c"), "Container c resize requires restart");
    world.history = said(&wanted, &world, 1);
    assert!(condition(&world.history, IN_PROGRESS).is_some());
    // It ends well, which by the pod's policy would be its end.
    world.state.containers[0].phase = exited(0, 2);
    let plan = pod_actions(&wanted, &world.observed(), at(2));
    let start = Action::Start { name: "c".into(), restart_count: 1, backoff: plan_backoff(&plan.actions) };
    assert!(plan.actions.contains(&start) && plan.resizing && !plan.ends, "{plan:?}");
    assert_eq!(said(&wanted, &world, 2).phase.as_deref(), Some("Running"));
    // One that had ended before is not brought back for it.
    world.state.containers[0].phase = exited(0, 0);
    assert!(pod_actions(&wanted, &world.observed(), at(2)).ends);
}

fn plan_backoff(actions: &[Action]) -> std::time::Duration {
    let found = actions.iter().find_map(|action| match action {
        Action::Start { backoff, .. } => Some(*backoff),
        _ => None,
    });
    found.expect("it is started")
}

#[test]
fn the_status_tells_what_is_set_aside_and_what_is_in_force() {
    let (small, wanted) = (sized("100m", "64Mi", "NotRequired"), sized("200m", "128Mi", "NotRequired"));
    let mut world = running(&small);
    world.history = said(&small, &world, 0);
    assert_eq!(container(&world.history)["resources"], json!(small.spec.as_ref().unwrap().containers[0].resources));
    let status = said(&wanted, &world, 1);
    let shown = container(&status);
    assert_eq!(shown["allocatedResources"], json!({"cpu": "200m", "memory": "32Mi"}));
    assert_eq!(
        shown["resources"],
        json!({"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}})
    );
    assert!(condition(&status, IN_PROGRESS).is_some() && condition(&status, PENDING).is_none());
    world.state.containers[0].resources = resources(&wanted.spec.as_ref().unwrap().containers[0]);
    let status = said(&wanted, &world, 2);
    assert_eq!(container(&status)["resources"], json!(wanted.spec.as_ref().unwrap().containers[0].resources));
    assert!(condition(&status, IN_PROGRESS).is_none());
}

#[test]
fn what_is_set_aside_is_read_back_from_the_status() {
    let (small, wanted) = (sized("100m", "64Mi", "NotRequired"), sized("2", "128Mi", "NotRequired"));
    let mut world = running(&small);
    let mut history = said(&small, &world, 0);
    let of = |pod: &Pod, history: &PodStatus| allocation(pod, history);
    assert!(same(&of(&wanted, &PodStatus::default()), &super::wanted(&wanted)), "a new pod");
    assert!(same(&of(&wanted, &history), &super::wanted(&small)), "a resize nobody has looked at");
    let set_aside = with(&Arc::new(wanted.clone()), &of(&wanted, &history));
    assert_eq!(set_aside.spec, small.spec);
    // Pending, across a restart of the kubelet.
    world.resize.pending = Some(Pending { reason: "Deferred", message: "not now".into() });
    world.history = history.clone();
    history = said(&small, &world, 1);
    assert_eq!(Standing::of(&history).pending, world.resize.pending);
    assert!(same(&of(&wanted, &history), &super::wanted(&small)));
    // Admitted, and not in force.
    world.resize = Standing::default();
    world.history = history;
    let history = said(&wanted, &world, 2);
    assert!(condition(&history, PENDING).is_none());
    assert!(same(&of(&wanted, &history), &super::wanted(&wanted)));
    let mut later = sized("3", "128Mi", "NotRequired");
    later.metadata.generation = Some(2);
    let read = of(&later, &history);
    assert_eq!(json!(read["c"].requests), json!({"cpu": "2", "memory": "32Mi"}), "what was admitted before");
}

/// One is being put in force when the next is refused: a kubelet that starts anew must not take that for set aside.
#[test]
fn what_was_refused_is_not_set_aside_for_who_reads_the_status() {
    let at_generation = |mut pod: Pod, generation| {
        pod.metadata.generation = Some(generation);
        pod
    };
    let standing = |pending: Option<&str>| Standing {
        pending: pending.map(|message| Pending { reason: "Infeasible", message: message.to_owned() }),
        error: Some("memory is in use".to_owned()),
    };
    let second = at_generation(sized("100m", "64Mi", "NotRequired"), 2);
    let mut history = PodStatus::default();
    history.conditions = Some(conditions(&second, &standing(None), true, &history, at(1)));
    let third = at_generation(sized("1000", "64Mi", "NotRequired"), 3);
    let told = conditions(&third, &standing(Some("too much")), true, &history, at(2));
    let generations: Vec<_> = told.iter().map(|c| (c.type_.as_str(), c.observed_generation)).collect();
    assert_eq!(generations, [(PENDING, Some(3)), (IN_PROGRESS, Some(2))]);
    let progress = condition(&history, IN_PROGRESS).unwrap();
    assert_eq!(progress.observed_generation, Some(2));
}

#[test]
fn events_say_what_upstreams_say() {
    let pod = sized("100m", "64Mi", "NotRequired");
    let resources = r#"{"limits":{"cpu":"1","memory":"64Mi"},"requests":{"cpu":"100m","memory":"32Mi"}}"#;
    assert_eq!(
        event_message("started", &pod, Some(2), None),
        format!(r#"Pod resize started: {{"containers":[{{"name":"c","resources":{resources}}}],"generation":2}}"#)
    );
    let infeasible = event_message("Infeasible", &pod, Some(3), Some("no \"room\""));
    assert!(
        infeasible.starts_with("Pod resize Infeasible: {")
            && infeasible.ends_with(r#","generation":3,"error":"no \"room\""}"#)
    );
}
