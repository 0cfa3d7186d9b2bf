//! The identity in a verified client certificate.

use x509_parser::prelude::{FromDer, X509Certificate};

use crate::user::User;

/// CN is the user, every O a group.
pub(crate) fn user_of_certificate(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    let groups: Vec<&str> = subject.iter_organization().filter_map(|o| o.as_str().ok()).collect();
    Some(User::new(name, groups))
}
