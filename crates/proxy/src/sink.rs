//! Where decisions go: the kernel ([`crate::NftSink`]) or memory.

use std::net::Ipv4Addr;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::RuleSet;
use crate::routes::Paths;

/// Why a decision could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The program is not installed.
    #[error("{0} is not installed")]
    Missing(String),
    /// The program ran and refused.
    #[error("{program} failed: {message}")]
    Failed {
        /// Which program.
        program: String,
        /// What it wrote.
        message: String,
    },
    /// The program did not end in time.
    #[error("{0} did not end in time")]
    TimedOut(String),
    /// The program could not be run or talked to.
    #[error("cannot run {program}")]
    Io {
        /// Which program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The program's output is not what it should be.
    #[error("{program} wrote something unreadable")]
    Unreadable {
        /// Which program.
        program: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Nothing on this machine has the node's address.
    #[error("no interface has the node's address {0}")]
    NoInterface(Ipv4Addr),
}

/// Makes rule sets real. Calls are idempotent; after an error the next call tries everything again.
#[async_trait]
pub trait RuleSink: Send + Sync {
    /// Puts `rules` into force, atomically, in the place of what was in force.
    async fn apply(&self, rules: &RuleSet) -> Result<(), SinkError>;
    /// Puts the paths to other nodes' pods into force.
    async fn apply_paths(&self, paths: &Paths) -> Result<(), SinkError>;
    /// Resolves when someone else may have changed what is in force; then [`RuleSink::apply`] repairs it.
    async fn disturbed(&self);
    /// The same for [`RuleSink::apply_paths`].
    async fn paths_disturbed(&self);
}

/// The twin in memory: remembers what is in force, for nodes without a network and for tests.
#[derive(Debug)]
pub struct MemorySink {
    rules: watch::Sender<Option<RuleSet>>,
    paths: watch::Sender<Paths>,
    disturbed: tokio::sync::Notify,
    failures: Mutex<u32>,
}

impl Default for MemorySink {
    fn default() -> MemorySink {
        MemorySink {
            rules: watch::Sender::new(None),
            paths: watch::Sender::default(),
            disturbed: tokio::sync::Notify::new(),
            failures: Mutex::new(0),
        }
    }
}

impl MemorySink {
    /// Nothing in force.
    pub fn new() -> MemorySink {
        MemorySink::default()
    }

    /// What is in force, as it changes.
    pub fn rules(&self) -> watch::Receiver<Option<RuleSet>> {
        self.rules.subscribe()
    }

    /// The paths in force, as they change.
    pub fn paths(&self) -> watch::Receiver<Paths> {
        self.paths.subscribe()
    }

    /// Loses all rules, as `nft flush ruleset` would.
    pub fn flush(&self) {
        self.rules.send_replace(None);
        self.disturbed.notify_one();
    }

    /// Lets the next `count` applies fail.
    pub fn fail_next(&self, count: u32) {
        *self.failures.lock() = count;
    }
}

#[async_trait]
impl RuleSink for MemorySink {
    async fn apply(&self, rules: &RuleSet) -> Result<(), SinkError> {
        let mut failures = self.failures.lock();
        if *failures > 0 {
            *failures -= 1;
            return Err(SinkError::TimedOut("the twin in memory".to_owned()));
        }
        self.rules.send_if_modified(|current| {
            let changed = current.as_ref() != Some(rules);
            if changed {
                *current = Some(rules.clone());
            }
            changed
        });
        Ok(())
    }

    async fn apply_paths(&self, paths: &Paths) -> Result<(), SinkError> {
        self.paths.send_replace(paths.clone());
        Ok(())
    }

    async fn disturbed(&self) {
        self.disturbed.notified().await;
    }

    async fn paths_disturbed(&self) {
        std::future::pending::<()>().await;
    }
}
