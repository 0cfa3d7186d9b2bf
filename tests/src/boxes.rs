//! A master and a minion as they run on boxes, on this machine's Docker Engine and nftables. One pair at a time, as the
//! machine has one of each.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use k8s_openapi::api::core::v1::Node;
use master::Master;
use minion::Minion;

use crate::docker::{self, output};
use crate::wait::until;

/// The image of test pods: a static busybox.
pub const IMAGE: &str = "coracle/test-web:1";

/// Both daemons, and what they keep on disk.
pub struct Boxes {
    master: Master,
    minion: Minion,
    folder: tempfile::TempDir,
    _alone: std::fs::File,
}

impl Boxes {
    /// Starts both; returns when the node is ready.
    pub async fn start() -> Result<Boxes> {
        let alone = docker::alone()?;
        docker::import_busybox(IMAGE)?;
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("master");
        let data = data.to_str().context("temporary folders have plain names")?;
        let flags = ["master", "--data-dir", data, "--bind-address", "127.0.0.1", "--secure-port", "0"];
        let master = Master::start(master::Options::try_parse_from(flags)?).await?;
        let minion = start_minion(&master, folder.path()).await?;
        let boxes = Boxes { master, minion, folder, _alone: alone };
        let ready = |nodes: &[std::sync::Arc<Node>]| nodes.len() == 1 && api::nodes::is_ready(&nodes[0]);
        until::<Node>(&boxes.client(), "the node is ready", "", ready).await?;
        Ok(boxes)
    }

    /// A client that may do anything.
    pub fn client(&self) -> kube::Client {
        let server = self.master.api_server().expect("this master serves the API");
        kube::Client::new(server.service_as(apiserver::User::master("admin")), "default")
    }

    /// Where the API is served.
    pub fn url(&self) -> String {
        format!("https://{}", self.master.address())
    }

    /// The file an admin uses the cluster with.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("master/admin.kubeconfig")
    }

    /// Stops the minion and starts it again; containers run on.
    pub async fn restart_minion(self) -> Result<Boxes> {
        self.minion.stop().await;
        let minion = start_minion(&self.master, self.folder.path()).await?;
        Ok(Boxes { minion, ..self })
    }

    /// Stops both and shows that nothing is left on the machine.
    pub async fn stop(self) -> Result<()> {
        self.minion.stop().await;
        self.master.stop().await;
        let data = self.folder.path().join("minion");
        let data = data.to_str().context("temporary folders have plain names")?;
        let flags = ["minion", "--cleanup", "--data-dir", data];
        minion::cleanup::run(&minion::Options::try_parse_from(flags)?).await?;
        let label = "label=io.coracle.node=box";
        ensure!(output("docker", &["ps", "-aq", "--filter", label])?.is_empty(), "a container is left");
        let networks = output("docker", &["network", "ls", "-q", "--filter", "name=^coracle$"])?;
        ensure!(networks.is_empty(), "the network is left");
        ensure!(!output("nft", &["list", "tables"])?.contains("coracle"), "a table of rules is left");
        ensure!(!std::fs::read_to_string("/proc/mounts")?.contains(data), "a mount is left");
        output("docker", &["image", "rm", "-f", IMAGE])?;
        Ok(())
    }
}

async fn start_minion(master: &Master, folder: &Path) -> Result<Minion> {
    let token = std::fs::read_to_string(folder.join("master/join-token"))?;
    let server = format!("https://{}", master.address());
    let data = folder.join("minion");
    let flags = [
        "minion",
        "--server",
        &server,
        "--token",
        token.trim(),
        "--data-dir",
        data.to_str().context("temporary folders have plain names")?,
        "--node-name",
        "box",
        "--kubelet-port",
        "0",
        "--healthz-port",
        "0",
    ];
    Minion::start(minion::Options::try_parse_from(flags)?).await
}
