//! Acts on a plan: one match, each arm a few calls of the runtime.

use client::EventType;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::Worker;
use crate::clock::after;
use crate::container_spec::{Life, container_spec, sandbox_spec};
use crate::pod::actions::{Action, KillReason};
use crate::pod::observed::{Hold, Termination};
use crate::runtime::{Error, PodState};
use crate::volumes::network_files;

/// A container that could not be started shows why for this long before it is tried again.
const SHOWN: std::time::Duration = std::time::Duration::from_secs(1);

/// Why a container was not started: the reason and message of its waiting state.
pub(super) struct StartError {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Worker {
    /// Does `actions` in order; whether the runtime did what it was asked. Starts that fail hold their container back
    /// and count as done.
    pub(super) async fn execute(&mut self, pod: &Pod, mut state: PodState, actions: Vec<Action>) -> bool {
        let Some(spec) = &pod.spec else { return true };
        for action in actions {
            let done = match action {
                Action::CreateSandbox { attempt } => {
                    self.create_sandbox(pod, spec, attempt, &mut state).await;
                    Ok(())
                }
                Action::Start { name, restart_count, backoff } => {
                    let Some((_, container)) = crate::pod::container(spec, &name) else { continue };
                    let life = Start { restart_count, backoff };
                    if let Err(error) = self.start(pod, &container, life, &state).await {
                        self.hold_start(&name, error);
                    }
                    Ok(())
                }
                Action::Terminate { id, name, reason, grace } => {
                    self.terminate(pod, &id, &name, reason, grace, &state);
                    Ok(())
                }
                Action::Resize { containers } => {
                    self.resize(pod, &containers).await;
                    Ok(())
                }
                Action::Signal { id } => self.signal(&id).await,
                Action::Kill { id } => {
                    let now = self.kubelet.config.clock.now();
                    if let Some(termination) = self.terminations.get_mut(&id) {
                        termination.killed_at = Some(now);
                    }
                    self.kubelet.runtime.kill(&id).await
                }
                Action::Remove { id } => self.kubelet.runtime.remove(&id).await,
            };
            match done {
                Ok(()) | Err(Error::NotFound(_)) => {}
                Err(error) => {
                    tracing::warn!(pod = crate::pod::full_name(pod), %error, "the runtime did not do what it was asked");
                    return false;
                }
            }
        }
        true
    }

    /// Makes the sandbox and, beside it, the volumes.
    async fn create_sandbox(&mut self, pod: &Pod, spec: &PodSpec, attempt: u32, state: &mut PodState) {
        if attempt > 0 || !state.containers.is_empty() {
            let message = "Pod sandbox changed, it will be killed and re-created.".to_owned();
            self.pod_event(pod, EventType::Normal, "SandboxChanged", message);
        }
        let hostname = match network_files::sandbox_hostname(pod, &self.kubelet.config.cluster_domain) {
            Ok(hostname) => hostname,
            Err(error) => return self.sandbox_failed(pod, &error),
        };
        let kubelet = self.kubelet.clone();
        let wanted = sandbox_spec(pod, spec, attempt, hostname);
        let (made, volumes) = tokio::join!(kubelet.runtime.run_sandbox(&wanted), self.make_volumes(pod, None));
        match made {
            Ok(sandbox) => {
                self.failures.remove("sandbox");
                state.sandboxes.insert(0, sandbox);
            }
            Err(error) => self.sandbox_failed(pod, &error.to_string()),
        }
        if let Err(message) = volumes {
            self.volumes_failed(pod, message);
        }
    }

    fn sandbox_failed(&mut self, pod: &Pod, error: &str) {
        let message = format!("Failed to create pod sandbox: {error}");
        self.pod_event(pod, EventType::Warning, "FailedCreatePodSandBox", message.clone());
        self.hold_pod("sandbox", "FailedCreatePodSandBox", message);
    }

    pub(super) fn volumes_failed(&mut self, pod: &Pod, message: String) {
        if !self.handle.ending.is_cancelled() {
            self.pod_event(pod, EventType::Warning, "FailedMount", message.clone());
        }
        self.hold_pod("volumes", "FailedMount", message);
    }

    fn hold_pod(&mut self, what: &str, reason: &str, message: String) {
        let until = after(self.kubelet.config.clock.now(), self.failed(what));
        self.holds.insert(String::new(), Hold { until, reason: reason.to_owned(), message });
    }

    fn hold_start(&mut self, name: &str, error: StartError) {
        let now = self.kubelet.config.clock.now();
        let until = match error.reason {
            "ErrImagePull" | "RunContainerError" | "PostStartHookError" => after(now, SHOWN),
            "ImagePullBackOff" => {
                self.image_backoffs.values().map(|b| b.until).filter(|at| *at > now).min().unwrap_or(now)
            }
            _ => after(now, self.failed(name)),
        };
        self.holds.insert(name.to_owned(), Hold { until, reason: error.reason.to_owned(), message: error.message });
    }

    /// Makes and starts one container.
    async fn start(
        &mut self,
        pod: &Pod,
        container: &Container,
        life: Start,
        state: &PodState,
    ) -> Result<(), StartError> {
        let name = container.name.as_str();
        let Some(sandbox) = state.live_sandbox() else { return Ok(()) };
        let ending = self.handle.ending.clone();
        if self.volumes.is_none()
            && let Err(message) = self.make_volumes(pod, sandbox.ip).await
        {
            self.volumes_failed(pod, message);
            return Ok(());
        }
        let image = tokio::select! {
            biased;
            () = ending.cancelled() => return Ok(()),
            image = self.ensure_image(pod, container) => image?,
        };
        let prepared = tokio::select! {
            biased;
            () = ending.cancelled() => return Ok(()),
            prepared = self.prepare(pod, container, life.restart_count, sandbox) => prepared,
        };
        let prepared = prepared.map_err(|message| StartError { reason: "CreateContainerConfigError", message });
        let warn = |error: &StartError| {
            self.container_event(pod, name, EventType::Warning, "Failed", format!("Error: {}", error.message));
        };
        let (env, mounts) = prepared.inspect_err(warn)?;
        let target_id = target_id(pod, name, state);
        let target_id = target_id
            .map_err(|message| StartError { reason: "CreateContainerConfigError", message })
            .inspect_err(warn)?;
        let seccomp_profile = self.local_seccomp_profile(pod, container).await;
        let seccomp_profile = seccomp_profile
            .map_err(|message| StartError { reason: "CreateContainerError", message })
            .inspect_err(warn)?;
        let life = Life {
            sandbox_id: &sandbox.id,
            restart_count: life.restart_count,
            backoff: life.backoff,
            env,
            mounts,
            image: &image,
            seccomp_profile,
            target_id,
            machine_memory: self.kubelet.resources.machine_memory,
        };
        let wanted = container_spec(pod, container, life);
        let wanted = wanted.map_err(|e| StartError { reason: "CreateContainerConfigError", message: e.to_string() });
        let wanted = wanted.inspect_err(warn)?;
        let created = self.kubelet.runtime.create_container(&wanted).await;
        let created = created.map_err(|e| StartError { reason: "CreateContainerError", message: e.to_string() });
        let id = created.inspect_err(warn)?;
        self.container_event(pod, name, EventType::Normal, "Created", format!("Created container: {name}"));
        let started = self.kubelet.runtime.start_container(&id).await;
        let started = started.map_err(|error| StartError {
            reason: "RunContainerError",
            message: format!("failed to start container \"{id}\": {error}"),
        });
        let started = started.inspect_err(warn);
        self.actuated.insert(id.clone(), wanted.resources);
        started?;
        self.container_event(pod, name, EventType::Normal, "Started", format!("Started container {name}"));
        self.failures.remove(name);
        self.post_start(pod, container, &id, sandbox.ip).await
    }

    /// Says that a container is to end, and starts its preStop hook if it has one. Nobody waits here: the plan looks again
    /// when the hook or the container ended, or the grace has passed.
    fn terminate(
        &mut self,
        pod: &Pod,
        id: &str,
        name: &str,
        reason: KillReason,
        grace: std::time::Duration,
        state: &PodState,
    ) {
        self.container_event(pod, name, EventType::Normal, "Killing", reason.message(name));
        let hook_runs = self.pre_stop(pod, id, name, grace, state);
        let asked_at = self.kubelet.config.clock.now();
        self.terminations.insert(id.to_owned(), Termination::new(asked_at, hook_runs));
    }

    async fn signal(&mut self, id: &str) -> Result<(), Error> {
        self.kubelet.runtime.terminate(id).await?;
        let now = self.kubelet.config.clock.now();
        if let Some(termination) = self.terminations.get_mut(id) {
            termination.signaled_at = Some(now);
        }
        Ok(())
    }
}

/// The container whose processes the ephemeral container `name` is to see, if it is to see any but its own.
fn target_id(pod: &Pod, name: &str, state: &PodState) -> Result<Option<String>, String> {
    let ephemeral = pod.spec.iter().flat_map(|s| s.ephemeral_containers.iter().flatten()).find(|c| c.name == name);
    let target = ephemeral.and_then(|c| c.target_container_name.as_deref()).filter(|target| !target.is_empty());
    let Some(target) = target else { return Ok(None) };
    let running = state.current(target).filter(|c| c.is_running());
    running.map(|c| Some(c.id.clone())).ok_or_else(|| format!("unable to find target container {target}"))
}

/// Which life of a container is started.
#[derive(Clone, Copy)]
struct Start {
    restart_count: i32,
    backoff: std::time::Duration,
}
