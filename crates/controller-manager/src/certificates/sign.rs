//! Signs requests with the cluster CA.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SigningKey};
use x509_parser::asn1_rs::{Any, FromDer};

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
    /// What was signed is no certificate.
    #[error("the certificate has no subject")]
    NoSubject,
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
    let issuer = Issuer::from_ca_cert_pem(&cert, &key).map_err(|error| unusable(&config.ca_cert, error))?;
    let request = Request::parse(csr).map_err(SignError::Request)?;
    let mut params = template(csr, config.certificate_validity, SystemTime::now());
    params.subject_alt_names = request.alternative_names().map_err(SignError::Sign)?;
    let certificate = params.signed_by(&request.key, &issuer).map_err(SignError::Sign)?;
    Ok(pem(&with_subject(certificate.der(), &request.subject, &key)?))
}

/// The certificate for this subject, signed once more: rcgen's has one attribute of a sort, while a user has a group for each
/// of his organizations.
fn with_subject(certificate: &[u8], subject: &[u8], key: &impl SigningKey) -> Result<Vec<u8>, SignError> {
    const SEQUENCE: u8 = 0x30;
    const BIT_STRING: u8 = 0x03;
    let [tbs, algorithm, _] = parts(certificate)?[..] else { return Err(SignError::NoSubject) };
    let mut fields = parts(tbs)?;
    // After version, serial number, algorithm, issuer and validity.
    *fields.get_mut(5).ok_or(SignError::NoSubject)? = subject;
    let tbs = element(SEQUENCE, &fields.concat());
    // No bit of the last byte is unused.
    let signature = [&[0][..], &key.sign(&tbs).map_err(SignError::Sign)?].concat();
    Ok(element(SEQUENCE, &[&tbs, algorithm, &element(BIT_STRING, &signature)].concat()))
}

/// The elements of a sequence in DER, each with its head.
fn parts(sequence: &[u8]) -> Result<Vec<&[u8]>, SignError> {
    let (_, whole) = Any::from_der(sequence).map_err(|_| SignError::NoSubject)?;
    let (mut rest, mut parts) = (whole.data, Vec::new());
    while !rest.is_empty() {
        let (after, _) = Any::from_der(rest).map_err(|_| SignError::NoSubject)?;
        let (part, _) = rest.split_at(rest.len() - after.len());
        parts.push(part);
        rest = after;
    }
    Ok(parts)
}

/// An element in DER.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut element = vec![tag];
    match length[..] {
        [] => element.push(0),
        [short] if short < 0x80 => element.push(short),
        _ => {
            element.push(0x80 | length.len() as u8);
            element.extend(length);
        }
    }
    element.extend(content);
    element
}

fn pem(der: &[u8]) -> String {
    const LINE: usize = 64;
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(LINE).map(|at| &text[at..text.len().min(at + LINE)]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

async fn read(path: &Path) -> Result<String, SignError> {
    tokio::fs::read_to_string(path).await.map_err(|source| SignError::Read { path: path.to_owned(), source })
}

/// What the certificate says beside the names of the request: what we say, not what the request says.
fn template(csr: &CertificateSigningRequest, validity: Duration, now: SystemTime) -> CertificateParams {
    let asked = csr.spec.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    let validity = asked.map_or(validity, |asked| asked.clamp(VALIDITY_MIN.min(validity), validity));
    let usages = csr.spec.usages.as_deref().unwrap_or(&[]);
    let mut params = CertificateParams::default();
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
    use rcgen::{CustomExtension, SanType};
    use x509_parser::prelude::X509Certificate;

    use super::super::testing::{client_csr, request_pem, with_ca};
    use super::*;

    #[tokio::test]
    async fn an_approved_request_is_signed_by_the_ca() {
        let (config, _dir) = with_ca();
        let pem = sign(&client_csr(), &config).await.unwrap();
        assert!(pem.starts_with("-----BEGIN CERTIFICATE-----"), "{pem}");
    }

    /// A request of user `jane` in the groups `dev` and `ops`, both in one set as Go writes them, with a name and an extension
    /// nobody cares for. Made by `openssl req`, as no library here writes such a subject.
    const GROUPS: &str = include_str!("../../testdata/two-groups.csr");

    #[tokio::test]
    async fn the_subject_stays_whole_and_the_ca_has_signed_it() {
        let (config, _dir) = with_ca();
        let mut csr = client_csr();
        csr.spec.request.0 = GROUPS.into();
        let signed = sign(&csr, &config).await.unwrap();
        let (_, signed) = x509_parser::pem::parse_x509_pem(signed.as_bytes()).unwrap();
        let (_, signed) = X509Certificate::from_der(&signed.contents).unwrap();
        let organizations: Vec<&str> = signed.subject().iter_organization().map(|o| o.as_str().unwrap()).collect();
        assert_eq!(organizations, ["dev", "ops"]);
        assert_eq!(signed.subject().iter_common_name().next().unwrap().as_str().unwrap(), "jane");
        let ca = std::fs::read(&config.ca_cert).unwrap();
        let (_, ca) = x509_parser::pem::parse_x509_pem(&ca).unwrap();
        let (_, ca) = X509Certificate::from_der(&ca.contents).unwrap();
        signed.verify_signature(Some(ca.public_key())).unwrap();
    }

    #[tokio::test]
    async fn names_are_kept_and_what_else_is_asked_for_is_not() {
        let (config, _dir) = with_ca();
        let mut csr = client_csr();
        csr.spec.request.0 = request_pem(|params| {
            params.subject_alt_names = vec![
                SanType::DnsName("a.example".try_into().unwrap()),
                SanType::IpAddress([10, 0, 0, 1].into()),
                SanType::URI("spiffe://x".try_into().unwrap()),
            ];
            params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0])];
        });
        let signed = sign(&csr, &config).await.unwrap();
        let (_, signed) = x509_parser::pem::parse_x509_pem(signed.as_bytes()).unwrap();
        let (_, signed) = X509Certificate::from_der(&signed.contents).unwrap();
        let names = signed.subject_alternative_name().unwrap().unwrap().value;
        assert_eq!(names.general_names.len(), 3);
        assert!(signed.extensions().iter().all(|extension| extension.oid.to_id_string() != "1.2.3.4"));
        assert!(!signed.is_ca());
    }

    #[test]
    fn the_length_of_an_element_is_written_in_as_few_bytes_as_it_needs() {
        let cases: [(usize, &[u8]); 5] = [
            (0, &[4, 0]),
            (127, &[4, 127]),
            (128, &[4, 0x81, 128]),
            (256, &[4, 0x82, 1, 0]),
            (65_536, &[4, 0x83, 1, 0, 0]),
        ];
        for (length, head) in cases {
            let element = element(4, &vec![7; length]);
            assert_eq!(element.strip_prefix(head).unwrap().len(), length);
        }
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
            let params = template(&csr, year, now);
            let not_after: SystemTime = params.not_after.into();
            assert_eq!(not_after.duration_since(now).unwrap().as_secs(), expected, "{sentence}");
        }
    }
}
