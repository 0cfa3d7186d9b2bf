//! The columns of `kubectl get rc` (`printReplicationController` upstream).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ReplicationController};
use serde_json::{Value, json};

use crate::kinds::printers::labels;
use crate::kinds::{AGE, Column, NAME, column, wide};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    column("Desired", "integer", "How many pods there should be"),
    column("Current", "integer", "How many pods there are"),
    column("Ready", "integer", "How many pods are ready"),
    AGE,
    wide("Containers", "string", "Names of the template's containers"),
    wide("Images", "string", "Images of the template's containers"),
    wide("Selector", "string", "Labels of the pods it counts"),
];

pub(super) fn cells(controller: &ReplicationController, now: Timestamp) -> Vec<Value> {
    let spec = controller.spec.as_ref();
    let status = controller.status.as_ref();
    let containers: &[Container] =
        spec.and_then(|s| s.template.as_ref()?.spec.as_ref()).map_or(&[], |s| s.containers.as_slice());
    let join = |of: fn(&Container) -> &str| containers.iter().map(of).collect::<Vec<_>>().join(",");
    vec![
        json!(controller.metadata.name),
        json!(spec.and_then(|s| s.replicas).unwrap_or(0)),
        json!(status.map_or(0, |s| s.replicas)),
        json!(status.and_then(|s| s.ready_replicas).unwrap_or(0)),
        crate::printing::age(&controller.metadata, now),
        json!(join(|c| &c.name)),
        json!(join(|c| c.image.as_deref().unwrap_or(""))),
        labels(spec.and_then(|s| s.selector.as_ref())),
    ]
}
