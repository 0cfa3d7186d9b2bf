//! CertificateSigningRequest: asks a signer for a certificate; how minions join.

mod validation;

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use serde_json::{Value, json};

use crate::Resource;
use crate::field::ErrorList;
use crate::kinds::{AGE, KindInfo, NAME, Scope, Subresource, Verb, column};
use crate::names::NameRule;

impl Resource for CertificateSigningRequest {
    const INFO: KindInfo = KindInfo {
        group: "certificates.k8s.io",
        version: "v1",
        kind: "CertificateSigningRequest",
        plural: "certificatesigningrequests",
        singular: "certificatesigningrequest",
        short_names: &["csr"],
        categories: &[],
        scope: Scope::Cluster,
        verbs: Verb::ALL,
        subresources: &[Subresource::Status, Subresource::Approval],
        columns: &[
            NAME,
            AGE,
            column("SignerName", "string", "Who is asked to sign"),
            column("Requestor", "string", "Who asked"),
            column("RequestedDuration", "string", "How long the certificate should be valid"),
            column("Condition", "string", "Pending, Approved, Denied or Failed, and whether it is issued"),
        ],
        selectable_fields: &["spec.signerName"],
        name_rule: NameRule::PathSegment,
    };

    fn prepare_create(&mut self) {
        self.status = Some(CertificateSigningRequestStatus::default());
    }

    /// What is asked for never changes.
    fn prepare_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        self.status.clone_from(&old.status);
    }

    /// Signers write the certificate and whether they failed; they do not approve.
    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        let decided = |c: &CertificateSigningRequestCondition| matches!(c.type_.as_str(), "Approved" | "Denied");
        let kept = old.status.iter().flat_map(|s| s.conditions.iter().flatten()).filter(|c| decided(c));
        let status = self.status.get_or_insert_default();
        let written = status.conditions.take().into_iter().flatten().filter(|c| !decided(c));
        let conditions: Vec<_> = kept.cloned().chain(written).collect();
        status.conditions = Some(conditions).filter(|c| !c.is_empty());
    }

    fn prepare_subresource_update(&mut self, subresource: Subresource, old: &Self) {
        match subresource {
            Subresource::Approval => {
                self.spec.clone_from(&old.spec);
                let certificate = old.status.as_ref().and_then(|s| s.certificate.clone());
                self.status.get_or_insert_default().certificate = certificate;
            }
            _ => self.prepare_status_update(old),
        }
    }

    fn validate(&self, errors: &mut ErrorList) {
        validation::request(self, errors);
    }

    fn validate_status_update(&self, old: &Self, errors: &mut ErrorList) {
        validation::status(self, old, errors);
    }

    fn validate_subresource_update(&self, subresource: Subresource, old: &Self, errors: &mut ErrorList) {
        match subresource {
            Subresource::Approval => validation::approval(self, old, errors),
            _ => self.validate_status_update(old, errors),
        }
    }

    fn selectable_fields(&self) -> Vec<Cow<'_, str>> {
        vec![self.spec.signer_name.as_str().into()]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![
            json!(self.metadata.name),
            crate::printing::age(&self.metadata, now),
            json!(self.spec.signer_name),
            json!(self.spec.username.as_deref().unwrap_or("")),
            json!(requested_duration(self, now)),
            json!(condition(self)),
        ]
    }
}

fn requested_duration(csr: &CertificateSigningRequest, now: Timestamp) -> String {
    let Some(seconds) = csr.spec.expiration_seconds else { return "<none>".to_owned() };
    let start = now - jiff::SignedDuration::from_secs(seconds.into());
    crate::printing::since(Some(&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(start)), now)
}

fn condition(csr: &CertificateSigningRequest) -> String {
    let says = |condition_type: &str| {
        csr.status.iter().flat_map(|s| s.conditions.iter().flatten()).any(|c| c.type_ == condition_type)
    };
    let mut text = match (says("Denied"), says("Approved")) {
        (true, _) => "Denied",
        (false, true) => "Approved",
        (false, false) => "Pending",
    }
    .to_owned();
    if says("Failed") {
        text.push_str(",Failed");
    }
    if csr.status.as_ref().and_then(|s| s.certificate.as_ref()).is_some_and(|c| !c.0.is_empty()) {
        text.push_str(",Issued");
    }
    text
}
