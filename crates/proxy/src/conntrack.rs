//! UDP flows that outlive their endpoint. The kernel keeps translating a flow as its first packet was; a client that never
//! pauses would send to a dead pod for ever (`pkg/proxy/conntrack/cleanup.go` upstream). TCP finds out by itself.

use std::net::Ipv4Addr;

use crate::ruleset::{Frontend, Part};

/// Flows that must be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StaleFlow {
    /// Where they enter.
    pub frontend: Frontend,
    /// Where they lead; `None`: wherever (there was no endpoint, so they lead nowhere).
    pub endpoint: Option<Ipv4Addr>,
}

/// The flows that were right under `old` and are wrong under `new`.
pub fn stale_flows(old: &Part, new: &Part) -> Vec<StaleFlow> {
    let gone = old.udp.iter().flat_map(|(frontend, before)| {
        let after = new.udp.get(frontend);
        let lost = before.iter().filter(move |ip| !after.is_some_and(|a| a.contains(*ip)));
        lost.map(|ip| StaleFlow { frontend: *frontend, endpoint: Some(*ip) })
    });
    let born = new
        .udp
        .iter()
        .filter(|(frontend, after)| !after.is_empty() && old.udp.get(*frontend).is_none_or(|before| before.is_empty()));
    gone.chain(born.map(|(frontend, _)| StaleFlow { frontend: *frontend, endpoint: None })).collect()
}

impl StaleFlow {
    /// The arguments of `conntrack` that forget these flows.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["-D".to_owned(), "-p".to_owned(), "udp".to_owned()];
        let mut push = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
        match self.frontend {
            Frontend::Address(ip, port) => {
                push("--orig-dst", ip.to_string());
                push("--orig-port-dst", port.to_string());
            }
            Frontend::NodePort(port) => push("--orig-port-dst", port.to_string()),
        }
        if let Some(endpoint) = self.endpoint {
            push("--dst-nat", endpoint.to_string());
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRONTEND: Frontend = Frontend::Address(Ipv4Addr::new(10, 96, 0, 10), 53);

    fn rules(endpoints: Option<&[u8]>) -> Part {
        let mut rules = Part::default();
        if let Some(endpoints) = endpoints {
            rules.udp.insert(FRONTEND, endpoints.iter().map(|i| Ipv4Addr::new(10, 244, 0, *i)).collect());
        }
        rules
    }

    #[test]
    fn only_flows_to_lost_endpoints_are_forgotten() {
        let to = |i: u8| StaleFlow { frontend: FRONTEND, endpoint: Some(Ipv4Addr::new(10, 244, 0, i)) };
        let any = StaleFlow { frontend: FRONTEND, endpoint: None };
        let table = [
            ("nothing changed", Some(&[1, 2][..]), Some(&[1, 2][..]), vec![]),
            ("one more", Some(&[1]), Some(&[1, 2]), vec![]),
            ("one less", Some(&[1, 2]), Some(&[2]), vec![to(1)]),
            ("service gone", Some(&[1, 2]), None, vec![to(1), to(2)]),
            ("first endpoint", Some(&[]), Some(&[1]), vec![any]),
            ("new service", None, Some(&[1]), vec![any]),
        ];
        for (sentence, old, new, expected) in table {
            assert_eq!(stale_flows(&rules(old), &rules(new)), expected, "{sentence}");
        }
    }

    #[test]
    fn arguments_name_entry_and_endpoint() {
        let flow = StaleFlow { frontend: Frontend::NodePort(30053), endpoint: Some(Ipv4Addr::new(10, 244, 0, 1)) };
        assert_eq!(flow.arguments().join(" "), "-D -p udp --orig-port-dst 30053 --dst-nat 10.244.0.1");
    }
}
