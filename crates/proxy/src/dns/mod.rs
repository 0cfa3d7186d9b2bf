//! DNS on the node itself: the cluster's names from the informers' caches, all others from the machine's servers.
//!
//! ```text
//!  pod ──▶ 10.96.0.10 on lo ──▶ server ─┬─ answer() ◀── view ◀── informers (services, slices)
//!                                       └─ forward ──▶ cache, upstreams (resolv.conf)
//! ```
//!
//! In reading order:
//! - [`place`]: what a name stands for. [`view`]: what the cluster is. [`answer`]: the decision.
//! - [`wire`]: requests and responses as bytes.
//! - [`upstreams`], [`cache`], [`forward`]: names of others.
//! - [`server`]: sockets. [`address`]: the address they are on.

pub mod address;
pub mod answer;
pub mod cache;
pub mod forward;
pub mod place;
pub mod server;
pub mod upstreams;
pub mod view;
pub mod wire;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::Tasks;
use hickory_proto::rr::Name;
use tokio::sync::watch;

use self::answer::Zone;
use self::forward::Forwarder;
use self::server::Server;
use self::upstreams::Upstreams;
use self::view::Caches;
use crate::SinkError;
use crate::notices::Addresses;

/// Where DNS servers listen.
pub const PORT: u16 = 53;
/// The first pause before the address is tried again; it doubles.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// What a node's DNS server is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Its address, the DNS service's.
    pub address: Ipv4Addr,
    /// The domain that cluster names end in.
    pub domain: String,
    /// Names the servers to ask for other names; without it, the machine's own.
    pub resolv_conf: Option<PathBuf>,
}

/// Starts the server: it answers from now on until `tasks` stop. The address stays: what is sent there must not leave the
/// machine meanwhile.
pub fn start(config: Config, view: Caches, tasks: &Tasks) {
    tasks.spawn(run(config, Arc::new(view), tasks.clone()));
}

async fn run(config: Config, view: Arc<Caches>, tasks: Tasks) {
    let Ok(mut domain) = Name::from_ascii(&config.domain) else {
        tracing::error!(domain = config.domain, "not a domain: no DNS is served");
        return;
    };
    domain.set_fqdn(true);
    let ip = IpAddr::V4(config.address);
    let (synced, complete) = watch::channel(false);
    let forwarder = Forwarder::new(Upstreams::new(config.resolv_conf.clone(), ip), &tasks);
    let server = Server::new(Zone { domain, server: ip }, view.clone(), complete, forwarder);
    let listening = async {
        listen(server, ip, &tasks).await;
        tracing::info!(address = %ip, domain = config.domain, "DNS is served");
    };
    let complete = async {
        view.synced().await;
        synced.send_replace(true);
    };
    tokio::join!(listening, complete, hold(config.address));
}

/// Binds the sockets, as soon as nobody else has them.
async fn listen(server: Arc<Server>, ip: IpAddr, tasks: &Tasks) {
    let mut backoff = BACKOFF_MIN;
    loop {
        match server::bind(ip, PORT) {
            Ok((udp, tcp)) => return server.run(udp, tcp, tasks),
            Err(error) => tracing::warn!(%error, address = %ip, retry_after = ?backoff, "cannot serve DNS"),
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Keeps the address on the machine, whoever takes it away.
async fn hold(ip: Ipv4Addr) {
    let mut backoff = BACKOFF_MIN;
    loop {
        match claim_until_lost(ip).await {
            Ok(()) => {
                tracing::info!(address = %ip, "the DNS server's address was taken away: putting it back");
                backoff = BACKOFF_MIN;
                continue;
            }
            Err(error) => tracing::warn!(%error, address = %ip, "cannot have the DNS server's address"),
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

async fn claim_until_lost(ip: Ipv4Addr) -> Result<(), SinkError> {
    let failed = |source| SinkError::Io { program: "rtnetlink".to_owned(), source };
    // The watch comes first: what happens between the two must not be missed.
    let addresses = Addresses::listen().map_err(failed)?;
    address::claim(ip).await?;
    addresses.lost(ip).await.map_err(failed)
}
