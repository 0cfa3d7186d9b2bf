//! The identity in a verified client certificate.

use std::sync::Arc;

use jiff::Timestamp;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::user::User;

/// A client certificate as a connection showed it.
#[derive(Debug)]
pub(crate) struct ClientCertificate {
    user: Arc<User>,
    ends: Timestamp,
}

impl ClientCertificate {
    /// CN is the user, every O a group.
    pub(crate) fn read(der: &[u8]) -> Option<ClientCertificate> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?;
        let groups: Vec<&str> = subject.iter_organization().filter_map(|o| o.as_str().ok()).collect();
        let ends = Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?;
        Some(ClientCertificate { user: Arc::new(User::new(name, groups)), ends })
    }

    /// Seconds until it ends; negative once it has.
    pub(crate) fn seconds_left(&self, now: Timestamp) -> f64 {
        self.ends.duration_since(now).as_secs_f64()
    }

    /// Whose it is, while it counts: a connection may outlive what was shown when it was made.
    pub(super) fn user(&self, now: Timestamp) -> Option<&Arc<User>> {
        (now <= self.ends).then_some(&self.user)
    }
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
        let second = jiff::SignedDuration::from_secs(1);
        assert!(shown.user(end + second).is_none());
        assert_eq!((shown.seconds_left(end - second), shown.seconds_left(end + second)), (1.0, -1.0));
    }
}
