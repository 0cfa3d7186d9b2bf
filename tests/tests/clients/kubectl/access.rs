//! Who may do what, and who says so.

use harness::docker::output;
use harness::kubectl::Kubectl;

use super::judge;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_are_given_asked_for_and_proven() {
    judge(1, async |kubectl| {
        kubectl.says("create sa robot").await;
        reconciles(&kubectl).await;
        can_i(&kubectl).await;
        identities(&kubectl).await;
        certificates(&kubectl).await;
    })
    .await;
}

async fn reconciles(kubectl: &Kubectl) {
    let rules = format!(
        "---
{{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {{name: operator, namespace: v{0}}},
          rules: [{{apiGroups: [''], resources: [pods, pods/log], verbs: [get, list]}}]}}
---
{{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {{name: operators, namespace: v{0}}},
  roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: operator}},
  subjects: [{{kind: ServiceAccount, name: robot, namespace: v{0}}}]}}
",
        kubectl.minor
    );
    let rules = kubectl.file("rules.yaml", &rules);
    let reconcile = format!("auth reconcile -f {rules}");
    let tried = format!("{reconcile} --dry-run=client");
    kubectl.mentions(&tried, &["operator reconciled (dry run)\n"]).await;
    kubectl.fails("get role operator", "not found").await;
    let done = "role.rbac.authorization.k8s.io/operator reconciled\n\
                rolebinding.rbac.authorization.k8s.io/operators reconciled\n";
    kubectl.prints(&reconcile, done).await;
    kubectl.prints(&reconcile, done).await;
    kubectl.mentions("get roles,rolebindings -o wide", &["Role/operator", &format!("v{}/robot", kubectl.minor)]).await;
}

async fn can_i(kubectl: &Kubectl) {
    let robot = format!("--as=system:serviceaccount:v{}:robot", kubectl.minor);
    kubectl.prints("auth can-i create pods", "yes\n").await;
    kubectl.prints("auth can-i '*' '*' --all-namespaces", "yes\n").await;
    kubectl.prints(&format!("auth can-i get pods --subresource=log {robot}"), "yes\n").await;
    kubectl.prints(&format!("get pods {robot}"), "").await;
    for denied in ["delete pods", "get pods -n default", "get /metrics"] {
        let answer = kubectl.ends(&format!("auth can-i {denied} {robot}")).await;
        assert_eq!(answer.status.code(), Some(1), "{answer:?}");
        assert!(answer.stdout.starts_with(b"no"), "{answer:?}");
    }
    let list = ["pods/log", "selfsubjectaccessreviews.authorization.k8s.io", "[/healthz]"];
    kubectl.mentions(&format!("auth can-i --list {robot}"), &list).await;
    let refusal = r#"cannot list resource "secrets" in API group "" in the namespace"#;
    kubectl.fails(&format!("get secrets {robot}"), refusal).await;
}

async fn identities(kubectl: &Kubectl) {
    if kubectl.minor < 24 {
        return;
    }
    let robot = format!("system:serviceaccount:v{}:robot", kubectl.minor);
    let token = kubectl.says("create token robot --duration=20m").await;
    let namespace = format!("v{}", kubectl.minor);
    let server = kubectl.says("config view -o jsonpath={.clusters[0].cluster.server}").await;
    let bearer = format!("authorization: Bearer {}", token.trim());
    let url = format!("{server}/api/v1/namespaces/{namespace}/pods");
    let pods = output("curl", &["-sk", "-H", &bearer, &url]).unwrap();
    assert!(pods.contains("\"kind\": \"PodList\""), "in lines, as curl is for people: {pods}");
    kubectl.mentions("create token robot --audience=vault -o yaml", &["kind: TokenRequest", "- vault"]).await;
    kubectl.fails("create token nobody", r#"serviceaccounts "nobody" not found"#).await;
    if kubectl.minor < 28 {
        // It knows only the alpha and the beta of the review, which no server has had since.
        kubectl.fails("auth whoami", "the selfsubjectreviews API is not enabled in the cluster").await;
        return;
    }
    let credential = "Extra: authentication.kubernetes.io/credential-id   [X509SHA256=";
    kubectl.mentions("auth whoami", &["kubernetes-admin", "system:masters", credential]).await;
    kubectl.mentions(&format!("auth whoami --as={robot}"), &[&robot, "system:serviceaccounts"]).await;
}

async fn certificates(kubectl: &Kubectl) {
    let request = kubectl.home().join("request");
    let file = request.to_str().unwrap();
    let subject = ["-subj", "/CN=jane/O=dev", "-keyout", "/dev/null", "-out", file];
    output(
        "openssl",
        &[&["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"], &subject[..]].concat(),
    )
    .unwrap();
    let request = output("base64", &["-w0", file]).unwrap();
    let name = |who: &str| format!("{who}{}", kubectl.minor);
    for who in [name("jane"), name("joe")] {
        let csr = format!(
            "---\n{{apiVersion: certificates.k8s.io/v1, kind: CertificateSigningRequest, metadata: {{name: {who}}},
              spec: {{request: {request}, signerName: kubernetes.io/kube-apiserver-client, usages: [client auth]}}}}"
        );
        kubectl.ok(&["create", "-f", "-"], csr.as_bytes()).await;
        let table = kubectl.says(&format!("get csr {who}")).await;
        assert!(table.contains("kubernetes-admin") && table.contains("Pending"), "{table}");
    }
    let (jane, joe) = (name("jane"), name("joe"));
    let csr = "certificatesigningrequest.certificates.k8s.io";
    kubectl.prints(&format!("certificate approve {jane}"), &format!("{csr}/{jane} approved\n")).await;
    kubectl.prints(&format!("certificate deny {joe}"), &format!("{csr}/{joe} denied\n")).await;
    kubectl.says(&format!("wait --for=condition=Approved csr/{jane} --timeout=60s")).await;
    kubectl.mentions(&format!("describe csr {jane}"), &["Common Name:    jane", "Organization:   dev"]).await;
    kubectl.mentions(&format!("get csr {joe}"), &["Denied"]).await;
    kubectl.fails(&format!("certificate approve {joe}"), "is already Denied").await;
}
