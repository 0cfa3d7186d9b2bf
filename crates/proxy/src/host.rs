//! What the node needs besides rules: forwarding switched on, bridged traffic shown to the rules, hairpins on the bridge.

use std::path::Path;

use serde_json::Value;

use crate::command::{json, nft, run};
use crate::conntrack::{StaleFlow, stale_listed};
use crate::forward::{self, Accept, Chain};
use crate::{Config, Part, SinkError};

/// Forwards packets between interfaces.
const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
/// Shows bridged packets to the rules: without it the answer of a pod on the same bridge goes back untranslated.
const BRIDGE_CALL: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Switches on what services need of the kernel. What cannot be switched on is said in the log: the rest still works.
pub async fn prepare_kernel() {
    if !Path::new(BRIDGE_CALL).exists() {
        // Docker loads it as well. Where there are no modules it is built in, or missing for good.
        let _ = run("modprobe", &["br_netfilter"], "").await;
    }
    for path in [IP_FORWARD, BRIDGE_CALL] {
        if std::fs::read_to_string(path).is_ok_and(|value| value.trim() == "1") {
            continue;
        }
        if let Err(error) = std::fs::write(path, "1") {
            tracing::warn!(%error, path, "cannot switch on");
        }
    }
}

/// Lets frames leave the bridge through the port they came in by, so that a pod reaches itself through its service: with
/// bridge-nf-call-iptables the kernel answers a translated packet for the same bridge without routing it.
pub async fn allow_hairpins(bridge: &str) -> Result<(), SinkError> {
    let ports = match json("ip", &["-d", "-j", "link", "show", "master", bridge]).await {
        Ok(ports) => ports,
        // No bridge yet, no pods yet: the endpoints that make hairpins possible come later and bring us here again.
        Err(SinkError::Failed { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    let closed = |port: &&Value| port["linkinfo"]["info_slave_data"]["hairpin"] == Value::Bool(false);
    for name in ports.as_array().into_iter().flatten().filter(closed).filter_map(|p| p["ifname"].as_str()) {
        // A port that goes away between the look and the change needs nothing more.
        if let Err(error) = run("ip", &["link", "set", "dev", name, "type", "bridge_slave", "hairpin", "on"], "").await
        {
            tracing::debug!(%error, port = name, "no hairpin");
        }
    }
    Ok(())
}

/// Forgets UDP flows that an earlier life of ours led to where nobody serves them any more.
pub async fn forget_old_flows(rules: &Part) {
    if rules.udp.is_empty() {
        return;
    }
    match run("conntrack", &["-L", "-p", "udp", "--dst-nat"], "").await {
        Ok(list) => forget_flows(&stale_listed(&String::from_utf8_lossy(&list), rules)).await,
        Err(error) => tracing::warn!(%error, "UDP flows of an earlier life remain until they time out"),
    }
}

/// Forgets UDP flows. Without `conntrack` they die by themselves when their clients pause.
pub async fn forget_flows(flows: &[StaleFlow]) {
    for flow in flows {
        match run("conntrack", &flow.arguments(), "").await {
            // It fails where there was nothing to forget.
            Ok(_) | Err(SinkError::Failed { .. }) => {}
            Err(error) => {
                tracing::warn!(%error, "stale UDP flows remain until they time out");
                return;
            }
        }
    }
}

/// Leaves exactly our accept rules in the chains that decide about our traffic; returns these chains.
pub async fn accept_forwarding(config: &Config) -> Result<Vec<String>, SinkError> {
    let chains = list_chains().await?;
    let wanted = forward::wanted(&chains, config);
    for (chain, rules) in &wanted {
        change_forwarding(chain, rules).await?;
    }
    Ok(wanted.into_iter().filter(|(_, rules)| !rules.is_empty()).map(|(chain, _)| chain.id()).collect())
}

/// Takes our rules out of every chain of others.
pub async fn forget_forwarding() -> Result<(), SinkError> {
    let chains = list_chains().await?;
    for chain in forward::candidates(&chains) {
        change_forwarding(chain, &[]).await?;
    }
    Ok(())
}

async fn list_chains() -> Result<Vec<Chain>, SinkError> {
    Ok(forward::parse_chains(&json("nft", &["-j", "list", "chains"]).await?))
}

async fn change_forwarding(chain: &Chain, wanted: &[Accept]) -> Result<(), SinkError> {
    let listed = json("nft", &["-j", "-a", "list", "chain", &chain.family, &chain.table, &chain.name]).await?;
    let script = forward::plan(chain, &forward::parse_found(&listed), wanted);
    if script.is_empty() { Ok(()) } else { nft(&script).await }
}
