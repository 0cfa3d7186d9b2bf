//! The join token and the trust it carries: a hash of the cluster's CA, so that the first connection is no leap of
//! faith. The server sends its certificate and its CA; only a chain to a CA with that hash is believed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::Error;

/// A join token, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// `<id>.<secret>`.
    pub(super) bearer: String,
    /// SHA-256 of the CA's DER, in lower-case hexadecimal.
    pub(super) ca_hash: String,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}.…)", self.bearer.split('.').next().unwrap_or_default())
    }
}

const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;
const HASH_LENGTH: usize = 64;

impl Token {
    pub(super) fn parse(text: &str) -> Result<Token, Error> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let [id, secret, hash] = parts[..] else { return Err(Error::Token) };
        let plain = |part: &str| part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let is_hash = hash.len() == HASH_LENGTH && hash.bytes().all(|b| b.is_ascii_hexdigit());
        if id.len() != ID_LENGTH || secret.len() != SECRET_LENGTH || !plain(id) || !plain(secret) || !is_hash {
            return Err(Error::Token);
        }
        Ok(Token { bearer: format!("{id}.{secret}"), ca_hash: hash.to_ascii_lowercase() })
    }

    /// Whether the token is for the cluster of this CA.
    pub(super) fn matches(&self, ca_pem: &str) -> bool {
        CertificateDer::from_pem_slice(ca_pem.as_bytes()).is_ok_and(|ca| hash(&ca) == self.ca_hash)
    }
}

fn hash(certificate: &CertificateDer<'_>) -> String {
    crate::names::hex(ring::digest::digest(&ring::digest::SHA256, certificate).as_ref())
}

/// Believes a server whose chain has the pinned CA, and remembers that CA.
pub(super) struct PinnedCa {
    hash: String,
    provider: Arc<CryptoProvider>,
    ca: Mutex<Option<CertificateDer<'static>>>,
    refused: AtomicBool,
}

impl fmt::Debug for PinnedCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedCa({})", self.hash)
    }
}

impl PinnedCa {
    pub(super) fn new(hash: String) -> PinnedCa {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        PinnedCa { hash, provider, ca: Mutex::default(), refused: AtomicBool::new(false) }
    }

    /// The CA, once a server showed it.
    pub(super) fn ca_pem(&self) -> Option<String> {
        self.ca.lock().as_ref().map(|ca| super::credentials::pem("CERTIFICATE", ca))
    }

    /// Whether a server was refused for its CA.
    pub(super) fn refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(ca) = intermediates.iter().find(|certificate| hash(certificate) == self.hash) else {
            self.refused.store(true, Ordering::Relaxed);
            return Err(CertificateError::UnknownIssuer.into());
        };
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone()).build();
        let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
        let verified = verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        self.ca.lock().replace(ca.clone().into_owned());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_three_parts() {
        let hash = "A".repeat(64);
        let token = Token::parse(&format!("abc123.0123456789abcdef.{hash}\n")).unwrap();
        assert_eq!((token.bearer.as_str(), token.ca_hash), ("abc123.0123456789abcdef", "a".repeat(64)));
        for wrong in ["", "a.b.c", "abc123.0123456789abcdef", "ABC123.0123456789abcdef.x"] {
            assert!(matches!(Token::parse(wrong), Err(Error::Token)), "{wrong}");
        }
    }
}
