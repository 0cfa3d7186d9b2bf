//! The local health port: plain HTTP for whoever is on this machine (`--healthz-port`), without a word about pods.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;

use super::Error;

/// Binds `address`.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Bind { address, source })
}

/// The paths of a health check; also part of the node server.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/healthz", get(async || "ok")).route("/healthz/ping", get(async || "ok"))
}

/// Answers until dropped.
pub(crate) async fn serve(listener: TcpListener) {
    if let Err(error) = axum::serve(listener, routes::<()>()).await {
        tracing::warn!(%error, "the health port is no longer served");
    }
}
