//! Roles of controllers, each given to a service account in `kube-system` of the same name (`controller_policy.go`).

use super::{Rule, may};

const RBAC: &str = "rbac.authorization.k8s.io";
const CERTIFICATES: &str = "certificates.k8s.io";
const DISCOVERY: &str = "discovery.k8s.io";

/// Every controller tells what it does.
pub(super) const EVENTS: Rule = may(&["create", "patch", "update"], "", &["events"]);

/// `system:controller:replication-controller`.
pub(super) fn role_name(controller: &str) -> String {
    format!("system:controller:{controller}")
}

const WATCH: &[&str] = &["get", "list", "watch"];
const SLICES: &[&str] = &["create", "delete", "get", "list", "update"];

/// Names of the controllers, and what they may do beside telling Events.
pub(super) const ROLES: &[(&str, &[Rule])] = &[
    (
        "certificate-controller",
        &[
            may(&["delete", "get", "list", "watch"], CERTIFICATES, &["certificatesigningrequests"]),
            may(
                &["update"],
                CERTIFICATES,
                &["certificatesigningrequests/approval", "certificatesigningrequests/status"],
            ),
            Rule::Resources {
                verbs: &["approve"],
                group: CERTIFICATES,
                resources: &["signers"],
                // Serving certificates of nodes, too, which upstream leaves to others: it compares them with the Node.
                names: &["kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving"],
            },
            Rule::Resources {
                verbs: &["sign"],
                group: CERTIFICATES,
                resources: &["signers"],
                names: &[
                    "kubernetes.io/kube-apiserver-client",
                    "kubernetes.io/kube-apiserver-client-kubelet",
                    "kubernetes.io/kubelet-serving",
                    "kubernetes.io/legacy-unknown",
                ],
            },
            may(&["create"], "authorization.k8s.io", &["subjectaccessreviews"]),
        ],
    ),
    (
        "clusterrole-aggregation-controller",
        &[may(&["escalate", "get", "list", "patch", "update", "watch"], RBAC, &["clusterroles"])],
    ),
    (
        "endpoint-controller",
        &[
            may(WATCH, "", &["pods", "services"]),
            may(&["create", "delete", "get", "list", "update"], "", &["endpoints"]),
            may(&["create"], "", &["endpoints/restricted"]),
        ],
    ),
    (
        "endpointslice-controller",
        &[
            may(WATCH, "", &["nodes", "pods", "services"]),
            may(&["update"], "", &["services/finalizers"]),
            may(SLICES, DISCOVERY, &["endpointslices"]),
            may(&["create"], DISCOVERY, &["endpointslices/restricted"]),
        ],
    ),
    (
        "endpointslicemirroring-controller",
        &[
            may(WATCH, "", &["endpoints", "services"]),
            may(&["update"], "", &["services/finalizers", "endpoints/finalizers"]),
            may(SLICES, DISCOVERY, &["endpointslices"]),
            may(&["create"], DISCOVERY, &["endpointslices/restricted"]),
        ],
    ),
    ("generic-garbage-collector", &[may(&["delete", "get", "list", "patch", "update", "watch"], "*", &["*"])]),
    (
        "namespace-controller",
        &[
            may(&["delete", "get", "list", "watch"], "", &["namespaces"]),
            may(&["update"], "", &["namespaces/finalize", "namespaces/status"]),
            may(&["delete", "deletecollection", "get", "list"], "*", &["*"]),
        ],
    ),
    (
        "node-controller",
        &[
            may(&["delete", "get", "list", "patch", "update"], "", &["nodes"]),
            may(&["patch", "update"], "", &["nodes/status"]),
            may(&["patch", "update"], "", &["pods/status"]),
            may(&["delete", "get", "list"], "", &["pods"]),
        ],
    ),
    (
        "persistent-volume-binder",
        &[
            may(&["create", "delete", "get", "list", "update", "watch"], "", &["persistentvolumes"]),
            may(&["update"], "", &["persistentvolumes/status"]),
            may(&["get", "list", "update", "watch"], "", &["persistentvolumeclaims"]),
            may(&["update"], "", &["persistentvolumeclaims/status"]),
        ],
    ),
    (
        "pod-garbage-collector",
        &[
            may(&["delete", "list", "watch"], "", &["pods"]),
            may(&["get", "list"], "", &["nodes"]),
            may(&["patch"], "", &["pods/status"]),
        ],
    ),
    ("pv-protection-controller", &[may(&["get", "list", "update", "watch"], "", &["persistentvolumes"])]),
    (
        "pvc-protection-controller",
        &[may(&["get", "list", "update", "watch"], "", &["persistentvolumeclaims"]), may(WATCH, "", &["pods"])],
    ),
    (
        "replication-controller",
        &[
            may(&["get", "list", "update", "watch"], "", &["replicationcontrollers"]),
            may(&["update"], "", &["replicationcontrollers/status"]),
            may(&["update"], "", &["replicationcontrollers/finalizers"]),
            may(&["create", "delete", "list", "patch", "watch"], "", &["pods"]),
        ],
    ),
    (
        "resourcequota-controller",
        &[may(&["list", "watch"], "*", &["*"]), may(&["update"], "", &["resourcequotas/status"])],
    ),
    ("root-ca-cert-publisher", &[may(&["create", "update"], "", &["configmaps"])]),
    // Comes with the clouds' controllers upstream.
    (
        "service-controller",
        &[may(WATCH, "", &["nodes", "services"]), may(&["patch", "update"], "", &["services/status"])],
    ),
    ("service-account-controller", &[may(&["create"], "", &["serviceaccounts"])]),
];
