//! Which pods may use an image that is here already (KEP-2535, `pkg/kubelet/images/pullmanager`): what was pulled with a
//! secret is for those who have that secret, and for whom the registry let have it. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::reference::Reference;
use crate::runtime::Credentials;

/// Secrets remembered of one image name; of more the oldest are forgotten, and ask the registry again.
const MAX_SECRETS: usize = 100;

/// For which images a pod must show credentials (`imagePullCredentialsVerificationPolicy`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Verification {
    /// None.
    Never,
    /// Those that were pulled for a pod; who put others here meant them for all.
    #[default]
    NotPreloaded,
    /// All but those of these names, `/*` at their end for anything.
    NotListed(Vec<String>),
    /// All.
    Always,
}

impl Verification {
    /// By upstream's name of the policy and its `preloadedImagesVerificationAllowlist`.
    pub fn new(policy: &str, allowlist: &[String]) -> Result<Verification, String> {
        if !allowlist.is_empty() && policy != "NeverVerifyAllowlistedImages" {
            let only = "a list of preloaded images is of use only with the policy NeverVerifyAllowlistedImages";
            return Err(format!("{only}, not {policy}"));
        }
        match policy {
            "NeverVerify" => Ok(Verification::Never),
            "NeverVerifyPreloadedImages" => Ok(Verification::NotPreloaded),
            "NeverVerifyAllowlistedImages" => allowlist
                .iter()
                .map(|pattern| pattern_of(pattern))
                .collect::<Result<_, _>>()
                .map(Verification::NotListed),
            "AlwaysVerify" => Ok(Verification::Always),
            other => Err(format!("unknown image pull credential verification policy: {other}")),
        }
    }

    /// As upstream names it.
    pub fn name(&self) -> &'static str {
        match self {
            Verification::Never => "NeverVerify",
            Verification::NotPreloaded => "NeverVerifyPreloadedImages",
            Verification::NotListed(_) => "NeverVerifyAllowlistedImages",
            Verification::Always => "AlwaysVerify",
        }
    }

    /// Whether a pod must show credentials for `image`, that was pulled for a pod or not.
    pub fn is_needed(&self, image: &str, pulled: bool) -> bool {
        match self {
            Verification::Never => false,
            Verification::NotPreloaded => pulled,
            Verification::NotListed(patterns) => {
                let name = name(image);
                !patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
                    Some(prefix) => name.starts_with(prefix),
                    None => name == *pattern,
                })
            }
            Verification::Always => true,
        }
    }
}

/// A pattern, checked as `getAllowlistImagePattern` does, with the name's registry in it.
fn pattern_of(pattern: &str) -> Result<String, String> {
    let wrong = |why: &str| Err(format!("{why}: {pattern:?}"));
    if pattern.trim() != pattern {
        return wrong("leading/trailing spaces are not allowed");
    }
    let bare = pattern.strip_suffix("/*");
    if bare.unwrap_or(pattern).contains('*') {
        return wrong("not a valid wildcard pattern, only patterns ending with '/*' are allowed");
    }
    match bare {
        Some("") => wrong("at least registry hostname is required"),
        Some(_) => Ok(pattern.to_owned()),
        None => match Reference::parse(pattern) {
            Some(parsed) if parsed.digest.is_none() && !pattern.ends_with(&tag_of(&parsed)) => Ok(name(pattern)),
            Some(_) => wrong("neither tag nor digest is accepted in an image reference"),
            None => wrong("failed to parse as an image name"),
        },
    }
}

fn tag_of(parsed: &Reference) -> String {
    format!(":{}", parsed.tag.as_deref().unwrap_or_default())
}

/// `image` without tag and digest, and with its registry.
pub fn name(image: &str) -> String {
    let parsed = Reference::parse(image);
    parsed.map_or_else(|| image.to_owned(), |parsed| format!("{}/{}", parsed.registry, parsed.repository))
}

/// A pull secret, and credentials it had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PullSecret {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// Of the credentials.
    pub credential_hash: String,
}

impl PullSecret {
    fn is(&self, other: &PullSecret) -> bool {
        (&self.uid, &self.namespace, &self.name) == (&other.uid, &other.namespace, &other.name)
    }
}

/// What stands for credentials where they must not be read.
pub fn hash(credentials: &Credentials) -> String {
    let Credentials { username, password, identity_token, server: _ } = credentials;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in [username, password, identity_token.as_ref().unwrap_or(&String::new())] {
        context.update(&part.len().to_be_bytes());
        context.update(part.as_bytes());
    }
    crate::names::hex(context.finish().as_ref())
}

/// Who had the registry's leave for an image under one name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Granted {
    /// Whoever has one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_secrets: Vec<PullSecret>,
    /// Everyone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub node_pods_accessible: bool,
}

impl Granted {
    /// Everyone, where it was pulled without a secret.
    pub fn to(secret: Option<PullSecret>) -> Granted {
        Granted { node_pods_accessible: secret.is_none(), kubernetes_secrets: secret.into_iter().collect() }
    }

    /// Adds what `other` grants; whether that is anything new.
    pub fn merge(&mut self, other: Granted) -> bool {
        let before = self.clone();
        if other.node_pods_accessible || self.node_pods_accessible {
            *self = Granted::to(None);
        }
        for secret in other.kubernetes_secrets {
            if !self.node_pods_accessible && !self.kubernetes_secrets.contains(&secret) {
                self.kubernetes_secrets.retain(|known| !known.is(&secret));
                self.kubernetes_secrets.push(secret);
            }
        }
        let surplus = self.kubernetes_secrets.len().saturating_sub(MAX_SECRETS);
        self.kubernetes_secrets.drain(..surplus);
        *self != before
    }
}

/// What is remembered of images that were pulled, by name.
pub type Grants = BTreeMap<String, Granted>;

/// How a pod stands to an image that is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// The registry must be asked.
    Ask,
    /// It may use it.
    Granted,
    /// It may use it, and its secret is to be remembered: it has credentials that are known from another, or it is known
    /// and its credentials have changed.
    Remember(PullSecret),
}

/// Whether a pod with these secrets for it may use `image`, given what is remembered.
pub fn access(image: &str, grants: Option<&Grants>, secrets: &[PullSecret]) -> Access {
    let Some(granted) = grants.and_then(|grants| grants.get(&name(image))) else { return Access::Ask };
    if granted.node_pods_accessible {
        return Access::Granted;
    }
    let known = &granted.kubernetes_secrets;
    if secrets.iter().any(|secret| known.contains(secret)) {
        return Access::Granted;
    }
    let akin = |s: &&PullSecret| known.iter().any(|k| k.credential_hash == s.credential_hash || k.is(s));
    secrets.iter().find(akin).map_or(Access::Ask, |secret| Access::Remember(secret.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(uid: &str, hash: &str) -> PullSecret {
        PullSecret { uid: uid.into(), namespace: "ns".into(), name: uid.into(), credential_hash: hash.into() }
    }

    #[test]
    fn who_had_the_registrys_leave_need_not_ask_again() {
        let grants = |granted: Granted| -> Grants { [("r.example.com/app".to_owned(), granted)].into() };
        let with = grants(Granted::to(Some(secret("a", "1"))));
        let image = "r.example.com/app:2";
        for (sentence, grants, secrets, expected) in [
            ("nothing is remembered", None, vec![secret("a", "1")], Access::Ask),
            ("pulled as nobody knows", Some(Grants::new()), vec![secret("a", "1")], Access::Ask),
            ("the same secret", Some(with.clone()), vec![secret("b", "2"), secret("a", "1")], Access::Granted),
            ("no secret", Some(with.clone()), vec![], Access::Ask),
            ("another", Some(with.clone()), vec![secret("b", "2")], Access::Ask),
            (
                "another with the same credentials",
                Some(with.clone()),
                vec![secret("b", "1")],
                Access::Remember(secret("b", "1")),
            ),
            ("the same with new credentials", Some(with), vec![secret("a", "2")], Access::Remember(secret("a", "2"))),
            ("pulled without a secret", Some(grants(Granted::to(None))), vec![], Access::Granted),
        ] {
            assert_eq!(access(image, grants.as_ref(), &secrets), expected, "{sentence}");
        }
    }

    #[test]
    fn what_is_remembered_is_granted_the_next_time_and_is_bounded() {
        let mut granted = Granted::to(Some(secret("a", "1")));
        let new = secret("b", "1");
        assert!(granted.merge(Granted::to(Some(new.clone()))) && !granted.merge(Granted::to(Some(new.clone()))));
        let grants = [(name("app"), granted.clone())].into();
        assert_eq!(access("app", Some(&grants), &[new]), Access::Granted);
        assert!(granted.merge(Granted::to(Some(secret("a", "2")))), "its credentials changed");
        assert_eq!(granted.kubernetes_secrets, [secret("b", "1"), secret("a", "2")]);
        for number in 0..300 {
            granted.merge(Granted::to(Some(secret(&number.to_string(), "3"))));
        }
        assert_eq!(granted.kubernetes_secrets.len(), MAX_SECRETS);
        assert!(granted.merge(Granted::to(None)) && granted.kubernetes_secrets.is_empty(), "everyone may");
        assert!(!granted.merge(Granted::to(Some(secret("a", "1")))));
    }

    #[test]
    fn the_policy_says_which_images_are_looked_at() {
        let listed = ["docker.io/library/busybox", "r.example.com/free/*"].map(str::to_owned);
        let of = |policy: &str, list: &[String]| Verification::new(policy, list).unwrap();
        for (policy, image, pulled, expected) in [
            (of("NeverVerify", &[]), "app", true, false),
            (of("NeverVerifyPreloadedImages", &[]), "app", true, true),
            (of("NeverVerifyPreloadedImages", &[]), "app", false, false),
            (of("AlwaysVerify", &[]), "app", false, true),
            (of("NeverVerifyAllowlistedImages", &listed), "busybox:1", true, false),
            (of("NeverVerifyAllowlistedImages", &listed), "r.example.com/free/app", false, false),
            (of("NeverVerifyAllowlistedImages", &listed), "r.example.com/other/app", false, true),
        ] {
            assert_eq!(policy.is_needed(image, pulled), expected, "{} {image} {pulled}", policy.name());
        }
        for (policy, pattern, expected) in [
            ("Sometimes", None, "unknown image pull credential verification policy: Sometimes"),
            ("AlwaysVerify", Some("a"), "of use only with"),
            ("NeverVerifyAllowlistedImages", Some("a*"), "not a valid wildcard"),
            ("NeverVerifyAllowlistedImages", Some("/*"), "at least registry hostname"),
            ("NeverVerifyAllowlistedImages", Some("a:1"), "neither tag nor digest"),
            ("NeverVerifyAllowlistedImages", Some(" a"), "spaces"),
        ] {
            let list: Vec<String> = pattern.into_iter().map(str::to_owned).collect();
            let said = Verification::new(policy, &list).unwrap_err();
            assert!(said.contains(expected), "{policy} {pattern:?}: {said}");
        }
    }

    #[test]
    fn credentials_are_told_apart_and_not_told() {
        let of = |username: &str, password: &str, server: &str| {
            hash(&Credentials {
                username: username.into(),
                password: password.into(),
                server: server.into(),
                ..Credentials::default()
            })
        };
        assert_ne!(of("ab", "c", ""), of("a", "bc", ""));
        assert_eq!(of("a", "b", "x"), of("a", "b", "y"), "under which name of the registry they stand is no matter");
        assert!(!of("user", "sesame", "").contains("sesame"));
    }
}
