//! What practised hands do besides: flags and commands one finds after a while.

use harness::docker::output;
use harness::kubectl::Kubectl;

use super::{annotated, cells, judge, start_web, until_shown};

/// The first kubectl that reads and patches subresources.
const SUBRESOURCES: u32 = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn practised_hands_find_what_they_know() {
    judge(2, async |kubectl| {
        kubectl.says("create sa robot").await;
        start_web(&kubectl).await;
        folders(&kubectl).await;
        files(&kubectl).await;
        sets(&kubectl).await;
        metadata(&kubectl).await;
        subresources(&kubectl).await;
        raw(&kubectl).await;
        debugs(&kubectl).await;
        completes(&kubectl).await;
        warnings(&kubectl).await;
    })
    .await;
}

/// Kustomizations, folders of folders, and what is left out of them goes.
async fn folders(kubectl: &Kubectl) {
    // What begins with a brace is JSON to old ones.
    let map = |name: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{set: one}}}}\ndata: {{a: '1'}}\n")
    };
    for folder in ["base", "all", "all/below"] {
        std::fs::create_dir(kubectl.home().join(folder)).unwrap();
    }
    kubectl.file("base/map.yaml", &map("kept"));
    kubectl.file("base/kustomization.yaml", "resources: [map.yaml]\nnamePrefix: my-\n");
    let base = kubectl.home().join("base").display().to_string();
    kubectl.prints(&format!("apply -k {base}"), "configmap/my-kept created\n").await;
    kubectl.prints(&format!("diff -k {base}"), "").await;
    kubectl.prints(&format!("get -k {base} -o name"), "configmap/my-kept\n").await;
    kubectl.prints(&format!("delete -k {base}"), "configmap \"my-kept\" deleted\n").await;
    let one = kubectl.file("all/one.yaml", &map("one"));
    kubectl.file("all/below/two.yaml", &map("two"));
    let all = kubectl.home().join("all").display().to_string();
    kubectl.prints(&format!("apply -R -f {all}"), "configmap/two created\nconfigmap/one created\n").await;
    let list = if kubectl.minor < 26 { "--prune-whitelist" } else { "--prune-allowlist" };
    let prune = format!("apply -f {one} --prune -l set=one {list}=core/v1/ConfigMap");
    let tried = format!("{prune} --dry-run=server");
    kubectl
        .mentions(&tried, &["configmap/one unchanged (server dry run)\n", "configmap/two pruned (server dry run)\n"])
        .await;
    kubectl.mentions(&prune, &["configmap/one unchanged\n", "configmap/two pruned\n"]).await;
    kubectl.prints("get cm -l set=one -o name", "configmap/one\n").await;
    kubectl.prints("delete cm one", "configmap \"one\" deleted\n").await;
}

/// What is made of files.
async fn files(kubectl: &Kubectl) {
    let variables = kubectl.file("variables", "A=1\n# not this\nB=two words\n");
    kubectl.prints(&format!("create cm variables --from-env-file={variables}"), "configmap/variables created\n").await;
    kubectl.prints("get cm variables -o jsonpath={.data}", r#"{"A":"1","B":"two words"}"#).await;
    let (certificate, key) = (kubectl.home().join("tls.crt"), kubectl.home().join("tls.key"));
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x"];
    output("openssl", &[&new[..], &["-keyout", key, "-out", certificate]].concat()).unwrap();
    let secret = format!("create secret tls web --cert={certificate} --key={key}");
    kubectl.prints(&secret, "secret/web created\n").await;
    kubectl.mentions("describe secret web", &["Type:  kubernetes.io/tls", "tls.crt:  ", "tls.key:  "]).await;
    let table = kubectl.says("get secret web").await;
    assert_eq!(cells(&table)[0][..3], ["web", "kubernetes.io/tls", "2"]);
    kubectl.prints("create quota maps --hard=count/configmaps=20", "resourcequota/maps created\n").await;
    until_shown(kubectl, "quota/maps", "{.status.used}", r#"{"count/configmaps":"3"}"#).await;
    kubectl.mentions("describe quota maps", &["count/configmaps  3     20"]).await;
}

async fn sets(kubectl: &Kubectl) {
    let namespace = format!("v{}", kubectl.minor);
    let updated = "replicationcontroller/web serviceaccount updated\n";
    kubectl.prints("set serviceaccount rc web robot", updated).await;
    kubectl.prints("get rc web -o jsonpath={.spec.template.spec.serviceAccountName}", "robot").await;
    kubectl.prints("set env rc/web --list", "# ReplicationController web, container web\nA=1\nB=2\n").await;
    kubectl.says("set env rc/web --from=configmap/web --prefix=WEB_").await;
    let names = "get rc web -o 'jsonpath={.spec.template.spec.containers[0].env[*].name}'";
    kubectl.mentions(names, &["A B WEB_", "WEB_A", "WEB_B"]).await;
    kubectl.prints("set selector svc web app=web,tier=front", "service/web selector updated\n").await;
    kubectl.prints("get svc web -o jsonpath={.spec.selector}", r#"{"app":"web","tier":"front"}"#).await;
    kubectl.says("set selector svc web app=web").await;
    kubectl.says("create role looker --verb=get --resource=pods").await;
    kubectl.says("create rolebinding lookers --role=looker --user=a").await;
    let subjects = format!("set subject rolebinding lookers --user=b --group=g --serviceaccount={namespace}:robot");
    kubectl.prints(&subjects, "rolebinding.rbac.authorization.k8s.io/lookers subjects updated\n").await;
    let table = kubectl.says("get rolebinding lookers -o wide").await;
    let robot = format!("{namespace}/robot");
    assert_eq!(cells(&table)[0][3..], ["a,", "b", "g", robot.as_str()]);
}

async fn metadata(kubectl: &Kubectl) {
    assert_eq!(kubectl.says("label pods --all seen=yes").await.matches(" labeled\n").count(), 2);
    assert_eq!(kubectl.says("get pods -l 'seen in (yes,maybe),!gone' -o name").await.lines().count(), 2);
    kubectl.prints("label svc web kept=1", "service/web labeled\n").await;
    kubectl.prints("label svc web --list", "kept=1\n").await;
    kubectl.fails("annotate svc web a=b --resource-version=1", "the object has been modified").await;
    let version = kubectl.says("get svc web -o jsonpath={.metadata.resourceVersion}").await;
    let annotate = format!("annotate svc web a=b --resource-version={version}");
    kubectl.prints(&annotate, &annotated(kubectl, "service/web")).await;
    kubectl.mentions("annotate svc web --list", &["a=b\n"]).await;
}

async fn subresources(kubectl: &Kubectl) {
    if kubectl.minor < SUBRESOURCES {
        return;
    }
    let scale = r#"patch rc web --subresource=scale --type=merge -p '{"spec":{"replicas":1}}'"#;
    kubectl.prints(scale, "scale.autoscaling/web patched\n").await;
    let table = kubectl.says("get rc web --subresource=scale").await;
    let heading: Vec<_> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        (&heading[..], &cells(&table)[0][..2]),
        (&["NAME", "DESIRED", "AVAILABLE", "AGE"][..], &["web", "1"][..])
    );
    let status = r#"patch rc web --subresource=status -p '{"spec":{"replicas":5}}'"#;
    kubectl.mentions(status, &["replicationcontroller/web patched"]).await;
    kubectl.prints("get rc web --subresource=status -o jsonpath={.spec.replicas}", "1").await;
}

async fn raw(kubectl: &Kubectl) {
    let path = format!("/api/v1/namespaces/v{}/configmaps", kubectl.minor);
    let map = kubectl.file("raw.json", r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"raw"}}"#);
    kubectl.mentions(&format!("create --raw {path} -f {map}"), &[r#""name":"raw""#]).await;
    kubectl.mentions(&format!("replace --raw {path}/raw -f {map}"), &[r#""name":"raw""#]).await;
    kubectl.mentions(&format!("get --raw {path}/raw"), &[r#""kind":"ConfigMap""#]).await;
    kubectl.mentions(&format!("delete --raw {path}/raw"), &[r#""status":"Success""#]).await;
    kubectl.fails(&format!("get --raw {path}/raw"), r#"configmaps "raw" not found"#).await;
    kubectl.mentions("get --raw /readyz?verbose", &["[+]etcd ok\n", "readyz check passed"]).await;
    kubectl.prints("get --raw /livez/etcd", "ok").await;
}

/// Beside a pod's containers, and in a copy of it.
async fn debugs(kubectl: &Kubectl) {
    kubectl.prints("run box --image=example/box:1 --command -- serve box", "pod/box created\n").await;
    kubectl.says("wait --for=condition=Ready pod/box --timeout=60s").await;
    let copied = "debug box --image=example/debug:1 --container=debugger --copy-to=copy -- serve debug";
    kubectl.says(copied).await;
    kubectl.prints("get pod copy -o 'jsonpath={.spec.containers[*].name}'", "box debugger").await;
    let beside = "debug box --image=example/debug:1 --container=debugger -- serve debug";
    if kubectl.minor < 23 {
        // It knows only the alpha of ephemeral containers, which no server has had since.
        kubectl.fails(beside, "error updating ephemeral containers").await;
        return;
    }
    kubectl.says(beside).await;
    until_shown(kubectl, "pod/box", "{.status.ephemeralContainerStatuses[*].name}", "debugger").await;
}

/// What the shell asks when one presses the tab key.
async fn completes(kubectl: &Kubectl) {
    if kubectl.minor < 22 {
        return;
    }
    let (line, namespace) = (kubectl.line(), format!("v{}", kubectl.minor));
    let words: Vec<&str> = line.split(' ').collect();
    let cache = kubectl.home().display().to_string();
    let complete = |asked: &[&str]| {
        let options = [words[1], words[2], "--namespace", &namespace, "--cache-dir", &cache];
        output(words[0], &[&["__complete", asked[0]], &options[..], &asked[1..]].concat()).unwrap()
    };
    assert!(complete(&["get", "rc", ""]).starts_with("web\n"));
    assert!(complete(&["get", "pods", "bo"]).starts_with("box\n"));
    assert!(complete(&["get", "replicationc"]).starts_with("replicationcontrollers\n"));
}

/// What is done all the same, and commented on.
async fn warnings(kubectl: &Kubectl) {
    let said = async |line: &str, warning: &str| {
        let done = kubectl.ends(line).await;
        let error = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success() && error.contains(&format!("Warning: {warning}\n")), "{line}: {error}");
    };
    said("get componentstatuses", "v1 ComponentStatus is deprecated in v1.19+").await;
    said("get endpoints", "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice").await;
    let label = "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use \"kubernetes.io/os\" instead";
    let pod = r#"run old --image=x --overrides={"spec":{"nodeSelector":{"beta.kubernetes.io/os":"linux"}}}"#;
    said(pod, label).await;
}
