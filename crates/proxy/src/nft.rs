//! The real sink: nftables, and what a node needs around it.

use std::sync::Arc;

use async_trait::async_trait;
use client::Tasks;
use tokio::sync::Mutex;

use crate::conntrack::stale_flows;
use crate::health::HealthServers;
use crate::monitor::{self, Shared};
use crate::nf_tables::Tables;
use crate::notices::Notices;
use crate::render::{self, SIGNATURE, TABLE};
use crate::routes::Paths;
use crate::ruleset::HAIRPIN;
use crate::{Config, Part, RuleSet, RuleSink, SinkError, command, dns, host, paths};

/// Puts rules into the kernel of the network namespace this process is in.
pub struct NftSink {
    config: Config,
    shared: Arc<Shared>,
    state: Mutex<State>,
    tasks: Tasks,
    /// `None`: the kernel refused, and nobody will say when paths are gone.
    notices: Option<Notices>,
}

/// What is in the kernel, as far as we know.
#[derive(Default)]
struct State {
    /// Where transactions go, once there was one.
    tables: Option<Tables>,
    /// The last rules that were put into force.
    applied: Option<RuleSet>,
    /// They are there no longer, or not as they were.
    broken: bool,
    /// The signature of the transaction that put them there.
    signature: u32,
    /// What load balancers are told.
    health: HealthServers,
    /// The kernel is switched as services need it.
    prepared: bool,
    /// Frames may leave the bridge where they came from, for all endpoints here.
    hairpins: bool,
    /// Our accept rules are in the chains of others.
    forwarding: bool,
}

impl NftSink {
    /// A sink for the node that `config` describes; what watches the firewall and tells load balancers ends with `tasks`.
    pub fn new(config: Config, tasks: &Tasks) -> NftSink {
        let shared = Arc::new(Shared::default());
        match monitor::listen() {
            Ok(listener) => tasks.spawn(monitor::run(listener, shared.clone())),
            Err(error) => tracing::warn!(%error, "rules that someone removes will not come back by themselves"),
        }
        let notices = Notices::listen();
        if let Err(error) = &notices {
            tracing::warn!(%error, "paths to other nodes that someone removes will not come back by themselves");
        }
        NftSink { config, shared, state: Mutex::default(), tasks: tasks.clone(), notices: notices.ok() }
    }

    /// Puts the difference into force, or everything where that is not possible.
    async fn put(&self, state: &mut State, rules: &RuleSet) -> Result<(), SinkError> {
        let tables = match &state.tables {
            Some(tables) => tables.clone(),
            None => state.tables.insert(Tables::open()?).clone(),
        };
        self.shared.belongs_to(tables.port());
        let signature = rand::random();
        let script = match &state.applied {
            Some(applied) if !state.broken => render::difference(applied, rules, signature),
            _ => Some(render::full(rules, signature)),
        };
        let Some(script) = script else { return Ok(()) };
        state.broken = true;
        state.signature = signature;
        if let Err(error) = tables.run(script).await {
            tracing::warn!(%error, "replacing the whole table");
            tables.run(render::full(rules, signature)).await?;
        }
        state.broken = false;
        state.health.update(rules.services.values().flat_map(|part| &part.health), &self.tasks);
        let Some(before) = state.applied.replace(rules.clone()) else {
            host::forget_old_flows(&rules.whole()).await;
            return Ok(());
        };
        let changed = before.compare(rules);
        let is_here = |part: &&Arc<Part>| part.elements.get(HAIRPIN).is_some_and(|addresses| !addresses.is_empty());
        state.hairpins &= !changed.after.iter().any(is_here);
        host::forget_flows(&stale_flows(&Part::merge(changed.before), &Part::merge(changed.after))).await;
        Ok(())
    }

    /// What else rules need on this machine, as far as it is not there yet.
    async fn surround(&self, state: &mut State) -> Result<(), SinkError> {
        if !state.prepared {
            host::prepare_kernel().await;
            // An earlier life may have answered elsewhere.
            let kept = self.config.dns.as_ref().map(|dns| dns.address);
            if let Err(error) = dns::address::release(kept).await {
                tracing::warn!(%error, "the address of an earlier DNS server may be left");
            }
            state.prepared = true;
        }
        if !state.hairpins {
            host::allow_hairpins(&self.config.bridge).await?;
            state.hairpins = true;
        }
        if !state.forwarding {
            let chains = host::accept_forwarding(&self.config).await?;
            self.shared.watch_chains(chains);
            state.forwarding = true;
        }
        Ok(())
    }

    /// Whether the table in the kernel is as our latest transaction left it, given that no other transaction touched it
    /// without replacing it.
    async fn is_signed(&self, signature: u32) -> bool {
        let arguments: Vec<&str> = ["list", "set"].into_iter().chain(TABLE.split(' ')).chain([SIGNATURE]).collect();
        let listed = command::run("nft", &arguments, "").await;
        listed.is_ok_and(|text| String::from_utf8_lossy(&text).contains(&format!("{signature:#010x}")))
    }
}

#[async_trait]
impl RuleSink for NftSink {
    async fn apply(&self, rules: &RuleSet) -> Result<(), SinkError> {
        let state = &mut *self.state.lock().await;
        // What is taken here is owed until it is done, whatever fails before.
        let suspicion = self.shared.take();
        state.forwarding &= !suspicion.forward;
        state.broken |= suspicion.table || (suspicion.unknown && !self.is_signed(state.signature).await);
        // One that fails does not stop the other.
        let put = self.put(state, rules).await;
        self.surround(state).await.and(put)
    }

    async fn apply_paths(&self, wanted: &Paths) -> Result<(), SinkError> {
        paths::set(wanted, &self.config).await
    }

    async fn disturbed(&self) {
        self.shared.raised().await;
    }

    async fn paths_disturbed(&self) {
        let Some(notices) = &self.notices else { return std::future::pending().await };
        if let Err(error) = notices.changed().await {
            tracing::warn!(%error, "the kernel's notices cannot be read");
            std::future::pending::<()>().await;
        }
    }
}

/// Removes everything any proxy ever put into this network namespace: table, accept rules, paths, the
/// DNS server's address. What is switched on in
/// the kernel stays: others rely on it by now. Everything is tried; the first error is returned.
pub async fn cleanup() -> Result<(), SinkError> {
    let table = command::nft(&render::removal()).await;
    let forwarding = host::forget_forwarding().await;
    let paths = paths::forget().await;
    let address = dns::address::release(None).await;
    table.and(forwarding).and(paths).and(address)
}
