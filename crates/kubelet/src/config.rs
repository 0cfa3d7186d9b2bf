//! What a kubelet is told when it starts.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::server::Certificate;

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
    /// How the node server proves itself and whom it believes; `None`: no server.
    pub serving: Option<Serving>,
    /// The cluster's DNS server; without one, pods resolve names as their node does.
    pub cluster_dns: Option<IpAddr>,
    /// Domain that cluster names end in.
    pub cluster_domain: String,
    /// How many pods the node takes.
    pub max_pods: u32,
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
            serving: None,
            cluster_dns: None,
            cluster_domain: "cluster.local".to_owned(),
            max_pods: 110,
            node_labels: std::collections::BTreeMap::new(),
            lease_renew_interval: Duration::from_secs(10),
            lease_duration: Duration::from_secs(40),
            node_status_report_interval: Duration::from_secs(300),
            relist_interval: Duration::from_secs(300),
            clock: Clock::Wall,
        }
    }
}
