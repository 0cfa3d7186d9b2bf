//! Lifecycle hooks: postStart after a container started, preStop before it is asked to end
//! (`pkg/kubelet/lifecycle/handlers.go`).

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use client::EventType;
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Worker;
use crate::runtime::{PodState, Runtime};

/// A postStart hook that takes longer has failed.
const POST_START_LIMIT: Duration = Duration::from_secs(120);

impl Worker {
    /// Runs the postStart hook; a container whose hook fails is ended.
    pub(super) async fn post_start(&mut self, pod: &Pod, container: &Container, id: &str, pod_ip: Option<IpAddr>) {
        let Some(hook) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else { return };
        let kubelet = self.kubelet.clone();
        let ip = pod_ip.unwrap_or(kubelet.config.node_ip);
        let ran = tokio::select! {
            biased;
            () = self.handle.ending.cancelled() => return,
            ran = run(hook, container, id, ip, kubelet.runtime.as_ref(), POST_START_LIMIT) => ran,
        };
        if let Err(message) = ran {
            let message = format!("PostStartHook failed: {message}");
            self.container_event(pod, &container.name, EventType::Warning, "FailedPostStartHook", message);
            if let Err(error) = kubelet.runtime.kill(id).await {
                tracing::warn!(%error, container = container.name, "cannot end a container whose hook failed");
            }
        }
    }

    /// Starts the preStop hook, after which the container is asked to end; whether there is one.
    pub(super) fn pre_stop(&self, pod: &Pod, id: &str, name: &str, state: &PodState) -> bool {
        let container = pod.spec.as_ref().and_then(|s| crate::pod::container(s, name)).cloned();
        let hook = container.as_ref().and_then(|c| c.lifecycle.as_ref()?.pre_stop.clone());
        let (Some(container), Some(hook)) = (container, hook) else { return false };
        let limit = crate::pod::grace(pod);
        if limit.is_zero() {
            return false;
        }
        let kubelet = self.kubelet.clone();
        let ip = state.live_sandbox().and_then(|s| s.ip).unwrap_or(kubelet.config.node_ip);
        let mut reference = client::object_reference(pod);
        reference.field_path = Some(format!("spec.containers{{{name}}}"));
        let id = id.to_owned();
        // Ends by itself within the grace: the hook is bounded by it.
        tokio::spawn(async move {
            if let Err(message) = run(&hook, &container, &id, ip, kubelet.runtime.as_ref(), limit).await {
                let message = format!("PreStopHook failed: {message}");
                kubelet.recorder.event(&reference, EventType::Warning, "FailedPreStopHook", message);
            }
            if let Err(error) = kubelet.runtime.terminate(&id).await {
                tracing::debug!(%error, container = id, "cannot ask a container to end");
            }
        });
        true
    }
}

async fn run(
    hook: &LifecycleHandler,
    container: &Container,
    id: &str,
    ip: IpAddr,
    runtime: &dyn Runtime,
    limit: Duration,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let result = runtime.exec_sync(id, &command, limit).await.map_err(|error| error.to_string())?;
        return match result.code {
            0 => Ok(()),
            code => Err(format!("command '{}' exited with {code}: {}", command.join(" "), result.output.trim())),
        };
    }
    let work = async {
        if let Some(sleep) = &hook.sleep {
            tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
            return Ok(());
        }
        match &hook.http_get {
            Some(get) => http_get(get, container, ip).await,
            None => Err("invalid handler: it names nothing to run".to_owned()),
        }
    };
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err("timed out".to_owned()))
}

async fn http_get(get: &HTTPGetAction, container: &Container, ip: IpAddr) -> Result<(), String> {
    if get.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")) {
        return Err("hooks over HTTPS are not supported".to_owned());
    }
    let port = port(&get.port, container).ok_or("the hook's port is not one")?;
    let host = get.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| ip.to_string());
    let text = |error: &dyn std::error::Error| error.to_string();
    let stream = tokio::net::TcpStream::connect((host.as_str(), port)).await.map_err(|e| text(&e))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| text(&e))?;
    let path = get.path.as_deref().unwrap_or_default();
    let mut request = http::Request::get(format!("/{}", path.trim_start_matches('/'))).header("Host", &host);
    for header in get.http_headers.iter().flatten() {
        request = request.header(&header.name, &header.value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| text(&e))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| text(&e))?;
        let status = response.status();
        if status.is_success() || status.is_redirection() { Ok(()) } else { Err(format!("HTTP status {status}")) }
    };
    tokio::select! {
        answer = answer => answer,
        Err(error) = connection => Err(text(&error)),
    }
}

fn port(port: &IntOrString, container: &Container) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|p| p.name.as_ref() == Some(name));
            named.map_or_else(|| name.parse().ok(), |p| u16::try_from(p.container_port).ok())
        }
    }
}
