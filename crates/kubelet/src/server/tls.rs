//! TLS of the node server: a certificate that can be exchanged while it serves, and whose clients' certificates count.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;

use super::Error;
use crate::config::Serving;

/// The certificate the server shows; a newer one takes its place without a restart. Without one yet, handshakes fail.
#[derive(Default)]
pub struct Certificate {
    current: ArcSwapOption<CertifiedKey>,
    is_there: watch::Sender<bool>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate")
    }
}

impl Certificate {
    /// From a chain and its key in PEM.
    pub fn from_pem(chain: &str, key: &str) -> Result<Certificate, Error> {
        let certificate = Certificate::default();
        certificate.replace(chain, key)?;
        Ok(certificate)
    }

    /// Shows this one from the next handshake on.
    pub fn replace(&self, chain: &str, key: &str) -> Result<(), Error> {
        self.current.store(Some(Arc::new(certified_key(chain, key)?)));
        self.is_there.send_replace(true);
        Ok(())
    }

    /// Whether there is one, and word of it when it comes.
    pub(crate) fn is_there(&self) -> watch::Receiver<bool> {
        self.is_there.subscribe()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load_full()
    }
}

pub(crate) fn certified_key(chain: &str, key: &str) -> Result<CertifiedKey, Error> {
    let wrong = |what: &str| Error::Tls(format!("not a usable {what} in PEM"));
    let chain: Result<Vec<CertificateDer<'static>>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let chain = chain.map_err(|_| wrong("certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| wrong("key"))?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map_err(|error| Error::Tls(error.to_string()))
}

pub(crate) fn roots(ca_pem: &str) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        let certificate = certificate.map_err(|_| Error::Tls("not a usable CA in PEM".to_owned()))?;
        roots.add(certificate).map_err(|error| Error::Tls(error.to_string()))?;
    }
    Ok(roots)
}

pub(super) fn server_config(serving: &Serving) -> Result<ServerConfig, Error> {
    let text = |error: &dyn fmt::Display| Error::Tls(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(roots(&serving.client_ca_pem)?);
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|e| text(&e))?;
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|e| text(&e))?.with_client_cert_verifier(verifier);
    let mut config = builder.with_cert_resolver(serving.certificate.clone());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
