//! One try of one probe.

use std::net::IpAddr;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, GRPCAction, HTTPGetAction, Probe, TCPSocketAction};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::{dial, http};
use crate::names::go_duration;
use crate::runtime::{Error, Runtime};

/// Which container is asked, and where it is reached.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The runtime's id.
    pub(super) id: String,
    /// Its spec.
    pub(super) container: Container,
    /// Its pod's address.
    pub(super) address: IpAddr,
}

/// What a try found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// All is well.
    Success,
    /// Well enough, but.
    Warning(String),
    /// It is not.
    Failure(String),
}

/// Tries `probe`; an error says that it could not be tried.
pub(super) async fn check(
    runtime: &dyn Runtime,
    probe: &Probe,
    target: &Target,
    timeout: Duration,
) -> Result<Checked, String> {
    if let Some(exec) = &probe.exec {
        return self::exec(runtime, exec.command.as_deref().unwrap_or_default(), target, timeout).await;
    }
    if let Some(get) = &probe.http_get {
        return http_get(runtime, get, target, timeout).await;
    }
    if let Some(tcp) = &probe.tcp_socket {
        return tcp_socket(runtime, tcp, target, timeout).await;
    }
    match &probe.grpc {
        Some(grpc) => self::grpc(runtime, grpc, target, timeout).await,
        None => Err(format!("missing probe handler for {}", target.container.name)),
    }
}

async fn exec(
    runtime: &dyn Runtime,
    command: &[String],
    target: &Target,
    timeout: Duration,
) -> Result<Checked, String> {
    match runtime.exec_sync(&target.id, command, timeout).await {
        Ok(result) if result.code == 0 => Ok(Checked::Success),
        Ok(result) => Ok(Checked::Failure(result.output)),
        Err(Error::TimedOut(message)) => Ok(Checked::Failure(message)),
        Err(error) => Err(error.to_string()),
    }
}

async fn http_get(
    runtime: &dyn Runtime,
    get: &HTTPGetAction,
    target: &Target,
    timeout: Duration,
) -> Result<Checked, String> {
    // A port that is none is no failure of the container.
    http::port(&get.port, &target.container)?;
    let asked = http::get(runtime, get, &target.container, target.address, "kube-probe");
    let answer = match tokio::time::timeout(timeout, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Ok(Checked::Failure(error)),
        Err(_) => return Ok(Checked::Failure(http::timed_out(get, &target.container, target.address))),
    };
    Ok(match answer.status.as_u16() {
        200..300 => Checked::Success,
        300..400 => Checked::Warning(format!("Probe terminated redirects, Response body: {}", answer.body)),
        code => Checked::Failure(format!("HTTP probe failed with statuscode: {code}")),
    })
}

async fn tcp_socket(
    runtime: &dyn Runtime,
    tcp: &TCPSocketAction,
    target: &Target,
    timeout: Duration,
) -> Result<Checked, String> {
    let port = http::port(&tcp.port, &target.container)?;
    let host = tcp.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| target.address.to_string());
    match tokio::time::timeout(timeout, dial::dial(runtime, &host, port)).await {
        Ok(Ok(_)) => Ok(Checked::Success),
        Ok(Err(error)) => Ok(Checked::Failure(error)),
        Err(_) => Ok(Checked::Failure(format!("dial tcp {}: i/o timeout", dial::address(&host, port)))),
    }
}

/// `grpc.health.v1.Health/Check` (`pkg/probe/grpc`).
async fn grpc(runtime: &dyn Runtime, grpc: &GRPCAction, target: &Target, timeout: Duration) -> Result<Checked, String> {
    let port = u16::try_from(grpc.port).map_err(|_| format!("invalid port number: {}", grpc.port))?;
    let host = target.address.to_string();
    let address = dial::address(&host, port);
    let took = go_duration(timeout);
    let unreachable =
        || format!("timeout: failed to connect service \"{address}\" within {took}: context deadline exceeded");
    let begun = tokio::time::Instant::now();
    let dialed = tokio::time::timeout(timeout, dial::dial(runtime, &host, port)).await;
    let Ok(Ok(stream)) = dialed else { return Ok(Checked::Failure(unreachable())) };
    let Ok(endpoint) = tonic::transport::Endpoint::from_shared(format!("http://{address}")) else {
        return Err(format!("invalid address {address}"));
    };
    let endpoint = endpoint.user_agent(format!("kube-probe/{}", http::VERSION)).map_err(|e| e.to_string())?;
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: ::http::Uri| {
        // There is one connection, and no second try on another.
        let stream = stream.take().ok_or_else(|| std::io::Error::other("the connection has ended"));
        std::future::ready(stream)
    });
    let asked = async {
        let channel = endpoint.connect_with_connector(connector).await.map_err(|_| None)?;
        let request = HealthCheckRequest { service: grpc.service.clone().unwrap_or_default() };
        HealthClient::new(channel).check(request).await.map_err(Some)
    };
    let left = timeout.saturating_sub(begun.elapsed());
    Ok(match tokio::time::timeout(left, asked).await {
        Ok(Ok(answer)) => match answer.into_inner().status() {
            ServingStatus::Serving => Checked::Success,
            status => Checked::Failure(format!("service unhealthy (responded with \"{}\")", status.as_str_name())),
        },
        Ok(Err(Some(status))) => Checked::Failure(refusal(&status, &took)),
        Ok(Err(None)) => Checked::Failure(unreachable()),
        Err(_) => Checked::Failure(format!("timeout: health rpc did not complete within {took}")),
    })
}

fn refusal(status: &tonic::Status, took: &str) -> String {
    let message = status.message();
    match status.code() {
        Code::Unimplemented => {
            format!("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}")
        }
        Code::DeadlineExceeded => format!("timeout: health rpc did not complete within {took}"),
        code => format!("error: health rpc probe failed: rpc error: code = {code:?} desc = {message}"),
    }
}
