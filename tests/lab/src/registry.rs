//! Where images come from: Debian's `docker-registry` on a box, open or with a password.

use anyhow::Result;

use crate::machine::Machine;
use crate::process::Process;

/// Who may use a registry with a password.
pub const USER: &str = "friend";
/// Their password.
pub const PASSWORD: &str = "open sesame";
/// The same as the registry has it.
const HASH: &str = "$2b$05$IsvRKd235GWnmMiZD4vqP.8VjgC8XfMJjgqSnabO3fHh3VWZD036C";

/// A registry that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// `10.55.0.1:5000`: the beginning of the names of its images.
    pub host: String,
    /// What it is called among the box's processes; every request it gets is in its log.
    pub process: String,
}

impl Machine {
    /// Starts a registry that anybody may use.
    pub async fn start_registry(&mut self, port: u16) -> Result<Registry> {
        self.registry(port, "").await
    }

    /// Starts a registry for [`USER`].
    pub async fn start_registry_with_password(&mut self, port: u16) -> Result<Registry> {
        let users = format!("/etc/registry-{port}-users");
        self.write(&users, &format!("{USER}:{HASH}\n")).await?;
        self.registry(port, &format!("auth: {{htpasswd: {{realm: lab, path: {users}}}}}\n")).await
    }

    async fn registry(&mut self, port: u16, auth: &str) -> Result<Registry> {
        let (process, settings) = (format!("registry-{port}"), format!("/etc/registry-{port}.yml"));
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: /var/lib/registry-{port}}}}}\n\
             http: {{addr: '0.0.0.0:{port}'}}\n{auth}"
        );
        self.write(&settings, &text).await?;
        let started = self.start(&process, &["docker-registry", "serve", &settings]).await?;
        started.says("listening on").await?;
        Ok(Registry { host: format!("{}:{port}", self.address()), process })
    }
}

impl Process {
    /// The lines of a registry's log for requests of this method and path.
    pub fn requests(&self, method: &str, path: &str) -> usize {
        let wanted = format!("\"{method} {path}");
        self.text().lines().filter(|line| line.contains(&wanted)).count()
    }
}
