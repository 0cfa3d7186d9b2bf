//! From flags to a running control plane, and back to nothing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use api::well_known::NAMESPACE_SYSTEM;
use apiserver::{ApiServer, User};
use client::Tasks;
use store::Store;
use store::embedded::Embedded;
use tokio::net::TcpListener;

use crate::options::{Component, Options};
use crate::{certificates, etcd_face, place};

/// How long a stop may take before it is cut short.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// A running master. Call [`Master::stop`]; dropping it alone leaves the tasks running.
pub struct Master {
    server: Option<ApiServer>,
    address: SocketAddr,
    tasks: Tasks,
    serving: Tasks,
    embedded: Option<Arc<Embedded>>,
    etcd_addresses: Vec<SocketAddr>,
    /// No restore may begin.
    _place: Option<place::Lock>,
}

impl Master {
    /// Starts what `options` ask for; returns when the API is ready. The listener is bound first, so that a port in
    /// use is found before anything is written.
    pub async fn start(options: Options) -> Result<Master> {
        options.validate()?;
        let mut master = if options.runs(Component::Apiserver) {
            Master::serve(&options).await?
        } else {
            let address = SocketAddr::new(options.bind_address, 0);
            let (tasks, serving) = (Tasks::new(), Tasks::new());
            let _place = options.data_dir.exists().then(|| place::enter(&options.data_dir)).transpose()?;
            Master { server: None, address, tasks, serving, embedded: None, etcd_addresses: Vec::new(), _place }
        };
        master.start_components(&options).await?;
        Ok(master)
    }

    async fn serve(options: &Options) -> Result<Master> {
        let wanted = SocketAddr::new(options.bind_address, options.secure_port);
        let listener = TcpListener::bind(wanted).await.with_context(|| format!("cannot listen on {wanted}"))?;
        let address = listener.local_addr()?;
        let etcd_listeners = etcd_face::bind(&options.etcd_listen_client_urls).await?;
        std::fs::create_dir_all(&options.data_dir)
            .with_context(|| format!("cannot make --data-dir {}", options.data_dir.display()))?;
        let place = place::enter(&options.data_dir)?;
        let serving = Tasks::new();
        let advertised = options.advertise_address.unwrap_or_else(|| own_address(options.bind_address));
        let etcd_addresses = etcd_face::Addresses::of(&etcd_listeners, advertised)?;
        let (store, embedded): (Arc<dyn Store>, _) = if !options.etcd.are_given() {
            let embedded = open_embedded(options)?;
            etcd_face::serve(embedded.clone(), &options.data_dir, &serving);
            (embedded.clone(), Some(embedded))
        } else {
            (Arc::new(options.etcd.connect().await?), None)
        };
        let config = apiserver::Config {
            bind_address: options.bind_address,
            secure_port: address.port(),
            advertise_address: advertised,
            cert_extra_sans: options.apiserver_cert_extra_sans.clone(),
            etcd_addresses: etcd_addresses.names(),
            store_is_shared: options.etcd.are_given(),
            service_cluster_ip_range: options.service_cluster_ip_range,
            service_node_port_range: options.service_node_port_range.0..=options.service_node_port_range.1,
            token_auth_file: options.token_auth_file.clone(),
            audit: audit_config(options),
            service_account_issuers: options.service_account_issuer.clone(),
            service_account_signing_key_file: options.service_account_signing_key_file.clone(),
            service_account_key_files: options.service_account_key_file.clone(),
            api_audiences: options.api_audiences.clone(),
            service_account_extend_token_expiration: options.service_account_extend_token_expiration,
            request_timeout: options.request_timeout,
            max_requests_inflight: options.max_requests_inflight,
            max_mutating_requests_inflight: options.max_mutating_requests_inflight,
            event_ttl: options.event_ttl,
            // The embedded store forgets old versions by itself; etcd wants to be told.
            compaction_interval: (options.etcd.are_given() && options.history_seconds > 0)
                .then_some(Duration::from_secs(options.history_seconds)),
            configz: serde_json::json!({"master": options.daemon.shown(&[])}),
            ..apiserver::Config::new(&options.data_dir)
        };
        let server = ApiServer::start(config, store, serving.token()).await.context("the API server did not start")?;
        certificates::watch(&server, &serving);
        if let (Some(embedded), Some(tls)) = (&embedded, server.etcd_tls()?) {
            etcd_face::serve_tls(embedded, etcd_listeners, &etcd_addresses, &tls, &serving);
        }
        let listening = server.clone();
        serving.spawn_draining(async move {
            if let Err(error) = listening.serve(listener).await {
                tracing::error!(error = &error as &dyn std::error::Error, "the API server ended");
            }
        });
        tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "API server ready");
        let (server, tasks, _place) = (Some(server), Tasks::new(), Some(place));
        Ok(Master { server, address, tasks, serving, embedded, etcd_addresses: etcd_addresses.bound, _place })
    }

    /// The API server, where it runs in this process.
    pub fn api_server(&self) -> Option<&ApiServer> {
        self.server.as_ref()
    }

    /// The address the API is served on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The addresses the embedded store is served on as an etcd.
    pub fn etcd_addresses(&self) -> &[SocketAddr] {
        &self.etcd_addresses
    }

    /// The line that, pasted on another machine, makes it a node; with the token of the first start, while that counts.
    pub async fn join_command(&self, options: &Options) -> Option<String> {
        let token = self.server.as_ref()?.join_token().await?;
        let address = options.advertise_address.unwrap_or_else(|| own_address(options.bind_address));
        let server = SocketAddr::new(address, self.address.port());
        Some(format!("minion --server https://{server} --token {token} --data-dir /var/lib/coracle-minion"))
    }

    /// Stops the components, then the API server; requests under way end first, within a bounded grace.
    pub async fn stop(self) {
        if !self.tasks.stop(STOP_GRACE).await {
            tracing::warn!("components did not stop in time");
        }
        if !self.serving.stop(STOP_GRACE).await {
            tracing::warn!("the API server did not stop in time");
        }
        if let Some(embedded) = self.embedded {
            // Even while somebody still holds it: the files are free for the next.
            embedded.close();
        }
        tracing::info!("stopped");
    }

    /// A client that acts as `component`, with the rights of its default role, in this process where the API server is;
    /// else over the kubeconfig, as whoever that names.
    async fn client_as(&self, component: &'static str, options: &Options) -> Result<kube::Client> {
        match &self.server {
            Some(server) => Ok(client_of(server, User::new(format!("system:{component}"), [""; 0]))),
            None => {
                let config = client::connect::kubeconfig(options.kubeconfig.as_deref(), None, component).await?;
                let endings = client::expiry::of_config(&config);
                let client = kube::Client::try_from(config)?;
                certificates::watch_kubeconfig(endings, client.clone(), component, &self.tasks);
                Ok(client)
            }
        }
    }

    /// What gives each controller a client for its own service account, where that is as cheap as here; else they all
    /// write as the controller manager.
    fn controllers(&self, manager: &kube::Client) -> impl Fn(&str) -> kube::Client + Clone + Send + Sync + 'static {
        let (server, manager) = (self.server.clone(), manager.clone());
        move |account| match &server {
            Some(server) => client_of(server, User::service_account(NAMESPACE_SYSTEM, account)),
            None => manager.clone(),
        }
    }

    async fn start_components(&mut self, options: &Options) -> Result<()> {
        if options.runs(Component::ControllerManager) {
            let api = self.client_as("kube-controller-manager", options).await?;
            let config = controller_manager_config(options)?;
            let act_as = self.controllers(&api);
            self.lead("kube-controller-manager", api, options, move |api, tasks| {
                controller_manager::start(api, &act_as, config.clone(), &tasks);
            });
        }
        if options.runs(Component::Scheduler) {
            let api = self.client_as("kube-scheduler", options).await?;
            self.lead("kube-scheduler", api, options, |api, tasks| {
                scheduler::start(api, scheduler::Config::default(), &tasks);
            });
        }
        Ok(())
    }

    /// Starts a component at once where this process holds all the state; where several masters share an etcd, after
    /// winning its lease, and again after losing it.
    fn lead<S>(&self, name: &'static str, api: kube::Client, options: &Options, start: S)
    where
        S: Fn(kube::Client, Tasks) + Clone + Send + Sync + 'static,
    {
        let alone = self.server.is_some() && !options.etcd.are_given();
        if alone {
            return start(api, self.tasks.clone());
        }
        let tasks = self.tasks.clone();
        let identity = format!("{}_{}", hostname(), std::process::id());
        self.tasks.spawn_draining(async move {
            while !tasks.is_stopping() {
                let (start, client) = (start.clone(), api.clone());
                client::leader::run(api.clone(), name, &identity, &tasks, |leading| async move {
                    start(client, leading);
                })
                .await;
            }
        });
    }
}

/// A client in this process that is `user`.
pub(crate) fn client_of(server: &ApiServer, user: User) -> kube::Client {
    kube::Client::new(server.service_as(user), "default")
}

fn open_embedded(options: &Options) -> Result<Arc<Embedded>> {
    let dir = options.data_dir.join("store");
    let settings = store::embedded::Options {
        retention: Duration::from_secs(options.history_seconds),
        ..store::embedded::Options::default()
    };
    let store =
        Embedded::open(&dir, settings).with_context(|| format!("cannot open the store in {}", dir.display()))?;
    Ok(Arc::new(store))
}

fn audit_config(options: &Options) -> Option<apiserver::AuditConfig> {
    Some(apiserver::AuditConfig {
        log_path: options.audit_log_path.clone()?,
        policy_file: options.audit_policy_file.clone(),
        limits: apiserver::AuditLogLimits {
            max_size_megabytes: options.audit_log_maxsize,
            max_backups: options.audit_log_maxbackup,
            max_age_days: options.audit_log_maxage,
        },
    })
}

fn controller_manager_config(options: &Options) -> Result<controller_manager::Config> {
    let pki = options.data_dir.join("pki");
    let ca = pki.join("ca.crt");
    let root_ca_pem = std::fs::read_to_string(&ca)
        .with_context(|| format!("the controller-manager needs the cluster's CA in {}", ca.display()))?;
    Ok(controller_manager::Config {
        cluster_cidr: options.cluster_cidr,
        service_node_port_range: options.service_node_port_range.0..=options.service_node_port_range.1,
        node_monitor_grace: options.node_monitor_grace_period,
        unused_token_period: options.legacy_service_account_token_clean_up_period,
        ca_cert: ca,
        ca_key: pki.join("ca.key"),
        root_ca_pem,
        ..controller_manager::Config::default()
    })
}

/// The address others most likely reach this machine by: what is bound, else the source address of the default route.
/// No packet is sent to find out.
fn own_address(bound: IpAddr) -> IpAddr {
    if !bound.is_unspecified() {
        return bound;
    }
    let by_default_route = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
        socket.local_addr().ok().map(|a| a.ip())
    };
    by_default_route().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "master".to_owned(), |h| h.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn the_controllers_are_told_what_the_api_server_is() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pki")).unwrap();
        std::fs::write(dir.path().join("pki/ca.crt"), "the CA").unwrap();
        let flags = ["master", "--data-dir", dir.path().to_str().unwrap()];
        let ranges = ["--service-node-port-range", "20000-20100", "--cluster-cidr", "10.9.0.0/16"];
        let options = Options::try_parse_from([&flags[..], &ranges].concat()).unwrap();
        let config = controller_manager_config(&options).unwrap();
        assert_eq!(config.service_node_port_range, 20_000..=20_100);
        assert_eq!(
            (config.cluster_cidr.to_string(), config.root_ca_pem.as_str()),
            ("10.9.0.0/16".to_owned(), "the CA")
        );
    }
}
