//! Who is asking.
//!
//! ```text
//!  in process ─────────────▶ the component says
//!  client certificate ─────▶ certificate: CN is the user, every O a group
//!  bearer token ─┬─────────▶ token_file: a line of the static token file
//!                ├─ JWT ───▶ service_account: signature, times, audience; the objects it is bound to still exist
//!                └─ id.secret ▶ bootstrap_token: a Secret in kube-system
//! ```
//!
//! [`Issuer`] makes service account tokens, [`jws`] signs and verifies, [`claims`] is what they say, [`legacy`] looks
//! after those that are kept in Secrets. Everything is looked up in the watch cache. Compare `k8s.io/apiserver/pkg/authentication` and `pkg/serviceaccount`.

pub(crate) mod bootstrap_token;
mod certificate;
pub(crate) mod claims;
mod impersonation;
mod issuer;
mod jws;
pub(crate) mod legacy;
mod recent;
mod service_account;
mod token_file;
mod token_use;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::cache::Cache;
use crate::error::Error;
use crate::status::ApiError;
use crate::user::User;

pub(crate) use certificate::ClientCertificate;
pub(crate) use impersonation::impersonate;
pub(crate) use issuer::{ADMISSION_EXPIRATION_SECONDS, Issuer};
pub(crate) use jws::{SigningKey, VerifyingKey};
use service_account::ServiceAccountTokens;
use token_file::StaticTokens;
pub(crate) use token_use::{TokenCounters, TokenUse};

/// How a request reached the server.
#[derive(Clone)]
pub(crate) enum Caller {
    /// From a component in this process, which says who it is.
    InProcess(Arc<User>),
    /// Over TLS from an address, with a verified client certificate.
    Connection(Option<Arc<ClientCertificate>>, IpAddr),
}

impl Caller {
    /// Where the request came from, if not from here.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        match self {
            Caller::InProcess(_) => None,
            Caller::Connection(_, address) => Some(*address),
        }
    }

    /// Seconds for which the certificate that was shown still counts.
    pub(crate) fn certificate_seconds_left(&self) -> Option<f64> {
        match self {
            Caller::Connection(Some(certificate), _) => Some(certificate.seconds_left(Timestamp::now())),
            _ => None,
        }
    }
}

/// Whose a token is, and for which of the audiences that were asked about.
#[derive(Debug)]
pub(crate) struct Authenticated {
    pub(crate) user: Arc<User>,
    pub(crate) audiences: Vec<String>,
}

/// Why a token proves nothing. The reasons go to TokenReview and the log, never to who showed the token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// Nobody knows it.
    #[error("invalid bearer token")]
    Unknown,
    /// Somebody knows it, and why it does not count.
    #[error("[invalid bearer token, {0}]")]
    Invalid(String),
    /// What it depends on cannot be looked up.
    #[error(transparent)]
    Lookup(#[from] ApiError),
}

/// Knows everyone who may ask.
pub(crate) struct Authenticator {
    cache: Arc<Cache>,
    static_tokens: StaticTokens,
    service_accounts: ServiceAccountTokens,
    /// Tokens that say nothing about audiences are meant for these.
    api_audiences: Vec<String>,
}

impl Authenticator {
    pub(crate) fn new(
        token_file: Option<&Path>,
        issuer: Arc<Issuer>,
        cache: Arc<Cache>,
        uses: mpsc::Sender<legacy::Use>,
    ) -> Result<Self, Error> {
        Ok(Authenticator {
            cache,
            static_tokens: StaticTokens::read(token_file)?,
            api_audiences: issuer.audiences().to_vec(),
            service_accounts: ServiceAccountTokens::new(issuer, uses),
        })
    }

    /// The identity behind a request; `None` when it shows no credentials, 401 when it shows bad ones. What is worth noting
    /// of a token it shows is put into `used`.
    pub(crate) async fn authenticate(
        &self,
        caller: &Caller,
        headers: &HeaderMap,
        used: &mut Option<TokenUse>,
    ) -> Result<Option<Arc<User>>, ApiError> {
        let token = headers.get(AUTHORIZATION).and_then(|header| bearer(header.to_str().ok()?));
        match caller {
            Caller::InProcess(user) => return Ok(Some(user.clone())),
            Caller::Connection(Some(certificate), _) => match certificate.user(Timestamp::now()) {
                Some(user) => return Ok(Some(user.clone())),
                // Who brings a token as well may have one that counts.
                None if token.is_some() => {}
                None => return Err(ApiError::Unauthorized),
            },
            Caller::Connection(None, _) => {}
        }
        let Some(token) = token else { return Ok(None) };
        match self.token(token, &self.api_audiences, used).await {
            Ok(authenticated) => Ok(Some(authenticated.user)),
            Err(TokenError::Lookup(error)) => Err(error),
            Err(error) => {
                tracing::debug!(%error, "a bearer token was refused");
                Err(ApiError::Unauthorized)
            }
        }
    }

    /// Whose a token is, if it is meant for one of `audiences`.
    pub(crate) async fn token(
        &self,
        token: &str,
        audiences: &[String],
        used: &mut Option<TokenUse>,
    ) -> Result<Authenticated, TokenError> {
        let now = Timestamp::now();
        if let Some(verified) = self.service_accounts.recognise(token)? {
            return self.service_accounts.authenticate(&self.cache, &verified, audiences, now, used).await;
        }
        let user = match self.static_tokens.find(token) {
            Some(user) => user,
            None => bootstrap_token::authenticate(&self.cache, token, now).await?,
        };
        let meant = intersection(&self.api_audiences, audiences);
        if meant.is_empty() { Err(TokenError::Unknown) } else { Ok(Authenticated { user, audiences: meant }) }
    }

    /// The audiences of this API.
    pub(crate) fn api_audiences(&self) -> &[String] {
        &self.api_audiences
    }
}

/// The token in the header. Credentials of another scheme are none, and who shows none is anonymous
/// (`staging/src/k8s.io/apiserver/pkg/authentication/request/bearertoken`).
fn bearer(header: &str) -> Option<&str> {
    let mut parts = header.trim().splitn(3, ' ');
    let scheme = parts.next()?;
    parts.next().filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

/// Tokens are known by their digest, so that looking one up takes no longer the more of it is right.
fn digest(token: &str) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn intersection(of: &[String], with: &[String]) -> Vec<String> {
    of.iter().filter(|one| with.contains(one)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bearer_scheme_is_understood() {
        let cases = [
            ("Bearer abc", Some("abc")),
            ("bearer abc ", Some("abc")),
            ("bearer abc def", Some("abc")),
            ("Bearer  abc", None),
            ("Bearer ", None),
            ("Basic abc", None),
            ("abc", None),
        ];
        for (header, expected) in cases {
            assert_eq!(bearer(header), expected, "{header}");
        }
    }
}
