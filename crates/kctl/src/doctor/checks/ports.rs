//! Ports that the daemons need and somebody else has.

use super::super::facts::{Facts, Listening, Protocol, Role};
use super::ufw::VXLAN;
use super::{Finding, Level};

/// Where names are asked for.
const DNS: u16 = 53;

/// Whether those of this role are there to be had.
pub(super) fn are_free(facts: &Facts, role: Role) -> Vec<Finding> {
    let wanted = [
        (facts.ports.secure, "the API", "secure-port", "master", role.serves()),
        (facts.ports.kubelet, "the kubelet", "kubelet-port", "minion", role.runs_pods()),
        (facts.ports.healthz, "the kubelet's health", "healthz-port", "minion", role.runs_pods()),
    ];
    let mut found: Vec<Finding> = Vec::new();
    for (port, what, flag, daemon, _) in wanted.iter().filter(|w| w.4) {
        let taken = facts.listening.iter().find(|l| l.port == *port && l.protocol == Protocol::Tcp);
        let Some(taken) = taken.filter(|taken| taken.program.as_deref() != Some(daemon)) else { continue };
        let fix = format!("stop it, or set {flag} in /etc/coracle/{daemon}.yaml");
        found.push(taken_by_another(taken, &port.to_string(), what, fix));
    }
    if role.runs_pods() {
        found.extend(names(facts));
        found.extend(packets(facts));
    }
    if found.is_empty() {
        let all: Vec<String> = wanted.iter().filter(|w| w.4).map(|w| w.0.to_string()).collect();
        found.push(Finding::fine("ports", format!("{} are free, or Coracle's", all.join(", "))));
    }
    found
}

fn taken_by_another(taken: &Listening, port: &str, what: &str, fix: String) -> Finding {
    let who = match (&taken.program, taken.pid) {
        (Some(program), Some(pid)) => format!("{program} (process {pid})"),
        _ => "another program".to_owned(),
    };
    // Only root sees whose a port is; it may be ours.
    let level = if taken.program.is_some() { Level::Failure } else { Level::Warning };
    Finding::new(level, "ports", format!("{port}, for {what}, is taken by {who}"), fix)
}

/// Somebody who has the port on all addresses, or on ours; on others, as systemd-resolved, he is welcome.
fn names(facts: &Facts) -> Option<Finding> {
    let ours = facts.ports.dns?;
    let in_the_way = |l: &&Listening| l.port == DNS && (l.address.is_unspecified() || l.address == ours);
    let taken = facts.listening.iter().filter(in_the_way).find(|l| l.program.as_deref() != Some("minion"))?;
    let port = format!("{DNS}/{} on {}", taken.protocol, taken.address);
    let fix = "stop it, or have it listen on addresses of its own (dnsmasq: bind-interfaces; unbound: interface)";
    Some(taken_by_another(taken, &port, &format!("names at {ours}"), fix.to_owned()))
}

/// A program with the port that the kernel needs for the overlay.
fn packets(facts: &Facts) -> Option<Finding> {
    let in_the_way = |l: &&Listening| facts.ports.overlay && l.port == VXLAN && l.protocol == Protocol::Udp;
    let taken = facts.listening.iter().find(in_the_way)?;
    let (port, fix) = (format!("{VXLAN}/{}", taken.protocol), "stop it; the overlay has no other port");
    Some(taken_by_another(taken, &port, "the overlay", fix.to_owned()))
}
