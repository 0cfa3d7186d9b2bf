//! A master and minions as they run on boxes: on this machine's Docker Engine and nftables, one pair at a time, as the
//! machine has one of each; or with hollow runtimes, as many as one likes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use k8s_openapi::api::core::v1::Node;
use master::Master;
use minion::Minion;

use crate::docker::{self, output};
use crate::engine::Engine;
use crate::wait::{PATIENCE, until};

/// The image of test pods: a static busybox.
pub const IMAGE: &str = "coracle/test-web:1";

/// The daemons, and what they keep on disk.
pub struct Boxes {
    master: Master,
    minions: Vec<Minion>,
    folder: tempfile::TempDir,
    /// Held by who uses this machine's Docker Engine.
    alone: Option<std::fs::File>,
}

impl Boxes {
    /// Starts a master and a minion on Docker; returns when the node is ready.
    pub async fn start() -> Result<Boxes> {
        let alone = docker::alone()?;
        docker::import_busybox(IMAGE)?;
        let mut boxes = Boxes { alone: Some(alone), ..Boxes::without_nodes().await? };
        boxes.add("box", &[]).await?;
        boxes.ready().await
    }

    /// Starts a master and as many minions, `box-0` and so on, whose containers exist in memory only; returns when they
    /// are ready.
    pub async fn hollow(nodes: usize) -> Result<Boxes> {
        let mut boxes = Boxes::without_nodes().await?;
        for node in 0..nodes {
            boxes.add(&format!("box-{node}"), &["--runtime", "hollow"]).await?;
        }
        boxes.ready().await
    }

    /// Starts a master and a minion on an engine that is no other test's; returns when the node is ready.
    pub async fn on(engine: &Engine, flags: &[&str]) -> Result<Boxes> {
        let mut boxes = Boxes::beside(engine).await?;
        let endpoint = engine.endpoint();
        // A flag given twice is refused: who names another way to the engine means that.
        let own = ["--docker-endpoint", endpoint.as_str()];
        let own = if flags.contains(&own[0]) { &[][..] } else { &own[..] };
        let flags: Vec<&str> = own.iter().chain(flags).copied().collect();
        boxes.add("box", &flags).await?;
        boxes.ready().await
    }

    /// Starts a master for a minion on `engine` that somebody else starts, with [`Boxes::flags`].
    pub async fn beside(engine: &Engine) -> Result<Boxes> {
        let alone = docker::alone()?;
        engine.import_busybox(IMAGE)?;
        Ok(Boxes { alone: Some(alone), ..Boxes::without_nodes().await? })
    }

    async fn without_nodes() -> Result<Boxes> {
        let folder = tempfile::tempdir()?;
        let master = start_master(folder.path(), 0).await?;
        Ok(Boxes { master, minions: Vec::new(), folder, alone: None })
    }

    async fn add(&mut self, name: &str, flags: &[&str]) -> Result<()> {
        let all = self.flags(name, flags)?;
        self.minions.push(Minion::start(minion::Options::try_parse_from(all)?).await?);
        Ok(())
    }

    /// What a minion called `name` keeps on disk.
    pub fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What a minion called `name` is told, the program first.
    pub fn flags(&self, name: &str, flags: &[&str]) -> Result<Vec<String>> {
        let folder = self.folder.path();
        let token = std::fs::read_to_string(folder.join("master/join-token"))?;
        let (server, data) = (self.url(), path(folder, name)?);
        let own = ["minion", "--server", &server, "--token", token.trim(), "--node-name", name, "--kubelet-port", "0"];
        let data = ["--data-dir", &data, "--healthz-port", "0"];
        // Nothing is evicted and no image removed because others fill this machine's disk.
        let calm = ["--eviction-hard", "memory.available<100Mi", "--image-gc-high-threshold", "100"];
        Ok(own.iter().chain(&data).chain(&calm).chain(flags).map(|flag| (*flag).to_owned()).collect())
    }

    async fn ready(self) -> Result<Boxes> {
        let count = self.minions.len();
        let ready = |nodes: &[Arc<Node>]| nodes.iter().filter(|node| api::nodes::is_ready(node)).count() == count;
        until::<Node>(&self.client(), "the nodes are ready", "", ready).await?;
        Ok(self)
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

    /// Stops the minion on Docker and starts it again; containers run on.
    pub async fn restart_minion(mut self) -> Result<Boxes> {
        for minion in std::mem::take(&mut self.minions) {
            minion.stop().await;
        }
        self.add("box", &[]).await?;
        Ok(self)
    }

    /// Stops the only minion, hollow and called `name`, and starts it again with other flags; `installed_anew` without
    /// anything it kept on disk. Its containers are lost either way.
    pub async fn come_back(mut self, name: &str, installed_anew: bool, flags: &[&str]) -> Result<Boxes> {
        for minion in std::mem::take(&mut self.minions) {
            minion.stop().await;
        }
        if installed_anew {
            std::fs::remove_dir_all(self.data(name))?;
        }
        self.add(name, &[&["--runtime", "hollow"], flags].concat()).await?;
        Ok(self)
    }

    /// Stops the master and starts it again where it was.
    pub async fn restart_master(self) -> Result<Boxes> {
        self.restart_master_after(async {}).await
    }

    /// Stops the master, waits for what happens `meanwhile`, and starts it again where it was.
    pub async fn restart_master_after(self, meanwhile: impl Future<Output = ()>) -> Result<Boxes> {
        let port = self.master.address().port();
        self.master.stop().await;
        meanwhile.await;
        // The store is let go of when the last connection is.
        let store = std::fs::File::open(self.folder.path().join("master/store/store.redb"))?;
        tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(move || store.lock())).await???;
        let master = start_master(self.folder.path(), port).await?;
        Ok(Boxes { master, ..self })
    }

    /// Stops everything and shows that nothing is left on the machine.
    pub async fn stop(self) -> Result<()> {
        self.stop_on(None).await
    }

    /// The same where the minion was on an engine of the test's own.
    pub async fn stop_on(self, engine: Option<&Engine>) -> Result<()> {
        for minion in self.minions {
            minion.stop().await;
        }
        self.master.stop().await;
        if self.alone.is_none() {
            return Ok(());
        }
        let data = path(self.folder.path(), "box")?;
        let endpoint = engine.map_or_else(|| "unix:///var/run/docker.sock".to_owned(), Engine::endpoint);
        let flags = ["minion", "--cleanup", "--data-dir", &data, "--docker-endpoint", &endpoint];
        minion::cleanup::run(&minion::Options::try_parse_from(flags)?).await?;
        let docker = |arguments: &[&str]| output("docker", &[&["-H", endpoint.as_str()], arguments].concat());
        let label = "label=io.coracle.node=box";
        ensure!(docker(&["ps", "-aq", "--filter", label])?.is_empty(), "a container is left");
        let networks = docker(&["network", "ls", "-q", "--filter", "name=^coracle$"])?;
        ensure!(networks.is_empty(), "the network is left");
        ensure!(!output("nft", &["list", "tables"])?.contains("coracle"), "a table of rules is left");
        ensure!(!std::fs::read_to_string("/proc/mounts")?.contains(&data), "a mount is left");
        docker(&["image", "rm", "-f", IMAGE])?;
        Ok(())
    }
}

async fn start_master(folder: &Path, port: u16) -> Result<Master> {
    let (data, port) = (path(folder, "master")?, port.to_string());
    let flags = ["master", "--data-dir", &data, "--bind-address", "127.0.0.1", "--secure-port", &port];
    Master::start(master::Options::try_parse_from(flags)?).await
}

fn path(folder: &Path, name: &str) -> Result<String> {
    Ok(folder.join(name).to_str().context("temporary folders have plain names")?.to_owned())
}
