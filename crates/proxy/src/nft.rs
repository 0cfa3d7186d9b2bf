//! The real sink: nftables, and what a node needs around it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use client::Tasks;
use tokio::sync::Mutex;

use crate::conntrack::stale_flows;
use crate::health::HealthServers;
use crate::monitor::{self, Shared, Suspicion};
use crate::notices::Notices;
use crate::render::{self, SIGNATURE, TABLE};
use crate::routes::Paths;
use crate::ruleset::HAIRPIN;
use crate::{Config, Part, RuleSet, RuleSink, SinkError, command, dns, host, paths};

/// How long to wait for the monitor to repeat a greeting before the next one: it may not have listened yet.
const GREETING_WAIT: Duration = Duration::from_millis(100);
/// How many greetings are sent. The monitor takes milliseconds to start; without it rules still work.
const GREETINGS_MAX: u32 = 30;

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
    /// The last rules that were put into force.
    applied: Option<RuleSet>,
    /// They are there no longer, or not as they were.
    broken: bool,
    /// The signature of the transaction that put them there.
    signature: u32,
    /// What load balancers are told.
    health: HealthServers,
    /// The kernel is switched as services need it, and the monitor listens.
    prepared: bool,
}

impl NftSink {
    /// A sink for the node that `config` describes; the monitor and what tells load balancers end with `tasks`.
    pub fn new(config: Config, tasks: &Tasks) -> NftSink {
        let shared = Arc::new(Shared::default());
        tasks.spawn(monitor::run(shared.clone()));
        let notices = Notices::listen();
        if let Err(error) = &notices {
            tracing::warn!(%error, "paths to other nodes that someone removes will not come back by themselves");
        }
        NftSink { config, shared, state: Mutex::default(), tasks: tasks.clone(), notices: notices.ok() }
    }

    /// Puts the difference into force, or everything where that is not possible.
    async fn put(&self, state: &mut State, rules: &RuleSet) -> Result<(), SinkError> {
        let signature = self.shared.sign();
        let script = match &state.applied {
            Some(applied) if !state.broken => render::difference(applied, rules, signature),
            _ => Some(render::full(rules, signature)),
        };
        let Some(script) = script else { return Ok(()) };
        state.broken = true;
        state.signature = signature;
        if let Err(error) = command::nft(&script).await {
            tracing::warn!(%error, "replacing the whole table");
            state.signature = self.shared.sign();
            command::nft(&render::full(rules, state.signature)).await?;
        }
        state.broken = false;
        state.health.update(rules.services.values().flat_map(|part| &part.health), &self.tasks);
        if let Some(applied) = state.applied.replace(rules.clone()) {
            let changed = applied.compare(rules);
            host::forget_flows(&stale_flows(&Part::merge(changed.before), &Part::merge(changed.after))).await;
        }
        Ok(())
    }

    /// Once: what rules need of the kernel, and a monitor that listens. It does not say when it does; so we greet it with
    /// signed transactions until it repeats one.
    async fn prepare(&self, state: &mut State) -> Result<(), SinkError> {
        host::prepare_kernel().await;
        for _ in 0..GREETINGS_MAX {
            if tokio::time::timeout(GREETING_WAIT, self.shared.confirmed()).await.is_ok() {
                state.prepared = true;
                return Ok(());
            }
            state.signature = self.shared.sign();
            command::nft(&render::greeting(state.signature)).await?;
        }
        tracing::warn!("nft monitor does not answer: changes by others will go unnoticed until it does");
        state.prepared = true;
        Ok(())
    }

    async fn forward(&self) -> Result<(), SinkError> {
        let chains = host::accept_forwarding(&self.config).await?;
        self.shared.watch_chains(chains);
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
        let suspicion = self.shared.take();
        state.broken |= suspicion.table || (suspicion.unknown && !self.is_signed(state.signature).await);
        self.put(state, rules).await?;
        let first = !state.prepared;
        if first {
            self.prepare(state).await?;
        }
        let hairpins = |part: &Part| part.elements.get(HAIRPIN).is_some_and(|addresses| !addresses.is_empty());
        if rules.services.values().any(|part| hairpins(part)) {
            host::allow_hairpins(&self.config.bridge).await?;
        }
        if first || suspicion.forward {
            let repaired = self.forward().await;
            if repaired.is_err() {
                self.shared.keep(Suspicion { forward: true, ..Suspicion::default() });
            }
            repaired?;
        }
        Ok(())
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
    let address = dns::address::release().await;
    table.and(forwarding).and(paths).and(address)
}
