use proptest::prelude::*;
use serde_json::json;

use super::*;

fn pod() -> &'static KindInfo {
    crate::kinds::by_kind("v1", "Pod").unwrap().info
}

fn applied(object: &Value, patch: &Value) -> Result<Value, PatchError> {
    Patch::Strategic(patch.clone()).apply(pod(), object.clone())
}

fn spec(spec: Value) -> Value {
    json!({ "spec": spec })
}

#[test]
fn strategic_patches_merge_as_upstream_merges_them() {
    let c = |name: &str, image: &str| json!({"name": name, "image": image});
    let abc = json!({"containers": [c("a", "1"), c("b", "1"), c("c", "1")]});
    for (sentence, before, patch, after) in [
        (
            "elements merge by name",
            abc.clone(),
            json!({"containers": [c("b", "2")]}),
            json!({"containers": [c("a", "1"), c("b", "2"), c("c", "1")]}),
        ),
        (
            "new elements come first where nothing orders them",
            json!({"containers": [c("a", "1")]}),
            json!({"containers": [c("x", "1")]}),
            json!({"containers": [c("x", "1"), c("a", "1")]}),
        ),
        (
            "known elements keep their place among the server's",
            abc.clone(),
            json!({"containers": [c("b", "1"), c("x", "1")]}),
            json!({"containers": [c("a", "1"), c("b", "1"), c("x", "1"), c("c", "1")]}),
        ),
        (
            "an order is obeyed",
            abc.clone(),
            json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}], "containers": [c("c", "2")]}),
            json!({"containers": [c("b", "1"), c("c", "2"), c("a", "1")]}),
        ),
        (
            "an order alone only reorders",
            abc.clone(),
            json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}]}),
            json!({"containers": [c("c", "1"), c("b", "1"), c("a", "1")]}),
        ),
        (
            "elements are deleted by name",
            abc.clone(),
            json!({"containers": [{"name": "b", "$patch": "delete"}]}),
            json!({"containers": [c("a", "1"), c("c", "1")]}),
        ),
        (
            "lists are replaced on demand",
            abc.clone(),
            json!({"containers": [{"$patch": "replace"}, c("x", "1")]}),
            json!({"containers": [c("x", "1")]}),
        ),
        (
            "maps are replaced on demand",
            json!({"securityContext": {"runAsUser": 1}}),
            json!({"securityContext": {"$patch": "replace", "runAsGroup": 2}}),
            json!({"securityContext": {"runAsGroup": 2}}),
        ),
        (
            "maps are emptied on demand",
            json!({"securityContext": {"runAsUser": 1}}),
            json!({"securityContext": {"$patch": "delete"}}),
            json!({"securityContext": {}}),
        ),
        (
            "directives for what is not there leave nothing",
            json!({}),
            json!({"securityContext": {"$patch": "replace", "runAsUser": 1}}),
            json!({}),
        ),
        (
            "null deletes",
            json!({"nodeName": "n", "hostname": "h"}),
            json!({"nodeName": null, "subdomain": null}),
            json!({"hostname": "h"}),
        ),
        (
            "lists without merge key are replaced",
            json!({"tolerations": [{"key": "a"}]}),
            json!({"tolerations": [{"key": "b"}]}),
            json!({"tolerations": [{"key": "b"}]}),
        ),
        (
            "keys that are not retained are cleared",
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"volumes": [{"name": "v", "$retainKeys": ["name", "secret"], "secret": {"secretName": "s"}}]}),
            json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}]}),
        ),
        (
            "what is new has no nulls and directives",
            json!({}),
            json!({"containers": [{"name": "a", "image": null, "$retainKeys": ["name"]}, {"name": "b", "$patch": "delete"}]}),
            json!({"containers": [{"name": "a"}]}),
        ),
        (
            "nested lists merge by their own keys",
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80}],
            "env": [{"name": "E", "value": "1"}]}]}),
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "web"}],
            "env": [{"name": "F", "value": "2"}]}]}),
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "name": "web"}],
            "env": [{"name": "F", "value": "2"}, {"name": "E", "value": "1"}]}]}),
        ),
    ] {
        assert_eq!(applied(&spec(before), &spec(patch)).unwrap(), spec(after), "{sentence}");
    }
}

#[test]
fn lists_of_scalars_are_sets() {
    let object = json!({"metadata": {"finalizers": ["a", "b"]}});
    let after =
        |patch: Value| applied(&object, &json!({ "metadata": patch })).unwrap()["metadata"]["finalizers"].clone();
    assert_eq!(after(json!({"finalizers": ["c", "a"]})), json!(["c", "a", "b"]));
    assert_eq!(after(json!({"$deleteFromPrimitiveList/finalizers": ["a", "x"]})), json!(["b"]));
    assert_eq!(
        after(json!({"$setElementOrder/finalizers": ["b", "c"], "finalizers": ["c"],
            "$deleteFromPrimitiveList/finalizers": ["a"]})),
        json!(["b", "c"])
    );
}

#[test]
fn a_strategic_patch_makes_nothing_else_of_an_object() {
    let object = json!({"apiVersion": "v1", "kind": "Pod", "spec": {}});
    assert_eq!(applied(&object, &json!({"apiVersion": "v2", "kind": "Node"})).unwrap(), object);
    assert_eq!(applied(&object, &json!({"kind": null})).unwrap(), object);
}

#[test]
fn bad_strategic_patches_are_told_apart() {
    let object = spec(json!({"containers": [{"name": "a"}]}));
    for (patch, malformed, text) in [
        (json!({"containers": [{"image": "x"}]}), true, "does not contain declared merge key: name"),
        (json!({"containers": [[1]]}), false, "lists of lists are not supported"),
        (json!({"$patch": "other"}), true, "unknown patch type: \"other\" in map"),
        (json!({"containers": [{"name": "a", "$patch": "merge"}]}), true, "merging lists cannot yet"),
        (json!({"$retainKeys": ["a"], "b": 1}), true, "invalid patch format of retainKeys"),
        (json!({"$setElementOrder/containers": 1}), true, "invalid patch format of setElementOrder list"),
        (json!({"$setElementOrder/containers": [], "containers": [{"name": "a"}]}), true, "The order in patch list"),
    ] {
        let error = applied(&object, &spec(patch.clone())).unwrap_err();
        assert_eq!(matches!(error, PatchError::Malformed(_)), malformed, "{patch}");
        assert!(error.to_string().contains(text), "{patch}: {error}");
    }
}

fn parsed(media_type: &str, body: &str) -> Result<Patch, PatchError> {
    Patch::parse(media_type, body.as_bytes()).unwrap()
}

#[test]
fn json_patches_apply_or_say_why_not() {
    let object = json!({"metadata": {"labels": {"a": "1"}}, "list": [1, 2]});
    let apply = |patch: &str| parsed("application/json-patch+json", patch)?.apply(pod(), object.clone());
    let patch = r#"[{"op":"test","path":"/list/0","value":1},{"op":"add","path":"/list/-","value":3},
        {"op":"replace","path":"/metadata/labels/a","value":"2"},{"op":"copy","from":"/list","path":"/copy"}]"#;
    assert_eq!(
        apply(patch).unwrap(),
        json!({"metadata": {"labels": {"a": "2"}}, "list": [1, 2, 3], "copy": [1, 2, 3]})
    );
    let finalizer = r#"[{"op":"test","path":"/metadata/finalizers","value":null},
        {"op":"add","path":"/metadata/finalizers","value":["x"]}]"#;
    assert_eq!(apply(finalizer).unwrap()["metadata"]["finalizers"], json!(["x"]), "what is not there is null");
    assert_eq!(apply(r#"[{"op":"add","path":"/x"}]"#).unwrap()["x"], Value::Null, "nothing said is null");
    for (patch, text) in [
        (r#"[{"op":"test","path":"/list/0","value":2}]"#, "testing value /list/0 failed"),
        (r#"[{"op":"test","path":"/list","value":null}]"#, "testing value /list failed"),
        (r#"[{"op":"test","path":"/no/where","value":null}]"#, "testing value /no/where failed"),
        (r#"[{"op":"remove","path":"/nothing"}]"#, "remove operation does not apply: doc is missing path: /nothing"),
        (
            r#"[{"op":"replace","path":"/a/b","value":1}]"#,
            "replace operation does not apply: doc is missing path: /a/b",
        ),
    ] {
        let error = apply(patch).unwrap_err();
        assert!(matches!(&error, PatchError::NotApplicable(t) if t.starts_with(text)), "{error}");
    }
    for patch in ["{}", "[1]", "["] {
        assert!(matches!(apply(patch), Err(PatchError::Malformed(_))), "{patch}");
    }
    for patch in ["[{}]", r#"[{"op":"jump","path":""}]"#, r#"[{"op":"remove","path":"x"}]"#] {
        assert!(matches!(apply(patch), Err(PatchError::NotApplicable(_))), "{patch}");
    }
}

#[test]
fn json_patches_are_bounded() {
    let remove = vec![r#"{"op":"remove","path":"/a"}"#; MAX_JSON_PATCH_OPERATIONS + 1].join(",");
    let error = parsed("application/json-patch+json", &format!("[{remove}]")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"
    );
    let deep = format!(r#"[{{"op":"remove","path":"{}"}}]"#, "/a".repeat(1000));
    assert!(matches!(parsed("application/json-patch+json", &deep), Err(PatchError::Malformed(_))));
    let doubling: Vec<String> = (0..60).map(|i| format!(r#"{{"op":"copy","from":"","path":"/c{i}"}}"#)).collect();
    let doubling = parsed("application/json-patch+json", &format!("[{}]", doubling.join(","))).unwrap();
    let error = doubling.apply(pod(), json!({"a": "xxxxxxxxxxxxxxxx"})).unwrap_err();
    assert!(error.to_string().starts_with("Unable to complete the copy"), "{error}");
}

#[test]
fn other_media_types_are_no_patches_we_know() {
    assert!(Patch::parse("application/apply-patch+yaml", b"{}").is_none());
    assert!(matches!(parsed("application/merge-patch+json", "[]"), Err(PatchError::Malformed(_))));
    assert!(matches!(parsed("application/strategic-merge-patch+json", "{"), Err(PatchError::Malformed(_))));
}

#[test]
fn three_way_patches_leave_alone_what_others_set() {
    let three = |o: Value, m: Value, c: Value| three_way_strategic(pod(), &spec(o), &spec(m), &spec(c)).unwrap();
    let a = json!({"containers": [{"name": "a", "image": "1"}]});
    let live = json!({"containers": [{"name": "a", "image": "1", "imagePullPolicy": "Always"}, {"name": "side"}],
        "nodeName": "n"});
    assert_eq!(three(a.clone(), a.clone(), live.clone()), json!({}));
    assert_eq!(
        three(a.clone(), json!({"containers": [{"name": "a", "image": "2"}]}), live.clone()),
        spec(json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "a", "image": "2"}]}))
    );
    assert_eq!(
        three(a.clone(), json!({"containers": [{"name": "b"}]}), live.clone()),
        spec(json!({"$setElementOrder/containers": [{"name": "b"}],
            "containers": [{"name": "b"}, {"name": "a", "$patch": "delete"}]}))
    );
    assert_eq!(three(json!({"hostname": "h"}), json!({}), json!({"hostname": "h"})), spec(json!({"hostname": null})));
    assert_eq!(
        three(
            json!({}),
            json!({"volumes": [{"name": "v", "secret": {}}]}),
            json!({"volumes": [{"name": "v", "emptyDir": {}}]})
        ),
        spec(json!({"$setElementOrder/volumes": [{"name": "v"}],
            "volumes": [{"name": "v", "secret": {}, "$retainKeys": ["name", "secret"]}]}))
    );
    assert_eq!(
        three_way_merge(&json!({"a": 1, "b": [1]}), &json!({"b": [2]}), &json!({"a": 1, "b": [1], "c": 3})),
        json!({"a": null, "b": [2]})
    );
}

/// Pods that differ in the parts that merge in every way there is.
fn any_pod() -> impl Strategy<Value = Value> {
    let env = prop::collection::btree_map("[A-C]", "[0-2]", 0..3)
        .prop_map(|env| env.into_iter().map(|(k, v)| json!({"name": k, "value": v})).collect::<Value>());
    let container =
        (env, prop::option::of("[xy]"), prop::collection::vec("[a-b]", 0..3)).prop_map(|(env, image, args)| {
            let mut container = json!({"env": env, "args": args});
            if let Some(image) = image {
                container["image"] = json!(image);
            }
            container
        });
    let containers = prop::collection::vec(("[a-d]", container), 0..4).prop_map(|list| {
        let mut seen = std::collections::HashSet::new();
        let named = list.into_iter().filter(|(name, _)| seen.insert(name.clone()));
        named
            .map(|(name, mut c)| {
                c["name"] = json!(name);
                c
            })
            .collect::<Value>()
    });
    let volumes =
        prop::sample::subsequence(vec!["emptyDir", "secret"], 1).prop_map(|kind| json!([{"name": "v", kind[0]: {}}]));
    let finalizers = prop::sample::subsequence(vec!["a", "b", "c"], 0..=3).prop_shuffle();
    let labels = prop::collection::btree_map("[a-c]", "[0-1]", 0..3);
    (containers, volumes, finalizers, labels).prop_map(|(containers, volumes, finalizers, labels)| {
        json!({"metadata": {"finalizers": finalizers, "labels": labels},
            "spec": {"containers": containers, "volumes": volumes}})
    })
}

/// Whether everything `wanted` says holds in `present`, whatever else is there.
fn holds(wanted: &Value, present: &Value) -> bool {
    match (wanted, present) {
        (Value::Object(wanted), Value::Object(present)) => {
            wanted.iter().all(|(k, w)| present.get(k).is_some_and(|p| holds(w, p)))
        }
        (Value::Array(wanted), Value::Array(present)) if wanted.first().is_some_and(|w| w["name"].is_string()) => {
            wanted.iter().all(|w| present.iter().any(|p| p["name"] == w["name"] && holds(w, p)))
        }
        (Value::Array(wanted), Value::Array(present)) => wanted.iter().all(|w| present.contains(w)),
        _ => wanted == present,
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), (0..3).prop_map(Value::from)];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-c]|containers|name|\\$patch|\\$setElementOrder/containers", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn applying_a_three_way_patch_leaves_nothing_to_do(original in any_pod(), modified in any_pod(), current in any_pod()) {
        let patch = three_way_strategic(pod(), &original, &modified, &current).unwrap();
        let after = applied(&current, &patch).unwrap();
        prop_assert!(holds(&modified, &after), "{} {}", patch, after);
        let again = three_way_strategic(pod(), &modified, &modified, &after).unwrap();
        prop_assert_eq!(again, json!({}), "{} {}", patch, after);
    }

    #[test]
    fn a_strategic_patch_applied_twice_changes_nothing_more(object in any_pod(), patch in any_pod()) {
        let once = applied(&object, &patch).unwrap();
        prop_assert_eq!(applied(&once, &patch).unwrap(), once);
    }

    #[test]
    fn a_merge_patch_applied_twice_changes_nothing_more(object in any_json(), patch in any_json()) {
        let patch = Patch::Merge(patch);
        let once = patch.apply(pod(), object).unwrap();
        prop_assert_eq!(patch.apply(pod(), once.clone()).unwrap(), once);
    }

    #[test]
    fn a_three_way_merge_patch_leaves_nothing_to_do(original in any_pod(), modified in any_pod(), current in any_pod()) {
        let patch = three_way_merge(&original, &modified, &current);
        let after = Patch::Merge(patch).apply(pod(), current).unwrap();
        prop_assert_eq!(three_way_merge(&modified, &modified, &after), json!({}));
    }

    #[test]
    fn no_patch_makes_us_panic(a in any_json(), b in any_json(), c in any_json()) {
        let (a, b, c) = (json!({"spec": a, "metadata": b}), json!({"spec": b, "metadata": c}), json!({"spec": c, "metadata": a}));
        let _ = (applied(&a, &b), three_way_strategic(pod(), &a, &b, &c));
    }
}
