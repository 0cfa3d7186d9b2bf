//! A cluster on the boxes of a lab: the master on the first, minions wherever they are wanted.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use harness::wait::until;
use k8s_openapi::api::core::v1::Node;
use kube::Client;

use crate::engine::{self, IMAGE};
use crate::lab::{Lab, Plan};

/// Where the master keeps its files.
pub const MASTER_DATA: &str = "/var/lib/coracle/master";
/// Where the keys of a cluster are on their way from one master to another.
const KEYS: &str = "/root/keys";
/// Where a minion does.
pub const MINION_DATA: &str = "/var/lib/coracle/minion";
/// What the daemons are called among a box's processes.
pub const MASTER: &str = "master";
/// See [`MASTER`].
pub const MINION: &str = "minion";
/// What they say when they serve.
const MASTER_SERVES: &str = "API server ready";
const MINION_RUNS: &str = "minion runs";

/// How a cluster shall be started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The boxes.
    pub plan: Plan,
    /// More flags for the master.
    pub master: Vec<String>,
    /// More flags for every minion.
    pub minion: Vec<String>,
    /// How many masters there are, on the first boxes; more than one need an etcd.
    pub masters: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { plan: Plan::default(), master: Vec::new(), minion: Vec::new(), masters: 1 }
    }
}

/// A lab on which Coracle runs.
pub struct Cluster {
    /// The boxes.
    pub lab: Lab,
    settings: Settings,
    /// The master that the test talks to.
    master: usize,
    /// From the start of the first minion until all nodes were ready.
    pub joined_after: Duration,
}

impl Cluster {
    /// A lab with an engine and the test image on every box, a master on the first, and a minion on each; returns when
    /// all nodes are ready.
    pub async fn start(settings: Settings) -> Result<Cluster> {
        let mut lab = Lab::start(settings.plan).await?;
        lab.start_dockers().await?;
        let image = engine::image()?;
        for machine in &lab.boxes {
            machine.import_image(IMAGE, &image).await?;
        }
        let mut cluster = Cluster::on(lab, settings);
        cluster.start_master(1).await?;
        let begun = Instant::now();
        for number in 1..=cluster.lab.boxes.len() {
            cluster.start_minion(number).await?;
        }
        cluster.ready().await?;
        cluster.joined_after = begun.elapsed();
        Ok(cluster)
    }

    /// A cluster of which nothing runs yet.
    pub fn on(lab: Lab, settings: Settings) -> Cluster {
        Cluster { lab, settings, master: 1, joined_after: Duration::ZERO }
    }

    /// Gives another master the keys of the first, which must be done before it starts: masters of one cluster share them.
    pub async fn share_keys(&self, number: usize) -> Result<()> {
        let (first, other) = (&self.lab.boxes[0], &self.lab.boxes[number - 1]);
        first.run(&[MASTER, "export-keys", KEYS, "--data-dir", MASTER_DATA]).await?;
        let keys = first.run(&["cat", KEYS]).await?;
        // Nobody else may read them on the way, or they are not taken in.
        other.feed(&["sh", "-c", "umask 077; cat >$0", KEYS], format!("{keys}\n").as_bytes()).await?;
        other.run(&[MASTER, "import-keys", KEYS, "--data-dir", MASTER_DATA]).await.map(drop)
    }

    /// Talks to another master from now on.
    pub fn use_master(&mut self, number: usize) {
        self.master = number;
    }

    /// Starts the master on a box; returns when it serves.
    pub async fn start_master(&mut self, number: usize) -> Result<()> {
        let more = self.settings.master.clone();
        let machine = self.lab.machine(number);
        let address = machine.address().to_string();
        let mut line = vec![MASTER, "--data-dir", MASTER_DATA, "--advertise-address", &address];
        line.extend(more.iter().map(String::as_str));
        machine.start(MASTER, &line).await?.says(MASTER_SERVES).await.map(drop)
    }

    /// Starts the minion of a box; returns when it runs. It needs no master if it was one's node before.
    pub async fn start_minion(&mut self, number: usize) -> Result<()> {
        self.start_minion_with(number, &[]).await
    }

    /// The same with more flags.
    pub async fn start_minion_with(&mut self, number: usize, flags: &[&str]) -> Result<()> {
        let masters = self.lab.boxes.iter().take(self.settings.masters);
        let servers: Vec<String> = masters.map(|machine| format!("https://{}:6443", machine.address())).collect();
        let (more, server, token) = (self.settings.minion.clone(), servers.join(","), self.token()?);
        let machine = self.lab.machine(number);
        let mut line = vec![MINION, "--data-dir", MINION_DATA, "--server", &server];
        let told: Vec<&str> = more.iter().map(String::as_str).chain(flags.iter().copied()).collect();
        if !told.contains(&"--token") {
            line.extend(["--token", &token]);
        }
        // Nothing is evicted and no image removed because others fill this machine's disk, unless a test is about that.
        let calm = [["--eviction-hard", "memory.available<100Mi"], ["--image-gc-high-threshold", "100"]];
        line.extend(calm.iter().filter(|flag| !told.contains(&flag[0])).flatten());
        line.extend(told);
        machine.start(MINION, &line).await?.says(MINION_RUNS).await.map(drop)
    }

    /// Starts on a box that was switched on again what ran there before.
    pub async fn boot(&mut self, number: usize) -> Result<()> {
        self.lab.power_on(number).await?;
        self.lab.machine(number).start_docker().await?;
        if number == 1 {
            self.start_master(number).await?;
        }
        self.start_minion(number).await
    }

    /// Waits until every box is a ready node.
    pub async fn ready(&self) -> Result<()> {
        let count = self.lab.boxes.len();
        let ready = |nodes: &[Arc<Node>]| nodes.iter().filter(|node| api::nodes::is_ready(node)).count() == count;
        until::<Node>(&self.client().await?, "the nodes are ready", "", ready).await.map(drop)
    }

    /// Where the API is served.
    pub fn url(&self) -> String {
        format!("https://{}:6443", self.lab.boxes[self.master - 1].address())
    }

    /// What a minion joins with.
    fn token(&self) -> Result<String> {
        let file = self.lab.boxes[0].file(&format!("{MASTER_DATA}/join-token"));
        Ok(std::fs::read_to_string(&file).with_context(|| file.display().to_string())?.trim().to_owned())
    }

    /// The admin's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.lab.boxes[self.master - 1].file(&format!("{MASTER_DATA}/admin.kubeconfig"))
    }

    /// A client that may do anything, on the host that the test is.
    pub async fn client(&self) -> Result<Client> {
        Ok(client::connect::from_kubeconfig(Some(&self.kubeconfig()), None, "lab").await?)
    }

    /// Ends it all.
    pub async fn stop(self) -> Result<()> {
        self.lab.stop().await
    }
}
