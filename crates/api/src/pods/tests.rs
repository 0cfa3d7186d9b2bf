use super::*;
use k8s_openapi::api::core::v1::{ContainerPort, ResourceRequirements};

fn amounts(pairs: &[(&str, &str)]) -> Option<BTreeMap<String, Amount>> {
    let map: BTreeMap<_, _> = pairs.iter().map(|(k, v)| ((*k).to_owned(), Amount((*v).to_owned()))).collect();
    (!map.is_empty()).then_some(map)
}

fn container_with(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Container {
    let resources = ResourceRequirements { requests: amounts(requests), limits: amounts(limits), claims: None };
    Container { name: "c".into(), resources: Some(resources), ..Container::default() }
}

fn pod_with(init_containers: Vec<Container>, containers: Vec<Container>) -> Pod {
    let spec = PodSpec { init_containers: Some(init_containers), containers, ..PodSpec::default() };
    Pod { spec: Some(spec), ..Pod::default() }
}

fn ready_since(seconds: i64) -> Pod {
    let mut status = PodStatus::default();
    let ready = PodCondition { type_: "Ready".into(), status: "True".into(), ..PodCondition::default() };
    set_condition(&mut status, ready, Timestamp::from_second(seconds).unwrap());
    Pod { status: Some(status), ..Pod::default() }
}

#[test]
fn requests_are_the_sum_or_the_greatest_init_container() {
    let small = || container_with(&[("cpu", "100m"), ("memory", "1Mi")], &[]);
    let big = container_with(&[("cpu", "1"), ("memory", "1Ki")], &[]);
    let sidecar = Container { restart_policy: Some("Always".into()), ..small() };
    let table = [
        ("two containers add up", pod_with(vec![], vec![small(), small()]), (200, 2 << 20)),
        ("the greater init container counts", pod_with(vec![big.clone()], vec![small()]), (1000, 1 << 20)),
        ("a sidecar runs beside", pod_with(vec![sidecar.clone()], vec![small()]), (200, 2 << 20)),
        ("a sidecar runs beside later init containers", pod_with(vec![sidecar, big], vec![small()]), (1100, 2 << 20)),
    ];
    for (sentence, pod, (milli_cpu, memory)) in table {
        let sum = requests(&pod);
        assert_eq!((sum.milli_cpu, sum.memory), (milli_cpu, memory), "{sentence}");
    }
}

#[test]
fn a_pod_that_is_resized_holds_the_most_of_what_was_and_what_will_be() {
    let with = |wanted: &str, allocated: &str, actual: &str, reason: &str| {
        let mut pod = pod_with(vec![], vec![container_with(&[("cpu", wanted)], &[])]);
        let resources = ResourceRequirements { requests: amounts(&[("cpu", actual)]), ..Default::default() };
        let status = ContainerStatus {
            name: "c".into(),
            allocated_resources: amounts(&[("cpu", allocated)]),
            resources: Some(resources),
            ..ContainerStatus::default()
        };
        let pending = PodCondition { type_: "PodResizePending".into(), status: "True".into(), ..Default::default() };
        let pending = PodCondition { reason: Some(reason.to_owned()), ..pending };
        pod.status = Some(PodStatus {
            container_statuses: Some(vec![status]),
            conditions: Some(vec![pending]).filter(|_| !reason.is_empty()),
            ..PodStatus::default()
        });
        pod
    };
    for (sentence, pod, milli_cpu) in [
        ("nothing is going on", with("1", "1", "1", ""), 1000),
        ("more is wanted", with("2", "1", "1", ""), 2000),
        ("more is wanted than there is now", with("2", "1", "1", "Deferred"), 2000),
        ("more than there ever is", with("20", "1", "1", "Infeasible"), 1000),
        ("less is set aside and not yet in force", with("1", "1", "3", ""), 3000),
        ("nobody has said anything", pod_with(vec![], vec![container_with(&[("cpu", "1")], &[])]), 1000),
    ] {
        assert_eq!(held(&pod).milli_cpu, milli_cpu, "{sentence}");
        let quota = crate::quota::usage(&pod);
        assert_eq!(quota["requests.cpu"].milli(), milli_cpu, "as a quota counts it: {sentence}");
    }
}

#[test]
fn qos_class_tells_what_a_pod_was_promised() {
    let full: &[(&str, &str)] = &[("cpu", "1"), ("memory", "1Gi")];
    let table = [
        ("nothing asked", container_with(&[], &[]), "BestEffort"),
        ("zero asked", container_with(&[("cpu", "0")], &[]), "BestEffort"),
        ("requests equal limits", container_with(full, full), "Guaranteed"),
        ("only a request", container_with(&[("cpu", "1")], &[]), "Burstable"),
        ("requests below limits", container_with(&[("cpu", "1"), ("memory", "1Mi")], full), "Burstable"),
        ("only cpu limited", container_with(&[("cpu", "1")], &[("cpu", "1")]), "Burstable"),
    ];
    for (sentence, container, expected) in table {
        assert_eq!(qos_class(&pod_with(vec![], vec![container.clone()])), expected, "{sentence}");
    }
    let mixed = pod_with(vec![], vec![container_with(full, full), container_with(&[], &[])]);
    assert_eq!(qos_class(&mixed), "Burstable");
}

#[test]
fn pod_is_available_once_ready_long_enough() {
    let pod = ready_since(100);
    let at = |second| Timestamp::from_second(second).unwrap();
    assert!(is_available(&pod, 0, at(100)));
    assert!(!is_available(&pod, 10, at(109)));
    assert!(is_available(&pod, 10, at(110)));
    assert_eq!(available_at(&pod, 10), Some(at(110)));
    assert!(!is_available(&Pod::default(), 0, at(110)));
}

#[test]
fn setting_a_condition_again_keeps_its_transition_time() {
    let mut status = ready_since(100).status.unwrap();
    let ready = status.conditions.as_ref().unwrap()[0].clone();
    assert!(!set_condition(&mut status, ready.clone(), Timestamp::from_second(200).unwrap()));
    let unready = PodCondition { status: "False".into(), ..ready };
    assert!(set_condition(&mut status, unready, Timestamp::from_second(200).unwrap()));
    let at = status.conditions.unwrap()[0].last_transition_time.clone().unwrap();
    assert_eq!(at.0, Timestamp::from_second(200).unwrap());
}

#[test]
fn host_ports_conflict_where_their_addresses_meet() {
    let port = |ip: &str, protocol: &str, port| HostPort { ip: ip.into(), protocol: protocol.into(), port };
    assert!(port("0.0.0.0", "TCP", 80).conflicts_with(&port("10.0.0.1", "TCP", 80)));
    assert!(port("10.0.0.1", "TCP", 80).conflicts_with(&port("10.0.0.1", "TCP", 80)));
    assert!(!port("10.0.0.1", "TCP", 80).conflicts_with(&port("10.0.0.2", "TCP", 80)));
    assert!(!port("0.0.0.0", "TCP", 80).conflicts_with(&port("0.0.0.0", "UDP", 80)));
    let ports = vec![ContainerPort { container_port: 80, host_port: Some(8080), ..ContainerPort::default() }];
    let pod = pod_with(vec![], vec![Container { ports: Some(ports), ..Container::default() }]);
    assert_eq!(host_ports(&pod), [port("0.0.0.0", "TCP", 8080)]);
}
