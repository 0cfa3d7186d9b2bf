//! The controllers: each one drives one part of the cluster towards what its objects ask for.
//!
//! ```text
//!   API ──watch──▶ informers (one per kind, shared) ──handlers──▶ a queue of keys per controller
//!    ▲                  │                                              │
//!    │                  └── listers ──▶ plan(objects, now) ◀── worker ─┘
//!    │                                      │
//!    └───────────── execute ◀── actions, with their reasons
//! ```
//!
//! Every `plan` is an ordinary function: no client, no clock, no dice, not async; planning again on the result of the
//! actions gives nothing. Every `sync` reads the caches, plans, and applies the actions one by one; what fails comes
//! back through the queue. Nothing here polls: workers wait for changes or for the next known deadline.
//!
//! In reading order:
//! - [`Config`], [`start`]: below.
//! - `context`: what every controller gets: client, caches, tasks. `informers`: the caches and their indexes. `pod`: what
//!   is kept of a pod.
//! - `objects`: the metadata of every object of every kind, for those who care about all kinds.
//! - `rest`: the writes, without decoding what comes back. `own_writes`: what we wrote and the cache has not shown yet.
//! - `replication`: N pods for a replication controller, generic over what asks for replicas.
//! - `endpoints`, `endpoint_slices`: services × pods; what they share is in `service_pods`. `trigger_times`: since when.
//! - `load_balancer`: the nodes' addresses for services that want to be balanced.
//! - `node_lifecycle`: lost nodes, their taints and their pods. `node_ipam`: a pod CIDR for each node.
//! - `namespace`: empties a namespace that is being deleted. `pod_gc`: pods nobody else will remove.
//! - `garbage_collector`: owner references. `service_account`, `root_ca`: what every namespace has.
//! - `resource_quota`: what quotas have counted. `persistent_volume`: claims and their volumes.
//! - `storage_protection`: claims and volumes in use stay.
//! - `cluster_role_aggregation`: roles made of others.
//! - `account_tokens`: Secrets that hold a service account's token. `unused_tokens`: those nobody uses go.
//!   `bootstrap_tokens`: those that ended go.
//! - `certificates`: approves and signs certificate requests of nodes.
//!
//! It does not choose nodes for pods (`scheduler`) and starts no containers (`kubelet`).

mod account_tokens;
mod bootstrap_tokens;
mod certificates;
mod cluster_role_aggregation;
mod config;
mod context;
mod endpoint_slices;
mod endpoints;
mod garbage_collector;
mod informers;
mod load_balancer;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod objects;
mod own_writes;
mod persistent_volume;
mod pod;
mod pod_gc;
mod replication;
mod resource_quota;
mod rest;
mod root_ca;
mod service_account;
mod service_pods;
mod storage_protection;
mod trigger_times;
mod unused_tokens;

pub use config::Config;

use client::Tasks;
use context::Context;

/// A row of the table of controllers.
struct Controller {
    /// Its name, as upstream's `--controllers` flag knows it.
    name: &'static str,
    /// The service account in `kube-system` it writes as, which has the rights it needs and no others
    /// (`--use-service-account-credentials` upstream); without one as the controller manager itself.
    account: Option<&'static str>,
    /// Adds its handlers to the informers and spawns its workers.
    register: fn(&mut Context),
}

/// Every controller, in the order in which their handlers see a change.
const CONTROLLERS: &[Controller] = &[
    Controller {
        name: "replicationcontroller",
        account: Some("replication-controller"),
        register: replication::register,
    },
    Controller {
        name: "endpointslice",
        account: Some("endpointslice-controller"),
        register: endpoint_slices::register,
    },
    Controller { name: "endpoints", account: Some("endpoint-controller"), register: endpoints::register },
    Controller {
        name: "service-lb-controller",
        account: Some("service-controller"),
        register: load_balancer::register,
    },
    Controller { name: "nodelifecycle", account: Some("node-controller"), register: node_lifecycle::register },
    Controller { name: "nodeipam", account: Some("node-controller"), register: node_ipam::register },
    Controller {
        name: "serviceaccount",
        account: Some("service-account-controller"),
        register: service_account::register,
    },
    Controller { name: "serviceaccount-token", account: None, register: account_tokens::register },
    Controller { name: "legacy-service-account-token-cleaner", account: None, register: unused_tokens::register },
    Controller { name: "tokencleaner", account: Some("token-cleaner"), register: bootstrap_tokens::register },
    Controller { name: "root-ca-cert-publisher", account: Some("root-ca-cert-publisher"), register: root_ca::register },
    Controller { name: "namespace", account: Some("namespace-controller"), register: namespace::register },
    Controller {
        name: "garbagecollector",
        account: Some("generic-garbage-collector"),
        register: garbage_collector::register,
    },
    Controller { name: "podgc", account: Some("pod-garbage-collector"), register: pod_gc::register },
    Controller { name: "resourcequota", account: Some("resourcequota-controller"), register: resource_quota::register },
    Controller {
        name: "persistentvolume-binder",
        account: Some("persistent-volume-binder"),
        register: persistent_volume::register,
    },
    Controller {
        name: "pvc-protection",
        account: Some("pvc-protection-controller"),
        register: storage_protection::register_claims,
    },
    Controller {
        name: "pv-protection",
        account: Some("pv-protection-controller"),
        register: storage_protection::register_volumes,
    },
    Controller { name: "csrsigning", account: Some("certificate-controller"), register: certificates::register },
    Controller {
        name: "clusterrole-aggregation",
        account: Some("clusterrole-aggregation-controller"),
        register: cluster_role_aggregation::register,
    },
];

/// Starts every controller; they run until `tasks` stop. The caches are filled by `client`; what a controller writes it
/// writes by the client that `act_as` gives for its service account.
pub fn start(client: kube::Client, act_as: impl Fn(&str) -> kube::Client, config: Config, tasks: &Tasks) {
    let mut context = Context::new(client.clone(), config, tasks.clone());
    for controller in CONTROLLERS {
        context.write_by(controller.account.map_or_else(|| client.clone(), &act_as));
        (controller.register)(&mut context);
        tracing::debug!(controller = controller.name, "controller registered");
    }
    context.run();
    tracing::info!(controllers = CONTROLLERS.len(), "controllers started");
}
