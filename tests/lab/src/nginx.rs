//! The Nginx site of `deploy/nginx` on a box, before the master that runs there.

use anyhow::{Result, ensure};

use crate::cluster::MASTER_DATA;
use crate::machine::Machine;

/// What it is called among the box's processes.
pub const NGINX: &str = "nginx";
/// Where it has its files.
const FOLDER: &str = "/etc/nginx-lab";
/// The site as it is shipped.
const SITE: &str = include_str!("../../../deploy/nginx/coracle.conf");

impl Machine {
    /// Starts it, with the API server's own certificate for a name of its own; returns when it listens on port 443.
    pub async fn start_nginx(&mut self) -> Result<()> {
        let mut site = SITE.to_owned();
        for (from, to) in [
            ("/etc/nginx/coracle.crt", format!("{MASTER_DATA}/pki/apiserver.crt")),
            ("/etc/nginx/coracle.key", format!("{MASTER_DATA}/pki/apiserver.key")),
            ("/var/lib/coracle/ca.crt", format!("{MASTER_DATA}/ca.crt")),
        ] {
            ensure!(site.contains(from), "the site does not name {from}");
            site = site.replace(from, &to);
        }
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary: String = temporary.iter().map(|name| format!("{name}_temp_path /run/nginx-{name};\n")).collect();
        let main = format!(
            "daemon off;\nworker_processes 1;\npid /run/nginx-lab.pid;\nerror_log stderr notice;\nevents {{}}\n\
             http {{\naccess_log off;\n{temporary}include {FOLDER}/site.conf;\n}}\n"
        );
        let settings = format!("{FOLDER}/nginx.conf");
        self.write(&format!("{FOLDER}/site.conf"), &site).await?;
        self.write(&settings, &main).await?;
        let started = self.start(NGINX, &["nginx", "-c", &settings, "-e", "stderr"]).await?;
        started.says("start worker process ").await.map(drop)
    }
}
