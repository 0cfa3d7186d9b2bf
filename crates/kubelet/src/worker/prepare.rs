//! What must be there before a container can be made: its volumes, files, environment; and its last words afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Container as Spec, Pod, Secret, Service};

use super::Worker;
use super::references::References;
use crate::container_spec::{DEFAULT_TERMINATION_LOG, local_seccomp_profile};
use crate::env::{Objects, Sources, environment, services};
use crate::runtime::{Container, LogOptions, Mount, PodState, Recursive, Sandbox};
use crate::volumes::{self, network_files, payload};

/// Last words longer than this are cut (`MaxContainerTerminationMessageLength`).
const MAX_MESSAGE: u64 = 4096;
/// All last words of one pod (`MaxPodTerminationMessageLogLength`).
const MAX_MESSAGES: u64 = 12 << 10;
/// Lines and bytes of a log that stand in for last words.
const FALLBACK_LINES: u64 = 80;
const FALLBACK_BYTES: usize = 2048;

/// What the pod's volumes were made from, to know when they are out of date.
pub(super) struct VolumesMade {
    objects: Objects,
    resource_version: Option<String>,
}

impl Worker {
    fn references(&mut self, pod: &Pod) -> &References {
        let spec = pod.spec.clone().unwrap_or_default();
        let known = self.references.take().filter(|references| references.are_of(&spec));
        let namespace = crate::pod::namespace(&pod.metadata);
        let (kubelet, handle) = (&self.kubelet, &self.handle);
        self.references.insert(known.unwrap_or_else(|| References::new(kubelet, namespace, &spec, &handle.wake)))
    }

    /// Everything the pod's volumes are made from, with tokens that are not due.
    async fn objects(&mut self, pod: &Pod) -> Result<Objects, String> {
        let objects = self.references(pod).objects().await?;
        let tokens = self.tokens(pod).await?;
        let claims = self.claims(pod).await?;
        Ok(Objects { tokens, claims, ..objects })
    }

    /// Makes the pod's volumes, or brings them up to date; the message of the FailedMount event if that fails.
    pub(super) async fn make_volumes(&mut self, pod: &Pod, pod_ip: Option<IpAddr>) -> Result<(), String> {
        let ending = self.handle.ending.clone();
        let objects = tokio::select! {
            biased;
            () = ending.cancelled() => return Err("the pod is to end".to_owned()),
            objects = self.objects(pod) => objects?,
        };
        self.make_volumes_from_elsewhere(pod, &objects.claims).await?;
        if self.kubelet.runtime.uses_files() && pod.spec.as_ref().is_some_and(|s| s.volumes.is_some()) {
            let (kubelet, pod, objects) = (self.kubelet.clone(), pod.clone(), objects.clone());
            blocking(move || {
                let sources = Sources { pod: &pod, objects: &objects, services: &[], pod_ip, node: &kubelet.resources };
                volumes::set_up(&kubelet.config.data_dir, &sources).map_err(|error| error.to_string())
            })
            .await?;
        }
        self.failures.remove("volumes");
        self.volumes = Some(VolumesMade { objects, resource_version: pod.metadata.resource_version.clone() });
        Ok(())
    }

    /// Brings volumes of a running pod up to date with the objects they are made from.
    pub(super) async fn refresh_volumes(&mut self, pod: &Pod, state: &PodState) {
        let has_payload = |v| payload::is_payload(v);
        let concerned = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).any(has_payload);
        let Some(sandbox) = state.live_sandbox().filter(|_| concerned) else { return };
        if self.handle.ending.is_cancelled() || self.holds.contains_key("") {
            return;
        }
        let ending = self.handle.ending.clone();
        let objects = tokio::select! {
            biased;
            () = ending.cancelled() => return,
            objects = self.references(pod).objects() => objects,
        };
        let fresh = match (&objects, &self.volumes) {
            (Ok(objects), Some(made)) => {
                same(objects, &made.objects)
                    && made.resource_version == pod.metadata.resource_version
                    && !self.tokens.is_due(self.kubelet.config.clock.now())
            }
            _ => false,
        };
        if !fresh && let Err(message) = self.make_volumes(pod, sandbox.ip).await {
            self.volumes_failed(pod, message);
            // What the containers have stays; the objects' watches say when it is worth another look.
            self.holds.remove("");
        }
    }

    /// Environment and mounts of one life of a container.
    pub(super) async fn prepare(
        &mut self,
        pod: &Pod,
        container: &Spec,
        restart_count: i32,
        sandbox: &Sandbox,
    ) -> Result<(Vec<(String, String)>, Vec<Mount>), String> {
        let objects = self.references(pod).objects().await?;
        let namespace = crate::pod::namespace(&pod.metadata);
        let links = pod.spec.as_ref().and_then(|s| s.enable_service_links) != Some(false);
        let all: Vec<Arc<Service>> = match crate::sources::is_static(pod) {
            true => self.kubelet.services.known(),
            false => self.kubelet.services.list().await,
        };
        let seen = services::visible(&all, namespace, links);
        let host_network = pod.spec.as_ref().is_some_and(|s| s.host_network == Some(true));
        let pod_ip = if host_network { Some(self.kubelet.config.node_ip) } else { sandbox.ip };
        let sources = Sources { pod, objects: &objects, services: &seen, pod_ip, node: &self.kubelet.resources };
        let env = environment(container, &sources).map_err(|error| error.to_string())?;
        if !self.kubelet.runtime.uses_files() {
            return Ok((env, Vec::new()));
        }
        let claims = self.volumes.as_ref().map(|made| made.objects.claims.clone()).unwrap_or_default();
        let (kubelet, pod, container) = (self.kubelet.clone(), pod.clone(), container.clone());
        let (env, mounts) = blocking(move || {
            let config = &kubelet.config;
            let mut mounts =
                volumes::mounts(&config.data_dir, &pod, &container, &claims, &env).map_err(|e| e.to_string())?;
            let own = own_mounts(&pod, &container, restart_count, pod_ip, config).map_err(|e| e.to_string())?;
            let taken: Vec<String> = mounts.iter().map(|m| m.target.clone()).collect();
            mounts.extend(own.into_iter().filter(|mount| !taken.contains(&mount.target)));
            Ok((env, mounts))
        })
        .await?;
        Ok((env, mounts))
    }

    /// The text of the container's system call filter, where that is a file of the node's.
    pub(super) async fn local_seccomp_profile(&self, pod: &Pod, container: &Spec) -> Result<Option<String>, String> {
        let Some(profile) = local_seccomp_profile(pod, container) else { return Ok(None) };
        let path = self.kubelet.config.data_dir.join("seccomp").join(profile);
        blocking(move || {
            let text = fs::read_to_string(&path);
            text.map(Some).map_err(|error| format!("cannot load seccomp profile {:?}: {error}", path.display()))
        })
        .await
    }

    /// The pod's pull secrets that exist.
    pub(super) async fn pull_secrets(&mut self, pod: &Pod) -> Vec<Arc<Secret>> {
        let Ok(objects) = self.references(pod).objects().await else { return Vec::new() };
        let names = pod.spec.iter().flat_map(|s| s.image_pull_secrets.iter().flatten());
        names.filter_map(|s| objects.secrets.get(&s.name).cloned().flatten()).collect()
    }

    /// What an ended container left in its termination log, or in its log if the policy says so.
    pub(super) async fn last_words(&self, pod: &Pod, container: &Container) -> String {
        if !self.kubelet.runtime.uses_files() {
            return container.message.clone().unwrap_or_default();
        }
        let data_dir = &self.kubelet.config.data_dir;
        let path = volumes::termination_log(data_dir, crate::pod::uid(pod), &container.name, container.restart_count);
        let containers = pod.spec.as_ref().map_or(1, |s| api::pods::all_containers(s).count());
        let share = MAX_MESSAGES / u64::try_from(containers.max(1)).unwrap_or(1);
        let words = read_bounded(&path, share.min(MAX_MESSAGE));
        let spec = pod.spec.as_ref().and_then(|s| crate::pod::container(s, &container.name));
        let policy = spec.as_ref().and_then(|(_, c)| c.termination_message_policy.as_deref());
        let failed = container.exit().is_some_and(|exit| exit.code != 0);
        if words.is_empty() && failed && policy == Some("FallbackToLogsOnError") {
            return self.log_tail(container).await;
        }
        words
    }

    async fn log_tail(&self, container: &Container) -> String {
        let options = LogOptions { tail: Some(FALLBACK_LINES), ..LogOptions::default() };
        let Ok(mut chunks) = self.kubelet.runtime.logs(&container.id, &options).await else { return String::new() };
        let mut tail = Vec::new();
        while let Some(Ok(chunk)) = chunks.next().await {
            tail.extend_from_slice(&chunk);
            tail.drain(..tail.len().saturating_sub(FALLBACK_BYTES));
        }
        String::from_utf8_lossy(&tail).into_owned()
    }
}

/// Whether both are the very same objects of the API.
fn same(left: &Objects, right: &Objects) -> bool {
    same_objects(&left.config_maps, &right.config_maps) && same_objects(&left.secrets, &right.secrets)
}

type Named<K> = BTreeMap<String, Option<Arc<K>>>;

fn same_objects<K>(left: &Named<K>, right: &Named<K>) -> bool {
    fn pointers<K>(objects: &Named<K>) -> impl Iterator<Item = (&String, Option<*const K>)> {
        objects.iter().map(|(name, object)| (name, object.as_ref().map(Arc::as_ptr)))
    }
    pointers(left).eq(pointers(right))
}

fn read_bounded(path: &Path, limit: u64) -> String {
    let Ok(file) = fs::File::open(path) else { return String::new() };
    let mut bytes = Vec::new();
    // A file that cannot be read to its end leaves what was read.
    let _ = file.take(limit).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The files every container gets: hosts, resolver and termination log.
fn own_mounts(
    pod: &Pod,
    container: &Spec,
    restart_count: i32,
    pod_ip: Option<IpAddr>,
    config: &crate::Config,
) -> std::io::Result<Vec<Mount>> {
    let uid = crate::pod::uid(pod);
    let dir = volumes::pod_dir(&config.data_dir, uid);
    let spec = pod.spec.clone().unwrap_or_default();
    let aliases = spec.host_aliases.as_deref().unwrap_or_default();
    let hosts = if spec.host_network == Some(true) {
        network_files::host_network_hosts(&fs::read_to_string("/etc/hosts").unwrap_or_default(), aliases)
    } else {
        let (hostname, full) = network_files::hostname(pod, &config.cluster_domain);
        network_files::hosts(pod_ip, &hostname, full.as_deref(), aliases)
    };
    let host = network_files::Resolver::of_host(config.resolv_conf.as_deref());
    let cluster = network_files::Cluster { dns: config.cluster_dns, domain: &config.cluster_domain, host };
    let resolver = network_files::resolver(&spec, crate::pod::namespace(&pod.metadata), &cluster);
    let log = volumes::termination_log(&config.data_dir, uid, &container.name, restart_count);
    make_termination_log(&log)?;
    let log_path = container.termination_message_path.clone().filter(|path| !path.is_empty());
    Ok(vec![
        file_mount(network_files::write(&dir, "etc-hosts", &hosts)?, "/etc/hosts".to_owned()),
        file_mount(network_files::write(&dir, "resolv.conf", &resolver.to_string())?, "/etc/resolv.conf".to_owned()),
        file_mount(log, log_path.unwrap_or_else(|| DEFAULT_TERMINATION_LOG.to_owned())),
    ])
}

/// An empty file that anyone may write to. Those of earlier lives but the last go.
fn make_termination_log(path: &Path) -> std::io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
        let mut old: Vec<u32> =
            fs::read_dir(dir)?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        old.sort_unstable_by(|a, b| b.cmp(a));
        for count in old.iter().skip(1) {
            fs::remove_file(dir.join(count.to_string()))?;
        }
    }
    fs::write(path, "")?;
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666))
}

fn file_mount(source: PathBuf, target: String) -> Mount {
    Mount { source, target, read_only: false, propagation: "rprivate", recursive_read_only: Recursive::No }
}

/// Runs what blocks on the file system where it delays nobody.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(error.to_string()))
}
