//! What the controllers are told by their process.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv4Net;

/// Settings of all controllers; the defaults are kube-controller-manager's, addresses are Coracle's.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where pod addresses come from; each node gets a part of it.
    pub cluster_cidr: Ipv4Net,
    /// Length of the prefix of a node's part.
    pub node_cidr_mask: u8,
    /// Where node ports come from: the API server's.
    pub service_node_port_range: RangeInclusive<u16>,
    /// How long a node may keep silent before it counts as lost.
    pub node_monitor_grace: Duration,
    /// How long a pod that says nothing about it stays bound to a node that is not ready or unreachable.
    pub pod_eviction_timeout: Duration,
    /// How many finished pods are kept before the oldest are deleted; 0 keeps all.
    pub terminated_pod_gc_threshold: usize,
    /// How long a node must be gone before its pods are deleted for good.
    pub orphaned_pod_grace: Duration,
    /// The cluster CA's certificate (PEM), with which node certificates are signed. Read when needed.
    pub ca_cert: PathBuf,
    /// The cluster CA's key (PEM). Read when needed.
    pub ca_key: PathBuf,
    /// The CA certificate that every namespace publishes in `kube-root-ca.crt`; empty means the one in `ca_cert`.
    pub root_ca_pem: String,
    /// How long a signed certificate is valid.
    pub certificate_validity: Duration,
    /// How long a token in a Secret that its account lists must not have been used before it is marked as invalid, and
    /// after how long that is deleted.
    pub unused_token_period: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            cluster_cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16),
            node_cidr_mask: 24,
            service_node_port_range: 30_000..=32_767,
            node_monitor_grace: Duration::from_secs(40),
            pod_eviction_timeout: Duration::from_secs(300),
            terminated_pod_gc_threshold: 12_500,
            orphaned_pod_grace: Duration::from_secs(40),
            ca_cert: PathBuf::from("pki/ca.crt"),
            ca_key: PathBuf::from("pki/ca.key"),
            root_ca_pem: String::new(),
            certificate_validity: Duration::from_secs(365 * 24 * 60 * 60),
            unused_token_period: Duration::from_secs(365 * 24 * 60 * 60),
        }
    }
}
