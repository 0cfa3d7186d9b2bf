//! The node's heartbeat: a Lease renewed on its own schedule, whatever else is slow (`pkg/kubelet/nodelease`).

use std::sync::Arc;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::time::MissedTickBehavior;

use crate::Kubelet;

/// Renews the lease until dropped.
pub(crate) async fn renew(kubelet: Arc<Kubelet>, client: kube::Client) {
    let config = &kubelet.config;
    let api: Api<Lease> = Api::namespaced(client.clone(), api::well_known::NAMESPACE_NODE_LEASE);
    let nodes = Api::all(client);
    let mut beat = tokio::time::interval(config.lease_renew_interval);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beat.tick().await;
        // A renewal that hangs must not cost the next one.
        match tokio::time::timeout(config.lease_renew_interval, renew_once(&kubelet, &api, &nodes)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot renew the node's lease"),
            Err(_) => tracing::warn!("cannot renew the node's lease: the API server does not answer"),
        }
    }
}

async fn renew_once(
    kubelet: &Kubelet,
    api: &Api<Lease>,
    nodes: &Api<k8s_openapi::api::core::v1::Node>,
) -> Result<(), kube::Error> {
    let name = &kubelet.config.node_name;
    let now = MicroTime(kubelet.config.clock.now());
    let patch = json!({"spec": {"holderIdentity": name, "renewTime": now}});
    match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let uid = nodes.get_opt(name).await?.and_then(|node| node.metadata.uid);
            api.create(&PostParams::default(), &lease(kubelet, now, uid)).await.map(drop)
        }
        Err(error) => Err(error),
    }
}

/// The lease goes with its node.
fn lease(kubelet: &Kubelet, now: MicroTime, node_uid: Option<String>) -> Lease {
    let name = &kubelet.config.node_name;
    let owner = node_uid.map(|uid| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: name.clone(),
        uid,
        ..OwnerReference::default()
    });
    Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(api::well_known::NAMESPACE_NODE_LEASE.to_owned()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.clone()),
            lease_duration_seconds: i32::try_from(kubelet.config.lease_duration.as_secs()).ok(),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    }
}
