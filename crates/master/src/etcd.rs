//! An etcd to keep the state in, or to take a backup of: its flags, under kube-apiserver's names, and the way to it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use store::etcd::Etcd;

/// Where etcd is and how to prove who we are.
#[derive(Clone, Debug, Args)]
#[group(skip)]
pub struct EtcdFlags {
    /// etcd endpoints the state is kept in, instead of the embedded store
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub etcd_servers: Vec<String>,

    /// CA that etcd's certificate must be signed by
    #[arg(long, value_name = "FILE", requires = "etcd_servers")]
    pub etcd_cafile: Option<PathBuf>,

    /// Client certificate to show to etcd
    #[arg(long, value_name = "FILE", requires = "etcd_keyfile")]
    pub etcd_certfile: Option<PathBuf>,

    /// Key of the client certificate to show to etcd
    #[arg(long, value_name = "FILE", requires = "etcd_certfile")]
    pub etcd_keyfile: Option<PathBuf>,
}

impl EtcdFlags {
    /// Whether there is an etcd.
    pub fn are_given(&self) -> bool {
        !self.etcd_servers.is_empty()
    }

    /// What is wrong with the endpoints.
    pub fn validate(&self) -> Result<()> {
        for url in &self.etcd_servers {
            let known = url.starts_with("http://") || url.starts_with("https://");
            ensure!(known, "--etcd-servers {url:?}: an endpoint looks like http://127.0.0.1:2379");
        }
        Ok(())
    }

    /// Connects to the endpoints.
    pub async fn connect(&self) -> Result<Etcd> {
        let settings = store::etcd::Options {
            ca: read(self.etcd_cafile.as_deref())?,
            cert: read(self.etcd_certfile.as_deref())?,
            key: read(self.etcd_keyfile.as_deref())?,
            ..store::etcd::Options::default()
        };
        let etcd = Etcd::connect(&self.etcd_servers, settings).await;
        etcd.with_context(|| format!("cannot reach etcd at {}", self.etcd_servers.join(", ")))
    }
}

fn read(file: Option<&Path>) -> Result<Option<Vec<u8>>> {
    file.map(|file| std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))).transpose()
}
