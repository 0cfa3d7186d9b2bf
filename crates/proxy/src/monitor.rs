//! Hears of every transaction of the firewall, so that what others do to our rules is known at once and nobody has to look.
//!
//! Our own are told too. They came through our own socket, which the kernel says. What it could not tell us is lost; then
//! the signature in our table, a number that is new with each transaction, says whether the table is as we left it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::socket::SockProtocol;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::compile::{
    ATTRIBUTE_CHAIN, ATTRIBUTE_HOOK, ATTRIBUTE_NAME, ATTRIBUTE_TABLE, DELETE_CHAIN, DELETE_RULE, IPV4, NEW_CHAIN,
    NEW_GENERATION, NEW_RULE, SUBSYSTEM,
};
use crate::netlink::{Listener, Message, attribute, messages};
use crate::render::TABLE;

/// `NFNLGRP_NFTABLES`, as a bit.
const GROUP: u32 = 1 << 6;
/// What the kernel keeps for us: enough for some thousand services that come or go at once.
const BUFFER_BYTES: usize = 16 << 20;
/// `NFPROTO_INET`: IPv4 and IPv6.
const INET: u8 = 1;
/// `NF_INET_LOCAL_IN`, `NF_INET_FORWARD`.
const DECIDING_HOOKS: [[u8; 4]; 2] = [[0, 0, 0, 1], [0, 0, 0, 2]];

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
#[derive(Debug, Default)]
pub struct Shared {
    suspicion: Mutex<Suspicion>,
    raised: Notify,
    /// The socket our transactions come through; none has no number.
    port: AtomicU32,
    watched: Mutex<HashSet<String>>,
}

impl Shared {
    /// Names the socket that our transactions will come through.
    pub fn belongs_to(&self, port: u32) {
        self.port.store(port, Ordering::SeqCst);
    }

    /// Names the chains of others (`ip filter DOCKER-USER`) that matter to us.
    pub fn watch_chains(&self, chains: Vec<String>) {
        *self.watched.lock() = chains.into_iter().collect();
    }

    /// Resolves when something became suspect.
    pub async fn raised(&self) {
        self.raised.notified().await;
    }

    /// What is suspect; it is the caller's to clear up now.
    pub fn take(&self) -> Suspicion {
        std::mem::take(&mut *self.suspicion.lock())
    }

    fn raise(&self, suspicion: Suspicion) {
        if suspicion.any() {
            let mut held = self.suspicion.lock();
            held.table |= suspicion.table;
            held.unknown |= suspicion.unknown;
            held.forward |= suspicion.forward;
            drop(held);
            self.raised.notify_one();
        }
    }
}

/// Listens from now on, in the network namespace of the calling thread.
pub fn listen() -> std::io::Result<Listener> {
    Listener::listen(SockProtocol::NetlinkNetFilter, GROUP, BUFFER_BYTES)
}

/// How long the kernel is left alone that could not be heard.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);

/// Hears what the kernel tells, and never ends.
pub async fn run(mut listener: Listener, shared: Arc<Shared>) {
    let mut transaction = Suspicion::default();
    let lost = Suspicion { unknown: true, forward: true, table: false };
    loop {
        let heard = listener.drain(|datagram| match datagram {
            Some(datagram) => hear(datagram, &mut transaction, &shared),
            None => shared.raise(lost),
        });
        if let Err(error) = heard.await {
            tracing::error!(%error, "the firewall cannot be heard: what others change goes unnoticed for now");
            listener = loop {
                tokio::time::sleep(LISTEN_AGAIN).await;
                if let Ok(listener) = listen() {
                    break listener;
                }
            };
            transaction = Suspicion::default();
            shared.raise(lost);
        }
    }
}

/// Takes a datagram. What it makes suspect is raised when the transaction ends: half of one says nothing.
fn hear(datagram: &[u8], transaction: &mut Suspicion, shared: &Shared) {
    let ours = shared.port.load(Ordering::SeqCst);
    for message in messages(datagram) {
        let [kind, subsystem] = message.kind.to_le_bytes();
        if subsystem != SUBSYSTEM {
            continue;
        }
        if kind == NEW_GENERATION {
            shared.raise(std::mem::take(transaction));
        } else if message.port != ours || ours == 0 {
            look(kind, &message, transaction, shared);
        }
    }
}

/// Looks at what someone else did.
fn look(kind: u8, message: &Message<'_>, transaction: &mut Suspicion, shared: &Shared) {
    // struct nfgenmsg, then attributes.
    let (Some(family), Some(attributes)) = (message.body.first(), message.body.get(4..)) else { return };
    let text =
        |wanted| attribute(attributes, wanted).and_then(|name| std::str::from_utf8(name.strip_suffix(b"\0")?).ok());
    let family = match *family {
        IPV4 => "ip",
        INET => "inet",
        _ => return,
    };
    let Some(table) = text(ATTRIBUTE_TABLE) else { return };
    transaction.table |= format!("{family} {table}") == TABLE;
    let chain = match kind {
        NEW_CHAIN | DELETE_CHAIN => text(ATTRIBUTE_CHAIN),
        NEW_RULE | DELETE_RULE => text(ATTRIBUTE_NAME),
        _ => None,
    };
    let Some(chain) = chain else { return };
    let decides = || {
        let hook = attribute(attributes, ATTRIBUTE_HOOK).and_then(|hook| attribute(hook, 1));
        kind != NEW_RULE && kind != DELETE_RULE && hook.is_some_and(|hook| DECIDING_HOOKS.iter().any(|h| hook == h))
    };
    transaction.forward |= chain == "DOCKER-USER"
        || chain.starts_with("ufw-before-")
        || shared.watched.lock().contains(&format!("{family} {table} {chain}"))
        || decides();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::Writer;

    const US: u32 = 77;
    const OTHERS: u32 = 78;

    /// An event about something in a table, caused through a socket.
    fn event(port: u32, kind: u8, family: u8, table: &str, name: (u16, &str), hook: Option<u32>) -> Vec<u8> {
        let mut writer = Writer::default();
        let message = writer.message(u16::from_le_bytes([kind, SUBSYSTEM]), 0, 0, &[family, 0, 0, 0]);
        writer.text(ATTRIBUTE_TABLE, table).unwrap();
        writer.text(name.0, name.1).unwrap();
        if let Some(hook) = hook {
            let nested = writer.nest(ATTRIBUTE_HOOK);
            writer.number(1, hook).unwrap();
            writer.end(nested).unwrap();
        }
        writer.end_message(message).unwrap();
        let mut bytes = writer.finish();
        bytes[12..16].copy_from_slice(&port.to_ne_bytes());
        bytes
    }

    fn chain(port: u32, id: &str, hook: Option<u32>) -> Vec<u8> {
        let words: Vec<&str> = id.split(' ').collect();
        let family = if words[0] == "ip" { IPV4 } else { INET };
        event(port, DELETE_CHAIN, family, words[1], (ATTRIBUTE_CHAIN, words[2]), hook)
    }

    fn rule(id: &str) -> Vec<u8> {
        let words: Vec<&str> = id.split(' ').collect();
        event(OTHERS, DELETE_RULE, IPV4, words[1], (ATTRIBUTE_NAME, words[2]), None)
    }

    fn generation() -> Vec<u8> {
        event(OTHERS, NEW_GENERATION, 0, "", (2, ""), None)
    }

    #[test]
    fn only_what_others_did_is_suspect_and_only_once_it_is_done() {
        let table = Suspicion { table: true, ..Suspicion::default() };
        let forward = Suspicion { forward: true, ..Suspicion::default() };
        let nothing = Suspicion::default();
        let cases: [(&str, Vec<Vec<u8>>, Suspicion); 10] = [
            ("ours", vec![chain(US, "ip coracle services", None), generation()], nothing),
            ("a flush", vec![chain(OTHERS, "ip coracle services", None), generation()], table),
            ("not yet committed", vec![chain(OTHERS, "ip coracle services", None)], nothing),
            ("another table", vec![chain(OTHERS, "ip coracle2 services", None), generation()], nothing),
            ("the same name elsewhere", vec![chain(OTHERS, "inet coracle services", None), generation()], nothing),
            ("Docker's chain", vec![rule("ip filter DOCKER-USER"), generation()], forward),
            ("UFW's", vec![rule("ip filter ufw-before-input"), generation()], forward),
            ("a new filter", vec![chain(OTHERS, "ip filter FORWARD", Some(2)), generation()], forward),
            ("another hook", vec![chain(OTHERS, "ip nat POSTROUTING", Some(4)), generation()], nothing),
            ("a watched chain", vec![chain(OTHERS, "inet fw fwd", None), generation()], forward),
        ];
        for (sentence, events, expected) in cases {
            let shared = Shared::default();
            shared.belongs_to(US);
            shared.watch_chains(vec!["inet fw fwd".to_owned()]);
            let mut transaction = Suspicion::default();
            hear(&events.concat(), &mut transaction, &shared);
            assert_eq!(shared.take(), expected, "{sentence}");
        }
    }
}
