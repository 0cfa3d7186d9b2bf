//! One rule: statements one behind the other, each one or several expressions that work on registers.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{LIST_ELEMENT, class, data, number, protocol, verdict};
use crate::netlink::Writer;

/// `NFT_REG_VERDICT`.
const REGISTER_VERDICT: u32 = 0;
/// `NFT_REG_1`: of 16 bytes. Its second to fourth quarter are the registers 9 to 11, `NFT_REG32_01` and on.
const REGISTER: u32 = 1;
const REGISTER_QUARTERS: u32 = 8;
/// `NFT_META_…`.
const META_PRIORITY: u32 = 2;
const META_MARK: u32 = 3;
const META_OUT_NAME: u32 = 7;
const META_PROTOCOL: u32 = 16;
/// `NFT_PAYLOAD_NETWORK_HEADER`, `NFT_PAYLOAD_TRANSPORT_HEADER`.
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
/// `IFNAMSIZ`.
const INTERFACE_BYTES: usize = 16;
/// What an expression is made of; all name their first register so.
const SOURCE: u16 = 1;
const DATA: u16 = 2;

type Words<'a> = &'a [&'a str];

/// What a rule says, in order; nothing where a word of it is not known.
pub(super) fn expressions(out: &mut Writer, body: &str) -> Option<()> {
    const EXPRESSIONS: u16 = 4;
    let words: Vec<&str> = body.split(' ').collect();
    let all = out.nest(EXPRESSIONS);
    let mut rest = words.as_slice();
    while !rest.is_empty() {
        rest = statement(out, rest)?;
    }
    out.end(all)
}

/// Writes one statement and returns the words behind it.
fn statement<'a>(out: &mut Writer, words: Words<'a>) -> Option<Words<'a>> {
    match words {
        ["jump" | "goto", _, rest @ ..] => decide(out, &words[..2]).map(|()| rest),
        ["accept" | "drop" | "return", rest @ ..] => decide(out, &words[..1]).map(|()| rest),
        ["reject", "with", "tcp", "reset", rest @ ..] => reject(out, 1, 0).map(|()| rest),
        // An ICMP error: the port cannot be reached.
        ["reject", rest @ ..] => reject(out, 0, 3).map(|()| rest),
        ["masquerade", "fully-random", rest @ ..] => {
            // `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
            expression(out, "masq", |out| out.number(1, 1 << 4))?;
            Some(rest)
        }
        ["notrack", rest @ ..] => expression(out, "notrack", |_| Some(())).map(|()| rest),
        ["meta", "mark", "set", "meta", "mark", operator, mask, rest @ ..] => {
            load(out, &Selector::Meta(META_MARK), REGISTER)?;
            let mask = number(mask)?;
            match *operator {
                "|" => bitwise(out, &(!mask).to_ne_bytes(), &mask.to_ne_bytes())?,
                "&" => bitwise(out, &mask.to_ne_bytes(), &[0; 4])?,
                _ => return None,
            }
            assign(out, META_MARK).map(|()| rest)
        }
        ["meta", "priority", "set", "numgen", "random", "mod", modulus, "offset", offset, rest @ ..] => {
            load(out, &Selector::Random { modulus: number(modulus)?, offset: number(offset)? }, REGISTER)?;
            assign(out, META_PRIORITY).map(|()| rest)
        }
        ["meta", "priority", "set", value, rest @ ..] => {
            immediate(out, REGISTER, &class(value)?.to_ne_bytes())?;
            assign(out, META_PRIORITY).map(|()| rest)
        }
        ["dnat", "to", target, rest @ ..] => {
            let (ip, port) = target.split_once(':')?;
            immediate(out, REGISTER, &ip.parse::<Ipv4Addr>().ok()?.octets())?;
            immediate(out, REGISTER + 1, &port.parse::<u16>().ok()?.to_be_bytes())?;
            translate(out, REGISTER, REGISTER + 1).map(|()| rest)
        }
        ["dnat", "ip", "to", rest @ ..] => {
            let (_, rest) = keys(out, rest)?;
            let ["map", map, rest @ ..] = rest else { return None };
            lookup(out, map, Some(REGISTER))?;
            // Address and port lie in one register, one behind the other.
            translate(out, REGISTER, REGISTER_QUARTERS + 1).map(|()| rest)
        }
        ["update", set, "{", "ip", "saddr", "}", rest @ ..] => {
            load(out, &SOURCE_ADDRESS, REGISTER)?;
            update(out, set).map(|()| rest)
        }
        // Ports are read only where the protocol has such.
        [name @ ("tcp" | "udp"), "dport" | "sport", ..] => {
            load(out, &Selector::Meta(META_PROTOCOL), REGISTER)?;
            compare(out, false, &[protocol(name)?])?;
            test(out, words)
        }
        _ => test(out, words),
    }
}

/// Something about a packet.
#[derive(Clone, Copy, Debug)]
enum Selector {
    Payload {
        base: u32,
        offset: u32,
        length: u32,
    },
    Meta(u32),
    /// The type of an address: the flag says of which.
    Fib(u32),
    Ct(u32),
    Random {
        modulus: u32,
        offset: u32,
    },
}

const SOURCE_ADDRESS: Selector = Selector::Payload { base: NETWORK, offset: 12, length: 4 };

/// Reads what a test or a key begins with.
fn selector<'a>(words: Words<'a>) -> Option<(Selector, Words<'a>)> {
    let port = |offset| Selector::Payload { base: TRANSPORT, offset, length: 2 };
    let found = match words {
        ["ip", "saddr", rest @ ..] => (SOURCE_ADDRESS, rest),
        ["ip", "daddr", rest @ ..] => (Selector::Payload { base: NETWORK, offset: 16, length: 4 }, rest),
        ["th" | "tcp" | "udp", "sport", rest @ ..] => (port(0), rest),
        ["th" | "tcp" | "udp", "dport", rest @ ..] => (port(2), rest),
        ["meta", "l4proto", rest @ ..] => (Selector::Meta(META_PROTOCOL), rest),
        ["meta", "mark", rest @ ..] => (Selector::Meta(META_MARK), rest),
        ["meta", "priority", rest @ ..] => (Selector::Meta(META_PRIORITY), rest),
        ["oifname", rest @ ..] => (Selector::Meta(META_OUT_NAME), rest),
        ["fib", "saddr", "type", rest @ ..] => (Selector::Fib(1), rest),
        ["fib", "daddr", "type", rest @ ..] => (Selector::Fib(2), rest),
        ["ct", "state", rest @ ..] => (Selector::Ct(0), rest),
        ["ct", "status", rest @ ..] => (Selector::Ct(2), rest),
        ["numgen", "random", "mod", modulus, rest @ ..] => {
            (Selector::Random { modulus: number(modulus)?, offset: 0 }, rest)
        }
        _ => return None,
    };
    Some(found)
}

/// Loads `ip daddr . meta l4proto . th dport`, each into a quarter of the register; returns the first.
fn keys<'a>(out: &mut Writer, words: Words<'a>) -> Option<(Selector, Words<'a>)> {
    let (first, mut rest) = selector(words)?;
    load(out, &first, REGISTER)?;
    let mut quarter = REGISTER_QUARTERS;
    while let [".", more @ ..] = rest {
        let (next, behind) = selector(more)?;
        quarter += 1;
        load(out, &next, quarter)?;
        rest = behind;
    }
    Some((first, rest))
}

/// A test: a look into a set or map, or a comparison.
fn test<'a>(out: &mut Writer, words: Words<'a>) -> Option<Words<'a>> {
    let (only, behind) = selector(words)?;
    if !matches!(behind, ["." | "vmap", ..]) && !behind.first()?.starts_with('@') {
        return comparison(out, &only, behind);
    }
    match keys(out, words)?.1 {
        ["vmap", map, rest @ ..] => lookup(out, map, Some(REGISTER_VERDICT)).map(|()| rest),
        [set, rest @ ..] => lookup(out, set, None).map(|()| rest),
        [] => None,
    }
}

/// A comparison: `10.0.0.0/8`, `!= local`, `& 0x1 == 0x1`.
fn comparison<'a>(out: &mut Writer, selector: &Selector, words: Words<'a>) -> Option<Words<'a>> {
    let (differs, words) = match words {
        ["!=", words @ ..] => (true, words),
        ["==", words @ ..] => (false, words),
        _ => (false, words),
    };
    let (value, rest) = words.split_first()?;
    match (selector, *value, rest) {
        (Selector::Meta(META_MARK), "&", [mask, "==", value, rest @ ..]) => {
            load(out, selector, REGISTER)?;
            bitwise(out, &number(mask)?.to_ne_bytes(), &[0; 4])?;
            compare(out, differs, &number(value)?.to_ne_bytes())?;
            return Some(rest);
        }
        (Selector::Payload { base: NETWORK, offset, .. }, ..) => address(out, *offset, differs, value)?,
        // Bits of a state: one of them.
        (Selector::Ct(key), ..) if !differs => {
            load(out, selector, REGISTER)?;
            let bits = value.split(',').try_fold(0, |bits, name| Some(bits | state(*key, name)?))?;
            bitwise(out, &bits.to_ne_bytes(), &[0; 4])?;
            compare(out, true, &[0; 4])?;
        }
        _ => {
            load(out, selector, REGISTER)?;
            compare(out, differs, &plain(selector, value)?)?;
        }
    }
    Some(rest)
}

/// An address or a network: only the bytes that count are loaded, where none counts in part.
fn address(out: &mut Writer, offset: u32, differs: bool, value: &str) -> Option<()> {
    let network: Ipv4Net =
        if value.contains('/') { value.parse().ok()? } else { value.parse::<Ipv4Addr>().ok()?.into() };
    let bits = network.prefix_len();
    let whole = bits.is_multiple_of(8) && bits > 0;
    let length = if whole { bits / 8 } else { 4 };
    load(out, &Selector::Payload { base: NETWORK, offset, length: u32::from(length) }, REGISTER)?;
    if !whole {
        bitwise(out, &network.netmask().octets(), &[0; 4])?;
    }
    compare(out, differs, &network.network().octets()[..usize::from(length)])
}

/// What a selector is compared with, as the kernel has it.
fn plain(selector: &Selector, value: &str) -> Option<Vec<u8>> {
    match selector {
        Selector::Payload { base: TRANSPORT, .. } => Some(value.parse::<u16>().ok()?.to_be_bytes().to_vec()),
        Selector::Meta(META_PROTOCOL) => Some(vec![protocol(value)?]),
        Selector::Meta(META_OUT_NAME) => {
            let mut name = value.strip_prefix('"')?.strip_suffix('"')?.as_bytes().to_vec();
            let fits = name.len() < INTERFACE_BYTES;
            name.resize(INTERFACE_BYTES, 0);
            fits.then_some(name)
        }
        // `RTN_LOCAL`.
        Selector::Fib(_) => (value == "local").then(|| 2_u32.to_ne_bytes().to_vec()),
        Selector::Random { .. } => Some(number(value)?.to_ne_bytes().to_vec()),
        Selector::Payload { .. } | Selector::Meta(_) | Selector::Ct(_) => None,
    }
}

/// `NF_CT_STATE_BIT` and `IPS_…`.
fn state(key: u32, name: &str) -> Option<u32> {
    match (key, name) {
        (0, "established") => Some(1 << 1),
        (0, "new") => Some(1 << 3),
        (0, "untracked") => Some(1 << 6),
        (2, "dnat") => Some(1 << 5),
        _ => None,
    }
}

fn expression(out: &mut Writer, name: &str, fill: impl FnOnce(&mut Writer) -> Option<()>) -> Option<()> {
    let element = out.nest(LIST_ELEMENT);
    out.text(1, name)?;
    let inside = out.nest(DATA);
    fill(out)?;
    out.end(inside)?;
    out.end(element)
}

fn load(out: &mut Writer, selector: &Selector, register: u32) -> Option<()> {
    let (name, numbers) = match *selector {
        Selector::Payload { base, offset, length } => {
            ("payload", vec![(1, register), (2, base), (3, offset), (4, length)])
        }
        Selector::Meta(key) => ("meta", vec![(1, register), (2, key)]),
        // `NFT_FIB_RESULT_ADDRTYPE`.
        Selector::Fib(flag) => ("fib", vec![(1, register), (2, 3), (3, flag)]),
        Selector::Ct(key) => ("ct", vec![(1, register), (2, key)]),
        // `NFT_NG_RANDOM`.
        Selector::Random { modulus, offset } => ("numgen", vec![(1, register), (2, modulus), (3, 1), (4, offset)]),
    };
    expression(out, name, |out| numbers.into_iter().try_for_each(|(kind, value)| out.number(kind, value)))
}

/// Writes the register to something about the packet.
fn assign(out: &mut Writer, key: u32) -> Option<()> {
    expression(out, "meta", |out| {
        out.number(2, key)?;
        out.number(3, REGISTER)
    })
}

fn bitwise(out: &mut Writer, mask: &[u8], flip: &[u8]) -> Option<()> {
    expression(out, "bitwise", |out| {
        out.number(SOURCE, REGISTER)?;
        out.number(2, REGISTER)?;
        out.number(3, u32::try_from(mask.len()).ok()?)?;
        data(out, 4, mask)?;
        data(out, 5, flip)
    })
}

fn compare(out: &mut Writer, differs: bool, value: &[u8]) -> Option<()> {
    expression(out, "cmp", |out| {
        out.number(SOURCE, REGISTER)?;
        out.number(2, u32::from(differs))?;
        data(out, 3, value)
    })
}

/// Looks the register up in `@set`, and puts what the map says into another.
fn lookup(out: &mut Writer, set: &str, target: Option<u32>) -> Option<()> {
    let set = set.strip_prefix('@')?;
    expression(out, "lookup", |out| {
        out.text(1, set)?;
        out.number(2, REGISTER)?;
        target.map_or(Some(()), |target| out.number(3, target))
    })
}

/// Puts the register into `@set`, anew where it is there already.
fn update(out: &mut Writer, set: &str) -> Option<()> {
    const UPDATE: u32 = 1;
    let set = set.strip_prefix('@')?;
    expression(out, "dynset", |out| {
        out.text(1, set)?;
        out.number(3, UPDATE)?;
        out.number(4, REGISTER)
    })
}

fn immediate(out: &mut Writer, register: u32, value: &[u8]) -> Option<()> {
    expression(out, "immediate", |out| {
        out.number(1, register)?;
        data(out, DATA, value)
    })
}

fn decide(out: &mut Writer, words: Words<'_>) -> Option<()> {
    expression(out, "immediate", |out| {
        out.number(1, REGISTER_VERDICT)?;
        verdict(out, DATA, words)
    })
}

fn reject(out: &mut Writer, kind: u32, code: u8) -> Option<()> {
    expression(out, "reject", |out| {
        out.number(1, kind)?;
        out.bytes(2, &[code])
    })
}

/// `NFT_NAT_DNAT` to what lies in two registers.
fn translate(out: &mut Writer, address: u32, port: u32) -> Option<()> {
    const DESTINATION: u32 = 1;
    expression(out, "nat", |out| {
        out.number(1, DESTINATION)?;
        out.number(2, u32::from(super::IPV4))?;
        out.number(3, address)?;
        out.number(5, port)
    })
}
