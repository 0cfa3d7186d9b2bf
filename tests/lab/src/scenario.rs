//! Several scenarios on one lab: starting one takes longer than most of them. Each is told with its name, its result and
//! its time; one that fails does not keep the next from running.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::cluster::Cluster;

/// Only scenarios whose names are in this list, separated by commas, are run; for whoever works on one.
const ONLY: &str = "LAB_SCENARIOS";

/// The scenarios of a lab.
pub struct Scenarios {
    cluster: Cluster,
    only: Option<Vec<String>>,
    failed: Vec<String>,
}

impl Scenarios {
    /// None has run.
    pub fn on(cluster: Cluster) -> Scenarios {
        let only = std::env::var(ONLY).ok().map(|list| list.split(',').map(str::to_owned).collect());
        Scenarios { cluster, only, failed: Vec::new() }
    }

    /// Runs one.
    #[allow(clippy::print_stderr)] // This is its report.
    pub async fn run(&mut self, name: &str, sentence: &str, body: impl AsyncFnOnce(&mut Cluster) -> Result<()>) {
        if self.only.as_ref().is_some_and(|only| !only.iter().any(|wanted| wanted == name)) {
            return;
        }
        let begun = Instant::now();
        let result = body(&mut self.cluster).await;
        let seconds = begun.elapsed().as_secs_f64();
        match result {
            Ok(()) => eprintln!("{name} PASS {seconds:.1} s: {sentence}"),
            Err(error) => {
                eprintln!("{name} FAIL {seconds:.1} s: {sentence}: {error:?}");
                self.failed.push(name.to_owned());
            }
        }
    }

    /// Ends the lab; fails if a scenario has failed.
    pub async fn finish(self) -> Result<()> {
        self.cluster.stop().await?;
        ensure!(self.failed.is_empty(), "failed: {}", self.failed.join(", "));
        Ok(())
    }
}
