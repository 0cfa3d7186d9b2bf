//! The flags: kube-apiserver's names where it has them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use api::names::{NameRule, validate_name};
use clap::{Parser, ValueEnum};
use daemon::Flags;
use ipnet::Ipv4Net;
use jiff::SignedDuration;

use crate::etcd::EtcdFlags;

/// A part of the master that can run alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Component {
    /// The API, and the only one that touches the store.
    Apiserver,
    /// Gives pods their nodes.
    Scheduler,
    /// Everything that reconciles.
    ControllerManager,
}

/// The control plane of a Coracle cluster: API server, scheduler and controller-manager in one process.
#[derive(Clone, Debug, Parser)]
#[command(name = "master", version, max_term_width = 110)]
#[group(skip)]
#[command(after_help = "Instead of running: master backup, restore, export-keys or import-keys; each has a --help")]
pub struct Options {
    /// Those of every daemon.
    #[command(flatten)]
    pub daemon: Flags,

    /// Where certificates, the admin's kubeconfig, the join token and the embedded store are kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,

    /// Address to listen on
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    pub bind_address: IpAddr,

    /// Port to serve HTTPS on (0: any free one)
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    pub secure_port: u16,

    /// Address under which minions reach this master [default: the bind address, or the address of the default route]
    #[arg(long, value_name = "IP")]
    pub advertise_address: Option<IpAddr>,

    /// More names and addresses that clients and minions reach this master by, for its certificate: NAME,IP,...
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = san)]
    pub apiserver_cert_extra_sans: Vec<String>,

    /// The etcd, if there is one.
    #[command(flatten)]
    pub etcd: EtcdFlags,

    /// Addresses on which the embedded store is served as an etcd, by TLS and to those who show a certificate that
    /// pki/etcd/ca.crt signed (as pki/etcd/client.crt is); without, on the socket store/etcd.sock only
    #[arg(long, value_name = "URL", value_delimiter = ',', value_parser = https, conflicts_with = "etcd_servers")]
    pub etcd_listen_client_urls: Vec<SocketAddr>,

    /// What to run in this process
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "apiserver,scheduler,controller-manager")]
    pub components: Vec<Component>,

    /// How components reach the API server when it is not among them
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Addresses services get their cluster IPs from
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/12")]
    pub service_cluster_ip_range: Ipv4Net,

    /// Ports services of type NodePort get theirs from
    #[arg(long, value_name = "FIRST-LAST", default_value = "30000-32767", value_parser = port_range)]
    pub service_node_port_range: (u16, u16),

    /// Addresses nodes get their pod networks from, a /24 each
    #[arg(long, value_name = "CIDR", default_value = "10.244.0.0/16")]
    pub cluster_cidr: Ipv4Net,

    /// Who signs service account tokens: the first name is in new ones, tokens of all are accepted
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        default_value = "https://kubernetes.default.svc.cluster.local"
    )]
    pub service_account_issuer: Vec<String>,

    /// The private key (PEM, curve P-256) that signs service account tokens [default: pki/sa.key in the data directory]
    #[arg(long, value_name = "FILE")]
    pub service_account_signing_key_file: Option<PathBuf>,

    /// Keys (PEM, public or private, several in a file) whose service account tokens are accepted beside those of the
    /// signing key; may be given several times
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    pub service_account_key_file: Vec<PathBuf>,

    /// Whom tokens for this API are meant for [default: the issuer]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub api_audiences: Vec<String>,

    /// Whether tokens mounted into pods are good for a year, for clients that never read a newer one
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub service_account_extend_token_expiration: bool,

    /// How long a token in a Secret that its account lists may go unused: then it is marked as invalid, and deleted after
    /// as long again
    #[arg(long, value_name = "TIME", default_value = "8760h", value_parser = time)]
    pub legacy_service_account_token_clean_up_period: Duration,

    /// Static tokens, one a line: token,user,uid,"group,group"
    #[arg(long, value_name = "FILE")]
    pub token_auth_file: Option<PathBuf>,

    /// File to log requests to, one JSON line for each of their stages (-: standard output)
    #[arg(long, value_name = "FILE")]
    pub audit_log_path: Option<PathBuf>,

    /// Which requests are logged and how much of them: an audit.k8s.io/v1 Policy [default: the metadata of all]
    #[arg(long, value_name = "FILE", requires = "audit_log_path")]
    pub audit_policy_file: Option<PathBuf>,

    /// Megabytes after which a new audit log is begun (0: never)
    #[arg(long, value_name = "MEGABYTES", default_value_t = 100)]
    pub audit_log_maxsize: u64,

    /// Old audit logs that are kept (0: all)
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub audit_log_maxbackup: usize,

    /// Days old audit logs are kept (0: without end)
    #[arg(long, value_name = "DAYS", default_value_t = 0)]
    pub audit_log_maxage: u32,

    /// How long a request may take, body and all; watches, logs and streams may take longer
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = time)]
    pub request_timeout: Duration,

    /// Requests that only read and are answered at the same time; more are told to come again
    #[arg(long, value_name = "NUMBER", default_value_t = 400)]
    pub max_requests_inflight: usize,

    /// Requests that write and are answered at the same time
    #[arg(long, value_name = "NUMBER", default_value_t = 200)]
    pub max_mutating_requests_inflight: usize,

    /// How long Events are kept
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time)]
    pub event_ttl: Duration,

    /// How long without a heartbeat until a node counts as lost
    #[arg(long, value_name = "TIME", default_value = "40s", value_parser = time)]
    pub node_monitor_grace_period: Duration,

    /// Seconds of history that are kept; 0: none beyond what readers need, and an etcd is not compacted
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub history_seconds: u64,
}

/// A time above zero: `90s`, `1m30s`, or so many seconds.
fn time(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map(Duration::from_secs).ok();
    let parsed = || text.parse::<SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
    let time = seconds.or_else(parsed).ok_or_else(|| format!("a time looks like 90s, 1m30s or 90, not {text:?}"))?;
    if time.is_zero() { Err("it must be more than nothing".to_owned()) } else { Ok(time) }
}

/// The address of a URL to listen on. Without TLS nobody could tell who asks.
fn https(url: &str) -> Result<SocketAddr, String> {
    let address = url.strip_prefix("https://").map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let address = address.and_then(|address| address.parse().ok());
    address.ok_or_else(|| format!("an address to listen on looks like https://127.0.0.1:2379, not {url:?}"))
}

/// An address, or a name (kubeadm's `ValidateCertSANs`).
fn san(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let wrong = validate_name(NameRule::Dns1123Subdomain, name);
    if text.parse::<IpAddr>().is_ok() || wrong.is_empty() {
        return Ok(text.to_owned());
    }
    Err(format!("neither an IP address nor a DNS name: {}", wrong.join(", ")))
}

fn port_range(text: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("a port range looks like 30000-32767, not {text:?}");
    let (first, last) = text.split_once('-').ok_or_else(wrong)?;
    let (first, last) = (first.parse().map_err(|_| wrong())?, last.parse().map_err(|_| wrong())?);
    if first == 0 || first > last { Err(wrong()) } else { Ok((first, last)) }
}

impl daemon::Program for Options {
    fn flags(&mut self) -> &mut Flags {
        &mut self.daemon
    }

    fn validate(&self) -> Result<()> {
        Options::validate(self)
    }
}

impl Options {
    /// Whether `component` runs in this process.
    pub fn runs(&self, component: Component) -> bool {
        self.components.contains(&component)
    }

    /// What is wrong with the flags together, before anything starts.
    pub fn validate(&self) -> Result<()> {
        ensure!(!self.components.is_empty(), "--components: nothing to run");
        if !self.runs(Component::Apiserver) && self.kubeconfig.is_none() {
            bail!("--components without apiserver needs --kubeconfig, to reach an API server elsewhere");
        }
        let (services, pods) = (self.service_cluster_ip_range, self.cluster_cidr);
        ensure!(
            services.prefix_len() <= 28,
            "--service-cluster-ip-range {services}: too small, it needs at least 16 addresses (a /28)"
        );
        ensure!(pods.prefix_len() <= 24, "--cluster-cidr {pods}: too small, every node gets a /24 of it");
        let overlap = services.contains(&pods) || pods.contains(&services);
        ensure!(!overlap, "--service-cluster-ip-range {services} and --cluster-cidr {pods} overlap");
        self.etcd.validate()?;
        ensure!(
            self.etcd_listen_client_urls.is_empty() || self.runs(Component::Apiserver),
            "--etcd-listen-client-urls: without the apiserver there is no store here"
        );
        if let Some(file) = &self.token_auth_file {
            ensure!(file.is_file(), "--token-auth-file {}: no such file", file.display());
        }
        if let Some(IpAddr::V4(ip)) = self.advertise_address {
            ensure!(!ip.is_unspecified(), "--advertise-address {ip}: minions cannot reach an unspecified address");
        }
        ensure!(self.max_requests_inflight > 0, "--max-requests-inflight 0: nobody could read");
        ensure!(self.max_mutating_requests_inflight > 0, "--max-mutating-requests-inflight 0: nobody could write");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(flags: &[&str]) -> String {
        let all = ["master", "--data-dir", "/tmp/x"].iter().chain(flags).copied();
        let options = match Options::try_parse_from(all) {
            Ok(options) => options,
            Err(error) => return error.to_string(),
        };
        options.validate().map_or_else(|e| e.to_string(), |()| "fine".to_owned())
    }

    #[test]
    fn wrong_flags_are_refused_with_a_sentence() {
        let table: &[(&[&str], &str)] = &[
            (&[], "fine"),
            (&["--components", "scheduler"], "needs --kubeconfig"),
            (&["--components", "cook"], "invalid value 'cook'"),
            (&["--service-cluster-ip-range", "10.244.0.0/16"], "overlap"),
            (&["--service-cluster-ip-range", "10.96.0.0/30"], "too small"),
            (&["--cluster-cidr", "10.1.0.0/25"], "every node gets a /24"),
            (&["--cluster-cidr", "10.1.0.0"], "invalid value"),
            (&["--etcd-servers", "localhost:2379"], "an endpoint looks like"),
            (&["--etcd-listen-client-urls", "https://127.0.0.1:2379,https://[::1]:2379/"], "fine"),
            (&["--etcd-listen-client-urls", "http://127.0.0.1:2379"], "looks like https://127.0.0.1:2379"),
            (&["--etcd-listen-client-urls", "https://localhost:2379"], "looks like https://127.0.0.1:2379"),
            (
                &["--etcd-listen-client-urls", "https://127.0.0.1:1", "--etcd-servers", "http://127.0.0.1:2"],
                "cannot be used with",
            ),
            (
                &["--etcd-listen-client-urls", "https://127.0.0.1:1", "--components", "scheduler", "--kubeconfig", "x"],
                "there is no store here",
            ),
            (&["--token-auth-file", "/does/not/exist"], "no such file"),
            (&["--audit-policy-file", "/does/not/exist"], "--audit-log-path"),
            (&["--advertise-address", "0.0.0.0"], "unspecified"),
            (&["--apiserver-cert-extra-sans", "api.example.org,*.example.org,192.0.2.1"], "fine"),
            (&["--apiserver-cert-extra-sans", "https://api.example.org"], "neither an IP address nor a DNS name"),
            (&["--service-node-port-range", "5-1"], "a port range looks like"),
            (&["--request-timeout", "90", "--event-ttl", "1h30m"], "fine"),
            (&["--request-timeout", "soon"], "a time looks like"),
            (&["--node-monitor-grace-period", "0s"], "more than nothing"),
            (&["--legacy-service-account-token-clean-up-period", "720h"], "fine"),
            (&["--event-ttl=-5s"], "a time looks like"),
            (&["--max-requests-inflight", "0"], "nobody could read"),
        ];
        for (flags, expected) in table {
            let said = wrong(flags);
            assert!(said.contains(expected), "{flags:?}: {said}");
        }
    }
}
