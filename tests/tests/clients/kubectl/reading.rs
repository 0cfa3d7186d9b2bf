//! What there is, in every form it can be asked for.

use harness::kubectl::{Kubectl, line};
use serde_json::Value;
use tokio::io::BufReader;

use super::{WEB, cells, judge, start_web};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_there_is_can_be_read() {
    judge(1, async |kubectl| {
        start_web(&kubectl).await;
        forms(&kubectl).await;
        selections(&kubectl).await;
        tables(&kubectl).await;
        watches(&kubectl).await;
        descriptions(&kubectl).await;
        events(&kubectl).await;
        waits(&kubectl).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_explains_itself() {
    judge(0, async |kubectl| {
        schema(&kubectl).await;
        cluster(&kubectl).await;
    })
    .await;
}

async fn forms(kubectl: &Kubectl) {
    kubectl.prints("get cm web -o jsonpath={.data.a}", "1").await;
    kubectl
        .prints("get rc/web svc/web cm/web -o name", "replicationcontroller/web\nservice/web\nconfigmap/web\n")
        .await;
    kubectl.prints("get cm web -o custom-columns=NAME:.metadata.name,B:.data.b", "NAME   B\nweb    2\n").await;
    kubectl.prints("get cm web -o 'go-template={{range $k, $v := .data}}{{$k}}={{$v}} {{end}}'", "a=1 b=2 ").await;
    kubectl.prints("get pods -l app=web -o 'go-template={{len .items}}'", "2").await;
    let json: Value = serde_json::from_str(&kubectl.says("get rc web -o json").await).unwrap();
    assert_eq!((&json["kind"], &json["spec"]["replicas"]), (&"ReplicationController".into(), &2.into()));
    let list: Value = serde_json::from_str(&kubectl.says("get rc,svc,cm -o json").await).unwrap();
    let kinds: Vec<_> = list["items"].as_array().unwrap().iter().map(|i| i["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["ReplicationController", "Service", "ConfigMap", "ConfigMap"]);
    kubectl
        .mentions("get svc web -o yaml", &["apiVersion: v1\n", "kind: Service\n", "  sessionAffinity: None\n"])
        .await;
    kubectl.mentions("get svc -o yaml", &["kind: List\n", "  kind: Service\n"]).await;
    let web = kubectl.file("web.yaml", WEB);
    kubectl.prints(&format!("get -f {web} -o name"), "replicationcontroller/web\nservice/web\nconfigmap/web\n").await;
    kubectl.prints("get --raw /healthz", "ok").await;
}

async fn selections(kubectl: &Kubectl) {
    let namespace = format!("v{}", kubectl.minor);
    assert_eq!(kubectl.says("get pods -l app=web,app!=other -o name").await.lines().count(), 2);
    kubectl.prints("get pods -l 'app in (other)' -o name", "").await;
    kubectl.prints("get cm --field-selector metadata.name=web -o name", "configmap/web\n").await;
    assert_eq!(
        kubectl.says("get pods --field-selector status.phase=Running,spec.nodeName=box-0").await.lines().count(),
        3
    );
    kubectl.fails("get pods --field-selector spec.nothing=x", r#"field label not supported: spec.nothing"#).await;
    let sorted = kubectl.says("get cm --sort-by=.metadata.name --no-headers -o custom-columns=N:.metadata.name").await;
    assert_eq!(sorted, "kube-root-ca.crt\nweb\n");
    assert_eq!(kubectl.says("get pods --chunk-size=1 -o name").await.lines().count(), 2);
    let everywhere = kubectl.says("get cm -A").await;
    assert!(cells(&everywhere).iter().any(|row| row[..3] == [namespace.as_str(), "web", "2"]), "{everywhere}");
    kubectl.fails("get pod nothing", r#"Error from server (NotFound): pods "nothing" not found"#).await;
    kubectl.prints("get pod nothing --ignore-not-found", "").await;
    kubectl.fails("get nothings", r#"error: the server doesn't have a resource type "nothings""#).await;
}

async fn tables(kubectl: &Kubectl) {
    let table = kubectl.says("get rc web -o wide --show-labels -L app").await;
    let heading: Vec<_> = table.lines().next().unwrap().split_whitespace().collect();
    let expected = ["NAME", "DESIRED", "CURRENT", "READY", "AGE", "CONTAINERS", "IMAGES", "SELECTOR", "APP", "LABELS"];
    assert_eq!(heading, expected);
    let row = &cells(&table)[0];
    assert_eq!(
        (&row[..4], &row[5..]),
        (&["web", "2", "2", "2"][..], &["web", "example/web:1", "app=web", "web", "app=web"][..])
    );
    let all = kubectl.says("get all").await;
    for part in ["pod/web-", "replicationcontroller/web ", "service/web "] {
        assert!(all.contains(part), "{all}");
    }
    let nodes = kubectl.says("get no").await;
    assert_eq!(cells(&nodes)[0][..3], ["box-0", "Ready", "<none>"]);
    assert!(kubectl.says("get cm web --no-headers").await.starts_with("web   2 "));
}

/// What is there is shown first, then what happens.
async fn watches(kubectl: &Kubectl) {
    let mut table =
        kubectl.spawn(&["get", "cm", "--field-selector", "metadata.name=late", "-w", "--output-watch-events"]);
    let mut names = kubectl.spawn(&["get", "cm", "web", "-w", "-o", "jsonpath={.data.a}{'\\n'}"]);
    let mut table_lines = BufReader::new(table.stdout.take().unwrap());
    let mut values = BufReader::new(names.stdout.take().unwrap());
    assert_eq!(line(&mut values).await, "1");
    kubectl.says("create cm late --from-literal=x=1").await;
    kubectl.says("label cm late x=y").await;
    kubectl.says("delete cm late").await;
    assert!(line(&mut table_lines).await.starts_with("EVENT "));
    for event in ["ADDED ", "MODIFIED ", "DELETED "] {
        let told = line(&mut table_lines).await;
        assert!(told.starts_with(event) && told.contains(" late "), "{told}");
    }
    kubectl.says("patch cm web -p '{\"data\":{\"a\":\"9\"}}'").await;
    assert_eq!(line(&mut values).await, "9");
    kubectl.says("patch cm web -p '{\"data\":{\"a\":\"1\"}}'").await;
    table.kill().await.unwrap();
    names.kill().await.unwrap();
}

async fn descriptions(kubectl: &Kubectl) {
    let namespace = format!("v{}", kubectl.minor);
    let pods = kubectl.says("get pods -o name").await;
    let pod = pods.lines().next().unwrap();
    let replicas = ["Replicas:     2 current / 2 desired", "2 Running / 0 Waiting", "SuccessfulCreate"];
    kubectl.mentions("describe rc web", &replicas).await;
    let parts = ["Controlled By:  ReplicationController/web", "example/web:1", "QoS Class:", "Successfully assigned"];
    kubectl.mentions(&format!("describe {pod}"), &parts).await;
    kubectl.mentions("describe svc web", &["TargetPort:", "http/TCP", "Session Affinity:", ":80,10.244."]).await;
    kubectl.mentions("describe node box-0", &["KubeletReady", "Non-terminated Pods:", "Allocated resources:"]).await;
    kubectl.mentions(&format!("describe ns {namespace}"), &["Active", "No resource quota."]).await;
    kubectl.mentions("describe cm web", &["Data\n====\n", "a:\n----\n1\n"]).await;
    kubectl.mentions("describe sa default", &["Image pull secrets:  <none>"]).await;
    kubectl.fails("describe pod nothing", r#"pods "nothing" not found"#).await;
}

async fn events(kubectl: &Kubectl) {
    let selected = "get events --field-selector involvedObject.kind=ReplicationController,reason=SuccessfulCreate";
    let table = kubectl.says(selected).await;
    assert_eq!(cells(&table)[0][1..4], ["Normal", "SuccessfulCreate", "replicationcontroller/web"]);
    kubectl.mentions("get events --sort-by=.lastTimestamp", &["Scheduled", "Started container web"]).await;
    if kubectl.minor >= 26 {
        kubectl.mentions("events --for rc/web", &["ReplicationController/web", "Created pod: web-"]).await;
        kubectl.mentions("events --types=Normal", &["Successfully assigned"]).await;
    }
}

async fn waits(kubectl: &Kubectl) {
    kubectl
        .fails("wait --for=condition=Never pod -l app=web --timeout=1s", "timed out waiting for the condition")
        .await;
    if kubectl.minor >= 23 {
        kubectl.prints("wait --for=jsonpath={.data.a}=1 cm/web", "configmap/web condition met\n").await;
    }
    kubectl.says("create cm brief").await;
    let waiting = kubectl.spawn(&["wait", "--for=delete", "cm/brief", "--timeout=60s"]);
    kubectl.says("delete cm brief").await;
    let waited = kubectl.finish(&["wait"], waiting, b"").await;
    // Where the object was gone before it was looked for, older versions find nothing to wait for.
    let missed = String::from_utf8_lossy(&waited.stderr).contains("no matching resources found");
    assert!(waited.status.success() || kubectl.minor < 26 && missed, "{waited:?}");
}

async fn schema(kubectl: &Kubectl) {
    let words = if kubectl.minor < 27 { "FIELD:    replicas <integer>" } else { "FIELD: replicas <integer>" };
    kubectl.mentions("explain rc.spec.replicas", &[words, "Defaults to 1."]).await;
    let fields = ["containerPort\t<integer> -required-", "hostIP\t<string>", "Protocol for port."];
    kubectl.mentions("explain pod.spec.containers.ports", &fields).await;
    kubectl.mentions("explain svc --recursive", &["sessionAffinityConfig", "timeoutSeconds\t<integer>"]).await;
    kubectl.mentions("explain --api-version=events.k8s.io/v1 event.reportingController", &["<string>"]).await;
    kubectl.fails("explain pod.spec.nothing", "nothing").await;
    kubectl.fails("explain nothings", "nothings").await;
}

async fn cluster(kubectl: &Kubectl) {
    let mut versions: Vec<String> = api::kinds().map(|kind| kind.info.api_version()).collect();
    versions.sort();
    versions.dedup();
    kubectl.prints("api-versions", &format!("{}\n", versions.join("\n"))).await;
    let table = kubectl.says("api-resources").await;
    let rows = cells(&table);
    assert_eq!(rows.len(), api::kinds().len(), "{table}");
    for kind in api::kinds() {
        let namespaced = (kind.info.scope == api::Scope::Namespaced).to_string();
        let short = Some(kind.info.short_names.join(",")).filter(|names| !names.is_empty());
        let version = kind.info.api_version();
        let expected =
            [Some(kind.info.plural), short.as_deref(), Some(&version), Some(&namespaced), Some(kind.info.kind)];
        assert!(rows.contains(&expected.into_iter().flatten().collect()), "{expected:?} is not in {table}");
    }
    let version: Value = serde_json::from_str(&kubectl.says("version -o json").await).unwrap();
    assert_eq!((&version["serverVersion"]["major"], &version["serverVersion"]["minor"]), (&"1".into(), &"35".into()));
    kubectl.mentions("cluster-info", &["is running at", "https://127.0.0.1:"]).await;
    // It goes on to daemon sets and deployments, which are not served.
    kubectl.fails("cluster-info dump", "the server could not find the requested resource").await;
    kubectl.mentions("get componentstatuses", &["scheduler", "controller-manager", "etcd-0", "Healthy"]).await;
}
