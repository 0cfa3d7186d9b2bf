//! The pod network: one bridge on the node's podCIDR. Docker gives addresses and port bindings; masquerading and
//! forwarding are the proxy's, so Docker's own are off.

use std::collections::HashMap;

use bollard::Docker;
use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest, NetworkInspect};
use ipnet::Ipv4Net;

use super::super::{Error, Result};
use super::DockerOptions;

/// Makes the network, or makes it anew where it is on another podCIDR.
pub(super) async fn ensure(docker: &Docker, options: &DockerOptions, cidr: Ipv4Net) -> Result<()> {
    match docker.inspect_network(&options.network, None).await.map_err(super::error) {
        Ok(present) if subnet(&present) == Some(cidr) => return Ok(()),
        Ok(present) => {
            tracing::info!(network = options.network, %cidr, "the podCIDR changed: making the pod network anew");
            remove_with_members(docker, options, present).await?;
        }
        Err(Error::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    match docker.create_network(request(options, cidr)).await.map_err(super::error) {
        Ok(_) | Err(Error::Conflict(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Where the network is, if it is there.
pub(super) async fn present(docker: &Docker, options: &DockerOptions) -> Result<Option<Ipv4Net>> {
    match docker.inspect_network(&options.network, None).await.map_err(super::error) {
        Ok(present) => Ok(subnet(&present)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the network, if it is there.
pub(super) async fn remove(docker: &Docker, options: &DockerOptions) -> Result<()> {
    match docker.remove_network(&options.network).await.map_err(super::error) {
        Ok(()) | Err(Error::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn subnet(network: &NetworkInspect) -> Option<Ipv4Net> {
    network.ipam.as_ref()?.config.as_ref()?.first()?.subnet.as_ref()?.parse().ok()
}

/// Sandboxes with addresses of another podCIDR are of no use; their pods get new ones.
async fn remove_with_members(docker: &Docker, options: &DockerOptions, network: NetworkInspect) -> Result<()> {
    use bollard::query_parameters::RemoveContainerOptionsBuilder;
    for id in network.containers.unwrap_or_default().into_keys() {
        let force = RemoveContainerOptionsBuilder::new().force(true).build();
        match docker.remove_container(&id, Some(force)).await.map_err(super::error) {
            Ok(()) | Err(Error::NotFound(_) | Error::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
    }
    remove(docker, options).await
}

fn request(options: &DockerOptions, cidr: Ipv4Net) -> NetworkCreateRequest {
    let gateway = cidr.hosts().next().map(|ip| ip.to_string());
    let settings = [
        ("com.docker.network.bridge.name", options.bridge.as_str()),
        ("com.docker.network.bridge.enable_ip_masquerade", "false"),
        ("com.docker.network.bridge.enable_icc", "true"),
    ];
    NetworkCreateRequest {
        name: options.network.clone(),
        driver: Some("bridge".to_owned()),
        ipam: Some(Ipam {
            config: Some(vec![IpamConfig { subnet: Some(cidr.to_string()), gateway, ..IpamConfig::default() }]),
            ..Ipam::default()
        }),
        options: Some(settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        labels: Some(HashMap::from([(crate::names::NODE.to_owned(), options.node_name.clone())])),
        ..NetworkCreateRequest::default()
    }
}
