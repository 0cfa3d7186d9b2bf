//! A whole cluster in one process: the real components over a store in memory, nodes on hollow runtimes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use api::well_known::NAMESPACE_SYSTEM;
use apiserver::{ApiServer, User};
use client::Tasks;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DynamicObject};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kubelet::runtime::hollow::Hollow;
use serde::de::DeserializeOwned;
use serde_json::Value;
use store::Store;
use store::embedded::Embedded;

/// How long stopping may take.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Whom the components are to the API server.
const MANAGER: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";
/// What they asked of it, below the cluster's folder, and how a refusal reads there.
const AUDIT_LOG: &str = "audit.log";
const FORBIDDEN: &str = r#""authorization.k8s.io/decision":"forbid""#;

/// A node of the cluster.
struct NodeHandle {
    runtime: Arc<Hollow>,
    tasks: Tasks,
}

/// A running cluster. Stop it with [`Cluster::stop`]; what it keeps on disk goes with it.
pub struct Cluster {
    store: Arc<dyn Store>,
    server: ApiServer,
    serving: Tasks,
    controllers: Tasks,
    nodes: BTreeMap<String, NodeHandle>,
    folder: tempfile::TempDir,
    node_monitor_grace: Duration,
}

/// What a cluster shall be.
pub struct Builder {
    nodes: usize,
    node_monitor_grace: Duration,
}

impl Builder {
    /// Starts with this many nodes, `node-0` and so on.
    pub fn nodes(mut self, nodes: usize) -> Builder {
        self.nodes = nodes;
        self
    }

    /// A node counts as lost after this long without a heartbeat.
    pub fn node_monitor_grace(mut self, grace: Duration) -> Builder {
        self.node_monitor_grace = grace;
        self
    }

    /// Starts it; returns when the API and every node are ready.
    pub async fn start(self) -> Result<Cluster> {
        let folder = tempfile::Builder::new().prefix("coracle-cluster-").tempdir()?;
        let store: Arc<dyn Store> = Arc::new(Embedded::in_memory()?);
        let serving = Tasks::new();
        let mut config = apiserver::Config::new(folder.path().join("master"));
        config.audit = Some(audit(folder.path())?);
        let server = ApiServer::start(config, store.clone(), serving.token()).await?;
        let mut cluster = Cluster {
            store,
            server,
            serving,
            controllers: Tasks::new(),
            nodes: BTreeMap::new(),
            folder,
            node_monitor_grace: self.node_monitor_grace,
        };
        cluster.start_controllers();
        for number in 0..self.nodes {
            cluster.start_node(&format!("node-{number}")).await?;
        }
        // Pods spread over the nodes there are: a scenario starts with all of them.
        let all_ready = |nodes: &[Arc<Node>]| nodes.iter().filter(|n| api::nodes::is_ready(n)).count() == self.nodes;
        cluster.until("every node is ready", "", all_ready).await?;
        Ok(cluster)
    }
}

impl Cluster {
    /// A cluster without nodes, to be changed and started.
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> Builder {
        Builder { nodes: 0, node_monitor_grace: Duration::from_secs(40) }
    }

    /// A client that may do anything.
    pub fn client(&self) -> kube::Client {
        self.client_as(User::master("admin"))
    }

    /// A client that acts as `user`.
    pub fn client_as(&self, user: User) -> kube::Client {
        kube::Client::new(self.server.service_as(user), "default")
    }

    /// A client that acts as the node's kubelet.
    pub fn client_as_node(&self, node: &str) -> kube::Client {
        let name = format!("{}{node}", api::well_known::USER_NODE_PREFIX);
        self.client_as(User::new(name, [api::well_known::GROUP_NODES]))
    }

    /// The runtime of a node, to make containers end.
    pub fn runtime(&self, node: &str) -> Arc<Hollow> {
        self.nodes.get(node).expect("the scenario started that node").runtime.clone()
    }

    /// Joins a node with a fresh runtime.
    pub async fn start_node(&mut self, name: &str) -> Result<()> {
        let runtime = Arc::new(Hollow::new(kubelet::clock::Clock::Wall));
        self.start_kubelet(name, runtime).await
    }

    /// Ends the node's kubelet as `kill -9` would: its containers run on, and nobody reports them.
    pub async fn kill_kubelet(&mut self, name: &str) -> Arc<Hollow> {
        let node = self.nodes.remove(name).expect("the scenario started that node");
        node.tasks.stop(STOP_GRACE).await;
        node.runtime
    }

    /// Starts a kubelet on a runtime that may have containers already.
    pub async fn start_kubelet(&mut self, name: &str, runtime: Arc<Hollow>) -> Result<()> {
        let tasks = Tasks::new();
        let folder = self.folder.path().join(name);
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let config = kubelet::Config::new(name, address, folder);
        kubelet::start(self.client_as_node(name), config, runtime.clone(), &tasks).await?;
        self.nodes.insert(name.to_owned(), NodeHandle { runtime, tasks });
        Ok(())
    }

    /// Ends scheduler and controllers and starts them again with empty caches.
    pub async fn restart_controllers(&mut self) {
        self.controllers.stop(STOP_GRACE).await;
        self.controllers = Tasks::new();
        self.start_controllers();
    }

    fn start_controllers(&self) {
        let pki = self.folder.path().join("master/pki");
        let root_ca_pem = std::fs::read_to_string(pki.join("ca.crt")).expect("the API server made a CA at its start");
        let config = controller_manager::Config {
            node_monitor_grace: self.node_monitor_grace,
            ca_cert: pki.join("ca.crt"),
            ca_key: pki.join("ca.key"),
            root_ca_pem,
            ..controller_manager::Config::default()
        };
        let manager = self.client_as(User::new(MANAGER, [""; 0]));
        let account = |name: &str| self.client_as(User::service_account(NAMESPACE_SYSTEM, name));
        controller_manager::start(manager, account, config, &self.controllers);
        let scheduler = self.client_as(User::new(SCHEDULER, [""; 0]));
        scheduler::start(scheduler, scheduler::Config::default(), &self.controllers);
    }

    /// The store behind it.
    pub fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// Creates every object of a YAML text.
    pub async fn create(&self, yaml: &str) -> Result<()> {
        for object in api::yaml::parse_all(yaml)? {
            self.create_object(object).await?;
        }
        Ok(())
    }

    async fn create_object(&self, object: Value) -> Result<()> {
        let text = |field: &str| object[field].as_str().map(str::to_owned).with_context(|| format!("no {field}"));
        let (api_version, kind) = (text("apiVersion")?, text("kind")?);
        let row = api::kinds::by_kind(&api_version, &kind).with_context(|| format!("{kind} is not served"))?;
        let identity = GroupVersionKind::gvk(row.info.group, row.info.version, row.info.kind);
        let resource = ApiResource::from_gvk_with_plural(&identity, row.info.plural);
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default").to_owned();
        let object: DynamicObject = serde_json::from_value(object)?;
        let target: Api<DynamicObject> = match row.info.scope {
            api::Scope::Namespaced => Api::namespaced_with(self.client(), &namespace, &resource),
            api::Scope::Cluster => Api::all_with(self.client(), &resource),
        };
        target.create(&Default::default(), &object).await?;
        Ok(())
    }

    /// Waits until the objects of a kind that `labels` select are as `expected` wants them; returns them.
    pub async fn until<K>(&self, what: &str, labels: &str, expected: impl Fn(&[Arc<K>]) -> bool) -> Result<Vec<Arc<K>>>
    where
        K: kube::Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
    {
        crate::wait::until(&self.client(), what, labels, expected).await
    }

    /// Stops everything. Whatever the scenario was, no component may have tried what it has no right to.
    pub async fn stop(self) {
        for node in self.nodes.values() {
            node.tasks.stop(STOP_GRACE).await;
        }
        self.controllers.stop(STOP_GRACE).await;
        self.serving.stop(STOP_GRACE).await;
        let Cluster { server, folder, .. } = self;
        // The last handle on the server writes what still waits.
        drop(server);
        let log = std::fs::read_to_string(folder.path().join(AUDIT_LOG)).unwrap_or_default();
        assert!(
            log.contains(r#""username":"system:serviceaccount:kube-system:"#),
            "controllers have asked for nothing"
        );
        let forbidden: Vec<&str> = log.lines().filter(|line| line.contains(FORBIDDEN)).take(5).collect();
        assert!(forbidden.is_empty(), "components tried what they may not: {forbidden:#?}");
    }
}

/// What the components ask of the API server is written down.
fn audit(folder: &Path) -> Result<apiserver::AuditConfig> {
    let policy = folder.join("audit-policy.yaml");
    let rules = format!(
        "{{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [RequestReceived, ResponseStarted], rules: [
            {{level: Metadata, users: ['{MANAGER}', '{SCHEDULER}']}},
            {{level: Metadata, userGroups: ['system:serviceaccounts:{NAMESPACE_SYSTEM}']}}, {{level: None}}]}}"
    );
    std::fs::write(&policy, rules)?;
    let limits = apiserver::AuditLogLimits { max_size_megabytes: 0, max_backups: 0, max_age_days: 0 };
    Ok(apiserver::AuditConfig { log_path: folder.join(AUDIT_LOG), policy_file: Some(policy), limits })
}
