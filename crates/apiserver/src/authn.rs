//! Who is asking: client certificates, static tokens, the join token.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use api::well_known::GROUP_BOOTSTRAPPERS;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::error::Error;
use crate::status::ApiError;
use crate::user::User;

/// How a request reached the server.
#[derive(Clone)]
pub(crate) enum Caller {
    /// From a component in this process, which says who it is.
    InProcess(Arc<User>),
    /// Over TLS, with the identity of a verified client certificate.
    Connection(Option<Arc<User>>),
}

/// Knows bearer tokens by their digest, so that looking one up takes no longer the more of it is right.
pub(crate) struct Authenticator {
    tokens: HashMap<[u8; 32], Arc<User>>,
}

impl Authenticator {
    /// Reads the static token file and takes in the join token (`<id>.<secret>`).
    pub(crate) fn new(token_file: Option<&Path>, join_token: &str) -> Result<Authenticator, Error> {
        let mut tokens = HashMap::new();
        if let Some(path) = token_file {
            let text = std::fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
            for (number, line) in text.lines().enumerate() {
                if let Some((token, user)) = parse_line(line).map_err(|reason| Error::TokenFile {
                    path: path.to_owned(),
                    line: number + 1,
                    reason,
                })? {
                    tokens.insert(digest(&token), Arc::new(user));
                }
            }
        }
        let id = join_token.split('.').next().unwrap_or("");
        let user = User::new(format!("system:bootstrap:{id}"), [GROUP_BOOTSTRAPPERS]);
        tokens.insert(digest(join_token), Arc::new(user));
        Ok(Authenticator { tokens })
    }

    /// The identity behind a request; `None` when it shows no credentials, 401 when it shows bad ones.
    pub(crate) fn authenticate(&self, caller: &Caller, headers: &HeaderMap) -> Result<Option<Arc<User>>, ApiError> {
        match caller {
            Caller::InProcess(user) => return Ok(Some(user.clone())),
            Caller::Connection(Some(user)) => return Ok(Some(user.clone())),
            Caller::Connection(None) => {}
        }
        let Some(header) = headers.get(AUTHORIZATION) else { return Ok(None) };
        let token = header.to_str().ok().and_then(bearer).ok_or(ApiError::Unauthorized)?;
        self.tokens.get(&digest(token)).cloned().map(Some).ok_or(ApiError::Unauthorized)
    }
}

fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|t| !t.is_empty())
}

fn digest(token: &str) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// One line of a token file: `token,user,uid,"group,group"`; empty lines and comments are skipped
/// (`k8s.io/apiserver/pkg/authentication/token/tokenfile`).
fn parse_line(line: &str) -> Result<Option<(String, User)>, &'static str> {
    if line.trim().is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let fields = csv_fields(line)?;
    let [token, name, uid, rest @ ..] = fields.as_slice() else {
        return Err("at least three columns are needed: token,user,uid");
    };
    if token.is_empty() {
        return Err("the token is empty");
    }
    let groups = rest.first().map_or("", String::as_str).split(',').map(str::trim).filter(|g| !g.is_empty());
    let mut user = User::new(name, groups);
    user.uid = Some(uid.clone()).filter(|u| !u.is_empty());
    Ok(Some((token.clone(), user)))
}

fn csv_fields(line: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut chars = line.trim_end().chars().peekable();
    while let Some(c) = chars.next() {
        let field = fields.last_mut().expect("there is always a field");
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            ' ' if !quoted && field.is_empty() => {}
            c => field.push(c),
        }
    }
    if quoted { Err("a quote is not closed") } else { Ok(fields) }
}

/// The identity in a verified client certificate: CN is the user, every O a group.
pub(crate) fn user_of_certificate(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    let groups: Vec<&str> = subject.iter_organization().filter_map(|o| o.as_str().ok()).collect();
    Some(User::new(name, groups))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_token(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[test]
    fn token_file_lines_are_read_as_upstream_does() {
        let (token, user) = parse_line(r#"t0k,alice,7,"dev,ops""#).unwrap().unwrap();
        assert_eq!((token.as_str(), user.name.as_str(), user.uid.as_deref()), ("t0k", "alice", Some("7")));
        assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(parse_line("t,bob,").unwrap().unwrap().1.groups, ["system:authenticated"]);
        assert!(parse_line("# comment").unwrap().is_none());
        for bad in ["t,bob", ",bob,1", r#"t,bob,1,"open"#] {
            assert!(parse_line(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bad_credentials_are_refused_and_missing_ones_are_anonymous() {
        let authenticator = Authenticator::new(None, "abcdef.0123456789abcdef").unwrap();
        let caller = Caller::Connection(None);
        assert!(authenticator.authenticate(&caller, &HeaderMap::new()).unwrap().is_none());
        let join = authenticator.authenticate(&caller, &with_token("Bearer abcdef.0123456789abcdef")).unwrap().unwrap();
        assert_eq!(join.name, "system:bootstrap:abcdef");
        for bad in ["Bearer no", "Basic abc", "Bearer "] {
            assert!(authenticator.authenticate(&caller, &with_token(bad)).is_err(), "{bad}");
        }
    }
}
