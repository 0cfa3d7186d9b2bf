//! The server's address: the DNS service's cluster IP, on the node's loopback interface, where every pod's way to it ends
//! (NodeLocal DNSCache does the same). So no rule translates a question, and no connection is tracked for it.

use std::net::Ipv4Addr;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::SinkError;
use crate::command::{json, run};

/// What our address is known by.
const LABEL: &str = "lo:coracle";

/// Puts `ip` on the loopback interface.
pub async fn claim(ip: Ipv4Addr) -> Result<(), SinkError> {
    let address = format!("{ip}/32");
    run("ip", &["-4", "addr", "replace", &address, "dev", "lo", "label", LABEL], "").await.map(drop)
}

/// Takes every address of ours away.
pub async fn release() -> Result<(), SinkError> {
    let shown = json("ip", &["-j", "-4", "addr", "show", "dev", "lo", "label", LABEL]).await?;
    for ip in parse(&shown) {
        run("ip", &["-4", "addr", "del", &format!("{ip}/32"), "dev", "lo"], "").await?;
    }
    Ok(())
}

/// Resolves when `ip` was taken away (true), or when nobody can tell any more.
pub async fn lost(ip: Ipv4Addr) -> std::io::Result<bool> {
    let mut child = Command::new("ip")
        .args(["-4", "-o", "monitor", "address"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let Some(stdout) = child.stdout.take() else { return Ok(false) };
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = lines.next_line().await? {
        if is_loss(&line, ip) {
            return Ok(true);
        }
    }
    child.wait().await.map(|_| false)
}

fn is_loss(line: &str, ip: Ipv4Addr) -> bool {
    let address = format!("{ip}/32");
    line.starts_with("Deleted ") && line.split_whitespace().any(|word| word == address)
}

fn parse(shown: &Value) -> Vec<Ipv4Addr> {
    let addresses = shown.as_array().into_iter().flatten().flat_map(|link| link["addr_info"].as_array()).flatten();
    addresses.filter(|a| a["label"] == LABEL).filter_map(|a| a["local"].as_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_address_is_missed_and_taken_away() {
        let ip = Ipv4Addr::new(10, 96, 0, 10);
        assert!(is_loss("Deleted 1: lo    inet 10.96.0.10/32 scope global lo:coracle\\       valid_lft forever", ip));
        assert!(!is_loss("1: lo    inet 10.96.0.10/32 scope global lo:coracle", ip));
        assert!(!is_loss("Deleted 1: lo    inet 10.96.0.100/32 scope global lo", ip));
        let shown = serde_json::json!([{"addr_info": [
            {"local": "127.0.0.1", "label": "lo"}, {}, {"local": "10.96.0.10", "label": "lo:coracle"}]}]);
        assert_eq!(parse(&shown), [ip]);
    }
}
