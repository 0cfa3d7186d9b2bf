//! UDP flows that outlive their endpoint. The kernel keeps translating a flow as its first packet was; a client that never
//! pauses would send to a dead pod for ever (`pkg/proxy/conntrack/cleanup.go` upstream). TCP finds out by itself.

use std::collections::BTreeSet;
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

/// The flows in a list of `conntrack` that lead from a frontend of ours to where nobody serves it: left by an earlier life.
pub fn stale_listed(list: &str, rules: &Part) -> Vec<StaleFlow> {
    let stale = list.lines().filter_map(|line| {
        // Both directions of a flow have these; the second one's source is where the first one was led to.
        let values = |key: &'static str| line.split(' ').filter_map(move |word| word.strip_prefix(key));
        let (ip, port): (Ipv4Addr, u16) =
            (values("dst=").next()?.parse().ok()?, values("dport=").next()?.parse().ok()?);
        let led_to: Ipv4Addr = values("src=").nth(1)?.parse().ok()?;
        let (frontend, serving) = [Frontend::Address(ip, port), Frontend::NodePort(port)]
            .into_iter()
            .find_map(|frontend| Some((frontend, rules.udp.get(&frontend)?)))?;
        (led_to != ip && !serving.contains(&led_to)).then_some(StaleFlow { frontend, endpoint: Some(led_to) })
    });
    stale.collect::<BTreeSet<StaleFlow>>().into_iter().collect()
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
    fn flows_of_an_earlier_life_are_found_where_they_lead_wrong() {
        let line = |dst: &str, port: u16, led_to: &str| {
            format!(
                "udp      17 117 src=10.244.0.9 dst={dst} sport=40000 dport={port} src={led_to} dst=10.244.0.9 \
                 sport=5353 dport=40000 [ASSURED] mark=0 use=1\n"
            )
        };
        let list = [
            line("10.96.0.10", 53, "10.244.0.1"),
            line("10.96.0.10", 53, "10.244.0.7"),
            line("10.96.0.10", 53, "10.244.0.7"),
            line("192.0.2.1", 30_053, "10.244.0.8"),
            line("10.96.0.10", 54, "10.244.0.7"),
            line("10.96.0.10", 53, "10.96.0.10"),
            "conntrack v1.4.7 (conntrack-tools): 6 flow entries have been shown.\n".to_owned(),
        ];
        let mut part = rules(Some(&[1, 2]));
        part.udp.insert(Frontend::NodePort(30_053), BTreeSet::new());
        let stale = |frontend, last| StaleFlow { frontend, endpoint: Some(Ipv4Addr::new(10, 244, 0, last)) };
        let expected = [stale(FRONTEND, 7), stale(Frontend::NodePort(30_053), 8)];
        assert_eq!(stale_listed(&list.concat(), &part), expected);
    }

    #[test]
    fn arguments_name_entry_and_endpoint() {
        let flow = StaleFlow { frontend: Frontend::NodePort(30053), endpoint: Some(Ipv4Addr::new(10, 244, 0, 1)) };
        assert_eq!(flow.arguments().join(" "), "-D -p udp --orig-port-dst 30053 --dst-nat 10.244.0.1");
    }
}
