//! Compact JSON Web Signatures (RFC 7515) with the one algorithm this server signs with: ES256 (RFC 7518 §3.4).
//!
//! `ring` is in the tree for TLS and does all the work; what a JWT crate would add are the algorithms a forger likes to
//! choose from. The key decides the algorithm here, never the token.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::PublicKeyData;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::{Value, json};

/// The only algorithm, as headers and key sets name it.
pub(super) const ALGORITHM: &str = "ES256";
/// Tokens longer than this are not looked into.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Bytes of a coordinate on the curve P-256.
const COORDINATE: usize = 32;

/// A private key that signs, and its public half.
pub(crate) struct SigningKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    id: String,
}

/// Why a text is no token of ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum JwsError {
    #[error("the token is malformed")]
    Malformed,
    #[error("the token is signed with another key or algorithm")]
    OtherKey,
    #[error("the signature does not fit")]
    Signature,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

impl SigningKey {
    /// The key in a PEM file (PKCS #8, curve P-256); why not, in words.
    pub(crate) fn from_pem(pem: &str) -> Result<SigningKey, String> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| e.to_string())?;
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der(), &random)
            .map_err(|e| format!("not a PKCS #8 key on the curve P-256: {e}"))?;
        let public = rcgen::KeyPair::from_pem(pem).map_err(|e| e.to_string())?.subject_public_key_info();
        // As `keyIDFromPublicKey` in `pkg/serviceaccount/jwt.go`.
        let id = encode(ring::digest::digest(&ring::digest::SHA256, &public).as_ref());
        Ok(SigningKey { pair, random, id })
    }

    /// A token that says `payload`.
    pub(super) fn sign(&self, payload: &[u8]) -> Result<String, ring::error::Unspecified> {
        let header = format!(r#"{{"alg":"{ALGORITHM}","kid":"{}"}}"#, self.id);
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(payload));
        let signature = self.pair.sign(&self.random, signed.as_bytes())?;
        Ok(format!("{signed}.{}", encode(signature.as_ref())))
    }

    /// What a token says, if this key signed it.
    pub(super) fn verify(&self, token: &str) -> Result<Vec<u8>, JwsError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(JwsError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(JwsError::Malformed)?;
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| JwsError::OtherKey)?;
        if header.alg != ALGORITHM || header.kid != self.id {
            return Err(JwsError::OtherKey);
        }
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref());
        public.verify(signed.as_bytes(), &decode(signature)?).map_err(|_| JwsError::Signature)?;
        decode(payload)
    }

    /// The public half as a JSON Web Key (RFC 7517, RFC 7518 §6.2).
    pub(super) fn jwk(&self) -> Value {
        // An uncompressed point: 4, x, y.
        let point = self.pair.public_key().as_ref();
        let (x, y) = point[1..].split_at(COORDINATE);
        json!({
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": ALGORITHM, "x": encode(x), "y": encode(y),
        })
    }
}

/// What a token claims, before anything is verified; `None` if it is no token.
pub(super) fn unverified_payload(token: &str) -> Option<Vec<u8>> {
    let mut parts = token.split('.');
    let (header, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
    let is_token = parts.next().is_none() && !header.is_empty() && !signature.is_empty();
    if !is_token || token.len() > MAX_TOKEN_BYTES { None } else { decode(payload).ok() }
}

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(text: &str) -> Result<Vec<u8>, JwsError> {
    BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| JwsError::Malformed)
}

#[cfg(test)]
pub(super) fn test_key() -> SigningKey {
    SigningKey::from_pem(&rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_signed_is_read_back_and_nothing_else() {
        let (key, other) = (test_key(), test_key());
        let token = key.sign(b"{}").unwrap();
        assert_eq!(key.verify(&token).unwrap(), b"{}");
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = signed.split_once('.').unwrap();
        let none = encode(format!(r#"{{"alg":"none","kid":"{}"}}"#, key.id).as_bytes());
        let foreign = other.sign(b"{}").unwrap();
        let cases = [
            ("another key", foreign.clone(), JwsError::OtherKey),
            (
                "another key's signature",
                format!("{signed}.{}", foreign.rsplit('.').next().unwrap()),
                JwsError::Signature,
            ),
            ("another payload", format!("{header}.{}.{signature}", encode(b"{1}")), JwsError::Signature),
            ("no algorithm", format!("{none}.{}.", encode(b"{}")), JwsError::OtherKey),
            ("no signature", signed.to_owned(), JwsError::Malformed),
            ("no token", "abc".to_owned(), JwsError::Malformed),
            ("no base64", "!.!.!".to_owned(), JwsError::Malformed),
        ];
        for (sentence, token, expected) in cases {
            assert_eq!(key.verify(&token).unwrap_err(), expected, "{sentence}");
        }
    }

    #[test]
    fn the_public_key_has_the_form_of_a_key_set() {
        let jwk = test_key().jwk();
        assert_eq!((&jwk["kty"], &jwk["alg"], &jwk["crv"]), (&json!("EC"), &json!("ES256"), &json!("P-256")));
        for coordinate in ["x", "y"] {
            assert_eq!(decode(jwk[coordinate].as_str().unwrap()).unwrap().len(), COORDINATE);
        }
    }

    #[test]
    fn only_private_keys_on_the_right_curve_sign() {
        for pem in ["", "nonsense", &rcgen::KeyPair::generate().unwrap().public_key_pem()] {
            assert!(SigningKey::from_pem(pem).is_err());
        }
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        assert!(SigningKey::from_pem(&other.serialize_pem()).is_err());
    }
}
