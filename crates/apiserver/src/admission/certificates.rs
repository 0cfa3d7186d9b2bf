//! What a CertificateSigningRequest must say, and may not ask for.

use api::well_known::{GROUP_MASTERS, SIGNER_KUBE_APISERVER_CLIENT};
use api::{Object, Subresource};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::{Attributes, Effects, Operation, Plugin};
use crate::authz::{self, Target};
use crate::status::ApiError;

/// Writes who asks into a new request, and keeps a request what it was when it was made: who asked is told once.
/// Upstream's `PrepareForCreate` and `PrepareForUpdate` of `pkg/registry/certificates/certificates` do so.
pub(super) struct CertificateRequester;

impl Plugin for CertificateRequester {
    fn admit(&self, a: &Attributes<'_>, object: &mut dyn Object, _: &mut Effects) -> Result<(), ApiError> {
        let Some(csr) = object.as_any_mut().downcast_mut::<CertificateSigningRequest>() else { return Ok(()) };
        match a.old.and_then(|old| old.as_any().downcast_ref::<CertificateSigningRequest>()) {
            Some(old) => csr.spec.clone_from(&old.spec),
            None => {
                csr.spec.username = Some(a.user.name.clone());
                csr.spec.groups = Some(a.user.groups.clone());
                csr.spec.uid.clone_from(&a.user.uid);
                csr.spec.extra = Some(a.user.extra.clone()).filter(|e| !e.is_empty());
            }
        }
        Ok(())
    }
}

/// `CertificateApproval`: who approves or denies must have the verb `approve` on the signer, beside the right to write the
/// approval (`plugin/pkg/admission/certificates/approval`).
pub(super) struct CertificateApproval;

impl Plugin for CertificateApproval {
    fn validate(&self, a: &Attributes<'_>, _: Option<&dyn Object>, _: &mut Effects) -> Result<(), ApiError> {
        if a.operation != Operation::Update || a.subresource != Some(Subresource::Approval) {
            return Ok(());
        }
        let Some(old) = old_request(a) else { return Ok(()) };
        may_use_signer(a, "approve", &old.spec.signer_name)
    }
}

/// `CertificateSigning`: who writes a certificate, or says why there is none, must have the verb `sign` on the signer
/// (`plugin/pkg/admission/certificates/signing`).
pub(super) struct CertificateSigning;

impl Plugin for CertificateSigning {
    fn validate(&self, a: &Attributes<'_>, object: Option<&dyn Object>, _: &mut Effects) -> Result<(), ApiError> {
        if a.operation != Operation::Update || a.subresource != Some(Subresource::Status) {
            return Ok(());
        }
        let new = object.and_then(|o| o.as_any().downcast_ref::<CertificateSigningRequest>());
        let (Some(old), Some(new)) = (old_request(a), new) else { return Ok(()) };
        let said = |csr: &CertificateSigningRequest| {
            let status = csr.status.clone().unwrap_or_default();
            (status.certificate, status.conditions.unwrap_or_default())
        };
        if said(old) == said(new) { Ok(()) } else { may_use_signer(a, "sign", &old.spec.signer_name) }
    }
}

fn old_request<'a>(a: &Attributes<'a>) -> Option<&'a CertificateSigningRequest> {
    a.old?.as_any().downcast_ref()
}

/// Whether the user has `verb` on the signer, or on all of its domain (`certificates.IsAuthorizedForSignerName`).
fn may_use_signer(a: &Attributes<'_>, verb: &str, signer: &str) -> Result<(), ApiError> {
    let allowed = |name: &str| {
        let group = "certificates.k8s.io";
        let target = authz::Resource { group, resource: "signers", name: name.into(), ..Default::default() };
        let asked = authz::Attributes { user: a.user, verb, target: Target::Resource(target) };
        a.cache.rights().allows(&asked).is_some()
    };
    let domain = signer.split('/').next().unwrap_or("");
    if a.user.is_in(GROUP_MASTERS) || allowed(signer) || allowed(&format!("{domain}/*")) {
        return Ok(());
    }
    Err(a.forbidden(format!("user not permitted to {verb} requests with signerName {signer:?}")))
}

/// `CertificateSubjectRestriction`: nobody becomes a cluster admin by a certificate for clients
/// (`plugin/pkg/admission/certificates/subjectrestriction`).
pub(super) struct CertificateSubjectRestriction;

impl Plugin for CertificateSubjectRestriction {
    fn validate(&self, a: &Attributes<'_>, object: Option<&dyn Object>, _: &mut Effects) -> Result<(), ApiError> {
        if a.operation != Operation::Create || a.kind.info.plural != "certificatesigningrequests" {
            return Ok(());
        }
        let csr = object.and_then(|o| o.as_any().downcast_ref::<CertificateSigningRequest>());
        let Some(csr) = csr.filter(|c| c.spec.signer_name == SIGNER_KUBE_APISERVER_CLIENT) else { return Ok(()) };
        let organizations =
            organizations(&csr.spec.request.0).map_err(|e| a.forbidden(format!("failed to parse CSR: {e}")))?;
        if organizations.iter().any(|o| o == GROUP_MASTERS) {
            let message =
                format!("use of {SIGNER_KUBE_APISERVER_CLIENT} signer with {GROUP_MASTERS} group is not allowed");
            return Err(a.forbidden(message));
        }
        Ok(())
    }
}

/// The organizations, which become groups, in the subject a request asks for. What is not text in a known coding is no group
/// anybody is in.
fn organizations(pem: &[u8]) -> Result<Vec<String>, String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).map_err(|e| e.to_string())?;
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|e| e.to_string())?;
    let subject = &request.certification_request_info.subject;
    Ok(subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_organization_counts_however_they_are_written() {
        // `O=system:masters + O=dev`, as Go writes organizations, then `O=ops`: made by `openssl req -multivalue-rdn`.
        let pem = include_bytes!("../../testdata/organizations.csr");
        assert_eq!(organizations(pem).unwrap(), ["dev", "system:masters", "ops"]);
    }
}
