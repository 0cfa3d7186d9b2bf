//! Lifecycle hooks: postStart after a container started, preStop before it is asked to end
//! (`pkg/kubelet/lifecycle/handlers.go`). What a hook says is in the log and in the container's state, not in an Event,
//! which others may read.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::EventType;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use tokio_util::task::AbortOnDropHandle;

use super::Worker;
use super::execute::StartError;
use crate::probes::http;
use crate::runtime::{PodState, Runtime};

/// A preStop hook that is on its way.
pub(super) struct Hook {
    over: Arc<AtomicBool>,
    _task: AbortOnDropHandle<()>,
}

impl Hook {
    /// Whether it has ended.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

impl Worker {
    /// Runs the postStart hook, however long it takes; a container whose hook fails is to end.
    pub(super) async fn post_start(
        &mut self,
        pod: &Pod,
        container: &Container,
        id: &str,
        pod_ip: Option<IpAddr>,
    ) -> Result<(), StartError> {
        let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else { return Ok(()) };
        let kubelet = self.kubelet.clone();
        let target = Target { pod, container, id, ip: pod_ip.unwrap_or(kubelet.config.node_ip) };
        let ran = tokio::select! {
            biased;
            () = self.handle.ending.cancelled() => return Ok(()),
            ran = run(hook, target, kubelet.runtime.as_ref(), None) => ran,
        };
        ran.map_err(|message| {
            tracing::info!(pod = crate::pod::full_name(pod), message, "a postStart hook failed");
            let text = "PostStartHook failed".to_owned();
            self.container_event(pod, &container.name, EventType::Warning, "FailedPostStartHook", text);
            self.probes.hook_failed(id);
            StartError { reason: "PostStartHookError", message }
        })
    }

    /// Starts the preStop hook of a container that is to end within `grace`; whether there is one.
    pub(super) fn pre_stop(&mut self, pod: &Pod, id: &str, name: &str, grace: Duration, state: &PodState) -> bool {
        let container = pod.spec.as_ref().and_then(|s| crate::pod::container(s, name));
        let Some((sort, container)) = container.filter(|_| !grace.is_zero()) else { return false };
        let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.pre_stop.clone()) else { return false };
        let kubelet = self.kubelet.clone();
        let ip = state.live_sandbox().and_then(|s| s.ip).unwrap_or(kubelet.config.node_ip);
        let mut reference = client::object_reference(pod);
        reference.field_path = Some(format!("spec.{}{{{name}}}", sort.list()));
        let (over, wake) = (Arc::new(AtomicBool::new(false)), self.handle.wake.clone());
        let (pod, container, id) = (pod.clone(), container.into_owned(), id.to_owned());
        let (key, ended) = (id.clone(), over.clone());
        let task = tokio::spawn(async move {
            let target = Target { pod: &pod, container: &container, id: &id, ip };
            if let Err(message) = run(&hook, target, kubelet.runtime.as_ref(), Some(grace)).await {
                tracing::info!(pod = crate::pod::full_name(&pod), message, "a preStop hook failed");
                let text = "PreStopHook failed".to_owned();
                kubelet.recorder.event(&reference, EventType::Warning, "FailedPreStopHook", text);
            }
            ended.store(true, Ordering::Release);
            wake.notify_one();
        });
        self.hooks.insert(key, Hook { over, _task: AbortOnDropHandle::new(task) });
        true
    }
}

/// Whose hook it is.
#[derive(Clone, Copy)]
struct Target<'a> {
    pod: &'a Pod,
    container: &'a Container,
    id: &'a str,
    ip: IpAddr,
}

async fn run(
    hook: &LifecycleHandler,
    target: Target<'_>,
    runtime: &dyn Runtime,
    limit: Option<Duration>,
) -> Result<(), String> {
    let work = handler(hook, target, runtime);
    match limit {
        None => work.await,
        // Upstream says nothing of a hook that outlasts the grace.
        Some(limit) => tokio::time::timeout(limit, work).await.unwrap_or(Ok(())),
    }
}

async fn handler(hook: &LifecycleHandler, target: Target<'_>, runtime: &dyn Runtime) -> Result<(), String> {
    let Target { pod, container, id, ip } = target;
    let failed = |kind: &str, what: &str, error: &str, output: &str| {
        let (name, pod) = (&container.name, crate::pod::full_name(pod));
        format!(
            "{kind} lifecycle hook ({what}) for Container \"{name}\" in Pod \"{pod}\" failed - error: {error}, message: {output:?}"
        )
    };
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let what = format!("[{}]", command.join(" "));
        let result = runtime.exec_sync(id, &command, Duration::MAX).await;
        let result = result.map_err(|error| failed("Exec", &what, &error.to_string(), ""))?;
        return match result.code {
            0 => Ok(()),
            code => {
                let error = format!("command '{}' exited with {code}: {}", command.join(" "), result.output);
                Err(failed("Exec", &what, &error, &result.output))
            }
        };
    }
    if let Some(get) = &hook.http_get {
        // Any answer will do.
        let answer = http::get(runtime, get, container, ip, "kube-lifecycle").await;
        return answer.map(drop).map_err(|e| failed("HTTP", get.path.as_deref().unwrap_or("/"), &e, ""));
    }
    if let Some(tcp) = &hook.tcp_socket {
        let port = http::port(&tcp.port, container)?;
        let host = tcp.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| ip.to_string());
        let connected = crate::probes::dial(runtime, &host, port).await;
        return connected.map(drop).map_err(|e| failed("TCP", &format!("{host}:{port}"), &e, ""));
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        return Ok(());
    }
    Err("Cannot run handler: invalid handler: it names nothing to run".to_owned())
}
