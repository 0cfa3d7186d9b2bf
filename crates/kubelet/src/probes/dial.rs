//! Connections to containers, and why there is none, in the words Go has for it: people search for those.

use std::io;

use crate::runtime::{Connection, Runtime};

/// `host:port`, an IPv6 address in brackets.
pub(super) fn address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Connects to `host:port`; the error reads `dial tcp 10.0.0.1:80: connect: connection refused`.
pub(crate) async fn dial(runtime: &dyn Runtime, host: &str, port: u16) -> Result<Connection, String> {
    runtime.dial(host, port).await.map_err(|error| failure(&address(host, port), &error))
}

fn failure(address: &str, error: &io::Error) -> String {
    let why = match error.kind() {
        io::ErrorKind::TimedOut => return format!("dial tcp {address}: i/o timeout"),
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset by peer".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
        _ if error.raw_os_error().is_none() => return format!("dial tcp: lookup {address}: {error}"),
        _ => error.to_string(),
    };
    format!("dial tcp {address}: connect: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_read_as_in_go() {
        let kinds = [
            (io::ErrorKind::TimedOut, "dial tcp 1.2.3.4:5: i/o timeout"),
            (io::ErrorKind::ConnectionRefused, "dial tcp 1.2.3.4:5: connect: connection refused"),
            (io::ErrorKind::HostUnreachable, "dial tcp 1.2.3.4:5: connect: no route to host"),
        ];
        for (kind, expected) in kinds {
            assert_eq!(failure(&address("1.2.3.4", 5), &kind.into()), expected);
        }
        assert_eq!(address("::1", 80), "[::1]:80");
    }
}
