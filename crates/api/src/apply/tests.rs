//! Managers of pods, services and config maps, as upstream's server would name them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::json;

use super::*;
use crate::kinds::by_kind;

fn writer<'a>(kind: &str, manager: &'a str, second: i64) -> Writer<'a> {
    let info = by_kind("v1", kind).unwrap().info;
    Writer { info, manager, subresource: None, now: Timestamp::from_second(second).unwrap() }
}

/// The list as a tree.
fn list(managed: &str) -> Vec<ManagedFieldsEntry> {
    if managed.is_empty() { Vec::new() } else { serde_json::from_str(managed).unwrap() }
}

/// The fields of a manager.
fn fields(managed: &str, manager: &str) -> Value {
    let entry = list(managed).into_iter().find(|e| e.manager.as_deref() == Some(manager));
    entry.and_then(|e| e.fields_v1).map_or(Value::Null, |f| f.0)
}

fn managers(managed: &str) -> Vec<String> {
    let entries = list(managed).into_iter();
    entries.map(|e| format!("{} {}", e.manager.unwrap_or_default(), e.operation.unwrap_or_default())).collect()
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data})
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "n", "uid": "u", "labels": {"run": "web"}},
        "spec": {
            "containers": [{
                "name": "web", "image": "nginx", "resources": {},
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            }],
            "nodeSelector": {"disk": "ssd"}, "restartPolicy": "Always", "securityContext": {},
            "tolerations": [{"key": "x"}],
        },
        "status": {"phase": "Pending"},
    })
}

#[test]
fn a_created_pod_is_its_creators() {
    let managed = writer("Pod", "kubectl-run", 7).track(None, &pod().to_string(), "");
    let expected = json!([{
        "manager": "kubectl-run", "operation": "Update", "apiVersion": "v1", "time": "1970-01-01T00:00:07Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:metadata": {"f:labels": {".": {}, "f:run": {}}},
            "f:spec": {
                "f:containers": {r#"k:{"name":"web"}"#: {
                    ".": {}, "f:image": {}, "f:name": {}, "f:resources": {},
                    "f:env": {".": {}, r#"k:{"name":"A"}"#: {
                        ".": {}, "f:name": {}, "f:valueFrom": {".": {}, "f:fieldRef": {}},
                    }},
                    "f:ports": {".": {}, r#"k:{"containerPort":80,"protocol":"TCP"}"#: {
                        ".": {}, "f:containerPort": {}, "f:protocol": {},
                    }},
                }},
                "f:nodeSelector": {}, "f:restartPolicy": {}, "f:securityContext": {}, "f:tolerations": {},
            },
        },
    }]);
    assert_eq!(serde_json::from_str::<Value>(&managed).unwrap(), expected);
}

#[test]
fn an_update_takes_what_it_changes_and_gives_up_what_it_removes() {
    let one = config_map(json!({"a": "1", "b": "1", "c": "1"})).to_string();
    let two = config_map(json!({"a": "1", "b": "2", "d": "2"})).to_string();
    let first = writer("ConfigMap", "one", 1).track(None, &one, "");
    let second = writer("ConfigMap", "two", 2).track(Some(&one), &two, &first);
    assert_eq!(fields(&second, "one"), json!({"f:data": {".": {}, "f:a": {}}}));
    assert_eq!(fields(&second, "two"), json!({"f:data": {"f:b": {}, "f:d": {}}}));
    assert_eq!(writer("ConfigMap", "three", 3).track(Some(&two), &two, &second), second);
    assert_eq!(writer("ConfigMap", "three", 3).track(Some(&one), &two, ""), "", "what nobody manages stays so");
}

#[test]
fn status_is_the_status_writers() {
    let old = pod().to_string();
    let mut new = pod();
    new["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    new["spec"]["restartPolicy"] = json!("Never");
    let created = writer("Pod", "kubectl-run", 1).track(None, &old, "");
    let kubelet = Writer { subresource: Some(Subresource::Status), ..writer("Pod", "kubelet", 2) };
    let managed = kubelet.track(Some(&old), &new.to_string(), &created);
    let expected = json!({"f:status": {
        "f:conditions": {".": {}, r#"k:{"type":"Ready"}"#: {".": {}, "f:status": {}, "f:type": {}}}, "f:phase": {},
    }});
    assert_eq!(fields(&managed, "kubelet"), expected);
    assert_eq!(list(&managed)[1].subresource.as_deref(), Some("status"));
    assert_eq!(fields(&managed, "kubectl-run"), fields(&created, "kubectl-run"));
}

#[test]
fn no_more_than_ten_updaters_are_told_apart() {
    let mut managed = String::new();
    let mut object = config_map(json!({"k0": "v"}));
    let mut old: Option<String> = None;
    for n in 0..15 {
        object["data"][format!("k{n}")] = json!("v");
        let new = object.to_string();
        managed = writer("ConfigMap", &format!("m{n:02}"), n).track(old.as_deref(), &new, &managed);
        old = Some(new);
    }
    let names = managers(&managed);
    assert_eq!(names.len(), 10);
    assert_eq!((names[0].as_str(), names[9].as_str()), ("ancient-changes Update", "m14 Update"));
    let ancient = fields(&managed, "ancient-changes");
    assert_eq!(ancient["f:data"].as_object().unwrap().len(), 7, "the map itself and six keys");
}

#[test]
fn an_apply_merges_prunes_and_conflicts() {
    let one = writer("ConfigMap", "one", 1);
    let created = one.apply(None, &config_map(json!({"a": "1", "b": "1"})), "", false).unwrap();
    assert_eq!(fields(&created.managed, "one"), json!({"f:data": {"f:a": {}, "f:b": {}}}));
    let live = created.object.to_string();
    // Another who agrees is a manager too; one who does not agree is refused.
    let two = writer("ConfigMap", "two", 2);
    let agreed = two.apply(Some(&live), &config_map(json!({"a": "1", "c": "2"})), &created.managed, false).unwrap();
    assert_eq!(agreed.object["data"], json!({"a": "1", "b": "1", "c": "2"}));
    let live = agreed.object.to_string();
    let other = config_map(json!({"a": "2", "b": "2", "c": "2"}));
    let conflicts = two.apply(Some(&live), &other, &agreed.managed, false).unwrap_err();
    assert_eq!(message(&conflicts), "Apply failed with 2 conflicts: conflicts with \"one\":\n- .data.a\n- .data.b");
    let forced = two.apply(Some(&live), &other, &agreed.managed, true).unwrap();
    assert_eq!(fields(&forced.managed, "one"), Value::Null);
    // What nobody names any more goes; what another names stays.
    let live = agreed.object.to_string();
    let dropped = one.apply(Some(&live), &config_map(json!({})), &agreed.managed, false).unwrap();
    assert_eq!(dropped.object["data"], json!({"a": "1", "c": "2"}));
    assert_eq!(managers(&dropped.managed), ["one Apply", "two Apply"].map(String::from));
}

#[test]
fn applying_again_is_no_change() {
    let apply = writer("Pod", "one", 1);
    let config = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "finalizers": ["a/b", "c/d"]},
        "spec": {"containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 80}]}]},
    });
    let first = apply.apply(None, &config, "", false).unwrap();
    let live = first.object.to_string();
    let again = Writer { now: Timestamp::from_second(9).unwrap(), ..apply };
    let second = again.apply(Some(&live), &config, &first.managed, false).unwrap();
    assert_eq!(second.object, first.object);
    assert!(equal_but_times(&first.managed, &second.managed));
    assert_eq!(
        fields(&first.managed, "one")["f:metadata"],
        json!({"f:finalizers": {r#"v:"a/b""#: {}, r#"v:"c/d""#: {}}})
    );
    let port = &fields(&first.managed, "one")["f:spec"]["f:containers"][r#"k:{"name":"a"}"#]["f:ports"];
    assert_eq!(port, &json!({r#"k:{"containerPort":80,"protocol":"TCP"}"#: {".": {}, "f:containerPort": {}}}));
}

#[test]
fn elements_of_lists_come_and_go_with_their_appliers() {
    let container = |name: &str, image: &str| json!({"name": name, "image": image});
    let pod = |containers: Vec<Value>| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": containers}});
    let (one, two) = (writer("Pod", "one", 1), writer("Pod", "two", 2));
    let first = one.apply(None, &pod(vec![container("a", "1"), container("b", "1")]), "", false).unwrap();
    let config = pod(vec![container("c", "2"), container("b", "1")]);
    let second = two.apply(Some(&first.object.to_string()), &config, &first.managed, false).unwrap();
    let names = |object: &Value| -> Vec<String> {
        let list = object["spec"]["containers"].as_array().unwrap();
        list.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&second.object), ["a", "c", "b"]);
    let config = pod(vec![container("d", "3")]);
    let third = one.apply(Some(&second.object.to_string()), &config, &second.managed, false).unwrap();
    assert_eq!(names(&third.object), ["c", "b", "d"]);
    let conflicts = one.apply(Some(&third.object.to_string()), &pod(vec![container("b", "9")]), &third.managed, false);
    assert_eq!(
        message(&conflicts.unwrap_err()),
        r#"Apply failed with 1 conflict: conflict with "two": .spec.containers[name="b"].image"#
    );
}

#[test]
fn what_was_there_before_the_first_apply_is_somebodys() {
    let live = config_map(json!({"a": "1"})).to_string();
    let config = config_map(json!({"a": "2"}));
    let conflicts = writer("ConfigMap", "one", 1).apply(Some(&live), &config, "", false).unwrap_err();
    assert_eq!(
        message(&conflicts),
        r#"Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.a"#
    );
}

#[test]
fn kubectl_takes_over_what_it_applied_from_the_client_side() {
    let annotated = |data: Value, last: Value| {
        let mut object = config_map(data);
        object["metadata"]["annotations"] = json!({LAST_APPLIED: config_map(last).to_string()});
        object.to_string()
    };
    let live = annotated(json!({"a": "1", "b": "1"}), json!({"a": "1", "b": "1"}));
    let managed = writer("ConfigMap", "kubectl-client-side-apply", 1).track(None, &live, "");
    let config = config_map(json!({"a": "2", "b": "1"}));
    assert!(writer("ConfigMap", "someone", 2).apply(Some(&live), &config, &managed, false).is_err());
    let applied = writer("ConfigMap", "kubectl", 2).apply(Some(&live), &config, &managed, false).unwrap();
    assert_eq!(applied.object["metadata"]["annotations"][LAST_APPLIED], json!(format!("{config}\n")));
    // A field that was changed since is not covered by the annotation.
    let live = annotated(json!({"a": "5", "b": "1"}), json!({"a": "1", "b": "1"}));
    let conflicts = writer("ConfigMap", "kubectl", 2).apply(Some(&live), &config, &managed, false).unwrap_err();
    assert_eq!(conflicts.len(), 1);
}

#[test]
fn managers_a_client_writes_itself_are_read_as_upstream_reads_them() {
    let entry = |change: fn(&mut ManagedFieldsEntry)| {
        let mut entry: ManagedFieldsEntry = serde_json::from_value(json!({
            "manager": "m", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {r#"k:{ "b":1, "a":2 }"#: {}}},
        }))
        .unwrap();
        change(&mut entry);
        given(Some(&[entry]))
    };
    assert_eq!((given(None), given(Some(&[]))), (Given::Nothing, Given::Reset));
    assert_eq!(given(Some(&[ManagedFieldsEntry::default()])), Given::Reset);
    let Given::List(text) = entry(|_| {}) else { panic!() };
    assert_eq!(fields(&text, "m"), json!({"f:spec": {r#"k:{"a":2,"b":1}"#: {}}}));
    assert_eq!(entry(|e| e.operation = Some("Other".into())), Given::Nothing);
    assert_eq!(entry(|e| e.fields_type = None), Given::Nothing);
    assert_eq!(entry(|e| e.fields_v1.as_mut().unwrap().0 = json!({"x": {}})), Given::Nothing);
    assert_eq!(entry(|e| e.fields_v1.as_mut().unwrap().0 = json!([1])), Given::Nothing);
}

#[test]
fn paths_are_told_level_by_level() {
    let set = fields_v1::parse(r#"{"f:metadata":{"f:labels":{"f:a":{}}},"f:subjects":{".":{},"f:x":{}}}"#).unwrap();
    assert_eq!(set.paths(), [".subjects", ".metadata.labels.a", ".subjects.x"]);
}

#[test]
fn managers_are_named_by_their_agent() {
    assert_eq!(manager_of_user_agent("kubectl/v1.33.0 (linux/amd64)"), "kubectl");
    assert_eq!(manager_of_user_agent("a\tb c"), "ab c");
    assert_eq!(manager_of_user_agent(&"ä".repeat(100)).len(), 128);
    assert!(manager_errors("kubectl", &crate::field::Path::new("fieldManager")).is_empty());
    assert_eq!(manager_errors("a\nb", &crate::field::Path::new("fieldManager")).len(), 1);
}

#[test]
fn configurations_that_are_none_are_named() {
    let apply = writer("Pod", "m", 1);
    let cases = [
        (json!({"apiVersion": "v1", "kind": "Node"}), "invalid object type: /v1, Kind=Node"),
        (json!({}), "invalid object type: /, Kind="),
        (
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"managedFields": []}}),
            "metadata.managedFields must be nil",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [
                {"name": "x"}, {"name": "x"}]}}),
            "failed to create typed patch object (/a; /v1, Kind=Pod): .spec.containers: duplicate entries for key \
             [name=\"x\"]",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{}, {}]}}),
            "failed to create typed patch object (/a; /v1, Kind=Pod): .spec.containers: duplicate entries for key \
             [name=\"\"]",
        ),
    ];
    for (config, message) in cases {
        assert_eq!(apply.config_error(&config).as_deref(), Some(message));
    }
    assert_eq!(apply.config_error(&pod()), None);
}

#[test]
fn managed_fields_are_spliced_in_and_out() {
    let info = by_kind("v1", "ConfigMap").unwrap().info;
    let prefix = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"#;
    for (rest, joined) in
        [(r#""name":"a"}}"#, r#""managedFields":[{"x":"]"}],"name":"a"}}"#), ("}}", r#""managedFields":[{"x":"]"}]}}"#)]
    {
        let object = format!("{prefix}{rest}");
        let whole = join(info, object.clone().into_bytes(), r#"[{"x":"]"}]"#);
        assert_eq!(String::from_utf8(whole.clone()).unwrap(), format!("{prefix}{joined}"));
        let (without, managed) = split(info, &whole);
        assert_eq!((&*without, managed), (object.as_bytes(), r#"[{"x":"]"}]"#));
        let versioned = format!("{prefix}\"resourceVersion\":\"7\",{joined}");
        let (without, managed) = split(info, versioned.as_bytes());
        let comma = if rest == "}}" { "" } else { "," };
        let expected = format!("{prefix}\"resourceVersion\":\"7\"{comma}{rest}");
        assert_eq!((std::str::from_utf8(&without).unwrap(), managed), (expected.as_str(), r#"[{"x":"]"}]"#));
        assert_eq!(split(info, object.as_bytes()).1, "");
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    /// Some of a pod's parts, as an applier may name them.
    fn config() -> impl Strategy<Value = Value> {
        let labels = prop::collection::btree_map("[ab]", "[xy]", 0..3);
        let containers =
            prop::collection::btree_map("[abc]", ("[ij]", prop::collection::btree_set(80u16..83, 0..3)), 1..3);
        let finalizers = prop::collection::btree_set("[fg]/[z]", 0..3);
        let selector = prop::option::of(prop::collection::btree_map("[s]", "[xy]", 1..2));
        (labels, containers, finalizers, selector).prop_map(|(labels, containers, finalizers, selector)| {
            let container = |(name, (image, ports)): (String, (String, std::collections::BTreeSet<u16>))| {
                let ports: Vec<Value> = ports.into_iter().map(|p| json!({"containerPort": p})).collect();
                json!({"name": name, "image": image, "ports": ports})
            };
            let containers: Vec<Value> = containers.into_iter().map(container).collect();
            let mut pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "p", "labels": labels, "finalizers": finalizers},
                "spec": {"containers": containers},
            });
            if let Some(selector) = selector {
                pod["spec"]["nodeSelector"] = json!(selector);
            }
            pod
        })
    }

    fn own(config: &Value) -> Set<'static> {
        let text: &'static str = Box::leak(config.to_string().into_boxed_str());
        let mut set = fields_of(text, Place::root(by_kind("v1", "Pod").unwrap().info));
        set.subtract(&NEVER_OWNED);
        set
    }

    proptest! {
        #[test]
        fn a_second_apply_changes_nothing(first in config(), other in config(), again in config()) {
            let (one, two) = (writer("Pod", "one", 1), writer("Pod", "two", 2));
            let a = one.apply(None, &first, "", false).unwrap();
            let b = two.apply(Some(&a.object.to_string()), &other, &a.managed, true).unwrap();
            let c = one.apply(Some(&b.object.to_string()), &again, &b.managed, true).unwrap();
            let d = one.apply(Some(&c.object.to_string()), &again, &c.managed, false).unwrap();
            prop_assert_eq!(&c.object, &d.object);
            prop_assert!(equal_but_times(&c.managed, &d.managed));
        }

        #[test]
        fn what_one_alone_applied_goes_with_him(first in config(), other in config()) {
            let (one, two) = (writer("Pod", "one", 1), writer("Pod", "two", 2));
            let a = one.apply(None, &first, "", false).unwrap();
            let b = two.apply(Some(&a.object.to_string()), &other, &a.managed, true).unwrap();
            let bare = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}});
            let c = one.apply(Some(&b.object.to_string()), &bare, &b.managed, false).unwrap();
            let left = c.object.to_string();
            let mut left = fields_of(&left, Place::root(one.info));
            left.subtract(&NEVER_OWNED);
            // Nothing is left but what the other one named, or holds it.
            left.subtract(&own(&other).with_parents());
            left.subtract(&own(&bare).with_parents());
            let emptied = |path: &String| [".metadata.labels", ".metadata.finalizers", ".spec", ".spec.containers", ".status"].contains(&path.as_str()) || path.ends_with(".ports");
            prop_assert!(left.paths().iter().all(emptied), "{:?}", left.paths());
        }

        #[test]
        fn a_forced_apply_owns_what_it_names(first in config(), other in config()) {
            let (one, two) = (writer("Pod", "one", 1), writer("Pod", "two", 2));
            let a = one.apply(None, &first, "", false).unwrap();
            let b = two.apply(Some(&a.object.to_string()), &other, &a.managed, true).unwrap();
            let text = fields(&b.managed, "two").to_string();
            let text = if text == "null" { "{}".to_owned() } else { text };
            let mut set = fields_v1::parse(&text).unwrap();
            let wanted = own(&other);
            prop_assert_eq!(set.clone().paths(), wanted.paths());
            set.subtract(&wanted);
            prop_assert!(set.is_empty());
        }

        #[test]
        fn fields_v1_comes_back_as_it_went(config in config()) {
            let set = own(&config);
            let mut out = Vec::new();
            fields_v1::write(&set, &mut out);
            let text = String::from_utf8(out).unwrap();
            prop_assert_eq!(fields_v1::parse(&text).unwrap(), set);
        }

        #[test]
        fn tracked_changes_are_owned_by_their_writer(old in config(), new in config()) {
            let (one, two) = (writer("Pod", "one", 1), writer("Pod", "two", 2));
            let (old, new) = (old.to_string(), new.to_string());
            let created = one.track(None, &old, "");
            let updated = two.track(Some(&old), &new, &created);
            let mut diff = compare(Some(&old), Some(&new), Place::root(one.info));
            diff.added = std::mem::take(&mut diff.added).union(std::mem::take(&mut diff.modified));
            diff.added.subtract(&NEVER_OWNED);
            for entry in &mut managed::parse(&updated) {
                let mine = entry.manager == "two";
                let common = entry.set().intersection(&diff.added);
                prop_assert_eq!(common.is_empty(), !mine);
            }
        }
    }
}
