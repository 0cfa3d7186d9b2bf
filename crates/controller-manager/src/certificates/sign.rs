//! Signs requests with the cluster CA.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::request::Request;
use crate::Config;

/// Certificates count from a little earlier, for those whose clocks are behind (upstream's `--cluster-signing` backdate).
const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// No request gets a certificate for less, whatever it asks for.
const VALIDITY_MIN: Duration = Duration::from_secs(600);

/// Why a request was not signed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignError {
    /// The CA's certificate or key cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The CA's certificate or key is not one.
    #[error("the CA in {path} is unusable")]
    Ca {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// The request cannot be read.
    #[error("{0}")]
    Request(String),
    /// Signing failed.
    #[error("signing failed")]
    Sign(#[source] rcgen::Error),
}

impl SignError {
    /// Whether the fault is with the CA, not with the request.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self, SignError::Read { .. } | SignError::Ca { .. })
    }
}

/// The certificate that an approved request asks for, as PEM.
pub(super) async fn sign(csr: &CertificateSigningRequest, config: &Config) -> Result<String, SignError> {
    let (cert, key) = (read(&config.ca_cert).await?, read(&config.ca_key).await?);
    let unusable = |path: &Path, source| SignError::Ca { path: path.to_owned(), source };
    let key = KeyPair::from_pem(&key).map_err(|error| unusable(&config.ca_key, error))?;
    let issuer = Issuer::from_ca_cert_pem(&cert, key).map_err(|error| unusable(&config.ca_cert, error))?;
    let mut request = Request::parse(csr).map_err(SignError::Request)?;
    request.params.params = template(csr, request.params.params, config.certificate_validity, SystemTime::now());
    Ok(request.params.signed_by(&issuer).map_err(SignError::Sign)?.pem())
}

async fn read(path: &Path) -> Result<String, SignError> {
    tokio::fs::read_to_string(path).await.map_err(|source| SignError::Read { path: path.to_owned(), source })
}

/// What the certificate says: the names of the request, and for the rest what we say, not what the request says.
fn template(
    csr: &CertificateSigningRequest,
    request: CertificateParams,
    validity: Duration,
    now: SystemTime,
) -> CertificateParams {
    let asked = csr.spec.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    let validity = asked.map_or(validity, |asked| asked.clamp(VALIDITY_MIN.min(validity), validity));
    let usages = csr.spec.usages.as_deref().unwrap_or(&[]);
    let mut params = CertificateParams::default();
    params.distinguished_name = request.distinguished_name;
    params.subject_alt_names = request.subject_alt_names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = usages.iter().filter_map(|usage| key_usage(usage)).collect();
    params.extended_key_usages = usages.iter().filter_map(|usage| extended_key_usage(usage)).collect();
    params.use_authority_key_identifier_extension = true;
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + validity).into();
    params
}

fn key_usage(usage: &str) -> Option<KeyUsagePurpose> {
    match usage {
        "digital signature" => Some(KeyUsagePurpose::DigitalSignature),
        "key encipherment" => Some(KeyUsagePurpose::KeyEncipherment),
        _ => None,
    }
}

fn extended_key_usage(usage: &str) -> Option<ExtendedKeyUsagePurpose> {
    match usage {
        "client auth" => Some(ExtendedKeyUsagePurpose::ClientAuth),
        "server auth" => Some(ExtendedKeyUsagePurpose::ServerAuth),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{client_csr, with_ca};
    use super::*;

    #[tokio::test]
    async fn an_approved_request_is_signed_by_the_ca() {
        let (config, _dir) = with_ca();
        let pem = sign(&client_csr(), &config).await.unwrap();
        assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"), "{pem}");
    }

    #[tokio::test]
    async fn a_missing_ca_is_not_the_requests_fault() {
        let config = Config { ca_cert: "/nonexistent/ca.crt".into(), ..Config::default() };
        assert!(sign(&client_csr(), &config).await.unwrap_err().is_ours());
    }

    #[test]
    fn a_certificate_lasts_as_long_as_asked_but_no_longer_than_allowed() {
        let (now, year) =
            (SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000), Duration::from_secs(31_536_000));
        let cases = [
            ("nothing is asked", None, 31_536_000),
            ("a day is asked", Some(86_400), 86_400),
            ("ten years are asked", Some(315_360_000), 31_536_000),
            ("a second is asked", Some(1), 600),
        ];
        for (sentence, asked, expected) in cases {
            let mut csr = client_csr();
            csr.spec.expiration_seconds = asked;
            let params = template(&csr, CertificateParams::default(), year, now);
            let not_after: SystemTime = params.not_after.into();
            assert_eq!(not_after.duration_since(now).unwrap().as_secs(), expected, "{sentence}");
        }
    }
}
