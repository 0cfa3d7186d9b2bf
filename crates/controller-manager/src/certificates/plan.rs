//! The next step for a certificate signing request.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};

use super::policy::Verdict;

/// How long a request is kept after it was answered (`pkg/controller/certificates/cleaner`).
const KEEP_ANSWERED: Duration = Duration::from_secs(60 * 60);
/// How long a request waits for an answer.
const KEEP_PENDING: Duration = Duration::from_secs(24 * 60 * 60);

/// A step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Its user may have it.
    Approve {
        /// Why.
        message: String,
    },
    /// It is approved.
    Sign,
    /// It is approved, but not what its signer signs.
    Fail {
        /// Why not.
        message: String,
    },
    /// A human must decide. Nothing is done, but the reason is worth a line in the log.
    Leave {
        /// Why.
        reason: String,
    },
    /// It is of no use any more.
    Delete {
        /// Why.
        reason: &'static str,
    },
}

/// The step, and when to look again though nothing changes.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    /// At most one: each step changes the request, and the change wakes it.
    pub(super) action: Option<Action>,
    /// Until it is of no use any more.
    pub(super) next: Option<Duration>,
}

fn condition<'a>(csr: &'a CertificateSigningRequest, type_: &str) -> Option<&'a CertificateSigningRequestCondition> {
    csr.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == type_ && c.status != "False")
}

fn is_issued(csr: &CertificateSigningRequest) -> bool {
    csr.status.as_ref().and_then(|status| status.certificate.as_ref()).is_some_and(|pem| !pem.0.is_empty())
}

/// Whether nobody has approved or denied it.
pub(super) fn is_undecided(csr: &CertificateSigningRequest) -> bool {
    condition(csr, "Approved").is_none() && condition(csr, "Denied").is_none() && condition(csr, "Failed").is_none()
}

/// The next step for a request that is judged like this, and where it matters asked about.
pub(super) fn plan(csr: &CertificateSigningRequest, verdict: Verdict, now: Timestamp) -> Plan {
    let (keep, since, reason) = lifetime(csr);
    let end = since.saturating_add(keep).unwrap_or(Timestamp::MAX);
    if end <= now {
        return Plan { action: Some(Action::Delete { reason }), next: None };
    }
    let next = Duration::try_from(end.duration_since(now)).ok();
    let approved = condition(csr, "Approved").is_some();
    let answered = is_issued(csr) || condition(csr, "Denied").is_some() || condition(csr, "Failed").is_some();
    let action = match verdict {
        _ if answered => None,
        Verdict::NotOurs => None,
        Verdict::Unsignable(message) if approved => Some(Action::Fail { message }),
        _ if approved => Some(Action::Sign),
        Verdict::Recognized(_) => None,
        Verdict::Entitled(message) => Some(Action::Approve { message }),
        Verdict::Unentitled(reason) | Verdict::Refused(reason) | Verdict::Unsignable(reason) => {
            Some(Action::Leave { reason })
        }
    };
    Plan { action, next }
}

/// How long the request is kept, from when, and what is said when it goes.
fn lifetime(csr: &CertificateSigningRequest) -> (Duration, Timestamp, &'static str) {
    let created = csr.metadata.creation_timestamp.as_ref().map_or(Timestamp::MAX, |time| time.0);
    let at = |type_: &str| {
        let condition = condition(csr, type_)?;
        Some(condition.last_update_time.as_ref().map_or(created, |time| time.0))
    };
    match (at("Denied"), at("Failed"), at("Approved")) {
        (Some(denied), _, _) => (KEEP_ANSWERED, denied, "denied an hour ago"),
        (_, Some(failed), _) => (KEEP_ANSWERED, failed, "failed an hour ago"),
        (_, _, Some(approved)) if is_issued(csr) => (KEEP_ANSWERED, approved, "issued an hour ago"),
        _ => (KEEP_PENDING, created, "pending for a day"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::client_csr;
    use super::super::{with_certificate, with_condition};
    use super::*;

    fn entitled() -> Verdict {
        Verdict::Entitled("because".into())
    }

    #[test]
    fn a_request_is_approved_then_signed_then_kept_for_an_hour() {
        let csr = client_csr();
        let now = Timestamp::now();
        assert_eq!(plan(&csr, entitled(), now).action, Some(Action::Approve { message: "because".into() }));
        let csr = with_condition(&csr, "Approved", "AutoApproved", String::new());
        assert_eq!(plan(&csr, entitled(), now).action, Some(Action::Sign));
        let csr = with_certificate(&csr, "pem".into());
        let planned = plan(&csr, entitled(), now);
        assert_eq!(planned.action, None);
        assert!(planned.next.unwrap() > Duration::from_secs(3500));
        let later = now + Duration::from_secs(3700);
        assert_eq!(plan(&csr, entitled(), later).action, Some(Action::Delete { reason: "issued an hour ago" }));
    }

    #[test]
    fn what_is_not_recognised_is_left_to_a_human() {
        let now = Timestamp::now();
        let cases = [
            ("another signer's", Verdict::NotOurs, None),
            ("one without right to it", Verdict::Unentitled("no".into()), Some(Action::Leave { reason: "no".into() })),
            ("one refused", Verdict::Refused("no".into()), Some(Action::Leave { reason: "no".into() })),
            ("one that is not signed", Verdict::Unsignable("no".into()), Some(Action::Leave { reason: "no".into() })),
        ];
        for (sentence, verdict, expected) in cases {
            assert_eq!(plan(&client_csr(), verdict, now).action, expected, "{sentence}");
        }
    }

    #[test]
    fn a_human_may_approve_what_we_may_not_but_not_what_nobody_signs() {
        let csr = with_condition(&client_csr(), "Approved", "Human", String::new());
        let now = Timestamp::now();
        assert_eq!(plan(&csr, Verdict::Unentitled("no".into()), now).action, Some(Action::Sign));
        assert_eq!(plan(&csr, Verdict::Recognized(&[]), now).action, Some(Action::Sign), "nobody is asked any more");
        let failed = plan(&csr, Verdict::Unsignable("no".into()), now).action;
        assert_eq!(failed, Some(Action::Fail { message: "no".into() }));
        let csr = with_condition(&csr, "Failed", "SignerValidationFailure", "no".into());
        assert_eq!(plan(&csr, Verdict::Unsignable("no".into()), now).action, None);
    }

    #[test]
    fn a_denied_request_is_not_signed_and_a_pending_one_is_kept_for_a_day() {
        let now = Timestamp::now();
        let denied = with_condition(&client_csr(), "Denied", "Human", String::new());
        assert_eq!(plan(&denied, entitled(), now).action, None);
        let later = now + Duration::from_secs(25 * 3600);
        let pending = plan(&client_csr(), Verdict::NotOurs, later).action;
        assert_eq!(pending, Some(Action::Delete { reason: "pending for a day" }));
    }
}
