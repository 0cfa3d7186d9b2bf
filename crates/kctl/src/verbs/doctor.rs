//! `kctl doctor`: whether this machine can be a master or a minion, and what to do if not.

use std::path::PathBuf;

use crate::doctor::gather::{self, Place};
use crate::doctor::{Facts, Finding, Level, Role, findings};
use crate::tabwriter::align;
use crate::{Console, Error};

/// Check this machine before Coracle is installed, or when something does not work
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// What the machine is, or shall be
    #[arg(long, value_enum, default_value_t)]
    role: Role,
    /// Put right what is safe to: UFW's forward policy, net.ipv4.ip_forward, an engine that is not started
    #[arg(long)]
    fix: bool,
    /// The Docker Engine's socket
    #[arg(long, value_name = "PATH", default_value = "/var/run/docker.sock")]
    docker: PathBuf,
    /// Read the files of the machine whose root is here
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    root: PathBuf,
}

impl Doctor {
    /// Looks, says what it found, and fails if something keeps Coracle from working. With a server, compares clocks.
    pub async fn run(&self, server: Option<&str>, console: &mut Console) -> Result<(), Error> {
        let mut found = findings(&self.look(server).await, self.role);
        if self.fix && self.repair(&found, console) {
            found = findings(&self.look(server).await, self.role);
        }
        console.print(&report(&found))?;
        let bad: Vec<&str> = found.iter().filter(|f| f.level == Level::Failure).map(|f| f.item).collect();
        match bad.as_slice() {
            [] => Ok(()),
            items => Err(Error::message(format!("this machine is not ready: {}", items.join(", ")))),
        }
    }

    async fn look(&self, server: Option<&str>) -> Facts {
        let place = Place { root: self.root.clone(), docker: self.docker.clone() };
        let mut facts = gather::gather(&place);
        if let Some(server) = server {
            facts.clock_ahead = Some(gather::clock_ahead(server).await);
        }
        facts
    }

    /// Whether anything was repaired.
    fn repair(&self, found: &[Finding], console: &mut Console) -> bool {
        let mut repaired = false;
        for (item, repair) in found.iter().filter_map(|f| Some((f.item, f.repair.as_ref()?))) {
            match repair.run(&self.root) {
                Ok(done) => {
                    repaired = true;
                    console.note(&format!("{item}: {done}"));
                }
                Err(error) => console.note(&format!("{item}: cannot be put right: {error}")),
            }
        }
        repaired
    }
}

/// A line for each finding, and one below it with what to do.
fn report(found: &[Finding]) -> String {
    let mut text = String::new();
    for finding in found {
        let level = match finding.level {
            Level::Fine => "ok",
            Level::Warning => "warning",
            Level::Failure => "FAILURE",
        };
        text.push_str(&format!("{level}\t{}\t{}\n", finding.item, finding.what));
        if let Some(fix) = &finding.fix {
            text.push_str(&format!("\t\tfix: {fix}\n"));
        }
    }
    align(&text, 3)
}
