//! systemd's login manager: who may hold up a shutdown, for how long, and when there is one
//! (`pkg/kubelet/nodeshutdown/systemd/inhibit_linux.go`).

use std::io::{Error, Result};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use super::bus::{Bus, Call};
use super::wire::Body;

const MANAGER: &str = "org.freedesktop.login1.Manager";
/// The signal of a shutdown.
const RULE: &str = "type='signal',sender='org.freedesktop.login1',interface='org.freedesktop.login1.Manager',member='PrepareForShutdown',\
     path='/org/freedesktop/login1'";
/// What we write to make logind wait as long as pods may take. Not upstream's name (`99-kubelet.conf`), so that neither undoes
/// what the other did; it sorts behind that, and so counts.
const CONF: &str = "99-minion.conf";
/// How long any answer may take.
const PATIENCE: Duration = Duration::from_secs(25);

/// A connection to logind.
pub struct Logind {
    bus: Bus,
}

/// Removes the file with which logind was made patient. logind finds out when it next reads its configuration.
pub fn forget_patience(conf_dir: &Path) -> Result<()> {
    match std::fs::remove_file(conf_dir.join(CONF)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Holds up shutdowns while it lives.
#[derive(Debug)]
pub struct Inhibitor {
    _file: OwnedFd,
}

const fn login1<'a>(interface: &'a str, member: &'a str) -> Call<'a> {
    Call { destination: "org.freedesktop.login1", path: "/org/freedesktop/login1", interface, member }
}

impl Logind {
    /// Connects by the bus that listens at `path`, and listens itself from then on.
    pub async fn connect(path: &Path) -> Result<Logind> {
        in_time(async {
            let mut bus = Bus::connect(path).await?;
            bus.add_match(RULE).await?;
            Ok(Logind { bus })
        })
        .await
    }

    /// How long logind waits for who holds an inhibitor.
    pub async fn max_delay(&mut self) -> Result<Duration> {
        let get = login1("org.freedesktop.DBus.Properties", "Get");
        let answer = in_time(self.bus.call(get, Body::default().string(MANAGER).string("InhibitDelayMaxUSec"))).await?;
        let micros = answer.variant_u64().ok_or_else(|| Error::other("InhibitDelayMaxUSec is no number"))?;
        Ok(Duration::from_micros(micros))
    }

    /// Has logind wait for as long as `wanted`, by a file in its configuration directory if need be.
    pub async fn be_patient(&mut self, wanted: Duration, conf_dir: &Path) -> Result<()> {
        if self.max_delay().await? >= wanted {
            return Ok(());
        }
        let seconds = wanted.as_secs() + u64::from(wanted.subsec_nanos() > 0);
        let head = "# Pods have so long to end when the machine shuts down";
        let text = format!("{head}\n[Login]\nInhibitDelayMaxSec={seconds}\n");
        let dir = conf_dir.to_owned();
        let write = move || std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(dir.join(CONF), text));
        tokio::task::spawn_blocking(write).await.map_err(Error::other)??;
        // SIGHUP has it read its configuration again.
        let kill = Call {
            destination: "org.freedesktop.systemd1",
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            member: "KillUnit",
        };
        let hup = 1;
        in_time(self.bus.call(kill, Body::default().string("systemd-logind.service").string("all").int(hup))).await?;
        let now = self.max_delay().await?;
        if now < wanted {
            return Err(Error::other(format!(
                "node shutdown manager was unable to update logind InhibitDelayMaxSec to {wanted:?} (ShutdownGracePeriod), \
                 current value of InhibitDelayMaxSec ({now:?}) is less than requested ShutdownGracePeriod"
            )));
        }
        Ok(())
    }

    /// Holds up shutdowns.
    pub async fn inhibit(&mut self) -> Result<Inhibitor> {
        let mut body = Body::default();
        let why = "Kubelet needs time to handle node shutdown";
        body.string("shutdown").string("kubelet").string(why).string("delay");
        let mut answer = in_time(self.bus.call(login1(MANAGER, "Inhibit"), &body)).await?;
        let file = answer.files.pop().ok_or_else(|| Error::other("logind gave no inhibitor"))?;
        Ok(Inhibitor { _file: file })
    }

    /// Waits until logind says that the machine is to shut down, or is not after all.
    pub async fn next_shutdown(&mut self) -> Result<bool> {
        loop {
            let signal = self.bus.signal().await?;
            let Some(shutting_down) = signal.boolean().filter(|_| signal.member == "PrepareForShutdown") else {
                continue;
            };
            // A signal that is sent to us alone passes every rule, whoever it is from.
            if self.owner().await?.as_ref() == Some(&signal.sender) {
                return Ok(shutting_down);
            }
        }
    }

    /// Who logind is on the bus, if it is there.
    async fn owner(&mut self) -> Result<Option<String>> {
        let bus = "org.freedesktop.DBus";
        let get = Call { destination: bus, path: "/org/freedesktop/DBus", interface: bus, member: "GetNameOwner" };
        match in_time(self.bus.call(get, Body::default().string("org.freedesktop.login1"))).await {
            Ok(answer) => Ok(answer.strings().next()),
            Err(error) if error.kind() == std::io::ErrorKind::Other => Ok(None),
            Err(error) => Err(error),
        }
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T>>) -> Result<T> {
    let late = || Error::other(format!("no answer in {PATIENCE:?}"));
    tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(late()))
}
