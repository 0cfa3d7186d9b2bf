//! `minion --cleanup`: nothing a minion ever made on this machine is left.

use anyhow::{Context, Result};
use kubelet::runtime::docker::DockerRuntime;

use crate::options::Options;
use crate::start::{docker_options, node_name};

/// Removes the node's containers and pod network, the proxy's rules and routes, pods' mounts and directories, and the
/// node's credentials. Everything is tried; what could not be removed is named by the first error.
pub async fn run(options: &Options) -> Result<()> {
    let node_name = node_name(options)?;
    let containers = remove_containers(options, &node_name).await;
    let rules = proxy::cleanup().await.context("cannot remove the proxy's rules");
    let files = remove_files(options);
    containers.and(rules).and(files)?;
    tracing::info!(node = node_name, "nothing is left");
    Ok(())
}

async fn remove_containers(options: &Options, node_name: &str) -> Result<()> {
    let docker = DockerRuntime::connect(docker_options(options, node_name)).await;
    let docker = docker.with_context(|| format!("no Docker Engine answers on {}", options.docker_endpoint))?;
    docker.clean_up().await.context("cannot remove the node's containers")
}

fn remove_files(options: &Options) -> Result<()> {
    let data_dir = &options.data_dir;
    for uid in kubelet::volumes::pods_on_disk(data_dir) {
        kubelet::volumes::tear_down(data_dir, &uid).with_context(|| format!("cannot remove the files of pod {uid}"))?;
    }
    for made in ["pods", "pki", "node-name"] {
        let path = data_dir.join(made);
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}
