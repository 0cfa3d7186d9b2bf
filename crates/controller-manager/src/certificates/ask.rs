//! Whether the user of a request has a right to what it asks for: the API server says so.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::Error;
use serde::Deserialize;

use super::policy::{Right, Verdict};
use crate::rest::{self, Rest};

/// What matters of the answer.
#[derive(Deserialize)]
struct Answer {
    status: AnswerStatus,
}

#[derive(Deserialize)]
struct AnswerStatus {
    allowed: bool,
}

/// Asks for one right after the other; the first that the user has counts.
pub(super) async fn verdict(
    rest: &Rest,
    csr: &CertificateSigningRequest,
    rights: &'static [Right],
) -> Result<Verdict, Error> {
    for right in rights {
        let review = rest::encode(&review(csr, right));
        let answer: Answer = rest.post(&rest::path::<SubjectAccessReview>(None), review).await?;
        if answer.status.allowed {
            return Ok(Verdict::Entitled(right.message.to_owned()));
        }
    }
    let tried: Vec<&str> = rights.iter().map(|right| right.subresource).collect();
    Ok(Verdict::Refused(format!("recognized as [{}] but subject access review was not approved", tried.join(" "))))
}

/// The question (`authorize` in `pkg/controller/certificates/approver/sarapprove.go`).
fn review(csr: &CertificateSigningRequest, right: &Right) -> SubjectAccessReview {
    let attributes = ResourceAttributes {
        group: Some("certificates.k8s.io".to_owned()),
        resource: Some("certificatesigningrequests".to_owned()),
        subresource: Some(right.subresource.to_owned()),
        verb: Some("create".to_owned()),
        version: Some("*".to_owned()),
        ..ResourceAttributes::default()
    };
    let spec = SubjectAccessReviewSpec {
        user: csr.spec.username.clone(),
        uid: csr.spec.uid.clone(),
        groups: csr.spec.groups.clone(),
        extra: csr.spec.extra.clone(),
        resource_attributes: Some(attributes),
        ..SubjectAccessReviewSpec::default()
    };
    SubjectAccessReview { spec, ..SubjectAccessReview::default() }
}

#[cfg(test)]
mod tests {
    use super::super::testing::client_csr;
    use super::*;

    #[test]
    fn the_question_is_about_who_made_the_request() {
        let mut csr = client_csr();
        csr.spec.uid = Some("1".to_owned());
        csr.spec.extra = Some([("example.com/a".to_owned(), vec!["b".to_owned()])].into());
        let asked = review(&csr, &Right { subresource: "nodeclient", message: "" });
        let asked: serde_json::Value = serde_json::from_slice(&rest::encode(&asked)).unwrap();
        let expected = serde_json::json!({
            "user": "system:bootstrap:abcdef", "uid": "1", "groups": ["system:bootstrappers"],
            "extra": {"example.com/a": ["b"]},
            "resourceAttributes": {
                "group": "certificates.k8s.io", "version": "*", "resource": "certificatesigningrequests",
                "subresource": "nodeclient", "verb": "create",
            },
        });
        assert_eq!(asked["spec"], expected);
    }
}
