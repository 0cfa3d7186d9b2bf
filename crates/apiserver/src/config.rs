//! What an API server is told at start.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::audit::AuditConfig;

/// The flags of kube-apiserver that matter here, under their upstream names and with their upstream defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where certificates, keys, the join token and the admin's kubeconfig live.
    pub data_dir: PathBuf,
    /// The address the HTTPS listener binds to (part of the serving certificate).
    pub bind_address: IpAddr,
    /// The port clients reach the server at.
    pub secure_port: u16,
    /// The address other boxes reach the server at.
    pub advertise_address: IpAddr,
    /// More names and addresses clients know the server by (part of the serving certificate).
    pub cert_extra_sans: Vec<String>,
    /// The addresses the store is reached by as an etcd, over TLS (part of that certificate); none: it is not.
    pub etcd_addresses: Vec<IpAddr>,
    /// Whether other masters may have begun the cluster that is in the store.
    pub store_is_shared: bool,
    /// Where service addresses come from.
    pub service_cluster_ip_range: Ipv4Net,
    /// Where node ports come from.
    pub service_node_port_range: RangeInclusive<u16>,
    /// A static token file: lines `token,user,uid,"group,group"`.
    pub token_auth_file: Option<PathBuf>,
    /// Who signs service account tokens: the first name is in new ones, tokens of all are accepted.
    pub service_account_issuers: Vec<String>,
    /// The private key that signs service account tokens, if it is not one of the server's own making.
    pub service_account_signing_key_file: Option<PathBuf>,
    /// More keys, public or private, whose service account tokens are accepted.
    pub service_account_key_files: Vec<PathBuf>,
    /// Whom tokens for this API are meant for; empty: the issuer.
    pub api_audiences: Vec<String>,
    /// Whether tokens of pods are good for a year while clients that never read a newer one are still about.
    pub service_account_extend_token_expiration: bool,
    /// The audit log, if there is one.
    pub audit: Option<AuditConfig>,
    /// The DNS suffix of services.
    pub cluster_domain: String,
    /// Reported by `/version`.
    pub git_version: String,
    /// Shown at `/configz`, to who may see it: what the process around was told.
    pub configz: serde_json::Value,
    /// How long Events are kept.
    pub event_ttl: Duration,
    /// How long history is kept in the store; also how often it is compacted. `None` leaves compaction to others.
    pub compaction_interval: Option<Duration>,
    /// How long a request may take, body and all; watches, logs and streams may take longer.
    pub request_timeout: Duration,
    /// Requests in flight that only read, watches and logs not counted.
    pub max_requests_inflight: usize,
    /// Requests in flight that write.
    pub max_mutating_requests_inflight: usize,
    /// Connections held at once; more wait to be accepted.
    pub max_connections: usize,
    /// Upgraded connections at a time; more are told to come again.
    pub max_tunnels: usize,
}

impl Config {
    /// The defaults around a data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Config {
        Config {
            data_dir: data_dir.into(),
            bind_address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            secure_port: 6443,
            advertise_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            cert_extra_sans: Vec::new(),
            etcd_addresses: Vec::new(),
            store_is_shared: false,
            service_cluster_ip_range: Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 12),
            service_node_port_range: 30_000..=32_767,
            token_auth_file: None,
            audit: None,
            service_account_issuers: vec!["https://kubernetes.default.svc.cluster.local".to_owned()],
            service_account_signing_key_file: None,
            service_account_key_files: Vec::new(),
            api_audiences: Vec::new(),
            service_account_extend_token_expiration: true,
            cluster_domain: "cluster.local".to_owned(),
            git_version: "v1.35.0+coracle.0.1.0".to_owned(),
            configz: serde_json::json!({}),
            event_ttl: Duration::from_secs(3600),
            compaction_interval: Some(Duration::from_secs(300)),
            request_timeout: Duration::from_secs(60),
            max_requests_inflight: 400,
            max_mutating_requests_inflight: 200,
            max_connections: 16_384,
            max_tunnels: 8192,
        }
    }

    /// The address of the `kubernetes` service: the first of the range.
    pub fn kubernetes_service_ip(&self) -> Ipv4Addr {
        let network = u32::from(self.service_cluster_ip_range.network());
        Ipv4Addr::from(network.saturating_add(1))
    }

    /// The address of the DNS service: the tenth of the range, as clients and nodes expect. None where that is too small.
    pub fn dns_service_ip(&self) -> Option<Ipv4Addr> {
        let range = self.service_cluster_ip_range.trunc();
        let tenth = Ipv4Addr::from(u32::from(range.network()).saturating_add(10));
        range.contains(&tenth).then_some(tenth)
    }
}
