//! Carries out what leads to other nodes' pods: routes, and the overlay's device with its neighbours.

use std::net::Ipv4Addr;

use serde_json::Value;

use crate::command::{json, run};
use crate::overlay::{self, DEVICE, Overlay};
use crate::routes::{self, PROTOCOL, Paths};
use crate::{Config, SinkError};

/// Leaves exactly these paths and, where needed, the route to the service range. One that cannot be set does not stop the
/// others.
pub async fn set(paths: &Paths, config: &Config) -> Result<(), SinkError> {
    let overlay = match &paths.overlay {
        Some(overlay) => set_overlay(overlay, config.node_ip).await,
        None if !config.overlay => remove_device().await,
        None => Ok(()),
    };
    set_routes(paths, Some(config)).await.and(overlay)
}

/// Takes all of it away.
pub async fn forget() -> Result<(), SinkError> {
    let routes = set_routes(&Paths::default(), None).await;
    remove_device().await.and(routes)
}

async fn set_routes(paths: &Paths, config: Option<&Config>) -> Result<(), SinkError> {
    let present = json("ip", &["-j", "-4", "route", "show", "proto", PROTOCOL]).await?;
    let mut wanted = paths.routes.clone();
    if let Some(config) = config {
        let address = config.service_cidr.network().to_string();
        let matching = json("ip", &["-j", "-4", "route", "show", "match", &address]).await?;
        wanted.extend(routes::service_route(&matching, config));
    }
    let plan = routes::plan(&routes::parse(&present), &wanted);
    batch("ip", plan.iter().map(routes::RouteAction::line).collect()).await
}

async fn set_overlay(overlay: &Overlay, node: Ipv4Addr) -> Result<(), SinkError> {
    let address = node.to_string();
    let below = json("ip", &["-j", "-4", "addr", "show", "to", &address]).await?;
    let below = overlay::underlay(&below).ok_or(SinkError::NoInterface(node))?;
    batch("ip", overlay::plan_device(&device().await, &below, node, overlay.end)).await?;
    let neighbours = json("ip", &["-j", "-4", "neigh", "show", "dev", DEVICE, "nud", "permanent"]).await?;
    let neighbours = batch("ip", overlay::plan_neighbours(&neighbours, &overlay.peers)).await;
    let frames = json("bridge", &["-j", "fdb", "show", "dev", DEVICE]).await?;
    batch("bridge", overlay::plan_forwarding(&frames, &overlay.peers)).await.and(neighbours)
}

/// The device as it is; nothing where there is none.
async fn device() -> Value {
    json("ip", &["-d", "-j", "addr", "show", "dev", DEVICE]).await.unwrap_or(Value::Null)
}

async fn remove_device() -> Result<(), SinkError> {
    match device().await {
        Value::Null => Ok(()),
        _ => run("ip", &["link", "del", DEVICE], "").await.map(drop),
    }
}

/// Carries out all lines, also after one that fails.
async fn batch(program: &str, lines: Vec<String>) -> Result<(), SinkError> {
    if lines.is_empty() {
        return Ok(());
    }
    tracing::debug!(program, lines = lines.concat(), "paths");
    run(program, &["-force", "-batch", "-"], &lines.concat()).await.map(drop)
}
