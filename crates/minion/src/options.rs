//! The flags: the kubelet's and kube-proxy's names where they have them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use api::names::{NameRule, validate_name};
use clap::{Parser, ValueEnum};
use daemon::Flags;
use ipnet::Ipv4Net;
use kubelet::images::access::Verification;
use kubelet::node::eviction::signals::{Amount, Signal, Threshold, of_signal, soft};

/// What runs the containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RuntimeKind {
    /// A Docker Engine.
    #[default]
    Docker,
    /// Nothing runs: containers exist in memory only, and no rule is set on the machine. For tests and load.
    Hollow,
}

/// A node of a Coracle cluster: kubelet and service proxy in one process.
#[derive(Clone, Debug, Parser)]
#[command(name = "minion", version, max_term_width = 110)]
#[group(skip)]
pub struct Options {
    /// Those of every daemon.
    #[command(flatten)]
    pub daemon: Flags,

    /// The master's URL, e.g. https://10.0.0.1:6443; those of all masters that share an etcd, with commas between; without
    /// one, only the pods of manifests run
    #[arg(long, value_name = "URL", value_delimiter = ',', required_unless_present_any = ["cleanup", "pod_manifest_path", "manifest_url"])]
    pub server: Vec<String>,

    /// The join token from the master's data directory; needed until the minion has a certificate of its own
    #[arg(long, value_name = "TOKEN", env = "CORACLE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// Where the certificate and pods' volumes are kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Name of the Node [default: the host name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,

    /// Address other machines reach this one by [default: the one that reaches the master, where there is one such]
    #[arg(long, value_name = "IP")]
    pub node_ip: Option<IpAddr>,

    /// The Docker Engine to drive: unix:///path or tcp://host:port
    #[arg(long, value_name = "URL", default_value = "unix:///var/run/docker.sock")]
    pub docker_endpoint: String,

    /// Who certifies an engine at tcp://, in PEM
    #[arg(long, value_name = "FILE", requires_all = ["docker_tls_cert", "docker_tls_key"])]
    pub docker_tls_ca: Option<PathBuf>,

    /// The certificate such an engine asks for, in PEM
    #[arg(long, value_name = "FILE", requires = "docker_tls_ca")]
    pub docker_tls_cert: Option<PathBuf>,

    /// Its key, in PEM
    #[arg(long, value_name = "FILE", requires = "docker_tls_ca")]
    pub docker_tls_key: Option<PathBuf>,

    /// What runs the containers
    #[arg(long, value_enum, default_value_t)]
    pub runtime: RuntimeKind,

    /// Port of the kubelet's HTTPS server (0: any free one)
    #[arg(long, value_name = "PORT", default_value_t = 10250)]
    pub kubelet_port: u16,

    /// Port on this machine that tells in plain HTTP whether the kubelet is well (0: none)
    #[arg(long, value_name = "PORT", default_value_t = 10248)]
    pub healthz_port: u16,

    /// Address of the health port
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub healthz_bind_address: IpAddr,

    /// Addresses of all pods in the cluster, as the master has it
    #[arg(long, value_name = "CIDR", default_value = "10.244.0.0/16")]
    pub cluster_cidr: Ipv4Net,

    /// Addresses of all services in the cluster, as the master has it
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/12")]
    pub service_cluster_ip_range: Ipv4Net,

    /// NodePorts answer on addresses in these networks only, or on the node's own: CIDR,... or primary [default: on all
    /// but loopback]
    #[arg(long = "nodeport-addresses", value_name = "CIDRS", value_delimiter = ',')]
    pub node_port_addresses: Vec<String>,

    /// Carry packets for other nodes' pods in VXLAN (UDP port 8472), for nodes that are not on one network segment; to be
    /// given to all minions of a cluster or to none
    #[arg(long)]
    pub overlay: bool,

    /// DNS server for pods [default: the minion's own, at the tenth address of the services' range]
    #[arg(long, value_name = "IP")]
    pub cluster_dns: Option<IpAddr>,

    /// Domain that the cluster's names end in, as the master has it
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,

    /// Names the servers that the minion's own DNS server, and pods with dnsPolicy Default, ask [default:
    /// /etc/resolv.conf, or what systemd-resolved asks where its stub stands there]
    #[arg(long, value_name = "FILE")]
    pub resolv_conf: Option<PathBuf>,

    /// Seconds the node's lease holds; it is renewed after a quarter of that. Shorter than the master's
    /// --node-monitor-grace-period
    #[arg(long, value_name = "SECONDS", default_value_t = 40, value_parser = clap::value_parser!(u32).range(4..))]
    pub node_lease_duration_seconds: u32,

    /// How many pods the node takes
    #[arg(long, value_name = "N", default_value_t = 110)]
    pub max_pods: u32,

    /// What of the machine is kept for the system: cpu=200m,memory=150Mi,ephemeral-storage=1Gi
    #[arg(long, value_name = "RESOURCES", value_delimiter = ',', value_parser = kubelet::node::reserved::parse)]
    pub system_reserved: Vec<(String, i64)>,

    /// What of the machine is kept for the minion and the engine
    #[arg(long, value_name = "RESOURCES", value_delimiter = ',', value_parser = kubelet::node::reserved::parse)]
    pub kube_reserved: Vec<(String, i64)>,

    /// What must stay free, or pods are evicted [default: memory.available<100Mi, nodefs.available<10%,
    /// nodefs.inodesFree<5%, imagefs.available<15%, imagefs.inodesFree<5%]
    #[arg(long, value_name = "THRESHOLDS", value_delimiter = ',')]
    pub eviction_hard: Option<Vec<Threshold>>,

    /// What may be short for a while only, or pods are evicted: memory.available<1.5Gi
    #[arg(long, value_name = "THRESHOLDS", value_delimiter = ',')]
    pub eviction_soft: Vec<Threshold>,

    /// For how long, of each soft threshold: memory.available=1m30s
    #[arg(long, value_name = "PERIODS", value_delimiter = ',', value_parser = soft_grace)]
    pub eviction_soft_grace_period: Vec<(Signal, Duration)>,

    /// Seconds a pod may take at most that is evicted by a soft threshold (negative: as long as it asks for)
    #[arg(long, value_name = "SECONDS", default_value_t = 0, allow_negative_numbers = true)]
    pub eviction_max_pod_grace_period: i64,

    /// How much more than a threshold is won back once pods are evicted: memory.available=0Mi,nodefs.available=500Mi
    #[arg(long, value_name = "AMOUNTS", value_delimiter = ',', value_parser = minimum_reclaim)]
    pub eviction_minimum_reclaim: Vec<(Signal, Amount)>,

    /// How long a pressure condition stays after its cause is gone
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub eviction_pressure_transition_period: Duration,

    /// Percent of the disk in use from which on unused images are removed
    #[arg(long, value_name = "PERCENT", default_value_t = 85, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub image_gc_high_threshold: u8,

    /// Percent of the disk in use down to which they are
    #[arg(long, value_name = "PERCENT", default_value_t = 80, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub image_gc_low_threshold: u8,

    /// How long an image stays at least
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    pub minimum_image_ttl_duration: Duration,

    /// How long an image nobody uses stays at most [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub image_maximum_gc_age: Option<Duration>,

    /// How many ended containers of each name are kept, for their logs (negative: all)
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    pub maximum_dead_containers_per_container: i32,

    /// How many ended containers are kept on the node (negative: all)
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true)]
    pub maximum_dead_containers: i32,

    /// How long an ended container stays at least after it was made
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub minimum_container_ttl_duration: Duration,

    /// Images that are never removed: names, or beginnings of names with * behind
    #[arg(long, value_name = "IMAGES", value_delimiter = ',')]
    pub pinned_images: Vec<String>,

    /// For which images that are on the node a pod must show credentials: NeverVerify, NeverVerifyPreloadedImages (all that
    /// were not pulled for a pod), NeverVerifyAllowlistedImages, AlwaysVerify
    #[arg(long, value_name = "POLICY", default_value = "NeverVerifyPreloadedImages")]
    pub image_pull_credentials_verification_policy: String,

    /// The images of NeverVerifyAllowlistedImages: names without tag, or beginnings of names with /* behind
    #[arg(long, value_name = "IMAGES", value_delimiter = ',')]
    pub preloaded_images_verification_allowlist: Vec<String>,

    /// How many images are pulled at a time
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub max_parallel_image_pulls: u16,

    /// How long a stream into a pod (exec, attach, port-forward) may be without traffic (0s: for ever)
    #[arg(long, value_name = "DURATION", default_value = "4h", value_parser = duration)]
    pub streaming_connection_idle_timeout: Duration,

    /// How long pods have to end when the machine shuts down, by systemd-logind (0s: none)
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub shutdown_grace_period: Duration,

    /// What of that is for critical pods (priority 2000000000 and above), which end last
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub shutdown_grace_period_critical_pods: Duration,

    /// Labels to register the node with: key=value,...
    #[arg(long, value_name = "LABELS", value_delimiter = ',', value_parser = label)]
    pub node_labels: Vec<(String, String)>,

    /// A directory whose files are manifests of static pods, which run with and without a master
    #[arg(long, value_name = "DIR", alias = "manifest-dir")]
    pub pod_manifest_path: Option<PathBuf>,

    /// A document with static pods
    #[arg(long, value_name = "URL")]
    pub manifest_url: Option<http::Uri>,

    /// A header of requests for --manifest-url, name:value; may be given more than once
    #[arg(long, value_name = "HEADER", value_parser = header)]
    pub manifest_url_header: Vec<(String, String)>,

    /// Seconds between two requests for --manifest-url
    #[arg(long, value_name = "SECONDS", default_value_t = 20)]
    pub http_check_frequency: u64,

    /// Addresses of this node's pods while no master has given it some
    #[arg(long, value_name = "CIDR")]
    pub pod_cidr: Option<Ipv4Net>,

    /// Remove every container, network, rule, mount and file a minion made on this machine, and exit
    #[arg(long)]
    pub cleanup: bool,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("a label looks like key=value, not {text:?}"))?;
    Ok((key.to_owned(), value.to_owned()))
}

fn soft_grace(text: &str) -> Result<(Signal, Duration), String> {
    of_signal(text, duration)
}

fn minimum_reclaim(text: &str) -> Result<(Signal, Amount), String> {
    of_signal(text, str::parse)
}

/// A duration as Go prints it: `90s`, `2m`, `1h30m`.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration =
        text.parse().map_err(|_| format!("a duration looks like 90s or 2m, not {text:?}"))?;
    Duration::try_from(parsed).map_err(|_| format!("{text}: must not be negative"))
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or_else(|| format!("a header looks like name:value, not {text:?}"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Flags whose values are shown to nobody.
const SECRET: &[&str] = &["token", "manifest-url", "manifest-url-header"];

impl daemon::Program for Options {
    const COMMANDS: &[&str] = &["cleanup"];

    fn flags(&mut self) -> &mut Flags {
        &mut self.daemon
    }

    fn validate(&self) -> Result<()> {
        Options::validate(self)
    }
}

impl Options {
    /// What every flag came out as.
    pub fn effective(&self) -> serde_json::Value {
        self.daemon.shown(SECRET)
    }

    /// What is wrong with the flags together, before anything starts.
    pub fn validate(&self) -> Result<()> {
        let engine = &self.docker_endpoint;
        ensure!(
            engine.starts_with("unix://") || engine.starts_with("tcp://"),
            "--docker-endpoint {engine:?}: it looks like unix:///var/run/docker.sock or tcp://10.0.0.2:2375"
        );
        ensure!(
            self.docker_tls_ca.is_none() || engine.starts_with("tcp://"),
            "--docker-tls-ca: a local socket has no TLS, --docker-endpoint is {engine:?}"
        );
        if self.cleanup {
            return Ok(());
        }
        for server in self.servers() {
            ensure!(server.starts_with("https://"), "--server {server:?}: it looks like https://10.0.0.1:6443");
        }
        ensure!(self.http_check_frequency > 0, "--http-check-frequency: must be at least 1");
        if let Some(url) = &self.manifest_url {
            let is_web = matches!(url.scheme_str(), Some("http" | "https"));
            ensure!(is_web && url.host().is_some(), "--manifest-url {url}: it looks like http://10.0.0.1/pods.yaml");
        }
        let wrong = validate_name(NameRule::Dns1123Subdomain, &self.node_name()?);
        ensure!(wrong.is_empty(), "--node-name {:?}: {}", self.node_name()?, wrong.join(", "));
        ensure!(self.max_pods > 0, "--max-pods: must be at least 1");
        if let Err(error) = soft(&self.eviction_soft, &self.eviction_soft_grace_period) {
            bail!("--eviction-soft: {error}");
        }
        if let Err(error) = self.image_verification() {
            bail!("--image-pull-credentials-verification-policy: {error}");
        }
        // The words of upstream's `ValidateKubeletConfiguration`.
        let (all, critical) = (self.shutdown_grace_period, self.shutdown_grace_period_critical_pods);
        ensure!(
            critical <= all,
            "--shutdown-grace-period-critical-pods {critical:?} must be <= --shutdown-grace-period {all:?}"
        );
        let second = Duration::from_secs(1);
        for (flag, period) in [("--shutdown-grace-period", all), ("--shutdown-grace-period-critical-pods", critical)] {
            ensure!(
                period.is_zero() || period >= second,
                "{flag} {period:?} must be either zero or otherwise >= 1 sec"
            );
        }
        self.node_port_networks(Ipv4Addr::UNSPECIFIED)?;
        let domain = self.cluster_domain.trim_end_matches('.');
        let wrong = validate_name(NameRule::Dns1123Subdomain, domain);
        ensure!(wrong.is_empty(), "--cluster-domain {domain:?}: {}", wrong.join(", "));
        if let Some(file) = &self.resolv_conf {
            ensure!(file.is_file(), "--resolv-conf {}: no such file", file.display());
        }
        let (low, high) = (self.image_gc_low_threshold, self.image_gc_high_threshold);
        ensure!(low < high, "--image-gc-low-threshold {low}: must be below --image-gc-high-threshold {high}");
        match self.node_ip {
            Some(IpAddr::V6(ip)) => bail!("--node-ip {ip}: only IPv4 is served"),
            Some(IpAddr::V4(ip)) => ensure!(!ip.is_unspecified(), "--node-ip {ip}: not an address of this machine"),
            None => {}
        }
        Ok(())
    }

    /// For which images a pod must show credentials.
    pub fn image_verification(&self) -> Result<Verification, String> {
        let list = &self.preloaded_images_verification_allowlist;
        Verification::new(&self.image_pull_credentials_verification_policy, list)
    }

    /// The networks in which NodePorts answer on a node with that address; all but loopback where there are none.
    pub fn node_port_networks(&self, node_ip: Ipv4Addr) -> Result<Vec<Ipv4Net>> {
        let given = &self.node_port_addresses;
        if given.iter().any(|word| word == "primary") {
            ensure!(given.len() == 1, "--nodeport-addresses: primary stands alone");
            return Ok(vec![Ipv4Net::from(node_ip)]);
        }
        let parse = |word: &String| {
            word.parse().with_context(|| format!("--nodeport-addresses {word:?}: neither primary nor an IPv4 network"))
        };
        given.iter().map(parse).collect()
    }

    /// The address of the minion's own DNS server: that of the DNS service, the tenth of the range as everywhere. None
    /// where pods are to ask another, or the range is too small.
    pub fn own_dns(&self) -> Option<Ipv4Addr> {
        let range = self.service_cluster_ip_range.trunc();
        let tenth = Ipv4Addr::from(u32::from(range.network()).checked_add(10)?);
        (self.cluster_dns.is_none() && range.contains(&tenth)).then_some(tenth)
    }

    /// The masters' URLs without a trailing slash.
    pub fn servers(&self) -> Vec<String> {
        self.server.iter().map(|server| server.trim_end_matches('/').to_owned()).collect()
    }

    /// The Node's name: as given, or the host name in lower case, as the kubelet has it.
    pub fn node_name(&self) -> Result<String> {
        match &self.node_name {
            Some(name) => Ok(name.clone()),
            None => Ok(nix::unistd::gethostname()?.to_string_lossy().trim().to_lowercase()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(flags: &[&str]) -> String {
        let all = ["minion", "--data-dir", "/tmp/x"].iter().chain(flags).copied();
        let options = match Options::try_parse_from(all) {
            Ok(options) => options,
            Err(error) => return error.to_string(),
        };
        options.validate().map_or_else(|e| e.to_string(), |()| "fine".to_owned())
    }

    #[test]
    fn wrong_flags_are_refused_with_a_sentence() {
        let server = ["--server", "https://127.0.0.1:6443", "--node-name", "box1"];
        let table: &[(&[&str], &str)] = &[
            (&[], "fine"),
            (&["--image-pull-credentials-verification-policy", "Sometimes"], "unknown image pull credential"),
            (&["--preloaded-images-verification-allowlist", "app"], "of use only with the policy"),
            (&["--server", "http://127.0.0.1:6443"], "it looks like https://"),
            (&["--server", "https://10.0.0.1:6443,https://10.0.0.2:6443"], "fine"),
            (&["--server", "https://10.0.0.1:6443,10.0.0.2"], "it looks like https://"),
            (&["--node-name", "Box_1"], "a lowercase RFC 1123 subdomain"),
            (&["--docker-endpoint", "/var/run/docker.sock"], "it looks like unix://"),
            (&["--runtime", "rkt"], "invalid value 'rkt'"),
            (&["--node-ip", "::1"], "only IPv4"),
            (&["--node-ip", "0.0.0.0"], "not an address"),
            (&["--max-pods", "0"], "at least 1"),
            (&["--nodeport-addresses", "primary"], "fine"),
            (&["--nodeport-addresses", "192.0.2.0/24,10.0.0.0/8"], "fine"),
            (&["--nodeport-addresses", "primary,10.0.0.0/8"], "stands alone"),
            (&["--nodeport-addresses", "eth0"], "neither primary nor"),
            (&["--cluster-domain", "corp.example.org."], "fine"),
            (&["--cluster-domain", "not a domain"], "a lowercase RFC 1123 subdomain"),
            (&["--resolv-conf", "/nonexistent"], "no such file"),
            (&["--node-labels", "disk"], "key=value"),
            (&["--node-lease-duration-seconds", "3"], "invalid value '3'"),
            (&["--docker-tls-ca", "/ca.pem"], "required arguments"),
            (&["--system-reserved", "cpu=200m,memory=150Mi"], "fine"),
            (&["--system-reserved", "gpu=1"], "cannot reserve \"gpu\""),
            (&["--eviction-hard", "memory.available<5%,pid.available<100"], "fine"),
            (&["--eviction-hard", "cpu.available<1"], "unsupported eviction signal"),
            (
                &["--eviction-soft", "memory.available<1.5Gi"],
                "grace period must be specified for the soft eviction threshold",
            ),
            (
                &["--eviction-soft", "memory.available<1.5Gi", "--eviction-soft-grace-period", "memory.available=90s"],
                "fine",
            ),
            (&["--eviction-soft-grace-period", "memory.available=soon"], "memory.available: a duration looks like"),
            (&["--eviction-minimum-reclaim", "nodefs.available=5%,cpu.available=1"], "unsupported eviction signal"),
            (&["--eviction-max-pod-grace-period", "-1"], "fine"),
            (&["--image-gc-low-threshold", "85"], "must be below"),
            (&["--minimum-image-ttl-duration", "soon"], "a duration looks like"),
            (&["--maximum-dead-containers-per-container", "-1", "--maximum-dead-containers", "100"], "fine"),
            (&["--minimum-container-ttl-duration", "1"], "a duration looks like"),
            (&["--shutdown-grace-period", "30s", "--shutdown-grace-period-critical-pods", "10s"], "fine"),
            (&["--shutdown-grace-period-critical-pods", "10s"], "must be <= --shutdown-grace-period"),
            (&["--shutdown-grace-period", "500ms"], "must be either zero or otherwise >= 1 sec"),
            (&["--pod-manifest-path", "/etc/pods"], "fine"),
            (&["--manifest-url", "/pods.yaml"], "it looks like http://"),
            (&["--manifest-url-header", "Token"], "name:value"),
            (&["--http-check-frequency", "0"], "at least 1"),
        ];
        for (flags, expected) in table {
            let given: Vec<&str> =
                server.chunks(2).filter(|s| !flags.contains(&s[0])).flatten().chain(*flags).copied().collect();
            assert!(said(&given).contains(expected), "{flags:?}: {}", said(&given));
        }
        assert!(said(&[]).contains("--server"));
        assert_eq!(said(&["--cleanup"]), "fine");
    }

    #[test]
    fn dns_is_served_at_the_tenth_address_unless_pods_ask_another() {
        let own = |flags: &[&str]| {
            let all = ["minion", "--data-dir", "/tmp/x", "--server", "https://127.0.0.1:6443"];
            let options = Options::try_parse_from(all.iter().chain(flags).copied()).unwrap();
            options.own_dns().map(|ip| ip.to_string()).unwrap_or_default()
        };
        assert_eq!(own(&[]), "10.96.0.10");
        assert_eq!(own(&["--service-cluster-ip-range", "10.43.7.0/16"]), "10.43.0.10");
        assert_eq!(own(&["--service-cluster-ip-range", "10.43.0.0/29"]), "");
        assert_eq!(own(&["--cluster-dns", "10.96.0.53"]), "");
    }

    #[test]
    fn the_node_has_the_address_that_reaches_the_master() {
        let all = ["minion", "--data-dir", "/tmp/x", "--server", "https://127.0.0.1:6443/"];
        let options = Options::try_parse_from(all).unwrap();
        assert_eq!(crate::address::node_ip(&options).unwrap(), Ipv4Addr::LOCALHOST);
        assert_eq!(options.servers(), ["https://127.0.0.1:6443"]);
    }
}
