//! Names that several components and users share: labels, taints, groups, namespaces.

/// Every node's own name as a label.
pub const LABEL_HOSTNAME: &str = "kubernetes.io/hostname";
/// `linux`.
pub const LABEL_OS: &str = "kubernetes.io/os";
/// `amd64`, `arm64`.
pub const LABEL_ARCH: &str = "kubernetes.io/arch";
/// The service an EndpointSlice belongs to.
pub const LABEL_SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Who manages an EndpointSlice.
pub const LABEL_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Set on Endpoints of headless services.
pub const LABEL_HEADLESS_SERVICE: &str = "service.kubernetes.io/headless";
/// Services that another proxy than the nodes' own serves, and their slices.
pub const LABEL_SERVICE_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";
/// The namespace's own name as a label.
pub const LABEL_METADATA_NAME: &str = "kubernetes.io/metadata.name";
/// On a Secret with a service account's token: the day it was last used.
pub const LABEL_TOKEN_LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
/// On such a Secret: the day since which its token does not count.
pub const LABEL_TOKEN_INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
/// The config map, in the system's namespace, that says in `since` from which day on the use of such tokens is noted.
pub const TOKEN_TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
/// The whole configuration `kubectl apply` last sent.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// On pods that stand for static pods: the hash of what the kubelet read.
pub const ANNOTATION_CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// Taint of a node that is short of memory.
pub const TAINT_MEMORY_PRESSURE: &str = "node.kubernetes.io/memory-pressure";
/// Keeps a claim while a pod uses it.
pub const FINALIZER_CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Keeps a volume while it is bound.
pub const FINALIZER_VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// Taint of a node that is not ready.
pub const TAINT_NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Taint of a node that stopped reporting.
pub const TAINT_UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Taint of a cordoned node.
pub const TAINT_UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Where node leases live.
pub const NAMESPACE_NODE_LEASE: &str = "kube-node-lease";
/// The system's own objects.
pub const NAMESPACE_SYSTEM: &str = "kube-system";
/// Readable by everyone.
pub const NAMESPACE_PUBLIC: &str = "kube-public";

/// Cluster admins.
pub const GROUP_MASTERS: &str = "system:masters";
/// Every node's kubelet; its user is `system:node:<name>`.
pub const GROUP_NODES: &str = "system:nodes";
/// Prefix of a kubelet's user name.
pub const USER_NODE_PREFIX: &str = "system:node:";
/// Holders of a join token.
pub const GROUP_BOOTSTRAPPERS: &str = "system:bootstrappers";
/// Prefix of the groups an administrator may put holders of a bootstrap token in.
pub const GROUP_BOOTSTRAPPERS_PREFIX: &str = "system:bootstrappers:";
/// Prefix of a bootstrap token's user name.
pub const USER_BOOTSTRAP_PREFIX: &str = "system:bootstrap:";
/// Every service account.
pub const GROUP_SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
/// Prefix of a service account's user name; namespace and name follow, with a colon between them.
pub const USER_SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
/// Everyone who proved who they are.
pub const GROUP_AUTHENTICATED: &str = "system:authenticated";
/// Everyone who did not.
pub const GROUP_UNAUTHENTICATED: &str = "system:unauthenticated";
/// The user of requests without credentials.
pub const USER_ANONYMOUS: &str = "system:anonymous";

/// Type of Secrets that hold a service account's token.
pub const SECRET_SERVICE_ACCOUNT_TOKEN: &str = "kubernetes.io/service-account-token";
/// On such a Secret: the account's name.
pub const ANNOTATION_SERVICE_ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
/// On such a Secret: the account's UID.
pub const ANNOTATION_SERVICE_ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// Type of Secrets in `kube-system` that hold a bootstrap token.
pub const SECRET_BOOTSTRAP_TOKEN: &str = "bootstrap.kubernetes.io/token";
/// What the name of such a Secret starts with; the token's id follows.
pub const BOOTSTRAP_TOKEN_PREFIX: &str = "bootstrap-token-";

/// Signs certificates of clients of the API server.
pub const SIGNER_KUBE_APISERVER_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Signs client certificates of kubelets.
pub const SIGNER_KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Signs serving certificates of kubelets.
pub const SIGNER_KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

/// The greatest priority users may give.
pub const HIGHEST_USER_DEFINABLE_PRIORITY: i32 = 1_000_000_000;
/// The priority classes of the system's own pods: name, value, description (`pkg/apis/scheduling/v1/helpers.go`).
pub const SYSTEM_PRIORITY_CLASSES: &[(&str, i32, &str)] = &[
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
];

/// The name of a storage class, before there was a field for it.
pub const ANNOTATION_STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
