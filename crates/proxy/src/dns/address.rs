//! The server's address: the DNS service's cluster IP, on the node's loopback interface, where every pod's way to it ends
//! (NodeLocal DNSCache does the same). So no rule translates a question, and no connection is tracked for it.

use std::net::Ipv4Addr;

use serde_json::Value;

use crate::SinkError;
use crate::command::{json, run};

/// What our address is known by.
const LABEL: &str = "lo:coracle";

/// Puts `ip` on the loopback interface.
pub async fn claim(ip: Ipv4Addr) -> Result<(), SinkError> {
    let address = format!("{ip}/32");
    run("ip", &["-4", "addr", "replace", &address, "dev", "lo", "label", LABEL], "").await.map(drop)
}

/// Takes every address of ours away but `kept`: none of them answers.
pub async fn release(kept: Option<Ipv4Addr>) -> Result<(), SinkError> {
    let shown = json("ip", &["-j", "-4", "addr", "show", "dev", "lo", "label", LABEL]).await?;
    for ip in parse(&shown).into_iter().filter(|ip| Some(*ip) != kept) {
        run("ip", &["-4", "addr", "del", &format!("{ip}/32"), "dev", "lo"], "").await?;
    }
    Ok(())
}

fn parse(shown: &Value) -> Vec<Ipv4Addr> {
    let addresses = shown.as_array().into_iter().flatten().flat_map(|link| link["addr_info"].as_array()).flatten();
    addresses.filter(|a| a["label"] == LABEL).filter_map(|a| a["local"].as_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_address_is_taken_away() {
        let shown = serde_json::json!([{"addr_info": [
            {"local": "127.0.0.1", "label": "lo"}, {}, {"local": "10.96.0.10", "label": "lo:coracle"}]}]);
        assert_eq!(parse(&shown), [Ipv4Addr::new(10, 96, 0, 10)]);
    }
}
