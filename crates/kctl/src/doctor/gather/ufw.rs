//! UFW: its policies, and the rules somebody gave it.

use super::super::facts::{Protocol, Ufw, UfwRule};
use super::Place;

/// Where its policies are.
const DEFAULTS: &str = "/etc/default/ufw";
/// Everybody, as its rules write it.
const ANYWHERE: [&str; 2] = ["any", "0.0.0.0/0"];

/// What it does, where it is installed.
pub(super) fn read(place: &Place) -> Option<Ufw> {
    let defaults = place.read(DEFAULTS)?;
    let (line, policy) = setting(&defaults, "DEFAULT_FORWARD_POLICY").unwrap_or((0, "DROP"));
    let (_, input) = setting(&defaults, "DEFAULT_INPUT_POLICY").unwrap_or((0, "DROP"));
    let switch = place.read("/etc/ufw/ufw.conf").unwrap_or_default();
    let enabled = setting(&switch, "ENABLED").is_some_and(|(_, value)| value.eq_ignore_ascii_case("yes"));
    Some(Ufw {
        enabled,
        forward_policy: policy.to_uppercase(),
        file: place.at(DEFAULTS),
        line,
        input_policy: input.to_uppercase(),
        rules: place.read("/etc/ufw/user.rules").map(|text| text.lines().filter_map(rule).collect()),
    })
}

/// The last line of a shell file that sets a variable, and its number.
fn setting<'a>(text: &'a str, name: &str) -> Option<(usize, &'a str)> {
    let of_line = |(i, line): (usize, &'a str)| {
        let value = line.trim().strip_prefix(name)?.strip_prefix('=')?;
        Some((i + 1, value.trim().trim_matches(['"', '\''])))
    };
    text.lines().enumerate().filter_map(of_line).last()
}

/// A rule for packets that come in, as UFW notes it before the lines for iptables:
/// `### tuple ### allow tcp 10250 0.0.0.0/0 any 0.0.0.0/0 in`, which is action, protocol, port, own address, the other's port
/// and address, direction. One that lets in some senders counts as one that lets in: who wrote it knows which. One that
/// refuses some does not count.
fn rule(line: &str) -> Option<UfwRule> {
    let words: Vec<&str> = line.strip_prefix("### tuple ###")?.split_whitespace().collect();
    let [action, protocol, ports, _, _, from, ..] = words.as_slice() else { return None };
    let allows = match action.split('_').next()? {
        "allow" | "limit" => true,
        "deny" | "reject" if ANYWHERE.contains(from) => false,
        _ => return None,
    };
    if !words.last()?.starts_with("in") {
        return None;
    }
    let protocol = match *protocol {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        "any" => None,
        _ => return None,
    };
    let range = |part: &str| {
        let (first, last) = part.split_once(':').unwrap_or((part, part));
        Some((first.parse().ok()?, last.parse().ok()?))
    };
    let ports = if *ports == "any" { Some(Vec::new()) } else { ports.split(',').map(range).collect() };
    Some(UfwRule { allows, protocol, ports: ports? })
}

#[test]
fn rules_are_read_as_ufw_notes_them() {
    let of = |allows, protocol, ports: &[(u16, u16)]| Some(UfwRule { allows, protocol, ports: ports.to_vec() });
    let (tcp, udp) = (Some(Protocol::Tcp), Some(Protocol::Udp));
    for (line, expected) in [
        ("allow tcp 10250 0.0.0.0/0 any 0.0.0.0/0 in", of(true, tcp, &[(10250, 10250)])),
        ("limit tcp 22,6443:6445 0.0.0.0/0 any 0.0.0.0/0 in_eth0", of(true, tcp, &[(22, 22), (6443, 6445)])),
        ("allow any any 0.0.0.0/0 any 192.168.0.0/24 in", of(true, None, &[])),
        ("allow_log udp 8472 0.0.0.0/0 any 0.0.0.0/0 VXLAN - in", of(true, udp, &[(8472, 8472)])),
        ("deny tcp 6443 0.0.0.0/0 any 0.0.0.0/0 in", of(false, tcp, &[(6443, 6443)])),
        ("deny tcp 6443 0.0.0.0/0 any 203.0.113.9 in", None),
        ("allow tcp 443 0.0.0.0/0 any 0.0.0.0/0 out", None),
        ("route:allow any any 0.0.0.0/0 any 0.0.0.0/0 in_eth0!out_eth1", None),
        ("allow esp any 0.0.0.0/0 any 0.0.0.0/0 in", None),
        ("allow tcp", None),
    ] {
        assert_eq!(rule(&format!("### tuple ### {line}")), expected, "{line}");
    }
    assert_eq!(rule("-A ufw-user-input -p tcp --dport 22 -j ACCEPT"), None);
}
