//! Requests leave lines in the audit log.

use crate::common::*;
use crate::tokens::{ACCOUNTS, SECRETS, bound_to, filled, kept, reviewed};
use apiserver::{AuditConfig, AuditLogLimits, User};
use serde_json::{Value, json};

/// What `ask` leaves in a log under `policy`.
fn lines(policy: Option<&str>, ask: impl AsyncFnOnce(&Server)) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let (log_path, policy_path) = (folder.path().join("audit.log"), folder.path().join("policy.yaml"));
    let policy_file = policy.map(|policy| {
        std::fs::write(&policy_path, policy).unwrap();
        policy_path
    });
    let limits = AuditLogLimits { max_size_megabytes: 0, max_backups: 0, max_age_days: 0 };
    let config = AuditConfig { log_path: log_path.clone(), policy_file, limits };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let server = Server::start_with(|c| c.audit = Some(config)).await;
        ask(&server).await;
    });
    // The last handle on the server, which its tasks have, writes what still waits.
    drop(runtime);
    let text = std::fs::read_to_string(log_path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_request_leaves_a_line_without_a_policy() {
    let all = lines(None, async |server| {
        let headers = [("user-agent", "test/1"), ("audit-id", "mine"), ("x-forwarded-for", "10.0.0.7, nonsense")];
        let created = server.send("POST", CONFIG_MAPS, &headers, &config_map("a").to_string()).await;
        assert_eq!(created.headers["audit-id"], "mine");
        let alice = User::new("alice", ["dev"]);
        let refused = server.send_as(alice, "GET", &format!("{PODS}/x/log?container=c"), &[], "").await;
        assert!(refused.headers.contains_key("audit-id"));
        server.send("GET", "/version", &[("impersonate-user", "bob")], "").await;
    });
    assert_eq!(all.len(), 3, "{all:?}");
    let first = &all[0];
    let part = |keys: &[&str]| -> Value {
        keys.iter().map(|k| ((*k).to_owned(), first[*k].clone())).collect::<serde_json::Map<_, _>>().into()
    };
    assert_eq!(
        part(&["kind", "apiVersion", "level", "auditID", "stage", "requestURI", "verb", "sourceIPs", "userAgent"]),
        json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "auditID": "mine",
            "stage": "ResponseComplete", "requestURI": CONFIG_MAPS, "verb": "create",
            "sourceIPs": ["10.0.0.7"], "userAgent": "test/1",
        })
    );
    assert_eq!(
        part(&["objectRef", "responseStatus", "annotations", "user", "requestObject"]),
        json!({
            "objectRef": {"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"},
            "responseStatus": {"metadata": {}, "code": 201},
            "annotations": {"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""},
            "user": {"username": "admin", "groups": ["system:masters", "system:authenticated"]},
            "requestObject": null,
        })
    );
    let refused = &all[1];
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(
        (&refused["responseStatus"]["code"], &refused["responseStatus"]["reason"]),
        (&json!(403), &json!("Forbidden"))
    );
    assert_eq!(refused["objectRef"]["subresource"], "log");
    assert_eq!(
        (&all[2]["user"]["username"], &all[2]["impersonatedUser"]["username"]),
        (&json!("admin"), &json!("bob"))
    );
}

#[test]
fn the_policy_says_how_much_and_secrets_are_never_shown() {
    let policy = "{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [RequestReceived], rules: [
        {level: None, nonResourceURLs: ['*']}, {level: None, verbs: [get]}, {level: RequestResponse}]}";
    let all = lines(Some(policy), async |server| {
        server.get("/version").await;
        server.config_map("a").await;
        server.get(&format!("{CONFIG_MAPS}/a")).await;
        let secret = json!({"metadata": {"name": "s"}, "stringData": {"password": "hunter2"}});
        server.create("/api/v1/namespaces/default/secrets", &secret).await;
        let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3Da")).await;
        assert_eq!(watch.told().await, "ADDED a");
    });
    let told: Vec<String> = all
        .iter()
        .map(|e| {
            let text = |v: &Value| v.as_str().unwrap_or("-").to_owned();
            format!(
                "{} {} {} {}",
                text(&e["stage"]),
                text(&e["verb"]),
                text(&e["objectRef"]["name"]),
                text(&e["level"])
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "ResponseComplete create a RequestResponse",
            "ResponseComplete create s Metadata",
            "ResponseStarted watch a RequestResponse",
            "ResponseComplete watch a RequestResponse",
        ]
    );
    assert_eq!(all[0]["requestObject"]["data"], json!({"k": "v"}));
    assert!(all[0]["responseObject"]["metadata"]["uid"].is_string());
    let text = serde_json::to_string(&all).unwrap();
    assert!(!text.contains("hunter2") && !text.contains("aHVudGVyMg"), "a password was written down");
}

#[test]
fn what_pod_security_only_audits_is_written_down() {
    let all = lines(None, async |server| {
        let labels =
            json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/audit": "restricted"});
        server.patch("/api/v1/namespaces/default", &json!({"metadata": {"labels": labels}})).await;
        let created = server.post(PODS, &pod("a", "")).await;
        assert_eq!((created.code, created.headers.get("warning")), (201, None));
        let mut privileged = pod("b", "");
        privileged["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
        assert_eq!(server.post(PODS, &privileged).await.code, 403);
        server.create("/api/v1/namespaces/default/replicationcontrollers", &rc("c")).await;
        server.config_map("d").await;
    });
    let told: Vec<(&str, bool)> = all[1..]
        .iter()
        .map(|line| {
            let note =
                |key: &str| line["annotations"][format!("pod-security.kubernetes.io/{key}")].as_str().unwrap_or("");
            let violations = note("audit-violations");
            assert!(
                violations.is_empty() || violations.starts_with("would violate PodSecurity \"restricted:latest\": ")
            );
            (note("enforce-policy"), !violations.is_empty())
        })
        .collect();
    assert_eq!(told, [("baseline:latest", true), ("baseline:latest", true), ("", true), ("", false)]);
}

#[test]
fn requests_for_a_kind_of_yesterday_are_marked() {
    let all = lines(None, async |server| {
        server.get("/api/v1/componentstatuses").await;
        server.get(PODS).await;
    });
    let marked: Vec<_> = all.iter().map(|line| &line["annotations"]["k8s.io/deprecated"]).collect();
    assert_eq!(marked, [&json!("true"), &Value::Null]);
}

#[test]
fn uses_of_tokens_that_are_kept_are_marked_counted_and_talked_about() {
    let all = lines(None, async |server| {
        let kept = kept(server).await;
        assert_eq!(server.patch(&format!("{SECRETS}/s"), &filled(&kept)).await.code, 200);
        assert!(!reviewed(server, &kept, &[]).await.headers.contains_key("warning"), "somebody made it for himself");
        let listed = json!({"secrets": [{"name": "s"}]});
        assert_eq!(server.patch(&format!("{ACCOUNTS}/robot"), &listed).await.code, 200);
        let warned = reviewed(server, &kept, &[]).await;
        let warning = warned.headers["warning"].to_str().unwrap();
        assert!(
            warning.contains("Use tokens from the TokenRequest API or manually created secret-based tokens instead"),
            "{warning}"
        );
        let ended = json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": "2026-01-01"}}});
        assert_eq!(server.patch(&format!("{SECRETS}/s"), &ended).await.code, 200);
        assert_eq!(reviewed(server, &kept, &[]).await.json()["status"].get("authenticated"), None);
        let own = bound_to(server, "own", "Opaque").await;
        assert_eq!(reviewed(server, &own, &[]).await.json()["status"]["authenticated"], true);
        let metrics = server.get("/metrics").await.text;
        for line in [
            "serviceaccount_legacy_tokens_total 3",
            "serviceaccount_legacy_manual_token_uses_total 1",
            "serviceaccount_legacy_auto_token_uses_total 1",
            "serviceaccount_invalid_legacy_auto_token_uses_total 1",
            "serviceaccount_stale_tokens_total 0",
        ] {
            assert!(metrics.contains(&format!("{line}\n")), "{line} {metrics}");
        }
    });
    let reviews = all.iter().filter(|line| line["objectRef"]["resource"] == "tokenreviews");
    let marks = reviews.map(|line| {
        let about_tokens = |(key, value): (&String, &Value)| {
            Some(format!("{}={}", key.strip_prefix("authentication.k8s.io/")?, value.as_str()?))
        };
        line["annotations"].as_object().unwrap().iter().filter_map(about_tokens).collect::<Vec<_>>()
    });
    let subject = "legacy-token=system:serviceaccount:default:robot";
    let expected: [&[&str]; 4] = [
        &[subject, "legacy-token-manual-secret=s"],
        &[subject, "legacy-token-autogenerated-secret=s"],
        &[subject, "legacy-token-invalidated=s/default"],
        // Bound to a Secret of somebody's own, in which it is not kept.
        &[],
    ];
    assert_eq!(marks.collect::<Vec<_>>(), expected);
}
