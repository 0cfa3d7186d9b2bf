//! What Go makes of nothing, and what it asks of times.

use serde_json::json;

use crate::common::*;

#[tokio::test]
async fn what_go_writes_though_nothing_is_in_it_is_shown_and_is_no_change() {
    let server = Server::start().await;
    let path = "/api/v1/namespaces/default/events";
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "default"}, "type": "Normal"});
    let made = server.create(path, &event).await;
    for (field, nothing) in [("eventTime", json!(null)), ("source", json!({})), ("reportingInstance", json!(""))] {
        assert_eq!(made.get(field), Some(&nothing), "{field}");
    }
    let fields = made["metadata"]["managedFields"][0]["fieldsV1"].as_object().unwrap();
    assert_eq!(
        fields.keys().collect::<Vec<_>>(),
        ["f:involvedObject", "f:type"],
        "what was nothing before is nobody's"
    );
    let version = &made["metadata"]["resourceVersion"];
    let one = format!("{path}/e");
    let newer = "/apis/events.k8s.io/v1/namespaces/default/events/e";
    for same in [
        server.put(&one, &made).await,
        server.put(&one, &event).await,
        server.patch(&one, &json!({"source": null, "eventTime": null})).await,
        server.patch(newer, &json!({"deprecatedSource": {}})).await,
    ] {
        assert_eq!((same.code, &same.json()["metadata"]["resourceVersion"]), (200, version), "{}", same.text);
    }
    // Stored before such fields were: shown as it is, and as little changed.
    let old = concat!(
        r#"{"apiVersion":"v1","kind":"Event","metadata":{"name":"old","namespace":"default","uid":"u","#,
        r#""creationTimestamp":"2026-01-01T00:00:00Z"},"involvedObject":{"namespace":"default"},"type":"Normal"}"#,
    );
    let action = store::Action::Put(old.into(), None);
    let key = "/registry/events/default/old".to_owned();
    server.store.commit(vec![store::Op { key, expect: store::Expect::Absent, action }]).await.unwrap();
    let same = server.patch(&format!("{path}/old"), &json!({"type": "Normal"})).await;
    let version = same.json()["metadata"]["resourceVersion"].clone();
    assert_eq!(
        (same.code, server.get(&format!("{path}/old")).await.json()["metadata"]["resourceVersion"].clone()),
        (200, version.clone())
    );
    let changed = server.patch(&format!("{path}/old"), &json!({"reason": "Because"})).await.json();
    assert_ne!(changed["metadata"]["resourceVersion"], version);
    assert_eq!(changed.get("firstTimestamp"), Some(&json!(null)));
}

#[tokio::test]
async fn a_patch_of_nothing_changes_nothing() {
    let server = Server::start().await;
    let made = server.config_map("a").await;
    for (media_type, code) in [("json-patch", 200), ("strategic-merge-patch", 200), ("merge-patch", 400)] {
        let media_type = format!("application/{media_type}+json");
        let answer = server.send("PATCH", &format!("{CONFIG_MAPS}/a"), &[("content-type", &media_type)], "null").await;
        assert_eq!(answer.code, code, "{media_type}: {}", answer.text);
        if code == 200 {
            assert_eq!(answer.json()["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
        }
    }
}

#[tokio::test]
async fn times_with_microseconds_have_them() {
    let server = Server::start().await;
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = |time: &str| json!({"metadata": {"name": "l"}, "spec": {"renewTime": time}});
    let refused = server.post(path, &lease("2026-01-02T03:04:05Z")).await;
    let why = concat!(
        r#"Lease in version "v1" cannot be handled as a Lease: parsing time "2026-01-02T03:04:05Z" as "#,
        r#""2006-01-02T15:04:05.000000Z07:00": cannot parse "Z" as ".000000""#,
    );
    assert_eq!((refused.code, refused.message()), (400, why.to_owned()));
    assert_eq!(server.post(path, &lease("2026-01-02T03:04:05.000000Z")).await.code, 201);
}
