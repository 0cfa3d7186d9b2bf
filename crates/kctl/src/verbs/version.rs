//! `kctl version`: ours and the server's.

use serde_json::json;

use crate::print::Format;
use crate::session::Session;
use crate::{Console, Error, object};

/// Print the client and server version information.
#[derive(Debug, clap::Args)]
pub struct Version {
    /// If true, shows client version only (no server required)
    #[arg(long)]
    pub client: bool,
    /// One of 'yaml' or 'json'
    #[arg(short, long)]
    output: Option<String>,
}

impl Version {
    /// Prints; without a session only what is known here.
    pub async fn run(&self, session: Option<&Session>, console: &mut Console) -> Result<(), Error> {
        let own = format!("v{}", env!("CARGO_PKG_VERSION"));
        let mut versions = json!({"clientVersion": {
            "gitVersion": own,
            "major": env!("CARGO_PKG_VERSION_MAJOR"),
            "minor": env!("CARGO_PKG_VERSION_MINOR"),
            "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
        }});
        let mut failed = None;
        if let Some(session) = session {
            match session.get("/version").await {
                Ok(version) => versions["serverVersion"] = version,
                Err(error) => failed = Some(error),
            }
        }
        match self.output.as_deref() {
            None => {
                console.line(&format!("Client Version: {own}"))?;
                let server = object::text(&versions, &["serverVersion", "gitVersion"]);
                if !server.is_empty() {
                    console.line(&format!("Server Version: {server}"))?;
                }
            }
            Some(format @ ("yaml" | "json")) => {
                console.print(&Format::parse(Some(format))?.render(&versions, |_| String::new())?)?;
            }
            Some(_) => return Err(Error::message("--output must be 'yaml' or 'json'")),
        }
        failed.map_or(Ok(()), Err)
    }
}
