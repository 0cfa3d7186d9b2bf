//! The identity in a verified client certificate.

use std::sync::Arc;

use jiff::Timestamp;
use x509_parser::der_parser::{Oid, oid};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use crate::user::User;

/// Tells which of a user's credentials was shown.
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
/// The attribute of a subject that holds a UID (`staging/src/k8s.io/apiserver/pkg/authentication/request/x509`).
const UID: Oid<'static> = oid!(1.3.6.1.4.1.57683.2);

/// A client certificate as a connection showed it.
#[derive(Debug)]
pub(crate) struct ClientCertificate {
    /// None is proven by a subject that does not say which user it is.
    user: Option<Arc<User>>,
    ends: Timestamp,
}

impl ClientCertificate {
    /// CN is the user, every O a group, and the fingerprint tells which certificate it was (`CommonNameUserConversion`).
    pub(crate) fn read(der: &[u8]) -> Option<ClientCertificate> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        // Go's `pkix.Name` has the last common name, should there be several.
        let name = subject.iter_common_name().last()?.as_str().ok()?;
        let groups: Vec<&str> = subject.iter_organization().filter_map(|o| o.as_str().ok()).collect();
        let mut user = User::new(name, groups);
        user.extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("X509SHA256={}", fingerprint(der))]);
        let ends = Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?;
        let user = uid(subject).map(|uid| Arc::new(User { uid, ..user }));
        Some(ClientCertificate { user, ends })
    }

    /// Seconds until it ends; negative once it has.
    pub(crate) fn seconds_left(&self, now: Timestamp) -> f64 {
        self.ends.duration_since(now).as_secs_f64()
    }

    /// Whose it is, if it counts: a connection may outlive what was shown when it was made.
    pub(super) fn user(&self, now: Timestamp) -> Option<&Arc<User>> {
        self.user.as_ref().filter(|_| now <= self.ends)
    }
}

/// The user's UID, where the subject has one; `None` where it has several or an empty one (`parseUIDFromCert`).
fn uid(subject: &X509Name<'_>) -> Option<Option<String>> {
    let uids: Option<Vec<&str>> = subject.iter_by_oid(&UID).map(|uid| uid.as_str().ok()).collect();
    match uids?[..] {
        [] => Some(None),
        [uid] if !uid.is_empty() => Some(Some(uid.to_owned())),
        _ => None,
    }
}

fn fingerprint(der: &[u8]) -> String {
    ring::digest::digest(&ring::digest::SHA256, der).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    #[test]
    fn a_certificate_counts_until_its_end_however_long_the_connection() {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "bob");
        params.distinguished_name.push(DnType::OrganizationName, "dev");
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let shown = ClientCertificate::read(made.der()).unwrap();
        let end: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let user = shown.user(end).unwrap();
        assert_eq!((user.name.as_str(), user.groups.iter().any(|g| g == "dev")), ("bob", true));
        let shown_as = &user.extra["authentication.kubernetes.io/credential-id"][0];
        assert!(shown_as.strip_prefix("X509SHA256=").is_some_and(|digest| digest.len() == 64), "{shown_as}");
        let second = jiff::SignedDuration::from_secs(1);
        assert!(shown.user(end + second).is_none());
        assert_eq!((shown.seconds_left(end - second), shown.seconds_left(end + second)), (1.0, -1.0));
    }

    #[test]
    fn a_subject_may_hold_one_uid() {
        let read = |uids: &[&str]| {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, "bob");
            // A name here has each attribute once: the others get to be UIDs later.
            for (number, uid) in (2..).zip(uids) {
                params.distinguished_name.push(DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, number]), *uid);
            }
            let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let mut der = made.der().to_vec();
            let (last, number) = (UID.as_bytes().len() - 1, UID.as_bytes().last().copied().unwrap());
            for start in 0..der.len() - last {
                if der[start..].starts_with(&UID.as_bytes()[..last]) {
                    der[start + last] = number;
                }
            }
            let shown = ClientCertificate::read(&der).unwrap();
            shown.user(Timestamp::UNIX_EPOCH).map(|user| user.uid.clone())
        };
        assert_eq!(read(&[]), Some(None));
        assert_eq!(read(&["7"]), Some(Some("7".to_owned())));
        assert_eq!(read(&[""]), None, "a certificate that proves nothing, which is not the same as none");
        assert_eq!(read(&["7", "8"]), None);
    }
}
