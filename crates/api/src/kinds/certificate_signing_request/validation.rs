//! What is wrong with a request for a certificate (`pkg/apis/certificates/validation` upstream).

use crate::field::{ErrorList, Path, forbidden, invalid, not_supported, required};
use crate::kinds::rules::{self, Unique};
use crate::names;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};

/// The shortest life a certificate may be asked for: ten minutes.
const MIN_EXPIRATION_SECONDS: i32 = 600;
/// What a key may be used for.
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
/// The signer of the beta API, which would sign anything.
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
/// The first byte of every DER structure that is a sequence, as a request is.
const DER_SEQUENCE: u8 = 0x30;

pub(super) fn request(csr: &CertificateSigningRequest, errors: &mut ErrorList) {
    let path = Path::new("spec");
    if let Err(problem) = parse_pem(&csr.spec.request.0) {
        let text = STANDARD.encode(&csr.spec.request.0);
        errors.push(invalid(&path.child("request"), text, problem));
    }
    let usages = csr.spec.usages.as_deref().unwrap_or(&[]);
    if usages.is_empty() {
        errors.push(required(&path.child("usages"), ""));
    }
    let mut seen = Unique::new();
    for (index, usage) in usages.iter().enumerate() {
        let path = path.child("usages").index(index);
        rules::optional_one_of(Some(usage), USAGES, &path, errors);
        seen.add(usage.as_str(), &path, errors);
    }
    signer_name(&csr.spec.signer_name, &path.child("signerName"), errors);
    if let Some(seconds) = csr.spec.expiration_seconds
        && seconds < MIN_EXPIRATION_SECONDS
    {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(invalid(&path.child("expirationSeconds"), seconds, detail));
    }
    conditions(csr, errors);
}

/// One PEM block with a request in it. The request itself is read by who signs it.
fn parse_pem(bytes: &[u8]) -> Result<(), &'static str> {
    const NOT_PEM: &str = "PEM block type must be CERTIFICATE REQUEST";
    let text = std::str::from_utf8(bytes).map_err(|_| NOT_PEM)?;
    let (_, rest) = text.split_once("-----BEGIN CERTIFICATE REQUEST-----").ok_or(NOT_PEM)?;
    let (body, _) = rest.split_once("-----END CERTIFICATE REQUEST-----").ok_or(NOT_PEM)?;
    let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let der = STANDARD.decode(body).map_err(|_| NOT_PEM)?;
    if der.first() == Some(&DER_SEQUENCE) { Ok(()) } else { Err("asn1: structure error: tags don't match") }
}

/// `example.com/name`.
fn signer_name(name: &str, path: &Path, errors: &mut ErrorList) {
    if !rules::given(name, path, errors) {
        return;
    }
    if name == LEGACY_SIGNER {
        errors.push(invalid(path, name, "the legacy signerName is not allowed via this API version"));
        return;
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(invalid(path, name, detail));
        return;
    };
    // One bad label is told, as the next would read the same.
    let told = |whole: &str, part: &str, messages: Vec<String>, errors: &mut ErrorList| {
        let texts = messages.into_iter().map(|message| format!("validating label {part:?}: {message}"));
        let before = errors.len();
        errors.extend(texts.map(|text| invalid(path, whole, &text)));
        errors.len() > before
    };
    let _ = domain.split('.').any(|label| told(domain, label, names::is_dns1123_label(label), errors));
    if !domain.contains('.') {
        errors.push(invalid(path, domain, "should be a domain with at least two segments separated by dots"));
    }
    let _ = rest.split('.').any(|part| told(rest, part, names::is_dns1123_subdomain(part), errors));
}

/// A request is approved or denied, not both, and such a word is always true.
fn conditions(csr: &CertificateSigningRequest, errors: &mut ErrorList) {
    let path = Path::new("status").child("conditions");
    let conditions: Vec<_> = super::conditions(csr).collect();
    let mut seen = Unique::new();
    for (index, condition) in conditions.iter().enumerate() {
        let path = path.index(index);
        let kind = condition.type_.as_str();
        rules::given(kind, &path.child("type"), errors);
        let status = condition.status.as_str();
        match kind {
            _ if status.is_empty() => errors.push(required(&path.child("status"), "")),
            "Approved" | "Denied" | "Failed" if status != "True" => {
                errors.push(not_supported(&path.child("status"), status, &["True"]));
            }
            _ => rules::optional_one_of(Some(status), &["False", "True", "Unknown"], &path.child("status"), errors),
        }
        let other = conditions[..index].iter().any(|c| is_opposite(c, condition));
        if other {
            let detail = "Approved and Denied conditions are mutually exclusive";
            errors.push(invalid(&path.child("type"), kind, detail));
        }
        seen.add(kind, &path.child("type"), errors);
    }
}

fn is_opposite(a: &CertificateSigningRequestCondition, b: &CertificateSigningRequestCondition) -> bool {
    matches!((a.type_.as_str(), b.type_.as_str()), ("Approved", "Denied") | ("Denied", "Approved"))
}

/// What a signer writes: a certificate, once. It decides nothing.
pub(super) fn status(new: &CertificateSigningRequest, old: &CertificateSigningRequest, errors: &mut ErrorList) {
    conditions(new, errors);
    kept(new, old, errors);
    let path = Path::new("status").child("conditions");
    for decision in super::DECISIONS {
        if count(new, decision) > count(old, decision) {
            errors.push(forbidden(&path, &format!("updates may not add a condition of type {decision:?}")));
        }
    }
    let certificate = |csr: &CertificateSigningRequest| {
        csr.status.as_ref().and_then(|s| s.certificate.as_ref()).map(|c| c.0.clone()).unwrap_or_default()
    };
    let (new_bytes, old_bytes) = (certificate(new), certificate(old));
    let path = Path::new("status").child("certificate");
    if !old_bytes.is_empty() && new_bytes != old_bytes {
        errors.push(forbidden(&path, "updates may not modify existing certificate content"));
    }
    let is_pem = String::from_utf8_lossy(&new_bytes).contains("-----BEGIN CERTIFICATE-----");
    if !new_bytes.is_empty() && new_bytes != old_bytes && !is_pem {
        let detail = "must contain at least one CERTIFICATE PEM block";
        errors.push(invalid(&path, "<certificate data>", detail));
    }
}

/// What an approver writes: conditions.
pub(super) fn approval(new: &CertificateSigningRequest, old: &CertificateSigningRequest, errors: &mut ErrorList) {
    conditions(new, errors);
    kept(new, old, errors);
}

/// What was decided stays decided, and who failed has failed.
fn kept(new: &CertificateSigningRequest, old: &CertificateSigningRequest, errors: &mut ErrorList) {
    for kind in ["Approved", "Denied", "Failed"] {
        if count(new, kind) < count(old, kind) {
            let path = Path::new("status").child("conditions");
            errors.push(forbidden(&path, &format!("updates may not remove a condition of type {kind:?}")));
        }
    }
}

fn count(csr: &CertificateSigningRequest, kind: &str) -> usize {
    super::conditions(csr).filter(|c| c.type_ == kind).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Object, Subresource};
    use k8s_openapi::ByteString;

    const PEM: &str = "-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n";

    fn good() -> CertificateSigningRequest {
        let mut csr = CertificateSigningRequest::default();
        csr.spec.request = ByteString(PEM.as_bytes().to_vec());
        csr.spec.signer_name = crate::well_known::SIGNER_KUBELET_CLIENT.into();
        csr.spec.usages = Some(vec!["digital signature".into(), "client auth".into()]);
        csr
    }

    fn decided(decisions: &[&str]) -> CertificateSigningRequest {
        let mut csr = good();
        let conditions = decisions.iter().map(|d| CertificateSigningRequestCondition {
            type_: (*d).to_owned(),
            status: "True".into(),
            ..CertificateSigningRequestCondition::default()
        });
        csr.status.get_or_insert_default().conditions = Some(conditions.collect());
        csr
    }

    fn texts(errors: &ErrorList) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_wrong_is_named_with_its_path() {
        type Change = fn(&mut CertificateSigningRequest);
        let table: [(&str, Change, &[&str]); 5] = [
            ("nothing", |_| {}, &[]),
            (
                "no request",
                |c| c.spec.request = ByteString(Vec::new()),
                &[r#"spec.request: Invalid value: "": PEM block type must be CERTIFICATE REQUEST"#],
            ),
            ("no usages", |c| c.spec.usages = None, &["spec.usages: Required value"]),
            (
                "a signer without a domain",
                |c| c.spec.signer_name = "signer".into(),
                &[
                    r#"spec.signerName: Invalid value: "signer": must be a fully qualified domain and path of the form 'example.com/signer-name'"#,
                ],
            ),
            (
                "too short",
                |c| c.spec.expiration_seconds = Some(60),
                &[
                    "spec.expirationSeconds: Invalid value: 60: may not specify a duration less than 600 seconds (10 minutes)",
                ],
            ),
        ];
        for (sentence, change, expected) in table {
            let mut csr = good();
            change(&mut csr);
            assert_eq!(texts(&Object::validate(&csr)), expected, "{sentence}");
        }
        let errors = texts(&Object::validate(&decided(&["Approved", "Denied"])));
        let detail = "Approved and Denied conditions are mutually exclusive";
        assert_eq!(errors, [format!(r#"status.conditions[1].type: Invalid value: "Denied": {detail}"#)]);
    }

    #[test]
    fn a_signer_writes_no_decision_and_an_approver_no_certificate() {
        let mut signed = decided(&["Denied", "Failed", "Approved"]);
        signed.status.as_mut().unwrap().conditions.as_mut().unwrap()[2].message = Some("mine".into());
        Object::prepare_status_update(&mut signed, &decided(&["Approved"]));
        assert_eq!(signed, decided(&["Denied", "Failed", "Approved"]), "a decision is kept as it was put");
        let mut approved = decided(&["Approved"]);
        approved.status.as_mut().unwrap().certificate = Some(ByteString(b"mine".to_vec()));
        approved.spec.username = Some("someone else".into());
        Object::prepare_subresource_update(&mut approved, Subresource::Approval, &good());
        assert_eq!(approved, decided(&["Approved"]));
    }

    #[test]
    fn who_writes_which_condition() {
        use Subresource::{Approval, Status};
        let mut doubted = decided(&["Approved"]);
        doubted.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status = "False".into();
        let mut unsaid = decided(&["Strange"]);
        unsaid.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].status.clear();
        let approved = || decided(&["Approved"]);
        let table = [
            (
                Approval,
                good(),
                approved(),
                r#"status.conditions: Forbidden: updates may not remove a condition of type "Approved""#,
            ),
            (
                Approval,
                doubted,
                good(),
                r#"status.conditions[0].status: Unsupported value: "False": supported values: "True""#,
            ),
            (Approval, decided(&["Approved", "Strange"]), good(), ""),
            (
                Status,
                approved(),
                good(),
                r#"status.conditions: Forbidden: updates may not add a condition of type "Approved""#,
            ),
            (
                Status,
                good(),
                approved(),
                r#"status.conditions: Forbidden: updates may not remove a condition of type "Approved""#,
            ),
            (
                Status,
                good(),
                decided(&["Failed"]),
                r#"status.conditions: Forbidden: updates may not remove a condition of type "Failed""#,
            ),
            (Status, unsaid, good(), "status.conditions[0].status: Required value"),
            (Status, decided(&["Approved", "Failed"]), approved(), ""),
        ];
        for (through, new, old, expected) in table {
            let errors = texts(&Object::validate_subresource_update(&new, through, &old));
            assert_eq!(errors.join("; "), expected, "{through:?} {:?}", new.status);
        }
    }

    #[test]
    fn condition_cell_reads_as_kubectl_prints_it() {
        let cell = |csr: &CertificateSigningRequest| Object::cells(csr, jiff::Timestamp::UNIX_EPOCH)[5].clone();
        assert_eq!(cell(&good()), "Pending");
        let mut csr = decided(&["Approved"]);
        csr.status.as_mut().unwrap().certificate = Some(ByteString(b"x".to_vec()));
        assert_eq!(cell(&csr), "Approved,Issued");
    }
}
