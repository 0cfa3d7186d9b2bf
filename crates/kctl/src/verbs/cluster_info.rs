//! `kctl cluster-info`: where the control plane is.

use crate::session::Session;
use crate::{Console, Error};

/// Display addresses of the control plane.
#[derive(Debug, clap::Args)]
pub struct ClusterInfo {}

impl ClusterInfo {
    /// Prints, after making sure that somebody is there.
    pub async fn run(&self, session: &Session, console: &mut Console) -> Result<(), Error> {
        session.get("/version").await?;
        console.line(&format!("Coracle control plane is running at {}", session.url()))
    }
}
