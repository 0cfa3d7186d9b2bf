//! What a kubelet is told when it starts.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::bootstrap::Certificates;
use crate::clock::Clock;
use crate::images::access::Verification;
use crate::images::collect::Policy;
use crate::images::puller;
use crate::node::container_gc;
use crate::node::eviction::signals::{self, Threshold};
use crate::node::reserved::Reserved;
use crate::node::shutdown;
use crate::server::Certificate;
pub use crate::sources::url::ManifestUrl;

/// A kubelet's configuration; [`Config::new`] gives upstream's defaults.
#[derive(Clone)]
pub struct Config {
    /// `metadata.name` of its Node.
    pub node_name: String,
    /// The address other machines reach it by.
    pub node_ip: IpAddr,
    /// Where volumes, logs of last words and credentials live.
    pub data_dir: PathBuf,
    /// Port of the node server; 0 for any.
    pub port: u16,
    /// Where health is told in plain HTTP; `None`: nowhere.
    pub healthz: Option<SocketAddr>,
    /// How the node server proves itself and whom it believes; `None`: no server.
    pub serving: Option<Serving>,
    /// How long the node's certificates last, where they are renewed by themselves.
    pub certificates: Option<Certificates>,
    /// The cluster's DNS server; without one, pods resolve names as their node does.
    pub cluster_dns: Option<IpAddr>,
    /// Domain that cluster names end in.
    pub cluster_domain: String,
    /// The node's resolver configuration, for pods that use it; without it, the machine's own.
    pub resolv_conf: Option<PathBuf>,
    /// Shown at `/configz` beside the kubelet's own: what the process around was told.
    pub configz: serde_json::Map<String, serde_json::Value>,
    /// How many pods the node takes.
    pub max_pods: u32,
    /// What is kept from pods for the system, and for the kubelet and its like.
    pub system_reserved: Reserved,
    /// See [`Config::system_reserved`].
    pub kube_reserved: Reserved,
    /// What must stay free, or pods are evicted.
    pub eviction_hard: Vec<Threshold>,
    /// What must not be short for longer than the grace of each, or pods are evicted.
    pub eviction_soft: Vec<Threshold>,
    /// Seconds that a pod evicted by a soft threshold may take at most; negative: what it asks for.
    pub eviction_max_pod_grace_period: i64,
    /// How long a pressure condition stays after its cause is gone.
    pub eviction_pressure_transition_period: Duration,
    /// How pods end when the machine goes down; `None`: with it.
    pub shutdown: Option<shutdown::Policy>,
    /// How often the machine's means are measured.
    pub housekeeping_interval: Duration,
    /// When images are removed.
    pub image_gc: Policy,
    /// What is kept of containers that ended.
    pub dead_containers: container_gc::Policy,
    /// How long a stream into a pod (exec, attach, port-forward) may be without traffic; zero: for ever.
    pub streaming_idle_timeout: Duration,
    /// For which images that are here a pod must show credentials.
    pub image_verification: Verification,
    /// How many images are pulled at a time.
    pub max_parallel_image_pulls: usize,
    /// How often the runtime is asked whether it is there.
    pub runtime_ping_interval: Duration,
    /// How long the runtime may be silent before the node is not ready.
    pub runtime_grace: Duration,
    /// Labels the Node has beside the usual ones.
    pub node_labels: std::collections::BTreeMap<String, String>,
    /// How often the lease is renewed.
    pub lease_renew_interval: Duration,
    /// How long a lease counts.
    pub lease_duration: Duration,
    /// How long an unchanged node status is left alone.
    pub node_status_report_interval: Duration,
    /// How often the runtime is compared with what is known, lest an event was lost.
    pub relist_interval: Duration,
    /// A directory of manifests of static pods.
    pub manifest_dir: Option<PathBuf>,
    /// A document with static pods.
    pub manifest_url: Option<ManifestUrl>,
    /// Whether there is no master: pods come from manifests only, and nobody is told of them.
    pub standalone: bool,
    /// Addresses of this node's pods until the API gives it some; without them, and without a network of last time, only
    /// pods on the host's network run while there is no master.
    pub pod_cidr: Option<ipnet::Ipv4Net>,
    /// What time it is.
    pub clock: Clock,
}

/// The node server's side of TLS.
#[derive(Clone)]
pub struct Serving {
    /// What the server shows.
    pub certificate: Arc<Certificate>,
    /// CA, in PEM, whose clients may ask if they are in group `system:masters`.
    pub client_ca_pem: String,
}

impl Config {
    /// Upstream's defaults for a node called `node_name` at `node_ip`, without a node server.
    pub fn new(node_name: &str, node_ip: IpAddr, data_dir: impl Into<PathBuf>) -> Config {
        Config {
            node_name: node_name.to_owned(),
            node_ip,
            data_dir: data_dir.into(),
            port: 10250,
            healthz: None,
            serving: None,
            certificates: None,
            cluster_dns: None,
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: None,
            configz: serde_json::Map::new(),
            max_pods: 110,
            system_reserved: Reserved::new(),
            kube_reserved: Reserved::new(),
            eviction_hard: signals::defaults(),
            eviction_soft: Vec::new(),
            eviction_max_pod_grace_period: 0,
            eviction_pressure_transition_period: Duration::from_secs(300),
            shutdown: None,
            housekeeping_interval: Duration::from_secs(10),
            image_gc: Policy::default(),
            dead_containers: container_gc::Policy::default(),
            streaming_idle_timeout: Duration::from_secs(4 * 3600),
            image_verification: Verification::default(),
            max_parallel_image_pulls: puller::DEFAULT_PARALLEL,
            runtime_ping_interval: Duration::from_secs(5),
            runtime_grace: Duration::from_secs(30),
            node_labels: std::collections::BTreeMap::new(),
            lease_renew_interval: Duration::from_secs(10),
            lease_duration: Duration::from_secs(40),
            node_status_report_interval: Duration::from_secs(300),
            relist_interval: Duration::from_secs(300),
            manifest_dir: None,
            manifest_url: None,
            standalone: false,
            pod_cidr: None,
            clock: Clock::Wall,
        }
    }
}
