//! Forwarded pod traffic must pass the chains of others: Docker and UFW set the policy of `ip filter FORWARD` to drop, and
//! accepting in a table of our own would not overrule that. So marked accept rules go into the chains that decide. The same
//! with questions to the node's DNS server, where what comes in is dropped.
//!
//! Only expressions that `iptables-nft` can read are used there: one it cannot read makes it refuse the whole table, and
//! Docker with it.

use ipnet::Ipv4Net;
use serde_json::Value;

use crate::Config;

/// Every rule we put into a chain of someone else's carries a comment that starts so.
pub const COMMENT_PREFIX: &str = "coracle: ";
/// Chains that exist to take rules from outside, kept when their owner restarts.
const HOSPITABLE: [&str; 2] = ["DOCKER-USER", "ufw-before-forward"];
/// The same for what comes in.
const HOSPITABLE_INPUT: &str = "ufw-before-input";

/// A rule we want: its comment and what it matches.
pub type Accept = (String, String);

/// A chain of the firewall, as `nft -j list chains` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// `ip`, `inet`, …
    pub family: String,
    /// The table it is in.
    pub table: String,
    /// Its name.
    pub name: String,
    /// The hook, for base chains.
    pub hook: Option<String>,
    /// Whether a base chain drops what no rule accepts.
    pub drops: bool,
}

/// A rule of ours found in a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What nft deletes it by.
    pub handle: u64,
    /// Our comment.
    pub comment: String,
}

impl Chain {
    /// `ip filter DOCKER-USER`.
    pub fn id(&self) -> String {
        format!("{} {} {}", self.family, self.table, self.name)
    }
}

/// Reads the answer to `nft -j list chains`.
pub fn parse_chains(json: &Value) -> Vec<Chain> {
    let chains = json["nftables"].as_array().into_iter().flatten().filter_map(|item| item.get("chain"));
    let text = |chain: &Value, key: &str| chain[key].as_str().map(str::to_owned);
    let parsed = chains.filter_map(|chain| {
        Some(Chain {
            family: text(chain, "family")?,
            table: text(chain, "table")?,
            name: text(chain, "name")?,
            hook: text(chain, "hook"),
            drops: chain["policy"] == "drop",
        })
    });
    parsed.collect()
}

/// Reads our rules out of the answer to `nft -j -a list chain …`.
pub fn parse_found(json: &Value) -> Vec<Found> {
    let rules = json["nftables"].as_array().into_iter().flatten().filter_map(|item| item.get("rule"));
    let ours = rules.filter_map(|rule| {
        let comment = rule["comment"].as_str().filter(|c| c.starts_with(COMMENT_PREFIX))?;
        Some(Found { handle: rule["handle"].as_u64()?, comment: comment.to_owned() })
    });
    ours.collect()
}

/// The chains in which forwarded traffic is decided and our rules must stand.
pub fn deciding(chains: &[Chain]) -> Vec<&Chain> {
    let mut found: Vec<&Chain> = chains
        .iter()
        .filter(|c| c.family == "ip" && c.table == "filter" && HOSPITABLE.contains(&c.name.as_str()))
        .collect();
    let hosted = !found.is_empty();
    let others =
        chains.iter().filter(|c| is_foreign_forward(c)).filter(|c| match (c.table.as_str(), c.name.as_str()) {
            ("filter", "FORWARD") if c.family == "ip" => c.drops && !hosted,
            // Its policy is accept, its last rule rejects.
            ("firewalld", _) => true,
            _ => c.drops,
        });
    found.extend(others);
    found
}

/// The chains in which it is decided what comes in.
fn deciding_input(chains: &[Chain]) -> Vec<&Chain> {
    let hosts = |c: &&Chain| c.family == "ip" && c.table == "filter" && c.name == HOSPITABLE_INPUT;
    let hosted = chains.iter().any(|c| hosts(&c));
    let decides = |c: &&Chain| match (c.table.as_str(), c.name.as_str()) {
        ("filter", "INPUT") if c.family == "ip" => c.drops && !hosted,
        ("firewalld", _) => true,
        _ => c.drops,
    };
    let foreign = chains.iter().filter(|c| is_foreign(c, "input")).filter(decides);
    chains.iter().filter(hosts).chain(foreign).collect()
}

/// Each chain in which rules of ours might be, with those it shall have.
pub fn wanted<'a>(chains: &'a [Chain], config: &Config) -> Vec<(&'a Chain, Vec<Accept>)> {
    let (forward, input) = (deciding(chains), deciding_input(chains));
    let rules =
        |chain: &Chain| {
            let mut rules = Vec::new();
            if forward.contains(&chain) {
                rules.extend(accept_rules(config.cluster_cidr));
            }
            if input.contains(&chain) {
                rules.extend(config.dns.iter().map(|dns| {
                    (format!("{COMMENT_PREFIX}dns at {}", dns.address), format!("ip daddr {}", dns.address))
                }));
            }
            rules
        };
    candidates(chains).into_iter().map(|chain| (chain, rules(chain))).collect()
}

/// Where rules of ours might be, to find them at the end.
pub fn candidates(chains: &[Chain]) -> Vec<&Chain> {
    let hospitable = |c: &Chain| HOSPITABLE.contains(&c.name.as_str()) || c.name == HOSPITABLE_INPUT;
    chains.iter().filter(|c| is_foreign_forward(c) || is_foreign(c, "input") || hospitable(c)).collect()
}

fn is_foreign_forward(chain: &Chain) -> bool {
    is_foreign(chain, "forward")
}

fn is_foreign(chain: &Chain, hook: &str) -> bool {
    chain.hook.as_deref() == Some(hook) && matches!(chain.family.as_str(), "ip" | "inet") && chain.table != "coracle"
}

/// The nft script that leaves in `chain`, where `found` is now, exactly the accept rules `wanted`. Empty where there is
/// nothing to do.
pub fn plan(chain: &Chain, found: &[Found], wanted: &[Accept]) -> String {
    let mut script = String::new();
    let mut kept: Vec<&str> = Vec::new();
    for rule in found {
        let right =
            wanted.iter().any(|(comment, _)| *comment == rule.comment) && !kept.contains(&rule.comment.as_str());
        if right {
            kept.push(&rule.comment);
        } else {
            script.push_str(&format!("delete rule {} handle {}\n", chain.id(), rule.handle));
        }
    }
    for (comment, expression) in wanted.iter().filter(|(comment, _)| !kept.contains(&comment.as_str())) {
        script.push_str(&format!("insert rule {} {expression} counter accept comment \"{comment}\"\n", chain.id()));
    }
    script
}

/// What lets pods' and services' traffic through.
fn accept_rules(cluster_cidr: Ipv4Net) -> [Accept; 3] {
    [
        (format!("{COMMENT_PREFIX}from {cluster_cidr}"), format!("ip saddr {cluster_cidr}")),
        (format!("{COMMENT_PREFIX}to {cluster_cidr}"), format!("ip daddr {cluster_cidr}")),
        (format!("{COMMENT_PREFIX}services"), "meta mark & 0x4000 == 0x4000".to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(id: &str, hook: Option<&str>, drops: bool) -> Chain {
        let mut words = id.split(' ').map(str::to_owned);
        let mut word = || words.next().unwrap();
        Chain { family: word(), table: word(), name: word(), hook: hook.map(str::to_owned), drops }
    }

    #[test]
    fn rules_go_where_forwarding_is_decided() {
        let forward = |id, drops| chain(id, Some("forward"), drops);
        let plain = |id| chain(id, None, false);
        let table = [
            ("nobody filters", vec![forward("ip filter FORWARD", false)], vec![]),
            ("a bare policy", vec![forward("ip filter FORWARD", true)], vec!["ip filter FORWARD"]),
            (
                "Docker",
                vec![forward("ip filter FORWARD", true), plain("ip filter DOCKER-USER")],
                vec!["ip filter DOCKER-USER"],
            ),
            (
                "Docker and UFW",
                vec![
                    forward("ip filter FORWARD", true),
                    plain("ip filter DOCKER-USER"),
                    plain("ip filter ufw-before-forward"),
                ],
                vec!["ip filter DOCKER-USER", "ip filter ufw-before-forward"],
            ),
            (
                "an administrator's own",
                vec![forward("inet fw fwd", true), forward("inet x y", false)],
                vec!["inet fw fwd"],
            ),
            ("firewalld", vec![forward("inet firewalld filter_FORWARD", false)], vec!["inet firewalld filter_FORWARD"]),
            ("ourselves", vec![forward("ip coracle filter_forward", true)], vec![]),
            ("IPv6 is not ours", vec![forward("ip6 filter FORWARD", true)], vec![]),
        ];
        for (sentence, chains, expected) in table {
            let ids: Vec<String> = deciding(&chains).into_iter().map(Chain::id).collect();
            assert_eq!(ids, expected, "{sentence}");
        }
    }

    #[test]
    fn planning_again_finds_nothing_to_do() {
        let docker = chain("ip filter DOCKER-USER", None, false);
        let cidr: Ipv4Net = "10.244.0.0/16".parse().unwrap();
        assert_eq!(plan(&docker, &[], &accept_rules(cidr)).lines().count(), 3);
        let comments = accept_rules(cidr).map(|(comment, _)| comment);
        let found: Vec<Found> = (1..).zip(comments).map(|(handle, comment)| Found { handle, comment }).collect();
        assert_eq!(plan(&docker, &found, &accept_rules(cidr)), "");
    }

    #[test]
    fn old_and_doubled_rules_go() {
        let docker = chain("ip filter DOCKER-USER", None, false);
        let found = |handle, comment: &str| Found { handle, comment: format!("{COMMENT_PREFIX}{comment}") };
        let present = [found(1, "services"), found(2, "services"), found(3, "from 10.1.0.0/16")];
        let script = plan(&docker, &present, &[]);
        assert_eq!(script.lines().count(), 3, "{script}");
        let script = plan(&docker, &present, &accept_rules("10.244.0.0/16".parse().unwrap()));
        assert_eq!(
            script,
            "delete rule ip filter DOCKER-USER handle 2\n\
             delete rule ip filter DOCKER-USER handle 3\n\
             insert rule ip filter DOCKER-USER ip saddr 10.244.0.0/16 counter accept comment \"coracle: from 10.244.0.0/16\"\n\
             insert rule ip filter DOCKER-USER ip daddr 10.244.0.0/16 counter accept comment \"coracle: to 10.244.0.0/16\"\n"
        );
    }

    #[test]
    fn questions_are_accepted_where_what_comes_in_is_dropped() {
        let input = |id, drops| chain(id, Some("input"), drops);
        let table = [
            ("nobody filters", vec![input("ip filter INPUT", false)], vec![]),
            ("a bare policy", vec![input("ip filter INPUT", true)], vec!["ip filter INPUT"]),
            (
                "UFW",
                vec![input("ip filter INPUT", true), chain("ip filter ufw-before-input", None, false)],
                vec!["ip filter ufw-before-input"],
            ),
            ("ourselves", vec![input("ip coracle filter_input", true)], vec![]),
        ];
        let mut config = Config::new("a", "192.0.2.1".parse().unwrap());
        for (sentence, chains, expected) in table {
            let asked = |config: &Config| {
                let all = wanted(&chains, config).into_iter().filter(|(_, rules)| !rules.is_empty());
                all.map(|(chain, _)| chain.id()).collect::<Vec<_>>()
            };
            config.dns = None;
            assert_eq!(asked(&config), Vec::<String>::new(), "{sentence}: no server, no rule");
            config.dns = Some(crate::dns::Config {
                address: "10.96.0.10".parse().unwrap(),
                domain: "cluster.local".to_owned(),
                resolv_conf: None,
            });
            assert_eq!(asked(&config), expected, "{sentence}");
        }
    }
}
