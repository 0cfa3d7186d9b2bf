//! Telling the service manager how far a daemon is (`sd_notify(3)`): a datagram to the socket in `NOTIFY_SOCKET`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where a service manager listens, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Notify(Option<OsString>);

impl Notify {
    /// The service manager that started this process.
    pub fn from_environment() -> Notify {
        Notify(std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()))
    }

    /// The daemon serves.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The daemon is on its way out.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, state: &str) {
        let Some(socket) = &self.0 else { return };
        if let Err(error) = send(socket, state) {
            tracing::warn!(?socket, %error, "the service manager cannot be told {state}");
        }
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    // A name that begins with @ is one without a file.
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_what_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let hidden = format!("coracle-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&hidden).unwrap();
        let listeners = [UnixDatagram::bind(&path).unwrap(), UnixDatagram::bind_addr(&address).unwrap()];
        for (listener, socket) in listeners.iter().zip([path.into_os_string(), format!("@{hidden}").into()]) {
            let notify = Notify(Some(socket));
            notify.ready();
            notify.stopping();
            let mut heard = [0; 64];
            for expected in ["READY=1", "STOPPING=1"] {
                let length = listener.recv(&mut heard).unwrap();
                assert_eq!(&heard[..length], expected.as_bytes());
            }
        }
        Notify(Some("/does/not/exist".into())).ready();
        Notify(None).ready();
    }
}
