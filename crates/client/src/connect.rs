//! Clients: from a kubeconfig, or laid directly over a service in the same process.

use std::path::Path;

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConnectError(pub String);

/// A client for what a kubeconfig names: `path` or `$KUBECONFIG` or `~/.kube/config`, its `context` or the current one.
pub async fn from_kubeconfig(_path: Option<&Path>, _context: Option<&str>) -> Result<kube::Client, ConnectError> {
    todo!()
}
