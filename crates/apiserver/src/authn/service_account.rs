//! Service account tokens: whose they are, and whether that and what they are bound to still exists
//! (`pkg/serviceaccount/claims.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use api::well_known::GROUP_SERVICE_ACCOUNTS;
use jiff::Timestamp;
use tokio::sync::mpsc;

use super::claims::{Claims, Kubernetes, LEEWAY, Ref};
use super::issuer::Issuer;
use super::legacy::{self, Use, Verdict};
use super::recent::Recent;
use super::{Authenticated, TokenError, TokenUse, digest, intersection};
use crate::cache::{Cache, Identity};
use crate::user::User;

const INVALIDATED: &str = "service account token has been invalidated";

/// A token whose signature fits: what it says, and who shows it.
pub(super) struct Verified {
    claims: Claims,
    user: Arc<User>,
    digest: [u8; 32],
}

/// Knows the tokens of an issuer.
pub(super) struct ServiceAccountTokens {
    issuer: Arc<Issuer>,
    verified: Recent<Verified>,
    uses: mpsc::Sender<Use>,
}

impl ServiceAccountTokens {
    pub(super) fn new(issuer: Arc<Issuer>, uses: mpsc::Sender<Use>) -> ServiceAccountTokens {
        ServiceAccountTokens { issuer, verified: Recent::default(), uses }
    }

    /// The token, if it is one of ours and its signature fits; `None` if it is somebody else's.
    pub(super) fn recognise(&self, token: &str) -> Result<Option<Arc<Verified>>, TokenError> {
        let digest = digest(token);
        if let Some(known) = self.verified.get(&digest) {
            return Ok(Some(known));
        }
        let Some(claims) = self.issuer.verify(token)? else { return Ok(None) };
        let verified = Arc::new(Verified { user: Arc::new(user(&claims)), claims, digest });
        self.verified.put(digest, verified.clone());
        Ok(Some(verified))
    }

    /// Whose a token is, if it counts at `now` and is meant for one of `audiences`.
    pub(super) async fn authenticate(
        &self,
        cache: &Cache,
        verified: &Verified,
        audiences: &[String],
        now: Timestamp,
        used: &mut Option<TokenUse>,
    ) -> Result<Authenticated, TokenError> {
        let Verified { claims, user, digest } = verified;
        claims.check_times(now).map_err(|e| TokenError::Invalid(e.to_owned()))?;
        let meant = intersection(&claims.aud, audiences);
        if meant.is_empty() {
            let (of, for_) = (&claims.aud, audiences);
            let message = format!("token audiences {of:?} is invalid for the target audiences {for_:?}");
            return Err(TokenError::Invalid(message));
        }
        let find = |kind: &str, namespace: Option<&str>, name: &str| identity(cache, kind, namespace, name);
        if check(&claims.kubernetes, now, find).is_err() {
            // Perhaps what it names is only too new for the cache.
            cache.catch_up().await?;
            check(&claims.kubernetes, now, find).map_err(TokenError::Invalid)?;
        }
        let mut verdict = self.check_kept(cache, claims, digest, now);
        if matches!(verdict, Verdict::Ended(_) | Verdict::Refused(_)) {
            // Perhaps the Secret only just got it.
            cache.catch_up().await?;
            verdict = self.check_kept(cache, claims, digest, now);
        }
        *used = match verdict {
            Verdict::NotKept => claims.kubernetes.warnafter.map(|newer| projected(claims, now.as_second() - newer)),
            _ => kept(cache, claims, &verdict),
        };
        if let Verdict::Ended(why) | Verdict::Refused(why) = verdict {
            return Err(TokenError::Invalid(why));
        }
        Ok(Authenticated { user: user.clone(), audiences: meant })
    }
}

impl ServiceAccountTokens {
    /// Whether a token that is kept in a Secret counts; its use is told to who notes it.
    fn check_kept(&self, cache: &Cache, claims: &Claims, digest: &[u8; 32], now: Timestamp) -> Verdict {
        let Kubernetes { namespace, serviceaccount, secret, .. } = &claims.kubernetes;
        let kept = secret.as_ref().filter(|_| legacy::is_kept(claims));
        let (Some(secret), Some(kind)) = (kept, api::kinds::by_kind("v1", "Secret")) else { return Verdict::NotKept };
        let Some(entry) = cache.of(kind).get(&kind.info.registry_key(Some(namespace), &secret.name)) else {
            return Verdict::Refused(INVALIDATED.to_owned());
        };
        let (verdict, note) = legacy::check(entry.json(), digest, &serviceaccount.name, now);
        if note {
            let used = Use { namespace: namespace.clone(), name: secret.name.clone(), uid: secret.uid.clone() };
            // When many wait, a later use is noted.
            let _ = self.uses.try_send(used);
        }
        verdict
    }
}

/// What is worth noting of a token that is kept.
fn kept(cache: &Cache, claims: &Claims, verdict: &Verdict) -> Option<TokenUse> {
    let Kubernetes { namespace, serviceaccount, secret, .. } = &claims.kubernetes;
    let (subject, secret) = (claims.sub.clone(), secret.as_ref()?.name.clone());
    match verdict {
        Verdict::Refused(_) | Verdict::NotKept => None,
        Verdict::Ended(_) => Some(TokenUse::Ended { subject, namespace: namespace.clone(), secret }),
        Verdict::Good => {
            let kind = api::kinds::by_kind("v1", "ServiceAccount")?;
            let account = cache.of(kind).get(&kind.info.registry_key(Some(namespace), &serviceaccount.name))?;
            let listed = legacy::lists(account.json(), &secret);
            Some(TokenUse::Kept { subject, secret, listed })
        }
    }
}

/// What is worth noting of a token that should have been read anew so many seconds ago.
fn projected(claims: &Claims, seconds: i64) -> TokenUse {
    if seconds > 0 { TokenUse::Stale { subject: claims.sub.clone(), seconds } } else { TokenUse::Fresh }
}

fn identity(cache: &Cache, kind: &str, namespace: Option<&str>, name: &str) -> Option<Identity> {
    let kind = api::kinds::by_kind("v1", kind)?;
    cache.of(kind).get(&kind.info.registry_key(namespace, name))?.identity(kind.info)
}

/// Whether everything the token names is what it was; `find` looks it up.
fn check(
    claimed: &Kubernetes,
    now: Timestamp,
    find: impl Fn(&str, Option<&str>, &str) -> Option<Identity>,
) -> Result<(), String> {
    let namespace = Some(claimed.namespace.as_str());
    let is_gone = |found: &Identity| found.deletion_timestamp.as_ref().is_some_and(|at| at.0 < now - LEEWAY);
    let account = &claimed.serviceaccount;
    let found = find("ServiceAccount", namespace, &account.name);
    let found = found.ok_or_else(|| format!("serviceaccounts {:?} not found", account.name))?;
    if is_gone(&found) {
        return Err(format!("service account {}/{} has been deleted", claimed.namespace, account.name));
    }
    if found.uid != account.uid {
        return Err(format!("service account UID ({}) does not match claim ({})", found.uid, account.uid));
    }
    let bound = |kind: &str, namespace: Option<&str>, claimed: &Ref| {
        let found = find(kind, namespace, &claimed.name).filter(|found| !is_gone(found)).ok_or(INVALIDATED)?;
        let what = kind.to_ascii_lowercase();
        if found.uid == claimed.uid {
            return Ok(());
        }
        let uids =
            format!("{kind} UID ({}) does not match service account {what} ref claim ({})", found.uid, claimed.uid);
        Err(uids)
    };
    claimed.secret.as_ref().map_or(Ok(()), |secret| bound("Secret", namespace, secret))?;
    match (&claimed.pod, &claimed.node) {
        // The node of a pod is told, not checked: with the node its pods go, too.
        (Some(pod), _) => bound("Pod", namespace, pod),
        (None, Some(node)) => bound("Node", None, node),
        (None, None) => Ok(()),
    }
}

/// Who shows the token (`k8s.io/apiserver/pkg/authentication/serviceaccount`).
fn user(claims: &Claims) -> User {
    let Kubernetes { namespace, serviceaccount, pod, node, .. } = &claims.kubernetes;
    let groups = [GROUP_SERVICE_ACCOUNTS.to_owned(), format!("{GROUP_SERVICE_ACCOUNTS}:{namespace}")];
    let mut extra = BTreeMap::new();
    let mut note = |key: &str, value: &str| {
        if !value.is_empty() {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        }
    };
    note("credential-id", &format!("JTI={}", claims.jti));
    for (what, of) in [("pod", pod), ("node", node)] {
        if let Some(of) = of {
            note(&format!("{what}-name"), &of.name);
            note(&format!("{what}-uid"), &of.uid);
        }
    }
    User { uid: Some(serviceaccount.uid.clone()), extra, ..User::new(claims.sub.clone(), groups) }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::authn::claims::test_claims;

    fn of(name: &str, uid: &str) -> Option<Ref> {
        Some(Ref { name: name.into(), uid: uid.into() })
    }

    #[test]
    fn a_token_is_stale_when_a_newer_one_should_have_been_read() {
        let claims = test_claims(1000);
        assert_eq!((projected(&claims, -1), projected(&claims, 0)), (TokenUse::Fresh, TokenUse::Fresh));
        let stale = TokenUse::Stale { subject: "system:serviceaccount:ns:robot".to_owned(), seconds: 7 };
        assert_eq!(projected(&claims, 7), stale);
        assert_eq!(stale.warning(), None);
    }

    #[test]
    fn a_token_dies_with_what_it_is_bound_to() {
        let now = Timestamp::from_second(1000).unwrap();
        // What is there: an account, and a pod, a secret and a node all called `it`; `ending` ended a minute ago.
        let find = |kind: &str, _: Option<&str>, name: &str| {
            let deleted = (name == "ending").then(|| Time(Timestamp::from_second(939).unwrap()));
            let late = (name == "late").then(|| Time(Timestamp::from_second(1030).unwrap()));
            let known = matches!((kind, name), ("ServiceAccount", "robot") | (_, "it" | "ending" | "late"));
            known.then(|| Identity { uid: format!("uid-of-{name}"), deletion_timestamp: deleted.or(late) })
        };
        let base = test_claims(1000).kubernetes;
        let account = |name: &str, uid: &str| Kubernetes { serviceaccount: of(name, uid).unwrap(), ..base.clone() };
        let pod = |name: &str, uid: &str| Kubernetes { pod: of(name, uid), ..base.clone() };
        let cases = [
            ("the account is there", base.clone(), None),
            ("no account", account("none", "u"), Some("serviceaccounts \"none\" not found")),
            (
                "another account",
                account("robot", "u"),
                Some("service account UID (uid-of-robot) does not match claim (u)"),
            ),
            (
                "an account that ended",
                account("ending", "uid-of-ending"),
                Some("service account ns/ending has been deleted"),
            ),
            ("the pod is there", pod("it", "uid-of-it"), None),
            ("the pod will end soon", pod("late", "uid-of-late"), None),
            ("the pod should have ended", pod("ending", "uid-of-ending"), Some(INVALIDATED)),
            ("no pod", pod("none", "u"), Some(INVALIDATED)),
            (
                "another pod",
                pod("it", "u"),
                Some("Pod UID (uid-of-it) does not match service account pod ref claim (u)"),
            ),
            ("the pod's node is not looked at", Kubernetes { node: of("none", "u"), ..pod("it", "uid-of-it") }, None),
            ("the secret is there", Kubernetes { secret: of("it", "uid-of-it"), ..base.clone() }, None),
            ("no secret", Kubernetes { secret: of("none", "u"), ..base.clone() }, Some(INVALIDATED)),
            ("no node", Kubernetes { node: of("none", "u"), ..base.clone() }, Some(INVALIDATED)),
            ("the node is there", Kubernetes { node: of("it", "uid-of-it"), ..base.clone() }, None),
        ];
        for (sentence, claimed, expected) in cases {
            assert_eq!(check(&claimed, now, find).err().as_deref(), expected, "{sentence}");
        }
    }

    #[test]
    fn the_user_is_told_with_what_the_token_is_bound_to() {
        let mut claims = test_claims(1000);
        claims.kubernetes.pod = of("web", "p");
        claims.kubernetes.node = of("box1", "");
        let user = user(&claims);
        assert_eq!((user.name.as_str(), user.uid.as_deref()), ("system:serviceaccount:ns:robot", Some("uid-of-robot")));
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]);
        let extra: Vec<_> = user.extra.iter().map(|(key, value)| format!("{key}={}", value[0])).collect();
        let expected = ["credential-id=JTI=7", "node-name=box1", "pod-name=web", "pod-uid=p"];
        assert_eq!(extra, expected.map(|e| format!("authentication.kubernetes.io/{e}")));
    }
}
