//! What a certificate signing request asks for.

use std::net::IpAddr;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rcgen::{CertificateSigningRequestParams, DistinguishedName, DnType, DnValue, SanType};

/// Larger requests are refused unread; a request with a 4096 bit key and a hundred names is a tenth of it.
const MAX_BYTES: usize = 64 * 1024;

/// The request proper, with the names in it as text.
pub(super) struct Request {
    /// Subject's common name.
    pub(super) common_name: String,
    /// Subject's organizations.
    pub(super) organizations: Vec<String>,
    /// DNS names.
    pub(super) dns_names: Vec<String>,
    /// IP addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// Names of other sorts (mail addresses, URIs).
    pub(super) other_names: usize,
    /// What was parsed, with the key.
    pub(super) params: CertificateSigningRequestParams,
}

impl Request {
    /// Reads the PEM in `csr` and checks that it is signed with the key it asks a certificate for.
    pub(super) fn parse(csr: &CertificateSigningRequest) -> Result<Request, String> {
        let pem = &csr.spec.request.0;
        if pem.len() > MAX_BYTES {
            return Err(format!("the request is larger than {MAX_BYTES} bytes"));
        }
        let pem = std::str::from_utf8(pem).map_err(|_| "the request is not PEM".to_owned())?;
        let params = CertificateSigningRequestParams::from_pem(pem).map_err(|error| error.to_string())?;
        let subject = &params.params.distinguished_name;
        let mut request = Request {
            common_name: values(subject, &DnType::CommonName).concat(),
            organizations: values(subject, &DnType::OrganizationName),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            other_names: 0,
            params: params.clone(),
        };
        for name in &params.params.subject_alt_names {
            match name {
                SanType::DnsName(name) => request.dns_names.push(name.as_str().to_owned()),
                SanType::IpAddress(address) => request.addresses.push(*address),
                _ => request.other_names += 1,
            }
        }
        Ok(request)
    }

    /// Whether it names anything beside its subject.
    pub(super) fn has_names(&self) -> bool {
        self.other_names > 0 || !self.dns_names.is_empty() || !self.addresses.is_empty()
    }
}

fn values(name: &DistinguishedName, of: &DnType) -> Vec<String> {
    name.iter().filter(|(dn_type, _)| *dn_type == of).map(|(_, value)| text(value)).collect()
}

/// A value as text; what is not text in a known coding matches nothing we look for.
fn text(value: &DnValue) -> String {
    match value {
        DnValue::Utf8String(text) => text.clone(),
        DnValue::PrintableString(text) => text.as_str().to_owned(),
        DnValue::Ia5String(text) => text.as_str().to_owned(),
        _ => String::new(),
    }
}
