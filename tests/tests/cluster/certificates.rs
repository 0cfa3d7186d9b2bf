//! Requests for certificates of nodes: who gets one without a human.

use std::sync::Arc;

use api::well_known::{GROUP_BOOTSTRAPPERS, GROUP_NODES, SIGNER_KUBELET_CLIENT};
use apiserver::User;
use harness::Cluster;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::json;

/// The default binding by which whoever joins gets a certificate.
const BINDING: &str = "system:node-autoapprove-bootstrap";

/// Somebody who may ask for certificates, and get those of nodes, by bindings of one's own.
const PROVISIONERS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: requester}
rules: [{apiGroups: [certificates.k8s.io], resources: [certificatesigningrequests], verbs: [create]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: requesters}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: requester}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: provisioners},
  {apiGroup: rbac.authorization.k8s.io, kind: User, name: jane}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: provisioners}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole,
  name: "system:certificates.k8s.io:certificatesigningrequests:nodeclient"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: provisioners}]
"#;

/// `user` asks for the certificate of node `box1`.
async fn ask(cluster: &Cluster, user: User, name: &str) {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, GROUP_NODES);
    params.distinguished_name.push(DnType::CommonName, "system:node:box1");
    let request = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let csr = CertificateSigningRequest {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(request.into_bytes()),
            signer_name: SIGNER_KUBELET_CLIENT.to_owned(),
            usages: Some(vec!["digital signature".to_owned(), "client auth".to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    Api::all(cluster.client_as(user)).create(&Default::default(), &csr).await.unwrap();
}

/// Waits until the request has its certificate; says why it was approved.
async fn approved(cluster: &Cluster, name: &str) -> String {
    let find = |all: &[Arc<CertificateSigningRequest>]| {
        all.iter().find(|csr| csr.metadata.name.as_deref() == Some(name)).and_then(|csr| csr.status.clone())
    };
    let is_signed = |all: &[Arc<CertificateSigningRequest>]| find(all).is_some_and(|s| s.certificate.is_some());
    let all = cluster.until("the certificate is there", "", is_signed).await.unwrap();
    let condition = find(&all).unwrap().conditions.unwrap().remove(0);
    assert_eq!((&*condition.type_, condition.reason.as_deref()), ("Approved", Some("AutoApproved")));
    condition.message.unwrap()
}

async fn is_undecided(cluster: &Cluster, name: &str) -> bool {
    let csr = Api::<CertificateSigningRequest>::all(cluster.client()).get(name).await.unwrap();
    csr.status.and_then(|status| status.conditions).is_none()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_the_right_gets_the_certificate_of_a_node_and_others_wait() {
    let cluster = Cluster::new().start().await.unwrap();
    cluster.create(PROVISIONERS).await.unwrap();
    let any = "Auto approving kubelet client certificate after SubjectAccessReview.";
    let own = "Auto approving self kubelet client certificate after SubjectAccessReview.";
    ask(&cluster, User::new("jane", [""; 0]), "waits").await;
    ask(&cluster, User::new("system:node:box2", [GROUP_NODES]), "of-another").await;
    ask(&cluster, User::new("robot", ["provisioners"]), "of-robot").await;
    assert_eq!(approved(&cluster, "of-robot").await, any);
    ask(&cluster, User::new("system:bootstrap:aaaaaa", [GROUP_BOOTSTRAPPERS]), "joins").await;
    assert_eq!(approved(&cluster, "joins").await, any);
    ask(&cluster, User::new("system:node:box1", [GROUP_NODES]), "renewed").await;
    assert_eq!(approved(&cluster, "renewed").await, own);
    assert!(is_undecided(&cluster, "waits").await && is_undecided(&cluster, "of-another").await);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_default_binding_who_joins_waits_until_the_right_is_there_again() {
    let cluster = Cluster::new().start().await.unwrap();
    let bindings: Api<ClusterRoleBinding> = Api::all(cluster.client());
    let default = bindings.delete(BINDING, &DeleteParams::default()).await.unwrap();
    assert!(default.is_right(), "it is gone");
    ask(&cluster, User::new("system:bootstrap:aaaaaa", [GROUP_BOOTSTRAPPERS]), "joins").await;
    ask(&cluster, User::new("system:node:box1", [GROUP_NODES]), "renewed").await;
    approved(&cluster, "renewed").await;
    assert!(is_undecided(&cluster, "joins").await);
    let again = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "mine"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "system:certificates.k8s.io:certificatesigningrequests:nodeclient"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": GROUP_BOOTSTRAPPERS}],
    });
    bindings.patch("mine", &PatchParams::apply("test"), &Patch::Apply(again)).await.unwrap();
    approved(&cluster, "joins").await;
    cluster.stop().await;
}
