//! Acting as somebody else, for who may: `kubectl --as` (`k8s.io/apiserver/pkg/endpoints/filters/impersonation`).

use std::collections::BTreeMap;
use std::sync::Arc;

use api::well_known::{GROUP_AUTHENTICATED, GROUP_UNAUTHENTICATED, USER_ANONYMOUS};
use http::HeaderMap;

use crate::authz::{self, Attributes, Resource, Target};
use crate::query::decode;
use crate::server::Shared;
use crate::status::ApiError;
use crate::user::User;

const PREFIX: &str = "impersonate-";
const EXTRA_PREFIX: &str = "impersonate-extra-";
const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
/// How many values of such headers are believed at most; each one is asked about.
const MAX_VALUES: usize = 100;

/// Who a request wants to be, as its headers say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wish {
    name: String,
    groups: Vec<String>,
    uid: Option<String>,
    extra: BTreeMap<String, Vec<String>>,
}

/// The identity `user` acts under, if the headers ask for another and he may. The headers end here.
pub(crate) async fn impersonate(
    shared: &Arc<Shared>,
    user: &User,
    headers: &mut HeaderMap,
) -> Result<Option<User>, ApiError> {
    if !headers.keys().any(|name| name.as_str().starts_with(PREFIX)) {
        return Ok(None);
    }
    let Some(wish) = wish(headers)? else { return Ok(None) };
    for target in wish.targets() {
        let attributes = Attributes { user, verb: "impersonate", target: Target::Resource(target) };
        authz::authorize(shared, &attributes).await?;
    }
    let names: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with(PREFIX)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    Ok(Some(wish.user()))
}

fn wish(headers: &HeaderMap) -> Result<Option<Wish>, ApiError> {
    let mut wish = Wish::default();
    let mut values = 0;
    for (name, value) in headers.iter().filter(|(name, _)| name.as_str().starts_with(PREFIX)) {
        let bad = |why: &str| ApiError::BadRequest(format!("the header {name} {why}"));
        let value = value.to_str().map_err(|_| bad("is no text"))?.to_owned();
        values += 1;
        if values > MAX_VALUES {
            return Err(bad("is one too many"));
        }
        match name.as_str() {
            "impersonate-user" => wish.name = value,
            "impersonate-group" => wish.groups.push(value),
            "impersonate-uid" => wish.uid = Some(value).filter(|uid| !uid.is_empty()),
            other => match other.strip_prefix(EXTRA_PREFIX).filter(|key| !key.is_empty()) {
                Some(key) => wish.extra.entry(decode(key, false).to_lowercase()).or_default().push(value),
                None => return Err(bad("is not known")),
            },
        }
    }
    match (wish.name.is_empty(), wish == Wish::default()) {
        (_, true) => Ok(None),
        (true, false) => Err(ApiError::BadRequest("groups, uid and extra are impersonated with a user only".into())),
        (false, false) => Ok(Some(wish)),
    }
}

/// Namespace and name of a service account, from its user name.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

impl Wish {
    /// What one must be allowed to impersonate for it.
    fn targets(&self) -> Vec<Resource<'_>> {
        let of = |group, resource, subresource, name: &'_ str| Resource {
            group,
            resource,
            subresource,
            name: name.to_owned().into(),
            ..Resource::default()
        };
        const AUTHENTICATION: &str = "authentication.k8s.io";
        let mut targets = vec![match service_account(&self.name) {
            Some((namespace, name)) => Resource { namespace, ..of("", "serviceaccounts", "", name) },
            None => of("", "users", "", &self.name),
        }];
        targets.extend(self.groups.iter().map(|group| of("", "groups", "", group)));
        targets.extend(self.uid.iter().map(|uid| of(AUTHENTICATION, "uids", "", uid)));
        for (key, values) in &self.extra {
            targets.extend(values.iter().map(|value| of(AUTHENTICATION, "userextras", key.as_str(), value)));
        }
        targets
    }

    fn user(self) -> User {
        let Wish { name, mut groups, uid, extra } = self;
        if let Some((namespace, _)) = service_account(&name).filter(|_| groups.is_empty()) {
            groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        }
        let has = |group: &str| groups.iter().any(|g| g == group);
        let everyone = if name == USER_ANONYMOUS { GROUP_UNAUTHENTICATED } else { GROUP_AUTHENTICATED };
        if !has(everyone) && !has(GROUP_UNAUTHENTICATED) {
            groups.push(everyone.to_owned());
        }
        User { name, groups, uid, extra }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn headers_say_who_one_wants_to_be() {
        type Headers = &'static [(&'static str, &'static str)];
        let cases: [(Headers, &str, &[&str]); 5] = [
            (&[("impersonate-user", "bob")], "bob", &["system:authenticated"]),
            (
                &[("impersonate-user", "bob"), ("impersonate-group", "a"), ("impersonate-group", "b")],
                "bob",
                &["a", "b", "system:authenticated"],
            ),
            (&[("impersonate-user", "system:anonymous")], "system:anonymous", &["system:unauthenticated"]),
            (
                &[("impersonate-user", "system:serviceaccount:ns:sa")],
                "system:serviceaccount:ns:sa",
                &["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"],
            ),
            (
                &[("impersonate-user", "b"), ("impersonate-group", "system:unauthenticated")],
                "b",
                &["system:unauthenticated"],
            ),
        ];
        for (pairs, name, groups) in cases {
            let user = wish(&headers(pairs)).unwrap().unwrap().user();
            assert_eq!((&*user.name, user.groups), (name, groups.iter().map(|g| (*g).to_owned()).collect()));
        }
        assert!(wish(&headers(&[("impersonate-group", "a")])).is_err(), "a group alone is nobody");
        assert!(wish(&headers(&[("impersonate-user", "a"), ("impersonate-hat", "b")])).is_err());
        let wish = wish(&headers(&[
            ("impersonate-user", "a"),
            ("impersonate-uid", "7"),
            ("impersonate-extra-acme.com%2fproject", "x"),
        ]));
        let wish = wish.unwrap().unwrap();
        let targets: Vec<String> =
            wish.targets().iter().map(|t| format!("{}/{}/{}={}", t.group, t.resource, t.subresource, t.name)).collect();
        assert_eq!(
            targets,
            ["/users/=a", "authentication.k8s.io/uids/=7", "authentication.k8s.io/userextras/acme.com/project=x"]
        );
    }
}
