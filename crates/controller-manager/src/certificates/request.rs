//! What a certificate signing request asks for.

use std::net::IpAddr;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rcgen::{SanType, SubjectPublicKeyInfo};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

/// Larger requests are refused unread; a request with a 4096 bit key and a hundred names is a tenth of it.
const MAX_BYTES: usize = 64 * 1024;

/// The request proper, with the names in it as text.
pub(super) struct Request {
    /// Subject's common name; the last, should there be several.
    pub(super) common_name: String,
    /// Subject's organizations.
    pub(super) organizations: Vec<String>,
    /// DNS names.
    pub(super) dns_names: Vec<String>,
    /// IP addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// Mail addresses.
    pub(super) mail_addresses: Vec<String>,
    /// URIs.
    pub(super) uris: Vec<String>,
    /// The whole subject, as it was encoded: it goes into the certificate as it is.
    pub(super) subject: Vec<u8>,
    /// The key a certificate is asked for.
    pub(super) key: SubjectPublicKeyInfo,
}

impl Request {
    /// Reads the PEM in `csr` and checks that it is signed with the key it asks a certificate for.
    pub(super) fn parse(csr: &CertificateSigningRequest) -> Result<Request, String> {
        let pem = &csr.spec.request.0;
        if pem.len() > MAX_BYTES {
            return Err(format!("the request is larger than {MAX_BYTES} bytes"));
        }
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem).map_err(|error| error.to_string())?;
        let (_, parsed) = X509CertificationRequest::from_der(&pem.contents).map_err(|error| error.to_string())?;
        parsed.verify_signature().map_err(|error| error.to_string())?;
        let info = &parsed.certification_request_info;
        let mut request = Request {
            common_name: texts(info.subject.iter_common_name()).pop().unwrap_or_default(),
            organizations: texts(info.subject.iter_organization()),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            mail_addresses: Vec::new(),
            uris: Vec::new(),
            subject: encoded(&info.subject),
            key: SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(|error| error.to_string())?,
        };
        for extension in parsed.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(names) = extension {
                names.general_names.iter().for_each(|name| request.add(name));
            }
        }
        Ok(request)
    }

    /// Names of other sorts are in no certificate, as upstream's.
    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::RFC822Name(address) => self.mail_addresses.push((*address).to_owned()),
            GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
            GeneralName::IPAddress(bytes) => self.addresses.extend(address(bytes)),
            _ => {}
        }
    }

    /// The names beside the subject, in Go's order.
    pub(super) fn alternative_names(&self) -> Result<Vec<SanType>, rcgen::Error> {
        let mut names = Vec::new();
        for name in &self.dns_names {
            names.push(SanType::DnsName(name.as_str().try_into()?));
        }
        for address in &self.mail_addresses {
            names.push(SanType::Rfc822Name(address.as_str().try_into()?));
        }
        names.extend(self.addresses.iter().map(|address| SanType::IpAddress(*address)));
        for uri in &self.uris {
            names.push(SanType::URI(uri.as_str().try_into()?));
        }
        Ok(names)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The values that are text; what is not text in a known coding is no user and no group for the API server either.
fn texts<'a>(values: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>) -> Vec<String> {
    values.filter_map(|value| value.as_str().ok()).map(str::to_owned).collect()
}

fn encoded(name: &X509Name<'_>) -> Vec<u8> {
    name.as_raw().to_vec()
}
