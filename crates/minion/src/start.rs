//! From flags to a running node, and back.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use client::Tasks;
use kubelet::bootstrap::{self, JoinOptions};
use kubelet::images::collect::Policy;
use kubelet::node::eviction::signals;
use kubelet::node::{container_gc, shutdown};
use kubelet::runtime::Runtime;
use kubelet::runtime::docker::{DockerOptions, DockerRuntime, DockerTls};
use kubelet::runtime::hollow::Hollow;
use proxy::{MemorySink, NftSink, RuleSink};

use crate::address;
use crate::options::{Options, RuntimeKind};

/// How long a stop may take before it is cut short.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// The file below the data directory that keeps the node's name, whatever the host is called later.
pub(crate) const NODE_NAME: &str = "node-name";

/// A running minion. Its containers and rules outlive it: the next start takes them over.
pub struct Minion {
    tasks: Tasks,
}

impl Minion {
    /// Joins the cluster (or comes back to it) and starts kubelet and proxy.
    pub async fn start(mut options: Options) -> Result<Minion> {
        options.validate()?;
        std::fs::create_dir_all(&options.data_dir)
            .with_context(|| format!("cannot make --data-dir {}", options.data_dir.display()))?;
        options.data_dir = real_path(&options.data_dir)?;
        let node_name = node_name(&options)?;
        let node_ip = address::node_ip(&options)?;
        // The engine is asked first: a machine without one does not become a node.
        let runtime = runtime(&options, &node_name, node_ip).await?;
        std::fs::write(options.data_dir.join(NODE_NAME), &node_name)?;
        address::remember(&options.data_dir, node_ip)?;
        let tasks = Tasks::new();
        if options.server.is_empty() {
            return Minion::start_alone(&options, node_name, node_ip, runtime, tasks).await;
        }
        let join = JoinOptions {
            servers: options.servers(),
            token: options.token.as_deref().map(str::trim).map(str::to_owned),
            node_name: node_name.clone(),
            node_ip: IpAddr::V4(node_ip),
            data_dir: options.data_dir.clone(),
        };
        let joined = bootstrap::join(&join, &tasks).await.context("cannot join the cluster")?;
        let mut config = config(&options, &node_name, node_ip);
        config.port = options.kubelet_port;
        config.serving = Some(joined.serving);
        config.certificates = Some(joined.certificates);
        let healthz = SocketAddr::new(options.healthz_bind_address, options.healthz_port);
        config.healthz = Some(healthz).filter(|address| address.port() != 0);
        config.max_pods = options.max_pods;
        config.lease_duration = Duration::from_secs(options.node_lease_duration_seconds.into());
        config.lease_renew_interval = config.lease_duration / 4;
        config.node_labels = options.node_labels.iter().cloned().collect();
        set_limits(&mut config, &options);
        let kubelet = kubelet::start(joined.client.clone(), config, runtime, &tasks).await?;
        start_proxy(&options, &node_name, node_ip, joined.client, &tasks)?;
        tracing::info!(node = node_name, ip = %node_ip, port = kubelet.port, version = env!("CARGO_PKG_VERSION"), "minion runs");
        Ok(Minion { tasks })
    }

    /// Runs the pods of manifests, with no master and nobody to ask for logs or commands.
    async fn start_alone(
        options: &Options,
        node_name: String,
        node_ip: Ipv4Addr,
        runtime: Arc<dyn Runtime>,
        tasks: Tasks,
    ) -> Result<Minion> {
        let mut config = kubelet::Config { standalone: true, ..config(options, &node_name, node_ip) };
        set_limits(&mut config, options);
        kubelet::start(kubelet::no_master(), config, runtime, &tasks).await?;
        tracing::info!(node = node_name, ip = %node_ip, version = env!("CARGO_PKG_VERSION"), "minion runs without a master");
        Ok(Minion { tasks })
    }

    /// Stops kubelet and proxy, and leaves containers and rules in place.
    pub async fn stop(self) {
        if !self.tasks.stop(STOP_GRACE).await {
            tracing::warn!("the minion did not stop in time");
        }
        tracing::info!("stopped; containers and rules stay");
    }
}

/// How the node looks after itself.
fn set_limits(config: &mut kubelet::Config, options: &Options) {
    config.system_reserved = options.system_reserved.iter().cloned().collect();
    config.kube_reserved = options.kube_reserved.iter().cloned().collect();
    if let Some(thresholds) = &options.eviction_hard {
        config.eviction_hard.clone_from(thresholds);
    }
    // Refused before anything started, where a period is missing.
    config.eviction_soft =
        signals::soft(&options.eviction_soft, &options.eviction_soft_grace_period).unwrap_or_default();
    for threshold in config.eviction_hard.iter_mut().chain(&mut config.eviction_soft) {
        let more = options.eviction_minimum_reclaim.iter().find(|(signal, _)| *signal == threshold.signal);
        threshold.min_reclaim = more.map(|(_, amount)| *amount);
    }
    config.eviction_max_pod_grace_period = options.eviction_max_pod_grace_period;
    config.eviction_pressure_transition_period = options.eviction_pressure_transition_period;
    let (all, critical) = (options.shutdown_grace_period, options.shutdown_grace_period_critical_pods);
    config.shutdown = (!all.is_zero()).then(|| shutdown::Policy::new(all, critical));
    // Refused before anything started, where it is no policy.
    config.image_verification = options.image_verification().unwrap_or_default();
    config.streaming_idle_timeout = options.streaming_connection_idle_timeout;
    config.max_parallel_image_pulls = options.max_parallel_image_pulls.into();
    let bound = |count: i32| usize::try_from(count).ok();
    config.dead_containers = container_gc::Policy {
        per_container: bound(options.maximum_dead_containers_per_container),
        on_node: bound(options.maximum_dead_containers),
        min_age: options.minimum_container_ttl_duration,
    };
    let signed = |duration: Duration| duration.try_into().unwrap_or(jiff::SignedDuration::MAX);
    config.image_gc = Policy {
        high_percent: options.image_gc_high_threshold,
        low_percent: options.image_gc_low_threshold,
        min_age: signed(options.minimum_image_ttl_duration),
        max_age: options.image_maximum_gc_age.map(signed),
        pinned: options.pinned_images.clone(),
    };
}

/// What the kubelet is told with and without a master.
fn config(options: &Options, node_name: &str, node_ip: Ipv4Addr) -> kubelet::Config {
    let manifest_url = options.manifest_url.clone().map(|url| kubelet::config::ManifestUrl {
        url,
        headers: options.manifest_url_header.clone(),
        interval: Duration::from_secs(options.http_check_frequency),
    });
    kubelet::Config {
        manifest_dir: options.pod_manifest_path.clone(),
        manifest_url,
        pod_cidr: options.pod_cidr,
        cluster_dns: options.cluster_dns.or(own_dns(options).map(|dns| IpAddr::V4(dns.address))),
        cluster_domain: options.cluster_domain.trim_end_matches('.').to_owned(),
        resolv_conf: options.resolv_conf.clone(),
        configz: [("minion".to_owned(), options.effective())].into_iter().collect(),
        ..kubelet::Config::new(node_name, IpAddr::V4(node_ip), &options.data_dir)
    }
}

/// The node's name: the flag's, the one this machine joined with, or the host's.
pub(crate) fn node_name(options: &Options) -> Result<String> {
    let stored = stored_name(&options.data_dir);
    match (&options.node_name, stored) {
        (None, Some(stored)) => Ok(stored),
        _ => options.node_name(),
    }
}

/// A directory as the kernel's table of mounts has it. Under any other name mounts below it would not be found, and what
/// is behind them would be deleted with a pod's files.
pub(crate) fn real_path(dir: &Path) -> Result<PathBuf> {
    dir.canonicalize().with_context(|| format!("--data-dir {}", dir.display()))
}

fn stored_name(data_dir: &Path) -> Option<String> {
    let name = std::fs::read_to_string(data_dir.join(NODE_NAME)).ok()?;
    Some(name.trim().to_owned()).filter(|n| !n.is_empty())
}

/// How this machine's engine is reached, and which containers on it are this node's.
pub(crate) fn docker_options(options: &Options, node_name: &str, node_ip: Option<Ipv4Addr>) -> DockerOptions {
    let files = (&options.docker_tls_ca, &options.docker_tls_cert, &options.docker_tls_key);
    let tls = match files {
        (Some(ca), Some(certificate), Some(key)) => {
            Some(DockerTls { ca: ca.clone(), certificate: certificate.clone(), key: key.clone() })
        }
        _ => None,
    };
    let endpoint = options.docker_endpoint.clone();
    DockerOptions { endpoint, tls, mtu: mtu(options, node_ip), ..DockerOptions::new(node_name, &options.data_dir) }
}

/// How long packets may be where nobody says so: Docker's, and everybody's.
const USUAL_MTU: u32 = 1500;

/// How long pods' packets may be: as long as the node's own, less what the overlay adds.
fn mtu(options: &Options, node_ip: Option<Ipv4Addr>) -> Option<u32> {
    let own = node_ip.and_then(interface_mtu);
    let inside = |own: u32| own.saturating_sub(proxy::overlay::OVERHEAD);
    if options.overlay { Some(inside(own.unwrap_or(USUAL_MTU))) } else { own }
}

/// The longest packet of the interface that has the node's address.
fn interface_mtu(node_ip: Ipv4Addr) -> Option<u32> {
    let has_address = |address: Option<&nix::sys::socket::SockaddrStorage>| {
        address.and_then(|a| a.as_sockaddr_in()).is_some_and(|a| a.ip() == node_ip)
    };
    let interface = nix::ifaddrs::getifaddrs().ok()?.find(|i| has_address(i.address.as_ref()))?.interface_name;
    // An address with a label is told under that.
    let interface = interface.split(':').next()?;
    // Loopback's is no measure of a network.
    let mtu = std::fs::read_to_string(format!("/sys/class/net/{interface}/mtu")).ok().filter(|_| interface != "lo")?;
    mtu.trim().parse().ok()
}

async fn runtime(options: &Options, node_name: &str, node_ip: Ipv4Addr) -> Result<Arc<dyn Runtime>> {
    if options.runtime == RuntimeKind::Hollow {
        return Ok(Arc::new(Hollow::new(kubelet::clock::Clock::Wall)));
    }
    let docker = DockerRuntime::connect(docker_options(options, node_name, Some(node_ip))).await;
    Ok(Arc::new(docker.with_context(|| format!("no Docker Engine answers on {}", options.docker_endpoint))?))
}

/// The DNS server of this node. None where nothing is set on the machine, or nobody knows the cluster's names.
fn own_dns(options: &Options) -> Option<proxy::dns::Config> {
    let serves = options.runtime == RuntimeKind::Docker && !options.server.is_empty();
    let address = options.own_dns().filter(|_| serves)?;
    let domain = options.cluster_domain.clone();
    Some(proxy::dns::Config { address, domain, resolv_conf: options.resolv_conf.clone() })
}

fn start_proxy(
    options: &Options,
    node_name: &str,
    node_ip: Ipv4Addr,
    client: kube::Client,
    tasks: &Tasks,
) -> Result<()> {
    let config = proxy::Config {
        node_port_addresses: options.node_port_networks(node_ip)?,
        cluster_cidr: options.cluster_cidr,
        service_cidr: options.service_cluster_ip_range,
        dns: own_dns(options),
        overlay: options.overlay,
        ..proxy::Config::new(node_name, node_ip)
    };
    let sink: Arc<dyn RuleSink> = match options.runtime {
        RuntimeKind::Docker => Arc::new(NftSink::new(config.clone(), tasks)),
        RuntimeKind::Hollow => Arc::new(MemorySink::default()),
    };
    proxy::start(client, config, sink, tasks);
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn a_node_keeps_its_name_when_the_host_has_another() {
        let folder = tempfile::tempdir().unwrap();
        let name = |flags: &[&str]| {
            let own = ["minion", "--server", "https://127.0.0.1:6443", "--data-dir", folder.path().to_str().unwrap()];
            node_name(&Options::try_parse_from(own.iter().chain(flags)).unwrap()).unwrap()
        };
        assert_eq!(name(&[]), nix::unistd::gethostname().unwrap().to_string_lossy().trim().to_lowercase());
        std::fs::write(folder.path().join(NODE_NAME), "box1\n").unwrap();
        assert_eq!(name(&[]), "box1", "the one it joined with");
        assert_eq!(name(&["--node-name", "box2"]), "box2", "unless it is told");
    }
}
