//! Clients: from a kubeconfig, or from a server and credentials at hand.
//!
//! Inside the master no function of this module is needed: `kube::Client::new` lays a client directly over the API
//! server's router.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use http::header::USER_AGENT;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};

/// Why no client could be made; the text says which file or value was wrong.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be read or does not make sense.
    #[error("kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The server's URL is not one.
    #[error("invalid server URL {url:?}")]
    Url {
        /// As it was given.
        url: String,
    },
    /// A certificate or key is not PEM.
    #[error("invalid certificate or key: {0}")]
    Pem(String),
    /// The connection could not be set up.
    #[error(transparent)]
    Client(#[from] kube::Error),
}

/// What a kubeconfig says, before it becomes a client: where the server is and which namespace is the default. `program`
/// is who asks: the manager of the fields it writes.
pub async fn kubeconfig(
    path: Option<&Path>,
    context: Option<&str>,
    program: &'static str,
) -> Result<kube::Config, ConnectError> {
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let mut config = match path {
        Some(path) => kube::Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?,
        None => kube::Config::from_kubeconfig(&options).await?,
    };
    config.headers.push((USER_AGENT, HeaderValue::from_static(program)));
    Ok(config)
}

/// A client for what a kubeconfig names: `path` or `$KUBECONFIG` or `~/.kube/config`, its `context` or the current one.
pub async fn from_kubeconfig(
    path: Option<&Path>,
    context: Option<&str>,
    program: &'static str,
) -> Result<kube::Client, ConnectError> {
    Ok(kube::Client::try_from(kubeconfig(path, context, program).await?)?)
}

/// A client for `server` (`https://host:port`) that trusts `ca_pem` only and shows a client certificate.
pub fn with_certificate(
    server: &str,
    ca_pem: &[u8],
    certificate_pem: &[u8],
    key_pem: &[u8],
) -> Result<kube::Client, ConnectError> {
    let auth = AuthInfo {
        client_certificate_data: Some(STANDARD.encode(certificate_pem)),
        client_key_data: Some(STANDARD.encode(key_pem).into()),
        ..AuthInfo::default()
    };
    with_auth(server, ca_pem, auth)
}

/// A client for `server` (`https://host:port`) that trusts `ca_pem` only and sends a bearer token.
pub fn with_token(server: &str, ca_pem: &[u8], token: &str) -> Result<kube::Client, ConnectError> {
    with_auth(server, ca_pem, AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() })
}

fn with_auth(server: &str, ca_pem: &[u8], auth_info: AuthInfo) -> Result<kube::Client, ConnectError> {
    let url: http::Uri = server.parse().map_err(|_| ConnectError::Url { url: server.to_owned() })?;
    let mut config = kube::Config::new(url);
    config.root_cert = Some(der_of(ca_pem)?);
    config.auth_info = auth_info;
    Ok(kube::Client::try_from(config)?)
}

/// The DER blocks of a PEM file of certificates.
fn der_of(pem: &[u8]) -> Result<Vec<Vec<u8>>, ConnectError> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).map(|c| c.map(|c| c.to_vec())).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(ConnectError::Pem("no certificate found".to_owned())),
        Err(error) => Err(ConnectError::Pem(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_wrong_with_a_server_or_certificate_is_said() {
        let wrong = |server: &str, ca: &str| with_token(server, ca.as_bytes(), "t").err().map(|e| e.to_string());
        assert_eq!(wrong("not a url", "").as_deref(), Some("invalid server URL \"not a url\""));
        let no_certificate = wrong("https://127.0.0.1:6443", "nothing here");
        assert_eq!(no_certificate.as_deref(), Some("invalid certificate or key: no certificate found"));
    }

    #[tokio::test]
    async fn a_missing_kubeconfig_is_named() {
        let error = kubeconfig(Some(Path::new("/does/not/exist")), None, "test").await.err().map(|e| e.to_string());
        assert!(error.is_some_and(|e| e.starts_with("kubeconfig: ")));
    }
}
