//! What network interfaces sent and received, as `/proc/net/dev` counts it.

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// `eth0`.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// What was received wrongly.
    pub rx_errors: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// What could not be sent.
    pub tx_errors: u64,
}

/// Columns of the table after the name: bytes and errors received, bytes and errors sent.
const COLUMNS: [usize; 4] = [0, 2, 8, 10];
/// Interfaces that lead to pods or only to the machine itself: what passes them is counted elsewhere.
const INNER: [&str; 5] = ["lo", "veth", "docker", "coracle", "br-"];

/// Every interface of a `/proc/net/dev` but loopback.
pub fn interfaces(table: &str) -> Vec<Interface> {
    let parsed = table.lines().filter_map(|line| {
        let (name, counts) = line.split_once(':')?;
        let counts: Vec<u64> = counts.split_whitespace().map_while(|count| count.parse().ok()).collect();
        let [rx_bytes, rx_errors, tx_bytes, tx_errors] = COLUMNS.map(|column| counts.get(column).copied());
        Some(Interface {
            name: name.trim().to_owned(),
            rx_bytes: rx_bytes?,
            rx_errors: rx_errors?,
            tx_bytes: tx_bytes?,
            tx_errors: tx_errors?,
        })
    });
    parsed.filter(|interface| interface.name != "lo").collect()
}

/// The interfaces by which a machine reaches others.
pub fn outer(interfaces: Vec<Interface>) -> Vec<Interface> {
    interfaces.into_iter().filter(|i| !INNER.iter().any(|inner| i.name.starts_with(inner))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    3293      31    0    0    0     0          0         0     3293      31    0    0    0     0       0          0
  eth0:1276 14 1    0    0     0          0         0      586       7    2    0    0     0       0          0
vethab12: 5 1 0 0 0 0 0 0 6 1 0 0 0 0 0 0
  eth1: cut
";

    #[test]
    fn counters_are_read_as_recorded() {
        let eth0 = Interface { name: "eth0".into(), rx_bytes: 1276, rx_errors: 1, tx_bytes: 586, tx_errors: 2 };
        let all = interfaces(TABLE);
        assert_eq!(all.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), ["eth0", "vethab12"]);
        assert_eq!(outer(all), [eth0]);
    }
}
