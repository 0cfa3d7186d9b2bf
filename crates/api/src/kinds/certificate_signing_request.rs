//! CertificateSigningRequest: asks a signer for a certificate; how minions join.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use serde_json::{Value, json};

use crate::Resource;
use crate::kinds::{AGE, KindInfo, NAME, Scope, Subresource, column};
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
