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

    /// Signers write the certificate and whether they failed. What was decided they repeat, and how they put it does not
    /// matter; whether they may leave it out or decide themselves is for validation to say.
    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        let of = |csr: &Self, decision: &str| -> Vec<CertificateSigningRequestCondition> {
            conditions(csr).filter(|c| c.type_ == decision).cloned().collect()
        };
        for decision in DECISIONS {
            let (kept, said) = (of(old, decision), of(self, decision).len());
            let written = self.status.iter_mut().flat_map(|s| s.conditions.iter_mut().flatten());
            if kept.len() == said {
                written.filter(|c| c.type_ == decision).zip(kept).for_each(|(said, kept)| *said = kept);
            }
        }
    }

    fn prepare_subresource_update(&mut self, subresource: Subresource, old: &Self) {
        match subresource {
            Subresource::Approval => {
                self.spec.clone_from(&old.spec);
                let written = self.status.take().and_then(|s| s.conditions);
                self.status.clone_from(&old.status);
                self.status.get_or_insert_default().conditions = written;
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

/// What an approver says of a request.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];

fn conditions(csr: &CertificateSigningRequest) -> impl Iterator<Item = &CertificateSigningRequestCondition> {
    csr.status.iter().flat_map(|s| s.conditions.iter().flatten())
}

fn requested_duration(csr: &CertificateSigningRequest, now: Timestamp) -> String {
    let Some(seconds) = csr.spec.expiration_seconds else { return "<none>".to_owned() };
    let start = now - jiff::SignedDuration::from_secs(seconds.into());
    crate::printing::since(Some(&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(start)), now)
}

fn condition(csr: &CertificateSigningRequest) -> String {
    let says = |condition_type: &str| conditions(csr).any(|c| c.type_ == condition_type);
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
