//! What a minion joins with: a bearer token, and the CA's fingerprint so that it knows whom it gives that to.

use std::fmt;
use std::path::Path;

use rustls::pki_types::CertificateDer;

use super::files;
use crate::error::Error;

const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;

/// `<id>.<secret>.<sha256 of the CA certificate>`.
pub(crate) struct JoinToken {
    bearer: String,
    fingerprint: String,
    is_new: bool,
}

impl JoinToken {
    /// The token in the file; a new one if there is none. If the CA is another one than the file says, the file is
    /// corrected.
    pub(super) fn load_or_create(path: &Path, ca: &CertificateDer<'_>) -> Result<JoinToken, Error> {
        let fingerprint = hex(ring::digest::digest(&ring::digest::SHA256, ca).as_ref());
        let known = files::read(path)?;
        let bearer = match &known {
            Some(text) => parse(text.trim())?,
            None => format!("{}.{}", random(ID_LENGTH), random(SECRET_LENGTH)),
        };
        let token = JoinToken { bearer, fingerprint, is_new: known.is_none() };
        if known.as_deref().map(str::trim) != Some(&token.to_string()) {
            files::write_private(path, &format!("{token}\n"))?;
        }
        Ok(token)
    }

    /// What is sent: `<id>.<secret>`.
    pub(crate) fn bearer(&self) -> &str {
        &self.bearer
    }

    /// Id and secret.
    pub(crate) fn parts(&self) -> (&str, &str) {
        self.bearer.split_once('.').unwrap_or((&self.bearer, ""))
    }

    /// Whether it was made at this start.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.bearer, self.fingerprint)
    }
}

fn parse(text: &str) -> Result<String, Error> {
    let plain = |part: &str, length: usize| part.len() == length && part.bytes().all(|b| ALPHABET.contains(&b));
    match text.split('.').collect::<Vec<_>>().as_slice() {
        [id, secret, _] if plain(id, ID_LENGTH) && plain(secret, SECRET_LENGTH) => Ok(format!("{id}.{secret}")),
        _ => Err(Error::JoinToken("the file does not hold <id>.<secret>.<fingerprint>".into())),
    }
}

/// Characters from the system's own source of chance (`rand::rng` is seeded by it and is fit for secrets).
fn random(length: usize) -> String {
    (0..length).map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())])).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
