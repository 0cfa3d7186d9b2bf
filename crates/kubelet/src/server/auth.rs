//! Who asks the node server, and whether he may. The API server's own certificate may ask everything; all others are
//! for the API server to decide: it says whose a token is (TokenReview) and what a user may (SubjectAccessReview). Each
//! path stands for a subresource of the node (`pkg/kubelet/server/auth.go`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use tokio::time::Instant;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::door::Guest;
use super::{Shared, plain};

/// How long the API server's word about a token counts (`authentication.webhook.cacheTTL`).
const TOKEN_TTL: Duration = Duration::from_secs(120);
/// How long it counts that somebody may (`authorization.webhook.cacheAuthorizedTTL`), and that he may not.
const ALLOWED_TTL: Duration = Duration::from_secs(300);
const DENIED_TTL: Duration = Duration::from_secs(30);
/// Words remembered at most, of each kind; the oldest go.
const MAX_REMEMBERED: usize = 512;
/// How long the API server may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// Somebody who proved who he is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct User {
    name: String,
    uid: String,
    groups: Vec<String>,
}

impl User {
    /// The subject of a certificate that was verified already.
    pub(super) fn of_certificate(certificate: &CertificateDer<'_>) -> Option<User> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let name = parsed.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = parsed.subject().iter_organization().filter_map(|o| Some(o.as_str().ok()?.to_owned()));
        Some(User { name, uid: String::new(), groups: groups.collect() })
    }

    fn is_master(&self) -> bool {
        self.groups.iter().any(|group| group == api::well_known::GROUP_MASTERS)
    }
}

/// The client of a connection.
#[derive(Clone)]
pub(super) struct Peer {
    /// Whose certificate he showed, if he showed one.
    pub(super) user: Option<Arc<User>>,
    /// Himself.
    pub(super) guest: Arc<Guest>,
}

/// What the API server said, for a while.
#[derive(Default)]
pub(super) struct Words {
    tokens: Mutex<Remembered<[u8; 32], Option<Arc<User>>>>,
    rights: Mutex<Remembered<(User, Attributes), bool>>,
}

struct Remembered<K, V>(HashMap<K, (Instant, V)>);

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Remembered(HashMap::new())
    }
}

impl<K: std::hash::Hash + Eq + Clone, V: Clone> Remembered<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        self.0.get(key).filter(|(until, _)| *until > Instant::now()).map(|(_, value)| value.clone())
    }

    fn put(&mut self, key: K, value: V, lasts: Duration) {
        let now = Instant::now();
        if self.0.len() >= MAX_REMEMBERED {
            self.0.retain(|_, (until, _)| *until > now);
            let oldest = self.0.iter().min_by_key(|(_, (until, _))| *until).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest.filter(|_| self.0.len() >= MAX_REMEMBERED) {
                self.0.remove(&oldest);
            }
        }
        self.0.insert(key, (now + lasts, value));
    }
}

/// What a request does, in the API's terms: a verb on a subresource of the node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Attributes {
    verb: &'static str,
    subresource: &'static str,
}

/// The rights any one of which a request needs, the narrowest first (`KubeletFineGrainedAuthz`).
pub(super) fn needed(method: &Method, path: &str) -> Vec<Attributes> {
    let verb = match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    };
    let below = |root: &str| path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
    let subresources: &[&'static str] = match () {
        () if below("/stats") => &["stats"],
        () if below("/metrics") => &["metrics"],
        () if below("/logs") => &["log"],
        () if below("/pods") || below("/runningpods") => &["pods", "proxy"],
        () if below("/healthz") => &["healthz", "proxy"],
        () if below("/configz") => &["configz", "proxy"],
        () => &["proxy"],
    };
    subresources.iter().map(|subresource| Attributes { verb, subresource }).collect()
}

/// Lets a request through, or refuses it.
pub(super) async fn guard(State(shared): State<Shared>, mut request: Request, next: Next) -> Response {
    // A session that outlives its connection is not to keep the connection's place.
    let peer = request.extensions_mut().remove::<Peer>();
    let shown = Shown::by(&request, peer.as_ref());
    let user = match shown.user(&shared).await {
        Ok(Some(user)) => user,
        Ok(None) => return plain(StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()),
        Err(error) => return plain(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot authenticate: {error}")),
    };
    if !peer.is_none_or(|peer| peer.guest.is_known()) {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "too many connections".to_owned());
    }
    let needed = needed(request.method(), request.uri().path());
    match may(&shared, &user, &needed).await {
        Ok(true) => next.run(request).await,
        Ok(false) => plain(StatusCode::FORBIDDEN, forbidden(&user, &needed)),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot authorize: {error}")),
    }
}

fn forbidden(user: &User, needed: &[Attributes]) -> String {
    let verb = needed.first().map_or("", |first| first.verb);
    let subresources: Vec<&str> = needed.iter().map(|attributes| attributes.subresource).collect();
    let subresources = subresources.join(" ");
    format!("Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{subresources}])\n", user.name)
}

/// What a client shows to prove who he is.
struct Shown {
    certificate: Option<Arc<User>>,
    token: Option<String>,
}

impl Shown {
    fn by(request: &Request, peer: Option<&Peer>) -> Shown {
        let shown = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = shown.and_then(|shown| shown.strip_prefix("Bearer ")).map(str::trim);
        let token = token.filter(|token| !token.is_empty()).map(str::to_owned);
        Shown { certificate: peer.and_then(|peer| peer.user.clone()), token }
    }

    async fn user(self, shared: &Shared) -> Result<Option<Arc<User>>, String> {
        match (self.certificate, self.token) {
            (Some(user), _) => Ok(Some(user)),
            (None, Some(token)) => whose(shared, &token).await,
            (None, None) => Ok(None),
        }
    }
}

async fn whose(shared: &Shared, token: &str) -> Result<Option<Arc<User>>, String> {
    let mut key = [0; 32];
    key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    if let Some(known) = shared.words.tokens.lock().get(&key) {
        return Ok(known);
    }
    let spec = TokenReviewSpec { token: Some(token.to_owned()), ..TokenReviewSpec::default() };
    let review = TokenReview { spec, ..TokenReview::default() };
    let status = ask(&shared.kubelet.client, &review).await?.status.unwrap_or_default();
    let user = status.user.filter(|_| status.authenticated == Some(true)).map(|user| {
        let groups = user.groups.unwrap_or_default();
        Arc::new(User { name: user.username.unwrap_or_default(), uid: user.uid.unwrap_or_default(), groups })
    });
    shared.words.tokens.lock().put(key, user.clone(), TOKEN_TTL);
    Ok(user)
}

/// Whether one of the rights is the user's.
async fn may(shared: &Shared, user: &User, needed: &[Attributes]) -> Result<bool, String> {
    if user.is_master() {
        return Ok(true);
    }
    for attributes in needed {
        if has(shared, user, attributes).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn has(shared: &Shared, user: &User, attributes: &Attributes) -> Result<bool, String> {
    let key = (user.clone(), attributes.clone());
    if let Some(known) = shared.words.rights.lock().get(&key) {
        return Ok(known);
    }
    let asked = ResourceAttributes {
        verb: Some(attributes.verb.to_owned()),
        version: Some("v1".to_owned()),
        resource: Some("nodes".to_owned()),
        subresource: Some(attributes.subresource.to_owned()),
        name: Some(shared.kubelet.config.node_name.clone()),
        ..ResourceAttributes::default()
    };
    let spec = SubjectAccessReviewSpec {
        user: Some(user.name.clone()),
        uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
        groups: Some(user.groups.clone()),
        resource_attributes: Some(asked),
        ..SubjectAccessReviewSpec::default()
    };
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let allowed = ask(&shared.kubelet.client, &review).await?.status.is_some_and(|status| status.allowed);
    shared.words.rights.lock().put(key, allowed, if allowed { ALLOWED_TTL } else { DENIED_TTL });
    Ok(allowed)
}

/// Puts a question to the API server.
async fn ask<K>(client: &kube::Client, question: &K) -> Result<K, String>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    let answer = tokio::time::timeout(ANSWER_MAX, api.create(&PostParams::default(), question)).await;
    answer.map_err(|_| "the API server does not answer".to_owned())?.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stand_for_subresources_of_the_node() {
        for (method, path, expected) in [
            (Method::GET, "/stats/summary", "get stats"),
            (Method::GET, "/metrics", "get metrics"),
            (Method::GET, "/metrics/resource", "get metrics"),
            (Method::GET, "/metricsx", "get proxy"),
            (Method::GET, "/logs/", "get log"),
            (Method::GET, "/pods", "get pods proxy"),
            (Method::GET, "/healthz", "get healthz proxy"),
            (Method::GET, "/configz", "get configz proxy"),
            (Method::GET, "/containerLogs/ns/p/c", "get proxy"),
            (Method::POST, "/run/ns/p/c", "create proxy"),
            (Method::DELETE, "/images", "delete proxy"),
            (Method::PUT, "/anything", "update proxy"),
        ] {
            let needed = needed(&method, path);
            let subresources: Vec<&str> = needed.iter().map(|attributes| attributes.subresource).collect();
            assert_eq!(format!("{} {}", needed[0].verb, subresources.join(" ")), expected, "{method} {path}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded_and_ends() {
        let mut remembered = Remembered::default();
        for key in 0..MAX_REMEMBERED + 10 {
            remembered.put(key, (), Duration::from_secs(1 + key as u64));
        }
        assert_eq!((remembered.0.len(), remembered.get(&0)), (MAX_REMEMBERED, None), "the first to end went");
        assert_eq!(remembered.get(&(MAX_REMEMBERED + 9)), Some(()));
        tokio::time::advance(Duration::from_secs(10_000)).await;
        assert_eq!(remembered.get(&(MAX_REMEMBERED + 9)), None);
    }
}
