//! Scripts of ours as messages to nf_tables. `nft` itself would start anew for each change, fetch every chain there is
//! (15 ms of a processor with 5,000 services) and wait at its end until the kernel has forgotten what was deleted.
//!
//! Known is what [`crate::render`] and [`crate::ruleset`] write, word by word as they write it; `nft` reads the same text, and
//! a test has it judge ours by what it lists then.

mod rule;

use std::net::Ipv4Addr;

use crate::netlink::Writer;
use crate::render::TABLE;

/// `NFNL_SUBSYS_NFTABLES`: the upper half of a message's kind.
pub const SUBSYSTEM: u8 = 10;
/// `NFT_MSG_…` of `linux/netfilter/nf_tables.h`.
pub const NEW_TABLE: u8 = 0;
const DELETE_TABLE: u8 = 2;
/// A chain was made or changed.
pub const NEW_CHAIN: u8 = 3;
/// A chain was deleted.
pub const DELETE_CHAIN: u8 = 5;
/// A rule was added.
pub const NEW_RULE: u8 = 6;
/// A rule was deleted.
pub const DELETE_RULE: u8 = 8;
const NEW_SET: u8 = 9;
const DELETE_SET: u8 = 11;
const NEW_ELEMENTS: u8 = 12;
const DELETE_ELEMENTS: u8 = 14;
/// A transaction is complete.
pub const NEW_GENERATION: u8 = 15;
/// `NFNL_MSG_BATCH_…`: a transaction's begin and end.
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
/// `NFPROTO_IPV4`.
pub const IPV4: u8 = 2;
/// `NLM_F_CREATE`, and `NLM_F_APPEND`: behind the rules that are there.
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
/// `NFT_SET_…`.
const SET_MAP: u32 = 0x8;
const SET_TIMEOUT: u32 = 0x10;
const SET_DYNAMIC: u32 = 0x20;
/// `NFT_DATA_VERDICT`.
const VERDICT: u32 = 0xffff_ff00;
/// Bits by which nft tells apart the types of a concatenation, so that it can list it.
const TYPE_BITS: u32 = 6;
/// Attributes that everything in a table has, and the one that most things have their name in.
pub const ATTRIBUTE_TABLE: u16 = 1;
/// Rules have their chain there, sets and elements the set.
pub const ATTRIBUTE_NAME: u16 = 2;
/// Chains are named here.
pub const ATTRIBUTE_CHAIN: u16 = 3;
/// A base chain's hook.
pub const ATTRIBUTE_HOOK: u16 = 4;
/// `NFTA_LIST_ELEM`.
const LIST_ELEMENT: u16 = 1;

/// A script as one transaction. Its messages are numbered as the lines are, from one. The error is a line that is not known.
pub fn compile(script: &str) -> Result<Vec<u8>, &str> {
    let mut out = Writer::default();
    let mut sequence = 0;
    bracket(&mut out, BATCH_BEGIN, sequence).ok_or("the begin")?;
    for text in script.lines() {
        sequence += 1;
        line(&mut out, sequence, text).ok_or(text)?;
    }
    bracket(&mut out, BATCH_END, sequence + 1).ok_or("the end")?;
    Ok(out.finish())
}

fn bracket(out: &mut Writer, kind: u16, sequence: u32) -> Option<()> {
    let message = out.message(kind, 0, sequence, &[0, 0, 0, SUBSYSTEM]);
    out.end_message(message)
}

fn line(out: &mut Writer, sequence: u32, text: &str) -> Option<()> {
    let (verb, rest) = text.split_once(' ')?;
    let (object, rest) = rest.split_once(' ')?;
    let rest = rest.strip_prefix(TABLE)?.trim_start();
    let (name, body) = rest.split_once(' ').unwrap_or((rest, ""));
    let (kind, flags) = match (verb, object) {
        ("add", "table") => (NEW_TABLE, CREATE),
        ("delete", "table") => (DELETE_TABLE, 0),
        ("add", "chain") => (NEW_CHAIN, CREATE),
        ("delete", "chain") => (DELETE_CHAIN, 0),
        ("add", "rule") => (NEW_RULE, CREATE | APPEND),
        // Of no rule in particular: of all.
        ("flush", "chain") => (DELETE_RULE, 0),
        ("add", "set" | "map") => (NEW_SET, CREATE),
        ("delete", "set") => (DELETE_SET, 0),
        ("add", "element") => (NEW_ELEMENTS, CREATE),
        ("delete", "element") | ("flush", "set") => (DELETE_ELEMENTS, 0),
        _ => return None,
    };
    let message = out.message(u16::from(SUBSYSTEM) << 8 | u16::from(kind), flags, sequence, &[IPV4, 0, 0, 0]);
    let table = TABLE.split(' ').next_back()?;
    out.text(ATTRIBUTE_TABLE, table)?;
    match object {
        "table" => {}
        "chain" if verb != "flush" => out.text(ATTRIBUTE_CHAIN, name)?,
        _ => out.text(ATTRIBUTE_NAME, name)?,
    }
    match (verb, object) {
        ("add", "chain") if !body.is_empty() => hook(out, inner(body)?)?,
        ("add", "rule") => rule::expressions(out, body)?,
        ("add", "set" | "map") => set(out, sequence, inner(body)?)?,
        (_, "element") => elements(out, inner(body)?)?,
        _ => {}
    }
    out.end_message(message)
}

/// What stands between braces.
fn inner(body: &str) -> Option<&str> {
    Some(body.strip_prefix('{')?.strip_suffix('}')?.trim())
}

/// `type nat hook prerouting priority -100;`
fn hook(out: &mut Writer, body: &str) -> Option<()> {
    const TYPE: u16 = 7;
    let words: Vec<&str> = body.strip_suffix(';')?.split(' ').collect();
    let ["type", kind, "hook", hook, "priority", priority] = words[..] else { return None };
    let number = ["prerouting", "input", "forward", "output", "postrouting"].iter().position(|h| *h == hook)?;
    let nested = out.nest(ATTRIBUTE_HOOK);
    out.number(1, u32::try_from(number).ok()?)?;
    out.bytes(2, &priority.parse::<i32>().ok()?.to_be_bytes())?;
    out.end(nested)?;
    out.text(TYPE, kind)
}

/// `type ipv4_addr . inet_service : verdict; flags dynamic, timeout; timeout 10800s;`
fn set(out: &mut Writer, id: u32, body: &str) -> Option<()> {
    const FLAGS: u16 = 3;
    const KEY_TYPE: u16 = 4;
    const KEY_LENGTH: u16 = 5;
    const DATA_TYPE: u16 = 6;
    const DATA_LENGTH: u16 = 7;
    const ID: u16 = 10;
    const TIMEOUT: u16 = 11;
    const USERDATA: u16 = 13;
    let (mut flags, mut timeout) = (0, None);
    let mut types = ("", None);
    for part in body.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        match part.split_once(' ')? {
            ("type", given) => types = given.split_once(" : ").map_or((given, None), |(key, data)| (key, Some(data))),
            ("flags", "dynamic, timeout") => flags |= SET_DYNAMIC | SET_TIMEOUT,
            ("timeout", given) => timeout = Some(given.strip_suffix('s')?.parse::<u64>().ok()?),
            _ => return None,
        }
    }
    if types.1.is_some() {
        flags |= SET_MAP;
    }
    out.number(FLAGS, flags)?;
    let (kind, length) = data_type(types.0)?;
    out.number(KEY_TYPE, kind)?;
    out.number(KEY_LENGTH, length)?;
    if let Some(data) = types.1 {
        let (kind, length) = if data == "verdict" { (VERDICT, 0) } else { data_type(data)? };
        out.number(DATA_TYPE, kind)?;
        out.number(DATA_LENGTH, length)?;
    }
    // Only told apart within the transaction.
    out.number(ID, id)?;
    if types.0 == "mark" {
        // For nft's eyes only: the number is in the machine's order.
        out.bytes(USERDATA, &[0, 4, 1, 0, 0, 0])?;
    }
    match timeout {
        Some(seconds) => out.bytes(TIMEOUT, &seconds.checked_mul(1000)?.to_be_bytes()),
        None => Some(()),
    }
}

/// nft's number of a type, and how many bytes it takes. What is put together is filled up to four bytes each.
fn data_type(text: &str) -> Option<(u32, u32)> {
    let one = |name: &str| -> Option<(u32, u32)> {
        match name {
            "ipv4_addr" => Some((7, 4)),
            "inet_proto" => Some((12, 1)),
            "inet_service" => Some((13, 2)),
            "mark" => Some((19, 4)),
            "classid" => Some((23, 4)),
            _ => None,
        }
    };
    let mut parts = text.split(" . ");
    let first = one(parts.next()?)?;
    parts.try_fold(first, |(kind, length), name| {
        let next = one(name)?;
        Some((kind << TYPE_BITS | next.0, length.next_multiple_of(4) + next.1.next_multiple_of(4)))
    })
}

/// `10.96.0.1 . tcp . 80 : goto service, …`
fn elements(out: &mut Writer, body: &str) -> Option<()> {
    const ELEMENTS: u16 = 3;
    const KEY: u16 = 1;
    const DATA: u16 = 2;
    let all = out.nest(ELEMENTS);
    for text in body.split(", ") {
        let (key, value) = text.split_once(" : ").map_or((text, None), |(key, value)| (key, Some(value)));
        let element = out.nest(LIST_ELEMENT);
        data(out, KEY, &fields(key)?)?;
        match value.map(|value| value.split_once(' ').unwrap_or((value, ""))) {
            None => {}
            Some(("goto" | "drop", _)) => {
                let words: Vec<&str> = value?.split(' ').collect();
                verdict(out, DATA, &words)?;
            }
            Some(_) => data(out, DATA, &fields(value?)?)?,
        }
        out.end(element)?;
    }
    out.end(all)
}

fn data(out: &mut Writer, kind: u16, value: &[u8]) -> Option<()> {
    const VALUE: u16 = 1;
    let nested = out.nest(kind);
    out.bytes(VALUE, value)?;
    out.end(nested)
}

/// A verdict, as data: `goto chain`, `drop`.
fn verdict(out: &mut Writer, kind: u16, words: &[&str]) -> Option<()> {
    const VERDICT: u16 = 2;
    // `NFT_JUMP`, `NFT_GOTO`, `NFT_RETURN`, `NF_DROP`, `NF_ACCEPT`.
    let (code, chain): (i32, Option<&str>) = match words {
        ["jump", chain] => (-3, Some(chain)),
        ["goto", chain] => (-4, Some(chain)),
        ["return"] => (-5, None),
        ["drop"] => (0, None),
        ["accept"] => (1, None),
        _ => return None,
    };
    let outer = out.nest(kind);
    let nested = out.nest(VERDICT);
    out.bytes(1, &code.to_be_bytes())?;
    if let Some(chain) = chain {
        out.text(2, chain)?;
    }
    out.end(nested)?;
    out.end(outer)
}

/// `10.96.0.1 . tcp . 80 . 1:0`: what is put together is filled up to four bytes each.
fn fields(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(16);
    for part in text.split(" . ") {
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        field(&mut bytes, part)?;
    }
    if text.contains(' ') {
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    Some(bytes)
}

/// One of them: what it is shows.
fn field(bytes: &mut Vec<u8>, text: &str) -> Option<()> {
    if let Some(protocol) = protocol(text) {
        bytes.push(protocol);
    } else if let Ok(port) = text.parse::<u16>() {
        bytes.extend(port.to_be_bytes());
    } else if let Ok(ip) = text.parse::<Ipv4Addr>() {
        bytes.extend(ip.octets());
    } else if text.starts_with("0x") {
        bytes.extend(number(text)?.to_ne_bytes());
    } else {
        bytes.extend(class(text)?.to_ne_bytes());
    }
    Some(())
}

/// `IPPROTO_…`.
fn protocol(text: &str) -> Option<u8> {
    match text {
        "tcp" => Some(6),
        "udp" => Some(17),
        "sctp" => Some(132),
        _ => None,
    }
}

/// `upper:lower`, as nft writes a priority.
fn class(text: &str) -> Option<u32> {
    let (upper, lower) = text.split_once(':')?;
    let half = |text| u16::from_str_radix(text, 16).ok().map(u32::from);
    Some(half(upper)? << 16 | half(lower)?)
}

/// A number, decimal or hexadecimal.
fn number(text: &str) -> Option<u32> {
    text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |digits| u32::from_str_radix(digits, 16).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_named() {
        for line in [
            "list table ip coracle",
            "add table ip filter",
            "add chain ip coracle x { type route hook ingress priority 0; }",
            "add rule ip coracle x tcp flags syn drop",
            "add rule ip coracle x ip saddr 10.0.0.0/33 drop",
            "add rule ip coracle x goto",
            "add set ip coracle x { type ifname; }",
            "add set ip coracle x { type mark; flags interval; }",
            "add element ip coracle x { 10.0.0.1 . icmp . 8 }",
            "add element ip coracle x 10.0.0.1",
        ] {
            let script = format!("add table ip coracle\n{line}\n");
            assert_eq!(compile(&script), Err(line));
        }
    }

    #[test]
    fn elements_are_filled_up_where_they_are_put_together() {
        assert_eq!(fields("10.96.0.1 . tcp . 80"), Some(vec![10, 96, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0]));
        assert_eq!(fields("10.96.0.1"), Some(vec![10, 96, 0, 1]));
        assert_eq!(fields("0xc0"), Some(0xc0_u32.to_ne_bytes().to_vec()));
        assert_eq!(class("1:1f"), Some(0x1_001f));
        assert_eq!(data_type("ipv4_addr . inet_proto . inet_service . classid"), Some((0x001c_c357, 16)));
    }
}
