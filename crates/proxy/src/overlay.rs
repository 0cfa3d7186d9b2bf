//! VXLAN between nodes that have no segment in common: one device on each node, with a permanent neighbour and a permanent
//! forwarding entry for each other node, so that nothing is learned and nothing is flooded. The shape follows flannel's
//! VXLAN backend.
//!
//! A node's end of the overlay has the first address of its podCIDR, which no pod has, and a MAC made of the node's own
//! address: everybody knows both from the Node objects alone.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::Value;

/// The device.
pub const DEVICE: &str = "coracle-vxlan";
/// The UDP port of Linux' VXLAN, and flannel's; nodes must let it through.
pub const PORT: u16 = 8472;
/// The network's number inside VXLAN.
const ID: u32 = 1;
/// What VXLAN adds to a packet: headers of IPv4, UDP, VXLAN and Ethernet.
pub const OVERHEAD: u32 = 50;

/// This node's part of the overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// Its own end.
    pub end: Ipv4Addr,
    /// All others.
    pub peers: BTreeSet<Peer>,
}

/// Another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// Its end of the overlay.
    pub end: Ipv4Addr,
    /// Its own address, to which VXLAN packets go.
    pub node: Ipv4Addr,
}

/// What the device lies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// The interface that has the node's address.
    pub name: String,
    /// How long its packets may be.
    pub mtu: u32,
}

/// The MAC of the end on the node with this address: locally administered, not a group's.
pub fn mac(node: Ipv4Addr) -> String {
    let [a, b, c, d] = node.octets();
    format!("0a:c0:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// The interface with the node's address, from `ip -j -4 addr show to ADDRESS`.
pub fn underlay(json: &Value) -> Option<Underlay> {
    let first = json.as_array()?.iter().find(|link| link["ifname"].is_string())?;
    Some(Underlay { name: first["ifname"].as_str()?.to_owned(), mtu: u32::try_from(first["mtu"].as_u64()?).ok()? })
}

/// The lines of `ip -batch` that make the device as it should be; none where `present` (`ip -d -j addr show dev …`, or
/// nothing) is so already.
pub fn plan_device(present: &Value, underlay: &Underlay, node: Ipv4Addr, end: Ipv4Addr) -> Vec<String> {
    let link = &present[0];
    let data = &link["linkinfo"]["info_data"];
    let mtu = underlay.mtu.saturating_sub(OVERHEAD);
    let same_device = link["linkinfo"]["info_kind"] == "vxlan"
        && data["id"] == ID
        && data["port"] == PORT
        && data["local"] == node.to_string()
        && data["link"] == underlay.name
        && data["learning"] == false
        && link["address"] == mac(node);
    let mut lines = Vec::new();
    if !same_device {
        if link["ifname"].is_string() {
            lines.push(format!("link del {DEVICE}\n"));
        }
        let (under, address) = (&underlay.name, mac(node));
        lines.push(format!(
            "link add {DEVICE} address {address} type vxlan id {ID} local {node} dev {under} dstport {PORT} nolearning\n"
        ));
    }
    let up = link["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "UP"));
    if !same_device || !up || link["mtu"] != mtu {
        lines.push(format!("link set {DEVICE} mtu {mtu} up\n"));
    }
    let addresses = || link["addr_info"].as_array().into_iter().flatten().filter(|a| a["family"] == "inet");
    for old in addresses().filter(|_| same_device).filter_map(|a| a["local"].as_str()).filter(|a| *a != end.to_string())
    {
        lines.push(format!("addr del {old}/32 dev {DEVICE}\n"));
    }
    if !same_device || !addresses().any(|a| a["local"] == end.to_string()) {
        lines.push(format!("addr add {end}/32 dev {DEVICE}\n"));
    }
    lines
}

/// The lines of `ip -batch` that leave exactly the peers as neighbours, from `ip -j -4 neigh show dev … nud permanent`.
pub fn plan_neighbours(present: &Value, peers: &BTreeSet<Peer>) -> Vec<String> {
    let wanted: BTreeSet<(String, String)> = peers.iter().map(|p| (p.end.to_string(), mac(p.node))).collect();
    let found = pairs(present, "dst", "lladdr");
    let ends: BTreeSet<&String> = wanted.iter().map(|(end, _)| end).collect();
    let gone = found.iter().filter(|(end, _)| !ends.contains(end));
    let gone = gone.map(|(end, _)| format!("neigh del {end} dev {DEVICE}\n"));
    let new = wanted.difference(&found);
    let new = new.map(|(end, mac)| format!("neigh replace {end} lladdr {mac} dev {DEVICE} nud permanent\n"));
    gone.chain(new).collect()
}

/// The lines of `bridge -batch` that lead frames for exactly the peers to their nodes, from `bridge -j fdb show dev …`.
pub fn plan_forwarding(present: &Value, peers: &BTreeSet<Peer>) -> Vec<String> {
    let wanted: BTreeSet<(String, String)> = peers.iter().map(|p| (mac(p.node), p.node.to_string())).collect();
    let found = pairs(present, "mac", "dst");
    let gone = found.difference(&wanted);
    let gone = gone.map(|(mac, node)| format!("fdb del {mac} dev {DEVICE} dst {node} self\n"));
    let new = wanted.difference(&found);
    let new = new.map(|(mac, node)| format!("fdb replace {mac} dev {DEVICE} dst {node} self permanent\n"));
    gone.chain(new).collect()
}

/// Two fields of each object that has both.
fn pairs(json: &Value, key: &str, value: &str) -> BTreeSet<(String, String)> {
    let objects = json.as_array().into_iter().flatten();
    objects.filter_map(|o| Some((o[key].as_str()?.to_owned(), o[value].as_str()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const NODE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const END: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 0);

    /// The device as the kernel shows it once it is right.
    fn right() -> Value {
        json!([{
            "ifname": DEVICE, "flags": ["BROADCAST", "UP", "LOWER_UP"], "mtu": 1450, "address": "0a:c0:c0:00:02:01",
            "linkinfo": {"info_kind": "vxlan", "info_data":
                {"id": 1, "local": "192.0.2.1", "link": "eth0", "port": 8472, "learning": false}},
            "addr_info": [{"family": "inet", "local": "10.244.0.0", "prefixlen": 32},
                          {"family": "inet6", "local": "fe80::1", "prefixlen": 64}]
        }])
    }

    #[test]
    fn the_device_is_made_once_and_repaired() {
        let underlay = Underlay { name: "eth0".to_owned(), mtu: 1500 };
        let with = |change: &dyn Fn(&mut Value)| {
            let mut present = right();
            change(&mut present[0]);
            plan_device(&present, &underlay, NODE, END).concat()
        };
        let made = "link add coracle-vxlan address 0a:c0:c0:00:02:01 type vxlan id 1 local 192.0.2.1 dev eth0 dstport 8472 \
                    nolearning\nlink set coracle-vxlan mtu 1450 up\naddr add 10.244.0.0/32 dev coracle-vxlan\n";
        assert_eq!(plan_device(&Value::Null, &underlay, NODE, END).concat(), made);
        assert_eq!(with(&|_| {}), "", "planned again: nothing");
        let moved = with(&|link| link["linkinfo"]["info_data"]["local"] = json!("192.0.2.9"));
        assert_eq!(moved, format!("link del coracle-vxlan\n{made}"));
        assert_eq!(with(&|link| link["flags"] = json!(["BROADCAST"])), "link set coracle-vxlan mtu 1450 up\n");
        assert_eq!(with(&|link| link["mtu"] = json!(1500)), "link set coracle-vxlan mtu 1450 up\n");
        let old = with(&|link| link["addr_info"][0]["local"] = json!("10.244.7.0"));
        assert_eq!(old, "addr del 10.244.7.0/32 dev coracle-vxlan\naddr add 10.244.0.0/32 dev coracle-vxlan\n");
    }

    #[test]
    fn it_lies_on_the_interface_with_the_nodes_address() {
        let told = json!([{}, {"ifname": "eth0", "mtu": 9000, "addr_info": [{"local": "192.0.2.1"}]}]);
        assert_eq!(underlay(&told), Some(Underlay { name: "eth0".to_owned(), mtu: 9000 }));
        assert_eq!(underlay(&Value::Null), None);
    }

    fn any_peers() -> impl Strategy<Value = BTreeSet<Peer>> {
        // One node for each end and one end for each node, as the routes have it.
        proptest::collection::btree_map(1u8..8, 1u8..8, 0..8).prop_map(|map| {
            let peer = |(node, end)| Peer { end: Ipv4Addr::new(10, 244, end, 0), node: Ipv4Addr::new(192, 0, 2, node) };
            let mut ends = BTreeSet::new();
            map.into_iter().map(peer).filter(|peer| ends.insert(peer.end)).collect()
        })
    }

    /// Carries out lines on what the kernel shows, as far as these plans go.
    fn carried_out(lines: &[String], present: &Value, key: &str, value: &str) -> Value {
        let mut table = pairs(present, key, value);
        for line in lines {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |word: &str| words.iter().position(|w| *w == word).map(|at| words[at + 1].to_owned());
            let subject = words[2].to_owned();
            let object = after(if key == "mac" { "dst" } else { "lladdr" });
            table.retain(|(k, v)| *k != subject || object.as_ref().is_some_and(|o| words[1] == "del" && o != v));
            if words[1] == "replace" {
                table.insert((subject, object.unwrap()));
            }
        }
        table.into_iter().map(|(k, v)| json!({key: k, value: v})).collect()
    }

    proptest! {
        #[test]
        fn peers_are_planned_once(before in any_peers(), wanted in any_peers()) {
            let neighbours = carried_out(&plan_neighbours(&json!([]), &before), &json!([]), "dst", "lladdr");
            let lines = plan_neighbours(&neighbours, &wanted);
            let neighbours = carried_out(&lines, &neighbours, "dst", "lladdr");
            prop_assert_eq!(plan_neighbours(&neighbours, &wanted), Vec::<String>::new());
            let frames = carried_out(&plan_forwarding(&json!([]), &before), &json!([]), "mac", "dst");
            let lines = plan_forwarding(&frames, &wanted);
            let frames = carried_out(&lines, &frames, "mac", "dst");
            prop_assert_eq!(plan_forwarding(&frames, &wanted), Vec::<String>::new());
            prop_assert_eq!(frames.as_array().unwrap().len(), wanted.len());
        }
    }
}
