//! Who gets which default role.

use api::well_known::{GROUP_AUTHENTICATED, GROUP_BOOTSTRAPPERS, GROUP_MASTERS, GROUP_NODES, GROUP_UNAUTHENTICATED};

const GROUP: &str = "Group";
const USER: &str = "User";

/// Kind and name of who gets a role.
type Who = (&'static str, &'static str);

/// Name of the binding, its role, and who gets it.
pub(super) const BINDINGS: &[(&str, &str, &[Who])] = &[
    ("cluster-admin", "cluster-admin", &[(GROUP, GROUP_MASTERS)]),
    ("system:monitoring", "system:monitoring", &[(GROUP, "system:monitoring")]),
    ("system:discovery", "system:discovery", &[(GROUP, GROUP_AUTHENTICATED)]),
    ("system:basic-user", "system:basic-user", &[(GROUP, GROUP_AUTHENTICATED)]),
    (
        "system:public-info-viewer",
        "system:public-info-viewer",
        &[(GROUP, GROUP_AUTHENTICATED), (GROUP, GROUP_UNAUTHENTICATED)],
    ),
    ("system:node-proxier", "system:node-proxier", &[(USER, "system:kube-proxy")]),
    ("system:kube-controller-manager", "system:kube-controller-manager", &[(USER, "system:kube-controller-manager")]),
    ("system:kube-scheduler", "system:kube-scheduler", &[(USER, "system:kube-scheduler")]),
    ("system:volume-scheduler", "system:volume-scheduler", &[(USER, "system:kube-scheduler")]),
    // Nodes are authorised by what runs on them; the binding is there for those who want more.
    ("system:node", "system:node", &[]),
    // Whose certificates need no human: `kubeadm:node-autoapprove-bootstrap` and
    // `kubeadm:node-autoapprove-certificate-rotation`.
    (
        "system:node-autoapprove-bootstrap",
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[(GROUP, GROUP_BOOTSTRAPPERS)],
    ),
    (
        "system:node-autoapprove-certificate-rotation",
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[(GROUP, GROUP_NODES)],
    ),
    (
        "system:service-account-issuer-discovery",
        "system:service-account-issuer-discovery",
        &[(GROUP, "system:serviceaccounts")],
    ),
];
