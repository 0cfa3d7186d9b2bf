//! How a machine becomes a node: from a join token to credentials of its own (TLS bootstrap).
//!
//! ```text
//!  token = <id>.<secret>.<hash of the CA>
//!    │ 1. reach the server, believe only a chain with that CA      pin
//!    │ 2. key + CertificateSigningRequest as system:bootstrap:<id>, wait for the certificate      csr
//!    ▼ 3. keep CA, key and certificate below the data directory      credentials
//!  client as system:node:<name> ── 4. serving certificate the same way ── 5. both renewed before they expire   renewal
//! ```
//!
//! A machine that has credentials needs no token any more. [`Certificates`] is what others are told of them.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::Tasks;

mod certificates;
mod connect;
mod credentials;
mod csr;
mod pin;
mod renewal;

pub(crate) use certificates::warn;
pub use certificates::{Certificates, Kept};
use credentials::Pair;
use csr::Request;

use crate::config::Serving;
use crate::server::Certificate;

/// Back-off while the server does not answer: first and longest.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Why a machine does not become a node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The token is not one.
    #[error("the join token is not of the form <id>.<secret>.<sha256 of the CA>")]
    Token,
    /// There are no credentials and no token to get some with.
    #[error("this machine has not joined yet: a join token is needed")]
    NoToken,
    /// The server is not an https URL.
    #[error("{0} is not an https:// URL")]
    Server(String),
    /// The server is not the one the token is for.
    #[error("the server's certificate authority is not the one the join token names")]
    Pin,
    /// Keys or certificates are not usable.
    #[error("{0}")]
    Crypto(String),
    /// The certificate was refused.
    #[error("the certificate request was denied: {0}")]
    Denied(String),
    /// The API server did not do what was asked.
    #[error("the API server: {0}")]
    Api(#[source] Box<kube::Error>),
    /// The certificate did not come in time.
    #[error("the certificate request was not signed within {0} seconds")]
    Timeout(u64),
    /// The data directory refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Error {
        Error::Api(Box::new(error))
    }
}

/// Who wants to join, and where.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    /// `https://…` of each API server of the cluster; any will do.
    pub servers: Vec<String>,
    /// The join token; not needed where the machine has joined before.
    pub token: Option<String>,
    /// The node's name.
    pub node_name: String,
    /// The node's address, for its serving certificate.
    pub node_ip: IpAddr,
    /// Credentials are kept below it, in `pki`.
    pub data_dir: PathBuf,
}

/// A machine that is a node. Its credentials renew themselves on the [`Tasks`] it joined with.
pub struct Joined {
    /// A client of the API server as `system:node:<name>`.
    pub client: kube::Client,
    /// The cluster's CA, in PEM.
    pub ca_pem: String,
    /// What the node server shows, and whom it believes.
    pub serving: Serving,
    /// How long the node's certificates last.
    pub certificates: Certificates,
}

/// Joins the cluster, or comes back to it with the credentials of last time.
pub async fn join(options: &JoinOptions, tasks: &Tasks) -> Result<Joined, Error> {
    let pki = options.data_dir.join("pki");
    let token = options.token.as_deref().map(pin::Token::parse).transpose()?;
    let servers: Vec<http::Uri> = options.servers.iter().map(|server| https(server)).collect::<Result<_, _>>()?;
    let user = format!("{}{}", api::well_known::USER_NODE_PREFIX, options.node_name);
    let (ca_pem, pair) = match stored(&pki, &user, token.as_ref())? {
        Some(stored) => stored,
        None => bootstrap(&servers, &pki, &user, token.as_ref().ok_or(Error::NoToken)?).await?,
    };
    let identity = connect::Identity::new(&pair)?;
    let client = connect::node_client(&servers, &ca_pem, identity.clone())?;
    let certificates = Certificates::default();
    let (request, path) = (Request::client(&user), pki.join(credentials::CLIENT));
    let renew_client = renewal::Renewal::new(client.clone(), request, path, certificates.client.clone());
    tasks.spawn(renew_client.run(Some(pair), move |pair| identity.replace(pair)));
    let certificate = serve(&client, options, &pki, certificates.serving.clone(), tasks)?;
    Ok(Joined { client, serving: Serving { certificate, client_ca_pem: ca_pem.clone() }, ca_pem, certificates })
}

fn https(server: &str) -> Result<http::Uri, Error> {
    let uri = server.parse::<http::Uri>().ok().filter(|uri| uri.scheme_str() == Some("https"));
    uri.ok_or_else(|| Error::Server(server.to_owned()))
}

/// The credentials of last time, if they are still good and of the cluster the token is for.
fn stored(pki: &Path, user: &str, token: Option<&pin::Token>) -> Result<Option<(String, Pair)>, Error> {
    let Some(ca_pem) = credentials::read(&pki.join(credentials::CA))? else { return Ok(None) };
    if token.is_some_and(|token| !token.matches(&ca_pem)) {
        return Ok(None);
    }
    let pair = Pair::read(&pki.join(credentials::CLIENT))?;
    Ok(pair.filter(|pair| pair.is_valid_for(user)).map(|pair| (ca_pem, pair)))
}

/// Gets the machine's first credentials.
async fn bootstrap(servers: &[http::Uri], pki: &Path, user: &str, token: &pin::Token) -> Result<(String, Pair), Error> {
    let pinned = Arc::new(pin::PinnedCa::new(token.ca_hash.clone()));
    let client = connect::bootstrap_client(servers, pinned.clone(), &token.bearer)?;
    let mut backoff = RETRY_MIN;
    let pair = loop {
        match Request::client(user).obtain(&client).await {
            Ok(pair) => break pair,
            Err(Error::Api(_)) if pinned.refused() => return Err(Error::Pin),
            // The server may start later than its nodes, or its store.
            Err(Error::Api(error)) if !is_refusal(&error) => {
                tracing::warn!(?servers, %error, "the API server does not answer yet");
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(RETRY_MAX);
            }
            Err(error) => return Err(error),
        }
    };
    let ca_pem = pinned.ca_pem().ok_or(Error::Pin)?;
    // A serving certificate of another cluster is of no use in this one.
    credentials::remove(&pki.join(credentials::SERVING))?;
    credentials::write(&pki.join(credentials::CA), &ca_pem)?;
    pair.write(&pki.join(credentials::CLIENT))?;
    tracing::info!(user, "joined the cluster");
    Ok((ca_pem, pair))
}

/// Whether a server that works said no.
fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code < 500 && status.code != 429)
}

/// The node's serving certificate: that of last time, or one that comes once the Node is registered, as the signer
/// compares the request with the Node's addresses.
fn serve(
    client: &kube::Client,
    options: &JoinOptions,
    pki: &Path,
    kept: Arc<Kept>,
    tasks: &Tasks,
) -> Result<Arc<Certificate>, Error> {
    let crypto = |error: crate::server::Error| Error::Crypto(error.to_string());
    let path = pki.join(credentials::SERVING);
    let pair = Pair::read(&path)?.filter(|pair| pair.is_valid_serving(&options.node_name, options.node_ip));
    let certificate = Arc::new(Certificate::default());
    if let Some(pair) = &pair {
        certificate.replace(&pair.certificate, &pair.key).map_err(crypto)?;
    }
    let request = Request::serving(&options.node_name, options.node_ip);
    let shown = certificate.clone();
    let renewal = renewal::Renewal::new(client.clone(), request, path, kept);
    tasks.spawn(renewal.run(pair, move |pair| shown.replace(&pair.certificate, &pair.key).map_err(crypto)));
    Ok(certificate)
}

#[cfg(test)]
mod tests;
