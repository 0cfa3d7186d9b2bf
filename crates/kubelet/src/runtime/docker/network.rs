//! The pod network: one bridge on the node's podCIDR. Docker gives addresses and port bindings; masquerading and
//! forwarding are the proxy's, so Docker's own are off.

use std::collections::HashMap;

use bollard::Docker;
use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest, NetworkInspect};
use ipnet::Ipv4Net;

use super::super::{Error, Result};
use super::DockerOptions;

/// Docker's word for how long a network's packets may be, and what that is where nobody says so.
const MTU: &str = "com.docker.network.driver.mtu";
const DEFAULT_MTU: u32 = 1500;

/// Makes the network, or makes it anew where it is on another podCIDR or its packets are of another length.
pub(super) async fn ensure(docker: &Docker, options: &DockerOptions, cidr: Ipv4Net) -> Result<()> {
    match docker.inspect_network(&options.network, None).await.map_err(super::error) {
        Ok(present) if subnet(&present) == Some(cidr) && options.mtu.is_none_or(|wanted| mtu(&present) == wanted) => {
            return Ok(());
        }
        Ok(present) => {
            tracing::info!(network = options.network, %cidr, mtu = options.mtu, "making the pod network anew");
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

fn mtu(network: &NetworkInspect) -> u32 {
    let told = network.options.as_ref().and_then(|options| options.get(MTU)).and_then(|mtu| mtu.parse().ok());
    told.unwrap_or(DEFAULT_MTU)
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
    let mtu = options.mtu.map(|mtu| (MTU, mtu.to_string()));
    let settings = [
        ("com.docker.network.bridge.name", options.bridge.clone()),
        ("com.docker.network.bridge.enable_ip_masquerade", "false".to_owned()),
        ("com.docker.network.bridge.enable_icc", "true".to_owned()),
    ];
    let settings = settings.into_iter().chain(mtu).map(|(key, value)| (key.to_owned(), value));
    NetworkCreateRequest {
        name: options.network.clone(),
        driver: Some("bridge".to_owned()),
        ipam: Some(Ipam {
            config: Some(vec![IpamConfig { subnet: Some(cidr.to_string()), gateway, ..IpamConfig::default() }]),
            ..Ipam::default()
        }),
        options: Some(settings.collect()),
        labels: Some(HashMap::from([(crate::names::NODE.to_owned(), options.node_name.clone())])),
        ..NetworkCreateRequest::default()
    }
}
