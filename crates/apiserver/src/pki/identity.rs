//! A certificate that is shown to others; a newer one takes its place without a restart.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SignatureScheme};

use super::{Pair, damaged, parse_certificate};
use crate::error::Error;

/// Whose connections are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Callers {
    /// Also those of clients without a certificate.
    Anybody,
    /// Those of clients with a certificate of the CA only.
    Known,
}

/// A certificate, its key, and the CA where that is shown too.
pub(crate) struct Identity {
    current: RwLock<Arc<CertifiedKey>>,
}

impl Identity {
    pub(super) fn new(pair: &Pair, ca: Option<&CertificateDer<'static>>) -> Result<Identity, Error> {
        Ok(Identity { current: RwLock::new(certified(pair, ca)?) })
    }

    /// Shows this one from the next handshake on.
    pub(super) fn replace(&self, pair: &Pair, ca: Option<&CertificateDer<'static>>) -> Result<(), Error> {
        let newer = certified(pair, ca)?;
        *self.current.write() = newer;
        Ok(())
    }

    /// A server that shows it, and believes the certificates of clients that are signed by `ca`.
    pub(crate) fn tls(
        self: &Arc<Self>,
        ca: &CertificateDer<'static>,
        callers: Callers,
        protocols: &[&[u8]],
    ) -> Result<ServerConfig, Box<dyn std::error::Error>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone())?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let verifier = if callers == Callers::Anybody { verifier.allow_unauthenticated() } else { verifier };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier.build()?)
            .with_cert_resolver(self.clone());
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }

    /// What is shown.
    pub(super) fn current(&self) -> Arc<CertifiedKey> {
        self.current.read().clone()
    }
}

fn certified((certificate, key): &Pair, ca: Option<&CertificateDer<'static>>) -> Result<Arc<CertifiedKey>, Error> {
    let chain = [parse_certificate(certificate)?].into_iter().chain(ca.cloned()).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(damaged)?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, key, &provider).map(Arc::new).map_err(damaged)
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

impl ResolvesServerCert for Identity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
