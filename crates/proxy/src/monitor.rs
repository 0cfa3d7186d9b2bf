//! Watches the firewall through `nft monitor`: a program that prints every committed transaction, so that what others do
//! to our rules is known at once and nobody has to look.
//!
//! Our own transactions are printed too. Each puts a fresh random number, its signature, into a set of ours; a
//! transaction that contains one of our signatures is ours.

use std::collections::VecDeque;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::render::{SIGNATURE, TABLE};

/// The first pause before a monitor that ended is started again; it doubles.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest pause, and how long a monitor must live for its failures to be forgotten.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Signatures on their way through the monitor; applies are serial, so few ever are.
const SIGNATURES_MAX: usize = 64;

/// What may be wrong with what we put into the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Suspicion {
    /// Someone changed our table.
    pub table: bool,
    /// Events were lost: our table may have changed, the signature in it tells.
    pub unknown: bool,
    /// Someone changed a chain that decides about forwarding.
    pub forward: bool,
}

impl Suspicion {
    fn any(self) -> bool {
        self.table || self.unknown || self.forward
    }
}

/// What monitor and sink share.
#[derive(Debug)]
pub struct Shared {
    suspicion: Mutex<Suspicion>,
    raised: Notify,
    signatures: Mutex<VecDeque<u32>>,
    confirmed: watch::Sender<Option<u32>>,
    watched: Mutex<Vec<String>>,
}

impl Default for Shared {
    fn default() -> Shared {
        Shared {
            suspicion: Mutex::default(),
            raised: Notify::new(),
            signatures: Mutex::default(),
            confirmed: watch::Sender::new(None),
            watched: Mutex::default(),
        }
    }
}

impl Shared {
    /// A signature for the next transaction.
    pub fn sign(&self) -> u32 {
        let signature = rand::random();
        let mut signatures = self.signatures.lock();
        if signatures.len() == SIGNATURES_MAX {
            signatures.pop_front();
        }
        signatures.push_back(signature);
        signature
    }

    /// Names the chains of others (`ip filter DOCKER-USER`) that matter to us.
    pub fn watch_chains(&self, chains: Vec<String>) {
        *self.watched.lock() = chains;
    }

    /// Resolves when something became suspect.
    pub async fn raised(&self) {
        self.raised.notified().await;
    }

    /// What is suspect; it is the caller's to clear up now.
    pub fn take(&self) -> Suspicion {
        std::mem::take(&mut *self.suspicion.lock())
    }

    /// Adds to what is suspect without waking anyone: a repair failed and will be tried again.
    pub fn keep(&self, suspicion: Suspicion) {
        let mut held = self.suspicion.lock();
        held.table |= suspicion.table;
        held.unknown |= suspicion.unknown;
        held.forward |= suspicion.forward;
    }

    /// Waits until the monitor has seen a transaction of ours. It listens from then on at the latest.
    pub async fn confirmed(&self) {
        let mut confirmed = self.confirmed.subscribe();
        // An error means that no sender is left, and `self` holds it.
        let _ = confirmed.wait_for(Option::is_some).await;
    }

    fn raise(&self, suspicion: Suspicion) {
        if suspicion.any() {
            self.keep(suspicion);
            self.raised.notify_one();
        }
    }

    fn is_ours(&self, signature: u32) -> bool {
        let mut signatures = self.signatures.lock();
        let before = signatures.len();
        signatures.retain(|s| *s != signature);
        let ours = signatures.len() < before;
        if ours {
            self.confirmed.send_replace(Some(signature));
        }
        ours
    }
}

/// Keeps a monitor running; ends never.
pub async fn run(shared: Arc<Shared>) {
    let mut backoff = BACKOFF_MIN;
    loop {
        let started = Instant::now();
        if let Err(error) = follow(&shared).await {
            tracing::warn!(%error, "nft monitor cannot be followed");
        }
        if started.elapsed() > BACKOFF_MAX {
            backoff = BACKOFF_MIN;
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
        // Whatever happened meanwhile went unseen.
        shared.raise(Suspicion { unknown: true, forward: true, table: false });
    }
}

/// Reads one monitor to its end.
async fn follow(shared: &Shared) -> std::io::Result<()> {
    let mut child = Command::new("nft")
        .arg("monitor")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let Some(stdout) = child.stdout.take() else { return Ok(()) };
    let mut lines = BufReader::new(stdout).lines();
    let mut transaction = Transaction::default();
    while let Some(line) = lines.next_line().await? {
        if let Some(suspicion) = transaction.line(&line, shared) {
            shared.raise(suspicion);
        }
    }
    child.wait().await.map(drop)
}

/// What has been printed of a transaction so far.
#[derive(Debug, Default)]
struct Transaction {
    ours: bool,
    touches: Suspicion,
}

impl Transaction {
    /// Takes one line; returns what is suspect after it, where that is known.
    fn line(&mut self, line: &str, shared: &Shared) -> Option<Suspicion> {
        if line.starts_with("# new generation") {
            let transaction = std::mem::take(self);
            return (!transaction.ours).then_some(transaction.touches);
        }
        if line.starts_with("# ERROR") {
            return Some(Suspicion { unknown: true, forward: true, table: false });
        }
        if let Some(signature) = signature_in(line) {
            self.ours |= shared.is_ours(signature);
        }
        self.touches.table |= is_about(line, TABLE);
        self.touches.forward |= line.contains("hook forward")
            || line.contains("DOCKER-USER")
            || line.contains("hook input")
            || line.contains("ufw-before-")
            || shared.watched.lock().iter().any(|chain| is_about(line, chain));
        None
    }
}

/// `add element ip coracle signature { 0x12345678 }`.
fn signature_in(line: &str) -> Option<u32> {
    let rest = line.strip_prefix("add element ")?.strip_prefix(TABLE)?.trim_start().strip_prefix(SIGNATURE)?;
    let number = rest.trim().strip_prefix('{')?.strip_suffix('}')?.trim().strip_prefix("0x")?;
    u32::from_str_radix(number, 16).ok()
}

/// Whether `line` speaks of `object` (`ip coracle`), as a whole.
fn is_about(line: &str, object: &str) -> bool {
    line.match_indices(object).any(|(start, _)| {
        let before = start == 0 || line.as_bytes()[start - 1] == b' ';
        let after = line.as_bytes().get(start + object.len()).is_none_or(|c| *c == b' ');
        before && after
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suspicion(shared: &Shared, lines: &[&str]) -> Option<Suspicion> {
        let mut transaction = Transaction::default();
        lines.iter().filter_map(|line| transaction.line(line, shared)).last()
    }

    #[test]
    fn only_transactions_of_others_are_suspect() {
        let shared = Shared::default();
        shared.watch_chains(vec!["inet fw fwd".to_owned()]);
        let ours = format!("add element ip coracle signature {{ {:#010x} }}", shared.sign());
        let generation = "# new generation 3 by process 20090 (nft)";
        let table = Suspicion { table: true, ..Suspicion::default() };
        let forward = Suspicion { forward: true, ..Suspicion::default() };
        let lost = Suspicion { unknown: true, forward: true, table: false };
        let cases: [(&str, Vec<&str>, Suspicion); 8] = [
            ("ours", vec!["delete chain ip coracle services", &ours, generation], Suspicion::default()),
            ("the same again", vec!["delete chain ip coracle services", &ours, generation], table),
            ("a flush", vec!["delete table ip coracle", generation], table),
            ("another table", vec!["delete table ip coracle2", "add table ip nat", generation], Suspicion::default()),
            ("Docker's chain", vec!["delete rule ip filter DOCKER-USER handle 7", generation], forward),
            (
                "a new filter",
                vec!["add chain ip filter FORWARD { type filter hook forward priority 0; }", generation],
                forward,
            ),
            ("a watched chain", vec!["delete chain inet fw fwd", generation], forward),
            ("lost events", vec!["# ERROR: We lost some netlink events!"], lost),
        ];
        for (sentence, lines, expected) in cases {
            assert_eq!(suspicion(&shared, &lines).unwrap_or_default(), expected, "{sentence}");
        }
    }

    #[test]
    fn nothing_is_said_before_the_transaction_ends() {
        assert_eq!(suspicion(&Shared::default(), &["delete table ip coracle"]), None);
    }
}
