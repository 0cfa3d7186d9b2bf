//! `minion --cleanup`: nothing a minion ever made on this machine is left.

use anyhow::{Context, Result};
use kubelet::runtime::docker::DockerRuntime;

use crate::address::NODE_IP;
use crate::options::{Options, RuntimeKind};
use crate::start::{NODE_NAME, docker_options, node_name, real_path};

/// Removes the node's containers and pod network, the proxy's rules and routes, pods' mounts and directories, and the
/// node's credentials. Everything is tried; what could not be removed is named by the first error.
pub async fn run(options: &Options) -> Result<()> {
    let node_name = node_name(options)?;
    let containers = remove_containers(options, &node_name).await;
    let rules = proxy::cleanup().await.context("cannot remove the proxy's rules");
    // Containers that are left are found by the node's name, the next time.
    let made: &[&str] = &["image_manager", "pods", "pki", NODE_IP, NODE_NAME];
    let made = if containers.is_ok() { made } else { &made[..3] };
    let files = remove_files(options, made);
    let logind = kubelet::node::shutdown::forget().context("cannot remove what logind was told");
    containers.and(rules).and(files).and(logind)?;
    tracing::info!(node = node_name, "nothing is left");
    Ok(())
}

async fn remove_containers(options: &Options, node_name: &str) -> Result<()> {
    if options.runtime == RuntimeKind::Hollow {
        return Ok(());
    }
    let docker = DockerRuntime::connect(docker_options(options, node_name, None)).await;
    let docker = docker.with_context(|| format!("no Docker Engine answers on {}", options.docker_endpoint))?;
    docker.clean_up().await.context("cannot remove the node's containers")
}

fn remove_files(options: &Options, made: &[&str]) -> Result<()> {
    if !options.data_dir.try_exists()? {
        return Ok(());
    }
    let data_dir = &real_path(&options.data_dir)?;
    for uid in kubelet::volumes::pods_on_disk(data_dir) {
        kubelet::volumes::tear_down(data_dir, &uid).with_context(|| format!("cannot remove the files of pod {uid}"))?;
    }
    for made in made {
        let path = data_dir.join(made);
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            _ => {}
        }
    }
    // What somebody else put there (profiles of seccomp, say) stays, and the directory with it.
    match std::fs::remove_dir(data_dir) {
        Err(error) if error.kind() != std::io::ErrorKind::DirectoryNotEmpty => {
            Err(error).with_context(|| format!("cannot remove {}", data_dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;

    use super::*;

    const ALL: &[&str] = &["image_manager", "pods", "pki", NODE_IP, NODE_NAME];

    fn options(data_dir: &Path) -> Options {
        Options::try_parse_from(["minion", "--cleanup", "--data-dir", data_dir.to_str().unwrap()]).unwrap()
    }

    #[test]
    fn what_others_put_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (data_dir, link) = (folder.path().join("minion"), folder.path().join("link"));
        std::fs::create_dir_all(data_dir.join("pods/uid-1/volumes")).unwrap();
        std::fs::create_dir_all(data_dir.join("pki")).unwrap();
        std::fs::create_dir_all(data_dir.join("seccomp")).unwrap();
        std::fs::write(data_dir.join("node-name"), "box1").unwrap();
        std::fs::write(data_dir.join("node-ip"), "10.0.0.5").unwrap();
        std::os::unix::fs::symlink(&data_dir, &link).unwrap();
        remove_files(&options(&link), ALL).unwrap();
        let left: Vec<_> = std::fs::read_dir(&data_dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["seccomp"]);
        std::fs::remove_dir(data_dir.join("seccomp")).unwrap();
        remove_files(&options(&data_dir), ALL).unwrap();
        assert!(!data_dir.exists());
        remove_files(&options(&data_dir), ALL).unwrap();
    }

    /// Needs root. What is mounted below a link to the data directory is not deleted through it.
    #[test]
    fn what_is_mounted_is_not_deleted() {
        use nix::mount::{MntFlags, MsFlags, mount, umount2};
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (data_dir, link, users) =
            (folder.path().join("minion"), folder.path().join("link"), folder.path().join("users"));
        let place = data_dir.join("pods/uid-1/volume-subpaths/0");
        for dir in [&place, &users] {
            std::fs::create_dir_all(dir).unwrap();
        }
        std::fs::write(users.join("letter"), "dear").unwrap();
        std::os::unix::fs::symlink(&data_dir, &link).unwrap();
        mount(Some(&users), &place, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        let removed = remove_files(&options(&link), ALL);
        let _ = umount2(&place, MntFlags::MNT_DETACH);
        removed.unwrap();
        assert_eq!(std::fs::read_to_string(users.join("letter")).unwrap(), "dear");
        assert!(!data_dir.exists());
    }
}
