//! What each certificate says, and whether one on disk still says it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::damaged;
use crate::config::Config;
use crate::error::Error;

const CA_DAYS: i64 = 3650;
const LEAF_DAYS: i64 = 365;
/// A certificate that ends sooner than this is made anew.
pub(super) const RENEW_DAYS: i64 = 60;

/// A CA's certificate.
pub(super) fn authority(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(common_name, None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, CA_DAYS);
    params
}

/// A client's certificate.
pub(super) fn client(user: &str, group: &str) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(user, Some(group));
    leaf(&mut params, ExtendedKeyUsagePurpose::ClientAuth);
    Ok(params)
}

/// The server's certificate, for every name and address it is reached by.
pub(super) fn server(config: &Config) -> Result<CertificateParams, Error> {
    let addresses = addresses(config);
    let names = names(config).into_iter().chain(addresses.iter().map(IpAddr::to_string));
    let names: BTreeSet<String> = names.chain(config.cert_extra_sans.iter().cloned()).collect();
    let mut params = CertificateParams::new(names.into_iter().collect::<Vec<_>>()).map_err(damaged)?;
    params.distinguished_name = name("kube-apiserver", None);
    leaf(&mut params, ExtendedKeyUsagePurpose::ServerAuth);
    Ok(params)
}

/// The certificate of the embedded store as an etcd.
pub(super) fn etcd_server(addresses: &[IpAddr]) -> Result<CertificateParams, Error> {
    let names: BTreeSet<String> = addresses.iter().map(IpAddr::to_string).chain(["localhost".to_owned()]).collect();
    let mut params = CertificateParams::new(names.into_iter().collect::<Vec<_>>()).map_err(damaged)?;
    params.distinguished_name = name("etcd", None);
    leaf(&mut params, ExtendedKeyUsagePurpose::ServerAuth);
    Ok(params)
}

/// The certificate of its client.
pub(super) fn etcd_client() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("etcd-client", None);
    leaf(&mut params, ExtendedKeyUsagePurpose::ClientAuth);
    params
}

fn leaf(params: &mut CertificateParams, usage: ExtendedKeyUsagePurpose) {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    valid_for(params, LEAF_DAYS);
}

fn name(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn valid_for(params: &mut CertificateParams, days: i64) {
    // Since yesterday, so that a clock that is a little behind accepts it too.
    let ((from_year, from_month, from_day), (year, month, day)) = (date(-1), date(days));
    params.not_before = rcgen::date_time_ymd(from_year, from_month, from_day);
    params.not_after = rcgen::date_time_ymd(year, month, day);
}

/// Year, month and day, that many days from now.
fn date(days: i64) -> (i32, u8, u8) {
    let at = Timestamp::now().saturating_add(SignedDuration::from_hours(24 * days)).unwrap_or(Timestamp::MAX);
    let date = at.to_zoned(TimeZone::UTC).date();
    let positive = |n: i8| u8::try_from(n).unwrap_or(1);
    (i32::from(date.year()), positive(date.month()), positive(date.day()))
}

fn addresses(config: &Config) -> BTreeSet<IpAddr> {
    let mut addresses = BTreeSet::from([
        config.advertise_address,
        IpAddr::from([127, 0, 0, 1]),
        IpAddr::V4(config.kubernetes_service_ip()),
    ]);
    if !config.bind_address.is_unspecified() {
        addresses.insert(config.bind_address);
    }
    addresses
}

fn names(config: &Config) -> BTreeSet<String> {
    let domain = &config.cluster_domain;
    let mut names: BTreeSet<String> = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        .into_iter()
        .map(Into::into)
        .collect();
    names.insert(format!("kubernetes.default.svc.{domain}"));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim().to_ascii_lowercase();
    if !host.is_empty() && api::names::is_dns1123_subdomain(&host).is_empty() {
        names.insert(host);
    }
    names
}

/// When a certificate ends.
pub(super) fn end(pem: &str) -> Option<Timestamp> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// Whether a certificate on disk is of this CA, of its key, good for a while, and has every name of `wanted`.
pub(super) fn still_fits(pem: &str, key: &str, ca: &CertificateDer<'_>, wanted: &CertificateParams) -> bool {
    fits(pem, key, ca, wanted).unwrap_or(false)
}

fn fits(pem: &str, key: &str, ca: &CertificateDer<'_>, wanted: &CertificateParams) -> Option<bool> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let (_, authority) = X509Certificate::from_der(ca).ok()?;
    let key = KeyPair::from_pem(key).ok()?;
    let same_key = certificate.public_key().subject_public_key.data.as_ref() == key.public_key_raw();
    let same_issuer = certificate.issuer() == authority.subject()
        && authority_key(&certificate).is_none_or(|id| Some(id) == subject_key(&authority));
    let renew_at = Timestamp::now().saturating_add(SignedDuration::from_hours(24 * RENEW_DAYS)).ok()?;
    let lasts = certificate.validity().not_after.timestamp() > renew_at.as_second();
    Some(same_key && same_issuer && lasts && has_all_names(&certificate, wanted))
}

fn authority_key(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate.iter_extensions().find_map(|e| match e.parsed_extension() {
        x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier(id) => {
            Some(id.key_identifier.as_ref()?.0.to_vec())
        }
        _ => None,
    })
}

fn subject_key(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate.iter_extensions().find_map(|e| match e.parsed_extension() {
        x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
        _ => None,
    })
}

fn has_all_names(certificate: &X509Certificate<'_>, wanted: &CertificateParams) -> bool {
    let Ok(extension) = certificate.subject_alternative_name() else { return false };
    let have: Vec<&GeneralName<'_>> = extension.iter().flat_map(|e| &e.value.general_names).collect();
    wanted.subject_alt_names.iter().all(|name| match name {
        SanType::DnsName(dns) => have.iter().any(|h| matches!(h, GeneralName::DNSName(d) if *d == dns.as_str())),
        SanType::IpAddress(IpAddr::V4(ip)) => {
            have.iter().any(|h| matches!(h, GeneralName::IPAddress(b) if *b == ip.octets()))
        }
        SanType::IpAddress(IpAddr::V6(ip)) => {
            have.iter().any(|h| matches!(h, GeneralName::IPAddress(b) if *b == ip.octets()))
        }
        _ => false,
    })
}
