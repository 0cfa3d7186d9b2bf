//! Objects made, changed and deleted in every way there is.

use std::process::Output;

use harness::kubectl::Kubectl;

use super::{WEB, annotated, judge, start_web};

/// What typed clients send arrives as it was meant: command, what it prints, where to look, what is there.
pub(super) const CREATES: &[(&str, &str, &str, &str)] = &[
    ("serviceaccount clerk", "serviceaccount/clerk", "{.metadata.name}", "clerk"),
    ("configmap hours --from-literal=open=9", "configmap/hours", "{.data.open}", "9"),
    ("secret generic creds --from-literal=key=value", "secret/creds", "{.type}{.data.key}", "OpaquedmFsdWU="),
    (
        "secret docker-registry pull --docker-username=u --docker-password=p --docker-server=r.example.com",
        "secret/pull",
        "{.type}",
        "kubernetes.io/dockerconfigjson",
    ),
    (
        "role reader --verb=get,list --resource=pods,services --resource-name=web",
        "role.rbac.authorization.k8s.io/reader",
        "{.rules[0].verbs}{.rules[0].resourceNames}",
        r#"["get","list"]["web"]"#,
    ),
    (
        "rolebinding readers --role=reader --serviceaccount=default:clerk --user=jane",
        "rolebinding.rbac.authorization.k8s.io/readers",
        "{.roleRef.name} {.subjects[*].name}",
        "reader jane clerk",
    ),
    (
        "quota few --hard=pods=30,requests.cpu=1500m",
        "resourcequota/few",
        "{.spec.hard}",
        r#"{"pods":"30","requests.cpu":"1500m"}"#,
    ),
    ("service clusterip one --tcp=80:8080", "service/one", "{.spec.ports[0].targetPort}", "8080"),
    ("service nodeport two --tcp=81", "service/two", "{.spec.type}", "NodePort"),
    ("service externalname three --external-name=example.com", "service/three", "{.spec.externalName}", "example.com"),
    ("service loadbalancer four --tcp=82:82", "service/four", "{.spec.type}", "LoadBalancer"),
];

/// The same for what belongs to no namespace; `N` is the judge's number.
pub(super) const CLUSTER_CREATES: &[(&str, &str, &str, &str)] = &[
    ("namespace shopN", "namespace/shopN", "{.status.phase}", "Active"),
    (
        "clusterrole proberN --verb=get --non-resource-url=/healthz",
        "clusterrole.rbac.authorization.k8s.io/proberN",
        "{.rules[0].nonResourceURLs}",
        r#"["/healthz"]"#,
    ),
    (
        "clusterrolebinding probersN --clusterrole=proberN --group=dev",
        "clusterrolebinding.rbac.authorization.k8s.io/probersN",
        "{.subjects[0].kind} {.subjects[0].name}",
        "Group dev",
    ),
    (
        "priorityclass urgentN --value=1000 --description=first",
        "priorityclass.scheduling.k8s.io/urgentN",
        "{.value} {.description} {.preemptionPolicy}",
        "1000 first PreemptLowerPriority",
    ),
];

/// Creates all of these, and sees what has arrived.
async fn creates(kubectl: &Kubectl) {
    for (create, name, look, expected) in CREATES.iter().chain(CLUSTER_CREATES) {
        let [create, name] = [create, name].map(|text| text.replace('N', &kubectl.minor.to_string()));
        kubectl.prints(&format!("create {create}"), &format!("{name} created\n")).await;
        kubectl.prints(&format!("get {name} -o jsonpath='{look}'"), expected).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_made_changed_and_deleted() {
    judge(2, async |kubectl| {
        creates(&kubectl).await;
        dry_runs(&kubectl).await;
        edits(&kubectl).await;
        patches(&kubectl).await;
        labels(&kubectl).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configurations_are_applied_and_workloads_follow() {
    judge(2, async |kubectl| {
        applies(&kubectl).await;
        server_side(&kubectl).await;
        workloads(&kubectl).await;
        replaces(&kubectl).await;
        deletes(&kubectl).await;
    })
    .await;
}

async fn dry_runs(kubectl: &Kubectl) {
    kubectl.fails("create sa clerk", r#"serviceaccounts "clerk" already exists"#).await;
    kubectl.prints("create sa other --dry-run=client", "serviceaccount/other created (dry run)\n").await;
    kubectl.prints("create sa other --dry-run=server", "serviceaccount/other created (server dry run)\n").await;
    let look = "create sa other --dry-run=server -o jsonpath={.metadata.resourceVersion}";
    kubectl.prints(look, "").await;
    kubectl.fails("create sa clerk --dry-run=server", r#"serviceaccounts "clerk" already exists"#).await;
    kubectl.prints("delete sa clerk --dry-run=server", "serviceaccount \"clerk\" deleted (server dry run)\n").await;
    kubectl.fails("get sa other", "not found").await;
    kubectl.prints("get sa clerk -o name", "serviceaccount/clerk\n").await;
    for kind in ["deployment d --image=x", "job j --image=x"] {
        kubectl.fails(&format!("create {kind}"), "the server could not find the requested resource").await;
    }
}

async fn edited(kubectl: &Kubectl, script: &str) -> Output {
    let editor = kubectl.file("editor", &format!("#!/bin/sh\nsed -i '{script}' \"$1\"\n"));
    std::fs::set_permissions(&editor, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = kubectl.command(&["edit", "cm", "hours"]);
    command.env("KUBE_EDITOR", &editor).env("TMPDIR", kubectl.home());
    command.output().await.unwrap()
}

async fn edits(kubectl: &Kubectl) {
    let done = edited(kubectl, "s/open: \"9\"/open: \"10\"/").await;
    assert_eq!(String::from_utf8_lossy(&done.stdout), "configmap/hours edited\n", "{done:?}");
    kubectl.prints("get cm hours -o jsonpath={.data.open}", "10").await;
    let done = edited(kubectl, "s/nothing/nothing/").await;
    assert!(String::from_utf8_lossy(&done.stderr).contains("no changes made"), "{done:?}");
    let done = edited(kubectl, "s/^kind: ConfigMap/kind: ConfigMap\\nnonsense: 1/").await;
    assert!(!done.status.success() && String::from_utf8_lossy(&done.stderr).contains("hours"), "{done:?}");
    kubectl.prints("get cm hours -o jsonpath={.data}", r#"{"open":"10"}"#).await;
}

async fn patches(kubectl: &Kubectl) {
    let ports = "get svc one -o 'jsonpath={.spec.ports[*].name} {.spec.ports[*].port}'";
    let strategic = r#"patch svc one -p '{"spec":{"ports":[{"name":"tls","port":443}]}}'"#;
    kubectl.prints(strategic, "service/one patched\n").await;
    kubectl.prints(ports, "tls 80-8080 443 80").await;
    kubectl.prints(strategic, "service/one patched (no change)\n").await;
    let merge = r#"patch svc one --type=merge -p '{"spec":{"ports":[{"name":"only","port":90}]}}'"#;
    kubectl.prints(merge, "service/one patched\n").await;
    kubectl.prints(ports, "only 90").await;
    let json = r#"patch svc one --type=json -p '[{"op":"replace","path":"/spec/ports/0/port","value":91}]'"#;
    kubectl.prints(json, "service/one patched\n").await;
    kubectl.prints(ports, "only 91").await;
    let failing = r#"patch svc one --type=json -p '[{"op":"test","path":"/spec/ports/0/port","value":1}]'"#;
    kubectl.fails(failing, "The request is invalid").await;
    let invalid = r#"patch svc one -p '{"spec":{"sessionAffinity":"Never"}}'"#;
    kubectl.fails(invalid, r#"The Service "one" is invalid: spec.sessionAffinity: Unsupported value: "Never""#).await;
}

async fn labels(kubectl: &Kubectl) {
    kubectl.prints("label svc one tier=front", "service/one labeled\n").await;
    kubectl.fails("label svc one tier=back", "already has a value (front), and --overwrite is false").await;
    kubectl.prints("label svc one tier=back --overwrite", "service/one labeled\n").await;
    kubectl.prints("get svc -l tier=back -o name", "service/one\n").await;
    let removed = if kubectl.minor < 23 { "service/one labeled\n" } else { "service/one unlabeled\n" };
    kubectl.prints("label svc one tier-", removed).await;
    kubectl.prints("annotate svc one note='two words'", &annotated(kubectl, "service/one")).await;
    kubectl.fails("annotate svc one note=other", "--overwrite is false").await;
    kubectl.prints("annotate svc one note=other --overwrite", &annotated(kubectl, "service/one")).await;
    kubectl.prints("get svc one -o jsonpath={.metadata.annotations}", r#"{"note":"other"}"#).await;
    kubectl.prints("annotate svc one note-", &annotated(kubectl, "service/one")).await;
    kubectl.prints("get svc one -o jsonpath={.metadata.annotations}", "").await;
}

/// What is left out of a configuration goes, what somebody else has set stays.
async fn applies(kubectl: &Kubectl) {
    start_web(kubectl).await;
    let web = kubectl.file("web.yaml", WEB);
    let said = |verbs: [&str; 3]| {
        let [rc, service, map] = verbs;
        format!("replicationcontroller/web {rc}\nservice/web {service}\nconfigmap/web {map}\n")
    };
    kubectl.prints(&format!("apply -f {web}"), &said(["unchanged"; 3])).await;
    kubectl.prints(&format!("diff -f {web}"), "").await;
    kubectl.says("label rc web by=hand").await;
    let changed = WEB.replace(", {name: B, value: \"2\"}", "").replace("b: \"2\"", "c: \"3\"");
    let changed = kubectl.file("changed.yaml", &changed);
    let differs = kubectl.run(&["diff", "-f", &changed], b"").await;
    assert_eq!(differs.status.code(), Some(1), "{differs:?}");
    let differs = String::from_utf8_lossy(&differs.stdout).into_owned();
    assert!(differs.contains("-  b: \"2\"\n+  c: \"3\"\n") && differs.contains("-        - name: B\n"), "{differs}");
    kubectl
        .prints(
            &format!("apply -f {changed} --dry-run=server -o name"),
            "replicationcontroller/web\nservice/web\nconfigmap/web\n",
        )
        .await;
    kubectl.prints("get cm web -o jsonpath={.data}", r#"{"a":"1","b":"2"}"#).await;
    kubectl.prints(&format!("apply -f {changed}"), &said(["configured", "unchanged", "configured"])).await;
    kubectl.prints("get cm web -o jsonpath={.data}", r#"{"a":"1","c":"3"}"#).await;
    let look = "get rc web -o 'jsonpath={.metadata.labels} {.spec.template.spec.containers[0].env[*].name}'";
    kubectl.prints(look, r#"{"app":"web","by":"hand"} A"#).await;
    kubectl.mentions("apply view-last-applied cm web", &["c: \"3\""]).await;
}

/// From the client's apply to the server's, with another manager who disagrees.
async fn server_side(kubectl: &Kubectl) {
    let file = |name: &str, value: &str| {
        let config = format!(
            "---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: applied}}, data: {{a: \"{value}\"}}}}\n"
        );
        kubectl.file(name, &config)
    };
    let (one, two, three) = (file("one.yaml", "1"), file("two.yaml", "2"), file("three.yaml", "3"));
    kubectl.prints(&format!("apply -f {one}"), "configmap/applied created\n").await;
    for config in [&one, &two, &two] {
        kubectl.prints(&format!("apply --server-side -f {config}"), "configmap/applied serverside-applied\n").await;
    }
    let other = format!("apply --server-side --field-manager=other -f {three}");
    kubectl.fails(&other, r#"Apply failed with 1 conflict: conflict with "kubectl": .data.a"#).await;
    let differs = kubectl.ends(&format!("diff --server-side -f {one}")).await;
    assert_eq!(differs.status.code(), Some(1), "{differs:?}");
    assert!(String::from_utf8_lossy(&differs.stdout).contains("+  a: \"1\""), "{differs:?}");
    kubectl.prints(&format!("diff --server-side -f {two}"), "").await;
    kubectl.says(&format!("{other} --force-conflicts")).await;
    let managers =
        "get cm applied -o 'jsonpath={.data.a} {.metadata.managedFields[?(@.manager==\"other\")].operation}'";
    kubectl.prints(managers, "3 Apply").await;
    if kubectl.minor > 20 {
        assert!(!kubectl.says("get cm applied -o yaml").await.contains("managedFields"));
        kubectl.mentions("get cm applied -o yaml --show-managed-fields", &["manager: other"]).await;
    }
    kubectl.prints("delete cm applied", "configmap \"applied\" deleted\n").await;
}

async fn workloads(kubectl: &Kubectl) {
    kubectl.fails("scale rc web --replicas=1 --current-replicas=9", "Expected replicas to be 9, was 2").await;
    kubectl.prints("scale rc web --replicas=3 --current-replicas=2", "replicationcontroller/web scaled\n").await;
    kubectl.prints("scale rc/web --replicas=1 --timeout=60s", "replicationcontroller/web scaled\n").await;
    kubectl.prints("get rc web -o jsonpath={.spec.replicas}", "1").await;
    kubectl.prints("set image rc/web web=example/web:2", "replicationcontroller/web image updated\n").await;
    kubectl.fails("set image rc/web other=example/web:2", "unable to find container named").await;
    kubectl.prints("set env rc/web C=3", "replicationcontroller/web env updated\n").await;
    kubectl
        .prints("set resources rc/web --limits=cpu=200m", "replicationcontroller/web resource requirements updated\n")
        .await;
    let container = "{.spec.template.spec.containers[0]";
    let look =
        format!("get rc web -o 'jsonpath={container}.image}} {container}.env[*].name}} {container}.resources}}'");
    kubectl.prints(&look, r#"example/web:2 A C {"limits":{"cpu":"200m"}}"#).await;
    kubectl.prints("expose rc web --name=exposed --port=8080 --target-port=http", "service/exposed exposed\n").await;
    kubectl.prints("expose svc web --name=again --port=81 --type=NodePort", "service/again exposed\n").await;
    kubectl.prints("get svc exposed again -o 'jsonpath={.items[*].spec.selector.app}'", "web web").await;
    kubectl.fails("autoscale rc web --max=3", "the server could not find the requested resource").await;
    kubectl.fails("rollout status rc/web", "no status viewer has been implemented").await;
}

async fn replaces(kubectl: &Kubectl) {
    let now = kubectl.says("get cm web -o yaml").await;
    let newer = kubectl.file("newer.yaml", &now.replace("c: \"3\"", "c: \"4\""));
    kubectl.prints(&format!("replace -f {newer}"), "configmap/web replaced\n").await;
    kubectl.prints("get cm web -o jsonpath={.data.c}", "4").await;
    kubectl.fails(&format!("replace -f {newer}"), "the object has been modified; please apply your changes").await;
    let uid = "get cm web -o jsonpath={.metadata.uid}";
    let before = kubectl.says(uid).await;
    kubectl.says(&format!("replace --force -f {newer}")).await;
    assert_ne!(kubectl.says(uid).await, before, "another one");
    kubectl.fails("replace -f /nothing.yaml", "does not exist").await;
}

async fn deletes(kubectl: &Kubectl) {
    let web = kubectl.file("web.yaml", WEB);
    let pods = "get pods -l app=web -o name";
    let one = kubectl.says(pods).await.trim().to_owned();
    // Forced, it is gone from the API at once; else when its node has said so.
    kubectl.says(&format!("delete {one} --grace-period=0 --force")).await;
    kubectl.fails(&format!("get {one}"), "not found").await;
    kubectl.prints("delete rc web --cascade=orphan", "replicationcontroller \"web\" deleted\n").await;
    let orphan = kubectl.says(pods).await.trim().to_owned();
    kubectl.says(&format!("delete {orphan} --now")).await;
    kubectl.fails(&format!("get {orphan}"), "not found").await;
    kubectl.says(&format!("apply -f {web}")).await;
    kubectl.says("delete rc web --cascade=foreground").await;
    kubectl.prints(pods, "").await;
    kubectl.says(&format!("apply -f {web}")).await;
    kubectl.says("delete rc web --cascade=background --wait=false").await;
    kubectl.fails("get rc web", "not found").await;
    kubectl.prints("delete cm nothing --ignore-not-found", "").await;
    kubectl.fails("delete cm nothing", r#"configmaps "nothing" not found"#).await;
    let gone = "service \"web\" deleted\nconfigmap \"web\" deleted\n";
    kubectl.prints("delete svc,cm --field-selector metadata.name=web", gone).await;
    kubectl.mentions("delete svc --all", &["service \"exposed\" deleted", "service \"again\" deleted"]).await;
    let namespace = format!("shop-{}", kubectl.minor);
    kubectl.says(&format!("create namespace {namespace}")).await;
    kubectl.says(&format!("delete namespace {namespace}")).await;
    kubectl.fails(&format!("get namespace {namespace}"), "not found").await;
}
