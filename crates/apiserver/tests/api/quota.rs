//! Quotas, exact under concurrency; the quota controller's part is played by the tests.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::{Value, json};

use crate::common::{CONFIG_MAPS, SERVICES, Server, config_map, pod};

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const PODS: &str = crate::common::PODS;

impl Server {
    /// A quota that has been counted.
    async fn quota(&self, name: &str, hard: &Value, used: &Value) -> Value {
        let kind =
            json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": {"hard": hard}});
        let mut quota = self.create(QUOTAS, &kind).await;
        quota["status"] = json!({"hard": hard, "used": used});
        let answer = self.put(&format!("{QUOTAS}/{name}/status"), &quota).await;
        assert_eq!(answer.code, 200, "{}", answer.text);
        answer.json()
    }

    async fn used(&self, name: &str) -> Value {
        self.get(&format!("{QUOTAS}/{name}")).await.json()["status"]["used"].clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_creators_never_exceed_a_quota_and_lose_no_place() {
    let server = Server::start().await;
    server.quota("places", &json!({"configmaps": "40"}), &json!({"configmaps": "0"})).await;
    server.quota("also", &json!({"count/configmaps": "100"}), &json!({"count/configmaps": "0"})).await;
    let server = &server;
    let creators: FuturesUnordered<_> = (0..32)
        .map(|creator| async move {
            let mut created = 0;
            for number in 0..3 {
                let answer = server.post(CONFIG_MAPS, &config_map(&format!("map-{creator}-{number}"))).await;
                match answer.code {
                    201 => created += 1,
                    403 => assert!(answer.message().contains("exceeded quota: places"), "{}", answer.text),
                    other => panic!("{other}: {}", answer.text),
                }
            }
            created
        })
        .collect();
    let created: usize = creators.fold(0, |sum, n| async move { sum + n }).await;
    assert_eq!(created, 40, "every place is taken, and none twice");
    assert_eq!(server.used("places").await, json!({"configmaps": "40"}));
    assert_eq!(server.used("also").await, json!({"count/configmaps": "40"}));

    // Deletions give places back once they are counted.
    let answer = server.delete(CONFIG_MAPS).await;
    assert_eq!(answer.code, 200, "{}", answer.text);
    let refused = server.post(CONFIG_MAPS, &config_map("early")).await;
    assert_eq!(
        refused.message(),
        r#"configmaps "early" is forbidden: exceeded quota: places, requested: configmaps=1, used: configmaps=40, limited: configmaps=40"#
    );
    let mut counted = server.get(&format!("{QUOTAS}/places")).await.json();
    counted["status"]["used"]["configmaps"] = json!("0");
    assert_eq!(server.put(&format!("{QUOTAS}/places/status"), &counted).await.code, 200);
    server.config_map("late").await;
    assert_eq!(server.used("places").await, json!({"configmaps": "1"}));
    // A count from before someone took a place does not pass.
    assert_eq!(server.put(&format!("{QUOTAS}/places/status"), &counted).await.code, 409);
}

#[tokio::test]
async fn what_a_pod_asks_for_counts() {
    let server = Server::start().await;
    let hard = json!({"pods": "2", "requests.cpu": "1", "limits.memory": "1Gi"});
    server.quota("compute", &hard, &json!({"pods": "0", "requests.cpu": "0", "limits.memory": "0"})).await;
    let asking = |name: &str, cpu: &str| {
        let mut pod = pod(name, "");
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}, "limits": {"memory": "256Mi"}});
        pod
    };
    let silent = server.post(PODS, &pod("silent", "")).await;
    assert_eq!(
        (silent.code, silent.message()),
        (
            403,
            r#"pods "silent" is forbidden: failed quota: compute: must specify limits.memory for: c; requests.cpu for: c"#
                .into()
        )
    );
    server.create(PODS, &asking("a", "600m")).await;
    let refused = server.post(PODS, &asking("b", "600m")).await;
    assert_eq!(
        refused.message(),
        r#"pods "b" is forbidden: exceeded quota: compute, requested: requests.cpu=600m, used: requests.cpu=600m, limited: requests.cpu=1"#
    );
    let dry = server.post(&format!("{PODS}?dryRun=All"), &asking("b", "400m")).await;
    assert_eq!(dry.code, 201, "{}", dry.text);
    assert_eq!(server.used("compute").await["pods"], "1", "a dry run takes no place");
    server.create(PODS, &asking("b", "400m")).await;
    assert_eq!(server.used("compute").await, json!({"pods": "2", "requests.cpu": "1", "limits.memory": "512Mi"}));
}

#[tokio::test]
async fn an_update_that_takes_more_is_counted() {
    let server = Server::start().await;
    server.quota("ports", &json!({"services.nodeports": "1"}), &json!({"services.nodeports": "0"})).await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"ports": [{"name": "a", "port": 80}]}});
    server.create(SERVICES, &service).await;
    let path = format!("{SERVICES}/web");
    let answer = server.patch(&path, &json!({"spec": {"type": "NodePort"}})).await;
    assert_eq!(answer.code, 200, "{}", answer.text);
    assert_eq!(server.used("ports").await, json!({"services.nodeports": "1"}));
    let two = json!({"spec": {"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 81}]}});
    let refused = server.patch(&path, &two).await;
    assert_eq!(refused.code, 403, "{}", refused.text);
    assert!(refused.message().contains("exceeded quota: ports, requested: services.nodeports=1"), "{}", refused.text);
}

#[tokio::test]
async fn a_quota_nobody_has_counted_yet_refuses_what_it_limits() {
    let server = Server::start().await;
    server.quota("fresh", &json!({"secrets": "3"}), &json!({})).await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}});
    let refused = server.post("/api/v1/namespaces/default/secrets", &secret).await;
    assert_eq!(refused.message(), r#"secrets "s" is forbidden: status unknown for quota: fresh, resources: secrets"#);
}
