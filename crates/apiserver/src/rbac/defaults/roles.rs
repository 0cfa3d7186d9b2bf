//! The default roles of people, nodes and components (`bootstrappolicy/policy.go`).

use super::{DefaultRole, Rule, may, role};

const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const READ_WRITE: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const CREATE: &[&str] = &["create"];

const APPS: &str = "apps";
const AUTHENTICATION: &str = "authentication.k8s.io";
const AUTHORIZATION: &str = "authorization.k8s.io";
const AUTOSCALING: &str = "autoscaling";
const BATCH: &str = "batch";
const CERTIFICATES: &str = "certificates.k8s.io";
const COORDINATION: &str = "coordination.k8s.io";
const DISCOVERY: &str = "discovery.k8s.io";
const EVENTS_GROUP: &str = "events.k8s.io";
const METRICS: &str = "metrics.k8s.io";
const NETWORKING: &str = "networking.k8s.io";
const POLICY: &str = "policy";
const RBAC: &str = "rbac.authorization.k8s.io";
const STORAGE: &str = "storage.k8s.io";

/// Events of both groups.
const EVENTS: Rule = may(&["create", "patch", "update"], "", &["events"]);
const NEW_EVENTS: Rule = may(&["create", "patch", "update"], EVENTS_GROUP, &["events"]);

/// The right to use signers of these names.
const fn signers(verbs: &'static [&'static str], names: &'static [&'static str]) -> Rule {
    Rule::Resources { verbs, group: CERTIFICATES, resources: &["signers"], names }
}

/// The lease, or endpoints, by which a component is elected.
const fn own_lease(names: &'static [&'static str]) -> Rule {
    Rule::Resources { verbs: &["get", "update"], group: COORDINATION, resources: &["leases"], names }
}

const fn sum(name: &'static str, part_of: Option<&'static str>) -> DefaultRole {
    DefaultRole { name, part_of, is_sum: true, rules: &[] }
}

const fn part(name: &'static str, part_of: &'static str, rules: &'static [Rule]) -> DefaultRole {
    DefaultRole { name, part_of: Some(part_of), is_sum: false, rules }
}

/// What writing the workloads of a namespace means.
const EDITED: &[Rule] = &[
    may(READ, "", &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"]),
    may(&["impersonate"], "", &["serviceaccounts"]),
    may(WRITE, "", &["pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"]),
    may(CREATE, "", &["pods/eviction"]),
    may(&["get", "patch", "update"], "", &["pods/resize"]),
    may(
        WRITE,
        "",
        &[
            "configmaps",
            "events",
            "persistentvolumeclaims",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "secrets",
            "serviceaccounts",
            "services",
            "services/proxy",
        ],
    ),
    may(CREATE, "", &["serviceaccounts/token"]),
    may(
        WRITE,
        APPS,
        &[
            "daemonsets",
            "deployments",
            "deployments/rollback",
            "deployments/scale",
            "replicasets",
            "replicasets/scale",
            "statefulsets",
            "statefulsets/scale",
        ],
    ),
    may(WRITE, AUTOSCALING, &["horizontalpodautoscalers"]),
    may(WRITE, BATCH, &["cronjobs", "jobs"]),
    may(WRITE, POLICY, &["poddisruptionbudgets"]),
    may(WRITE, NETWORKING, &["ingresses", "networkpolicies"]),
    may(READ_WRITE, COORDINATION, &["leases"]),
];

/// What seeing a namespace means; Secrets and roles would give more than sight.
const VIEWED: &[Rule] = &[
    may(
        READ,
        "",
        &[
            "configmaps",
            "endpoints",
            "persistentvolumeclaims",
            "persistentvolumeclaims/status",
            "pods",
            "replicationcontrollers",
            "replicationcontrollers/scale",
            "serviceaccounts",
            "services",
            "services/status",
        ],
    ),
    may(
        READ,
        "",
        &[
            "bindings",
            "events",
            "limitranges",
            "namespaces/status",
            "pods/log",
            "pods/status",
            "replicationcontrollers/status",
            "resourcequotas",
            "resourcequotas/status",
        ],
    ),
    may(READ, "", &["namespaces"]),
    may(READ, DISCOVERY, &["endpointslices"]),
    may(
        READ,
        APPS,
        &[
            "controllerrevisions",
            "daemonsets",
            "daemonsets/status",
            "deployments",
            "deployments/scale",
            "deployments/status",
            "replicasets",
            "replicasets/scale",
            "replicasets/status",
            "statefulsets",
            "statefulsets/scale",
            "statefulsets/status",
        ],
    ),
    may(READ, AUTOSCALING, &["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
    may(READ, BATCH, &["cronjobs", "cronjobs/status", "jobs", "jobs/status"]),
    may(READ, POLICY, &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
    may(READ, NETWORKING, &["ingresses", "ingresses/status", "networkpolicies"]),
];

/// What a kubelet needs. Nodes themselves are authorised more narrowly, see `authz::node`.
const NODE: &[Rule] = &[
    may(CREATE, AUTHENTICATION, &["tokenreviews"]),
    may(CREATE, AUTHORIZATION, &["localsubjectaccessreviews", "subjectaccessreviews"]),
    may(READ, "", &["services"]),
    may(&["create", "get", "list", "watch"], "", &["nodes"]),
    may(&["patch", "update"], "", &["nodes", "nodes/status"]),
    EVENTS,
    may(READ, "", &["pods"]),
    may(&["create", "delete"], "", &["pods"]),
    may(&["patch", "update"], "", &["pods/status"]),
    may(CREATE, "", &["pods/eviction"]),
    may(READ, "", &["configmaps", "secrets"]),
    may(&["get"], "", &["persistentvolumeclaims", "persistentvolumes"]),
    may(&["get", "patch", "update"], "", &["persistentvolumeclaims/status"]),
    may(&["get"], "", &["endpoints"]),
    may(&["create", "get", "list", "watch"], CERTIFICATES, &["certificatesigningrequests"]),
    may(&["create", "delete", "get", "patch", "update"], COORDINATION, &["leases"]),
    may(&["get"], STORAGE, &["volumeattachments"]),
    may(CREATE, "", &["serviceaccounts/token"]),
];

/// What deciding where pods go needs.
const SCHEDULER: &[Rule] = &[
    NEW_EVENTS,
    EVENTS,
    may(CREATE, COORDINATION, &["leases"]),
    own_lease(&["kube-scheduler"]),
    may(READ, "", &["nodes"]),
    may(&["delete", "get", "list", "watch"], "", &["pods"]),
    may(CREATE, "", &["bindings", "pods/binding"]),
    may(&["patch", "update"], "", &["pods/status"]),
    may(READ, "", &["namespaces", "replicationcontrollers", "services"]),
    may(READ, APPS, &["replicasets", "statefulsets"]),
    may(READ, POLICY, &["poddisruptionbudgets"]),
    may(READ, "scheduling.k8s.io", &["priorityclasses"]),
    may(READ, "", &["persistentvolumeclaims", "persistentvolumes"]),
    may(READ, STORAGE, &["csidrivers", "csinodes", "csistoragecapacities", "storageclasses"]),
    may(CREATE, AUTHENTICATION, &["tokenreviews"]),
    may(CREATE, AUTHORIZATION, &["subjectaccessreviews"]),
];

/// What all controllers together need, besides what their own roles give.
const CONTROLLER_MANAGER: &[Rule] = &[
    EVENTS,
    NEW_EVENTS,
    may(CREATE, COORDINATION, &["leases"]),
    own_lease(&["kube-controller-manager"]),
    may(CREATE, "", &["secrets", "serviceaccounts"]),
    may(&["delete"], "", &["secrets"]),
    may(&["get"], "", &["configmaps", "namespaces", "secrets", "serviceaccounts"]),
    may(&["update"], "", &["secrets", "serviceaccounts"]),
    may(CREATE, AUTHENTICATION, &["tokenreviews"]),
    may(CREATE, AUTHORIZATION, &["subjectaccessreviews"]),
    may(&["list", "watch"], "*", &["*"]),
    may(CREATE, "", &["serviceaccounts/token"]),
];

const HEALTH_AND_VERSION: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/version/"];

/// Every role but those of controllers.
pub(super) const ROLES: &[DefaultRole] = &[
    role("cluster-admin", &[may(&["*"], "*", &["*"]), Rule::Paths(&["*"])]),
    role(
        "system:discovery",
        &[Rule::Paths(&[
            "/api",
            "/api/*",
            "/apis",
            "/apis/*",
            "/healthz",
            "/livez",
            "/openapi",
            "/openapi/*",
            "/readyz",
            "/swagger-ui",
            "/swagger-ui/*",
            "/version",
            "/version/",
        ])],
    ),
    role(
        "system:monitoring",
        &[Rule::Paths(&[
            "/healthz",
            "/healthz/*",
            "/livez",
            "/livez/*",
            "/metrics",
            "/metrics/slis",
            "/readyz",
            "/readyz/*",
        ])],
    ),
    role(
        "system:basic-user",
        &[
            may(CREATE, AUTHORIZATION, &["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
            may(CREATE, AUTHENTICATION, &["selfsubjectreviews"]),
        ],
    ),
    role("system:public-info-viewer", &[Rule::Paths(HEALTH_AND_VERSION)]),
    sum("admin", None),
    sum("edit", Some("admin")),
    sum("view", Some("edit")),
    part(
        "system:aggregate-to-admin",
        "admin",
        &[
            may(CREATE, AUTHORIZATION, &["localsubjectaccessreviews"]),
            may(READ_WRITE, RBAC, &["rolebindings", "roles"]),
        ],
    ),
    part("system:aggregate-to-edit", "edit", EDITED),
    part("system:aggregate-to-view", "view", VIEWED),
    // Comes with metrics-server upstream.
    part("system:aggregated-metrics-reader", "view", &[may(READ, METRICS, &["nodes", "pods"])]),
    role("system:node", NODE),
    role(
        "system:node-problem-detector",
        &[may(&["get"], "", &["nodes"]), may(&["patch"], "", &["nodes/status"]), EVENTS, NEW_EVENTS],
    ),
    role(
        "system:kubelet-api-admin",
        &[
            may(READ, "", &["nodes"]),
            may(&["proxy"], "", &["nodes"]),
            may(
                &["*"],
                "",
                &[
                    "nodes/configz",
                    "nodes/healthz",
                    "nodes/log",
                    "nodes/metrics",
                    "nodes/pods",
                    "nodes/proxy",
                    "nodes/stats",
                ],
            ),
        ],
    ),
    role(
        "system:node-bootstrapper",
        &[may(&["create", "get", "list", "watch"], CERTIFICATES, &["certificatesigningrequests"])],
    ),
    role(
        "system:auth-delegator",
        &[may(CREATE, AUTHENTICATION, &["tokenreviews"]), may(CREATE, AUTHORIZATION, &["subjectaccessreviews"])],
    ),
    role("system:kube-controller-manager", CONTROLLER_MANAGER),
    role("system:kube-scheduler", SCHEDULER),
    role(
        "system:volume-scheduler",
        &[
            may(&["get", "list", "patch", "update", "watch"], "", &["persistentvolumes"]),
            may(READ, STORAGE, &["storageclasses"]),
            may(&["get", "list", "patch", "update", "watch"], "", &["persistentvolumeclaims"]),
        ],
    ),
    role("system:kube-dns", &[may(&["list", "watch"], "", &["endpoints", "services"])]),
    role(
        "system:node-proxier",
        &[
            may(&["list", "watch"], "", &["endpoints", "services"]),
            may(READ, "", &["nodes"]),
            EVENTS,
            NEW_EVENTS,
            may(&["list", "watch"], DISCOVERY, &["endpointslices"]),
        ],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[may(CREATE, CERTIFICATES, &["certificatesigningrequests/nodeclient"])],
    ),
    role(
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[may(CREATE, CERTIFICATES, &["certificatesigningrequests/selfnodeclient"])],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        &[signers(&["approve"], &["kubernetes.io/kube-apiserver-client"])],
    ),
    role(
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        &[signers(&["approve"], &["kubernetes.io/kube-apiserver-client-kubelet"])],
    ),
    role(
        "system:certificates.k8s.io:kubelet-serving-approver",
        &[signers(&["approve"], &["kubernetes.io/kubelet-serving"])],
    ),
    role(
        "system:certificates.k8s.io:legacy-unknown-approver",
        &[signers(&["approve"], &["kubernetes.io/legacy-unknown"])],
    ),
    role(
        "system:service-account-issuer-discovery",
        &[Rule::Paths(&[
            "/.well-known/openid-configuration",
            "/.well-known/openid-configuration/",
            "/openid/v1/jwks",
            "/openid/v1/jwks/",
        ])],
    ),
];
