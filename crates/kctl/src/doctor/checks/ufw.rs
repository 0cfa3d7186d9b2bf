//! UFW, which as Ubuntu has it drops what is forwarded, and what comes to a port nobody told it of.

use super::super::facts::{Facts, Protocol, Role, Ufw};
use super::super::repair::Repair;
use super::Finding;

/// Where packets for other nodes' pods are sent in VXLAN.
pub(super) const VXLAN: u16 = 8472;

/// Whether packets reach pods.
pub(super) fn forwards(facts: &Facts) -> Finding {
    let Some(ufw) = &facts.ufw else { return Finding::fine("ufw", "not installed") };
    let place = format!("{}:{}", ufw.file.display(), ufw.line);
    let policy = ufw.forward_policy.as_str();
    if policy == "ACCEPT" {
        return Finding::fine("ufw", format!("DEFAULT_FORWARD_POLICY is ACCEPT ({place})"));
    }
    let fix = format!("{place}: write DEFAULT_FORWARD_POLICY=\"ACCEPT\", then: ufw reload");
    let what = format!("DEFAULT_FORWARD_POLICY is {policy} ({place}): packets between pods are dropped");
    let repair = Repair::UfwForward(ufw.file.clone());
    if ufw.enabled {
        Finding::failure("ufw", what, fix).repaired_by(repair)
    } else {
        Finding::warning("ufw", format!("{what} once UFW is switched on"), fix).repaired_by(repair)
    }
}

/// Whether other machines reach the daemons. Ports of services and pods are forwarded, and names asked for by pods are let
/// in by the minion itself.
pub(super) fn lets_in(facts: &Facts, role: Role) -> Option<Finding> {
    let ufw = facts.ufw.as_ref()?;
    let wanted = [
        (facts.ports.secure, Protocol::Tcp, role.serves()),
        (facts.ports.kubelet, Protocol::Tcp, role.runs_pods()),
        (VXLAN, Protocol::Udp, role.runs_pods() && facts.ports.overlay),
    ];
    let wanted = wanted.into_iter().filter(|(port, protocol, needed)| *needed && !allows(ufw, *port, *protocol));
    let closed: Vec<String> = wanted.map(|(port, protocol, _)| format!("{port}/{protocol}")).collect();
    if closed.is_empty() {
        return None;
    }
    let when = if ufw.enabled { "" } else { " once it is switched on" };
    let unread = if ufw.rules.is_none() { ", unless a rule lets it in, which only root can read" } else { "" };
    let what = format!("what comes to {} is dropped by UFW{when}{unread}", closed.join(" and "));
    let fix = closed.iter().map(|port| format!("ufw allow {port}")).collect::<Vec<_>>().join("; ");
    Some(Finding::warning("ufw", what, fix))
}

/// What UFW does with what comes to a port: its first rule for it decides, else its policy.
fn allows(ufw: &Ufw, port: u16, protocol: Protocol) -> bool {
    let decides = ufw.rules.iter().flatten().find(|rule| {
        let within = rule.ports.is_empty() || rule.ports.iter().any(|(first, last)| (*first..=*last).contains(&port));
        within && rule.protocol.is_none_or(|only| only == protocol)
    });
    decides.map_or(ufw.input_policy == "ACCEPT", |rule| rule.allows)
}
