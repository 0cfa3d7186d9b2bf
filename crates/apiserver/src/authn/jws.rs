//! Compact JSON Web Signatures (RFC 7515) with the one algorithm this server signs with: ES256 (RFC 7518 §3.4).
//!
//! `ring` is in the tree for TLS and does all the work; what a JWT crate would add are the algorithms a forger likes to
//! choose from. The key decides the algorithm here, never the token.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rcgen::PublicKeyData;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::{PemObject, SectionKind};
use serde::Deserialize;
use serde_json::{Value, json};

/// The only algorithm, as headers and key sets name it.
pub(super) const ALGORITHM: &str = "ES256";
/// Tokens longer than this are not looked into.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Bytes of a coordinate on the curve P-256.
const COORDINATE: usize = 32;

/// What a public key of ours is as DER, before its point: ECDSA on the curve P-256 (RFC 5480).
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A private key that signs, and its public half.
pub(crate) struct SigningKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    public: VerifyingKey,
}

/// A key that tells whether a token was signed with its private half.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VerifyingKey {
    /// An uncompressed point: 4, x, y.
    point: Vec<u8>,
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
        Ok(SigningKey { pair, random, public: VerifyingKey::of_private(der.secret_pkcs8_der())? })
    }

    /// The public half.
    pub(crate) fn public(&self) -> &VerifyingKey {
        &self.public
    }

    /// A token that says `payload`.
    pub(super) fn sign(&self, payload: &[u8]) -> Result<String, ring::error::Unspecified> {
        let header = format!(r#"{{"alg":"{ALGORITHM}","kid":"{}"}}"#, self.public.id);
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(payload));
        let signature = self.pair.sign(&self.random, signed.as_bytes())?;
        Ok(format!("{signed}.{}", encode(signature.as_ref())))
    }
}

impl VerifyingKey {
    /// Every key in a PEM file, public or private (`PublicKeysFromFile` in `k8s.io/client-go/util/keyutil`); why there is
    /// none, in words.
    pub(crate) fn all_from_pem(pem: &str) -> Result<Vec<VerifyingKey>, String> {
        let mut keys = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()) {
            match section.map_err(|e| e.to_string())? {
                (SectionKind::PublicKey, der) => keys.push(VerifyingKey::of_spki(&der)?),
                (SectionKind::PrivateKey, der) => keys.push(VerifyingKey::of_private(&der)?),
                _ => {}
            }
        }
        if keys.is_empty() {
            Err("data does not contain any valid public or private keys".to_owned())
        } else {
            Ok(keys)
        }
    }

    fn of_private(pkcs8: &[u8]) -> Result<VerifyingKey, String> {
        let pair = rcgen::KeyPair::try_from(pkcs8).map_err(|e| e.to_string())?;
        VerifyingKey::of_spki(&pair.subject_public_key_info())
    }

    fn of_spki(spki: &[u8]) -> Result<VerifyingKey, String> {
        let point = spki.strip_prefix(&SPKI_PREFIX).filter(|point| point.len() == 1 + 2 * COORDINATE && point[0] == 4);
        let point = point.ok_or("not a key on the curve P-256, and tokens are signed with no other")?.to_vec();
        // As `keyIDFromPublicKey` in `pkg/serviceaccount/jwt.go`.
        Ok(VerifyingKey { point, id: encode(ring::digest::digest(&ring::digest::SHA256, spki).as_ref()) })
    }

    /// What a token says, if this key signed it.
    pub(super) fn verify(&self, token: &str) -> Result<Vec<u8>, JwsError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(JwsError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(JwsError::Malformed)?;
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| JwsError::OtherKey)?;
        if header.alg != ALGORITHM || header.kid != self.id {
            return Err(JwsError::OtherKey);
        }
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point);
        public.verify(signed.as_bytes(), &decode(signature)?).map_err(|_| JwsError::Signature)?;
        decode(payload)
    }

    /// The key as a JSON Web Key (RFC 7517, RFC 7518 §6.2).
    pub(super) fn jwk(&self) -> Value {
        let (x, y) = self.point[1..].split_at(COORDINATE);
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
        assert_eq!(key.public().verify(&token).unwrap(), b"{}");
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = signed.split_once('.').unwrap();
        let none = encode(format!(r#"{{"alg":"none","kid":"{}"}}"#, key.public().id).as_bytes());
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
            assert_eq!(key.public().verify(&token).unwrap_err(), expected, "{sentence}");
        }
    }

    #[test]
    fn the_public_key_has_the_form_of_a_key_set() {
        let jwk = test_key().public().jwk();
        assert_eq!((&jwk["kty"], &jwk["alg"], &jwk["crv"]), (&json!("EC"), &json!("ES256"), &json!("P-256")));
        for coordinate in ["x", "y"] {
            assert_eq!(decode(jwk[coordinate].as_str().unwrap()).unwrap().len(), COORDINATE);
        }
    }

    #[test]
    fn a_file_may_hold_many_keys_public_and_private() {
        let (one, two) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
        let both = format!("{}{}", one.public_key_pem(), two.serialize_pem());
        let keys = VerifyingKey::all_from_pem(&both).unwrap();
        let signing = SigningKey::from_pem(&one.serialize_pem()).unwrap();
        assert_eq!((keys.len(), &keys[0]), (2, signing.public()));
        assert_eq!(
            keys[1].verify(&SigningKey::from_pem(&two.serialize_pem()).unwrap().sign(b"{}").unwrap()).unwrap(),
            b"{}"
        );
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        for bad in ["", "nonsense", &other.public_key_pem(), &other.serialize_pem()] {
            assert!(VerifyingKey::all_from_pem(bad).is_err(), "{bad}");
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
