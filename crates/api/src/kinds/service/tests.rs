use super::*;
use crate::Object;
use k8s_openapi::api::core::v1::ServiceSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// A service as the API server stores it, with its address.
fn good() -> Service {
    let json = r#"{"metadata":{"name":"web"},"spec":{"selector":{"app":"web"},"ports":[{"port":80}]}}"#;
    let mut service: Service = serde_json::from_str(json).unwrap();
    service.spec.as_mut().unwrap().cluster_ip = Some("10.96.0.10".into());
    Object::set_defaults(&mut service);
    service
}

fn changed(change: impl Fn(&mut ServiceSpec)) -> Service {
    let mut service = good();
    change(service.spec.as_mut().unwrap());
    Object::set_defaults(&mut service);
    service
}

fn texts(errors: &ErrorList) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_left_out_is_filled_in_once() {
    let service = good();
    let spec = service.spec.as_ref().unwrap();
    assert_eq!(spec.type_.as_deref(), Some("ClusterIP"));
    assert_eq!(spec.session_affinity.as_deref(), Some("None"));
    assert_eq!(spec.internal_traffic_policy.as_deref(), Some("Cluster"));
    assert_eq!(spec.external_traffic_policy, None);
    assert_eq!(spec.ports.as_ref().unwrap()[0].target_port, Some(IntOrString::Int(80)));
    let mut again = service.clone();
    Object::set_defaults(&mut again);
    assert_eq!(again, service);
    let sticky = changed(|s| s.session_affinity = Some("ClientIP".into()));
    let config = sticky.spec.unwrap().session_affinity_config.unwrap();
    assert_eq!(config.client_ip.unwrap().timeout_seconds, Some(10_800));
}

#[test]
fn what_is_wrong_is_named_with_its_path() {
    type Change = fn(&mut ServiceSpec);
    let second = |s: &mut ServiceSpec| {
        let mut port = s.ports.as_ref().unwrap()[0].clone();
        port.name = Some("b".into());
        s.ports.as_mut().unwrap().push(port);
    };
    let table: [(&str, Change, &[&str]); 9] = [
        ("nothing", |_| {}, &[]),
        ("no ports", |s| s.ports = None, &["spec.ports: Required value"]),
        (
            "headless needs none",
            |s| {
                (s.ports, s.cluster_ip, s.cluster_ips) = (None, Some("None".into()), Some(vec!["None".into()]));
            },
            &[],
        ),
        (
            "an unnamed port twice",
            second,
            &["spec.ports[0].name: Required value", r#"spec.ports[1]: Duplicate value: {"port":80,"protocol":"TCP"}"#],
        ),
        (
            "a node port of an inner service",
            |s| s.ports.as_mut().unwrap()[0].node_port = Some(30_080),
            &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
        ),
        (
            "an address that is none",
            |s| (s.cluster_ip, s.cluster_ips) = (Some("x".into()), None),
            &[
                r#"spec.clusterIPs[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"#,
            ],
        ),
        (
            "a type nobody knows",
            |s| s.type_ = Some("Magic".into()),
            &[
                r#"spec.type: Unsupported value: "Magic": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort""#,
            ],
        ),
        (
            "an external name without a name",
            |s| {
                (s.type_, s.cluster_ip, s.cluster_ips) = (Some("ExternalName".into()), None, None);
            },
            &["spec.externalName: Required value"],
        ),
        (
            "a port too great",
            |s| s.ports.as_mut().unwrap()[0].port = 70_000,
            &["spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive"],
        ),
    ];
    for (sentence, change, expected) in table {
        assert_eq!(texts(&Object::validate(&changed(change))), expected, "{sentence}");
    }
}

#[test]
fn address_stays_when_not_repeated_and_cannot_change() {
    let mut new = changed(|s| (s.cluster_ip, s.cluster_ips) = (None, None));
    Object::prepare_update(&mut new, &good());
    assert_eq!(new.spec.as_ref().unwrap().cluster_ip.as_deref(), Some("10.96.0.10"));
    assert!(Object::validate_update(&new, &good()).is_empty());

    let mut new = changed(|s| s.cluster_ip = Some("10.96.0.11".into()));
    Object::prepare_update(&mut new, &good());
    let expected = r#"spec.clusterIPs[0]: Invalid value: ["10.96.0.11"]: may not change once set"#;
    assert_eq!(texts(&Object::validate_update(&new, &good())), [expected]);
}

#[test]
fn the_port_for_health_stays_while_it_is_needed() {
    let balanced = |policy: &str, port: Option<i32>| {
        changed(|s| {
            s.type_ = Some("LoadBalancer".into());
            s.external_traffic_policy = Some(policy.into());
            s.health_check_node_port = port;
        })
    };
    let old = balanced("Local", Some(30_100));
    let mut unsaid = balanced("Local", None);
    Object::prepare_update(&mut unsaid, &old);
    assert_eq!(unsaid.spec.as_ref().unwrap().health_check_node_port, Some(30_100));

    let mut other = balanced("Local", Some(30_101));
    Object::prepare_update(&mut other, &old);
    let expected = "spec.healthCheckNodePort: Invalid value: 30101: field is immutable";
    assert_eq!(texts(&Object::validate_update(&other, &old)), [expected]);

    let mut elsewhere = balanced("Cluster", Some(30_100));
    Object::prepare_update(&mut elsewhere, &old);
    assert_eq!(elsewhere.spec.as_ref().unwrap().health_check_node_port, None);
    assert!(Object::validate(&elsewhere).is_empty());
}

#[test]
fn node_ports_go_with_the_type_that_has_them() {
    let old = changed(|s| {
        s.type_ = Some("NodePort".into());
        s.ports.as_mut().unwrap()[0].node_port = Some(30_080);
    });
    let mut same = changed(|s| s.type_ = Some("NodePort".into()));
    Object::prepare_update(&mut same, &old);
    assert_eq!(same.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].node_port, Some(30_080));

    let mut inner = old.clone();
    inner.spec.as_mut().unwrap().type_ = Some("ClusterIP".into());
    Object::prepare_update(&mut inner, &old);
    assert!(Object::validate(&inner).is_empty(), "{:?}", texts(&Object::validate(&inner)));
    assert_eq!(inner.spec.unwrap().external_traffic_policy, None);
}

#[test]
fn only_a_balancer_has_addresses_of_one_and_they_make_sense() {
    let with = |type_: &str, ingress: serde_json::Value| {
        let mut service = changed(|s| s.type_ = Some(type_.into()));
        service.status = serde_json::from_value(serde_json::json!({"loadBalancer": {"ingress": [ingress]}})).unwrap();
        texts(&Object::validate_status_update(&service, &good())).join("; ")
    };
    let cases = [
        ("LoadBalancer", serde_json::json!({"ip": "192.0.2.1", "ipMode": "VIP"}), ""),
        ("LoadBalancer", serde_json::json!({"hostname": "lb.example.com"}), ""),
        (
            "ClusterIP",
            serde_json::json!({"ip": "192.0.2.1"}),
            "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'",
        ),
        (
            "LoadBalancer",
            serde_json::json!({"ip": "abc"}),
            r#"status.loadBalancer.ingress[0].ip: Invalid value: "abc": must be a valid IP address"#,
        ),
        (
            "LoadBalancer",
            serde_json::json!({"hostname": "lb.example.com", "ipMode": "VIP"}),
            "status.loadBalancer.ingress[0].ipMode: Forbidden: may not be specified when `ip` is not set",
        ),
        (
            "LoadBalancer",
            serde_json::json!({"ip": "192.0.2.1", "ipMode": "Foo"}),
            r#"status.loadBalancer.ingress[0].ipMode: Unsupported value: "Foo": supported values: "Proxy", "VIP""#,
        ),
        (
            "LoadBalancer",
            serde_json::json!({"hostname": "192.0.2.1"}),
            r#"status.loadBalancer.ingress[0].hostname: Invalid value: "192.0.2.1": must be a DNS name"#,
        ),
    ];
    for (type_, ingress, expected) in cases {
        let errors = with(type_, ingress.clone());
        assert!(errors.starts_with(expected) && errors.is_empty() == expected.is_empty(), "{ingress}: {errors}");
    }
}

#[test]
fn cells_show_ports_as_kubectl_does() {
    let service = changed(|s| {
        s.type_ = Some("NodePort".into());
        s.ports.as_mut().unwrap()[0].node_port = Some(30_080);
    });
    let cells = Object::cells(&service, Timestamp::UNIX_EPOCH);
    let expected = ["web", "NodePort", "10.96.0.10", "<none>", "80:30080/TCP", "<unknown>", "app=web"];
    assert_eq!(cells, expected);
}

#[test]
fn what_has_no_effect_is_said() {
    type Change = fn(&mut ServiceSpec);
    let table: [(&str, Change, &[&str]); 8] = [
        ("a good service", |_| {}, &[]),
        (
            "headless and sticky",
            |s| {
                (s.cluster_ip, s.session_affinity) = (Some("None".into()), Some("ClientIP".into()));
                s.external_ips = Some(vec!["1.2.3.4".into()]);
            },
            &[
                "spec.externalIPs is ignored for headless services",
                "spec.SessionAffinity is ignored for headless services",
            ],
        ),
        (
            "a name of elsewhere, and addresses",
            |s| (s.type_, s.external_ips) = (Some("ExternalName".into()), Some(vec!["1.2.3.4".into()])),
            &[r#"spec.externalIPs is ignored when spec.type is "ExternalName""#],
        ),
        (
            "a name of elsewhere that nobody gets",
            |s| s.external_name = Some("example.com".into()),
            &[r#"spec.externalName is ignored when spec.type is not "ExternalName""#],
        ),
        (
            "close by yesterday's word",
            |s| s.traffic_distribution = Some("PreferClose".into()),
            &[r#"spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone""#],
        ),
        (
            "an address written in another way",
            |s| s.external_ips = Some(vec!["2001:DB8::1".into(), "2001:db8::1".into()]),
            &[
                r#"spec.externalIPs[0]: IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")"#,
            ],
        ),
        (
            "an IPv4 address in IPv6",
            |s| s.external_ips = Some(vec!["::ffff:1.2.3.4".into(), "1.2.3.4".into()]),
            &[
                r#"spec.externalIPs[0]: non-standard IP address "::ffff:1.2.3.4" will be considered invalid in a future Kubernetes release: use "1.2.3.4""#,
            ],
        ),
        (
            "ranges that may be meant otherwise",
            |s| {
                let ranges = [
                    "10.0.0.0/8",
                    "10.1.2.3/8",
                    "2001:DB8::/64",
                    "2001:db8::/64",
                    "::ffff:10.1.2.3/104",
                    " 10.0.0.1/8",
                ];
                s.load_balancer_source_ranges = Some(ranges.map(Into::into).into());
            },
            &[
                r#"spec.loadBalancerSourceRanges[1]: CIDR value "10.1.2.3/8" is ambiguous in this context (should be "10.0.0.0/8" or "10.1.2.3/32"?)"#,
                r#"spec.loadBalancerSourceRanges[2]: IPv6 CIDR value "2001:DB8::/64" should be in RFC 5952 canonical format ("2001:db8::/64")"#,
                r#"spec.loadBalancerSourceRanges[4]: CIDR value "::ffff:10.1.2.3/104" is ambiguous in this context (should be "10.0.0.0/8" or "10.1.2.3/128"?)"#,
                r#"spec.loadBalancerSourceRanges[4]: non-standard CIDR value "::ffff:10.1.2.3/104" will be considered invalid in a future Kubernetes release: use "10.0.0.0/8""#,
            ],
        ),
    ];
    for (sentence, change, expected) in table {
        assert_eq!(Object::warnings(&changed(change), None), expected, "{sentence}");
    }
}
