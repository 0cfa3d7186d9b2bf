//! `kctl api-versions`: every `apiVersion` of the server.

use crate::discovery::Discovery;
use crate::session::Session;
use crate::{Console, Error};

/// Print the supported API versions on the server.
#[derive(Debug, clap::Args)]
pub struct ApiVersions {}

impl ApiVersions {
    /// Prints one line for each.
    pub async fn run(&self, session: &Session, console: &mut Console) -> Result<(), Error> {
        let mut versions = Discovery::load(session).await?.versions;
        versions.sort();
        console.print(&versions.iter().map(|v| format!("{v}\n")).collect::<String>())
    }
}
