//! What a request asks for: verb, resource, namespace, name, subresource, read from method, path and query.
//!
//! Compare `RequestInfoFactory` in `k8s.io/apiserver/pkg/endpoints/request`.

use api::{Kind, Scope, Subresource};
use http::Method;

use crate::query::{Query, decode};
use crate::status::{ApiError, Subject};

/// The verbs of the API, as authorizers and metrics name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }

    pub(crate) fn is_mutating(self) -> bool {
        !matches!(self, Verb::Get | Verb::List | Verb::Watch)
    }
}

/// A request for a resource, understood.
#[derive(Clone)]
pub(crate) struct RequestInfo {
    pub(crate) verb: Verb,
    pub(crate) kind: &'static Kind,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<Subresource>,
}

impl RequestInfo {
    /// The object the request names (with an empty name for collections).
    pub(crate) fn subject(&self) -> Subject {
        Subject::new(self.kind.info, self.name.as_deref().unwrap_or(""))
    }

    /// The store's key of the object the request names.
    pub(crate) fn key(&self) -> String {
        self.kind.info.registry_key(self.namespace.as_deref(), self.name.as_deref().unwrap_or(""))
    }

    /// Whether the request lasts as long as the client wants: not counted among those in flight.
    pub(crate) fn is_long_running(&self) -> bool {
        self.verb == Verb::Watch || self.subresource == Some(Subresource::Log)
    }
}

/// Path segments below `/api` or `/apis`.
struct Location<'a> {
    group: &'a str,
    version: &'a str,
    watch: bool,
    rest: &'a [&'a str],
}

fn locate<'a>(segments: &'a [&'a str]) -> Option<Location<'a>> {
    let (group, version, rest) = match segments {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    match rest {
        [] => None,
        // The form `/api/v1/watch/pods`, deprecated since 1.11 and still served upstream.
        ["watch", rest @ ..] if !rest.is_empty() => Some(Location { group, version, watch: true, rest }),
        _ => Some(Location { group, version, watch: false, rest }),
    }
}

/// What `method` on `path` asks for; `PathNotFound` when no such resource is served.
pub(crate) fn parse(method: &Method, path: &str, query: &Query) -> Result<RequestInfo, ApiError> {
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let location = locate(&segments).ok_or(ApiError::PathNotFound)?;
    let (namespace, resource, rest) = match location.rest {
        // `/namespaces/x/status` is the namespace's status, `/namespaces/x/pods` are pods in it.
        ["namespaces", _, sub @ ("status" | "finalize")] => (None, "namespaces", vec![location.rest[1], *sub]),
        ["namespaces", namespace, resource, rest @ ..] => (Some(decode(namespace, false)), *resource, rest.to_vec()),
        [resource, rest @ ..] => (None, *resource, rest.to_vec()),
        [] => return Err(ApiError::PathNotFound),
    };
    if let ("", "v1", "bindings", &Method::POST, Some(_), []) =
        (location.group, location.version, resource, method, &namespace, rest.as_slice())
    {
        // The older path of `pods/<name>/binding`; the name is in the body.
        let kind = api::kinds::by_resource("", "v1", "pods").ok_or(ApiError::PathNotFound)?;
        let subresource = Some(Subresource::Binding);
        return Ok(RequestInfo { verb: Verb::Create, kind, namespace, name: None, subresource });
    }
    let kind = api::kinds::by_resource(location.group, location.version, resource).ok_or(ApiError::PathNotFound)?;
    let (name, subresource) = match rest.as_slice() {
        [] => (None, None),
        [name] => (Some(decode(name, false)), None),
        [name, sub] => (Some(decode(name, false)), Some(subresource(kind, sub)?)),
        _ => return Err(ApiError::PathNotFound),
    };
    scope_fits(kind, namespace.as_deref(), name.as_deref())?;
    let watch = location.watch || query.flag("watch");
    let verb = verb(method, name.is_some(), subresource, watch, location.watch)?;
    Ok(RequestInfo { verb, kind, namespace, name, subresource })
}

fn subresource(kind: &Kind, segment: &str) -> Result<Subresource, ApiError> {
    kind.info.subresources.iter().copied().find(|s| s.as_str() == segment).ok_or(ApiError::PathNotFound)
}

/// A namespaced object needs its namespace; a cluster-wide one has none.
fn scope_fits(kind: &Kind, namespace: Option<&str>, name: Option<&str>) -> Result<(), ApiError> {
    match (kind.info.scope, namespace, name) {
        (Scope::Cluster, Some(_), _) | (Scope::Namespaced, None, Some(_)) => Err(ApiError::PathNotFound),
        _ => Ok(()),
    }
}

fn verb(
    method: &Method,
    named: bool,
    subresource: Option<Subresource>,
    watch: bool,
    watch_path: bool,
) -> Result<Verb, ApiError> {
    use Subresource as S;
    let allowed = match (method.as_str(), subresource) {
        ("GET" | "HEAD", None) if watch && (!named || watch_path) => Verb::Watch,
        ("GET" | "HEAD", None) if !named => Verb::List,
        ("GET" | "HEAD", None | Some(S::Status | S::Scale | S::Log | S::Approval)) => Verb::Get,
        ("POST", None) if !named => Verb::Create,
        ("POST", Some(S::Binding)) => Verb::Create,
        ("PUT", None) if named => Verb::Update,
        ("PUT", Some(S::Status | S::Scale | S::Finalize | S::Approval)) => Verb::Update,
        ("PATCH", None) if named => Verb::Patch,
        ("PATCH", Some(S::Status | S::Scale | S::Approval)) => Verb::Patch,
        ("DELETE", None) if named => Verb::Delete,
        ("DELETE", None) => Verb::DeleteCollection,
        _ => return Err(ApiError::MethodNotAllowed),
    };
    Ok(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &str, path: &str) -> Result<String, ApiError> {
        let (path, query) = path.split_once('?').map_or((path, None), |(p, q)| (p, Some(q)));
        let info = parse(&method.parse().unwrap(), path, &Query::parse(query))?;
        let part = |p: &Option<String>| p.clone().unwrap_or("-".into());
        let sub = info.subresource.map_or("-", Subresource::as_str);
        Ok(format!(
            "{} {} {} {} {sub}",
            info.verb.as_str(),
            info.kind.info.plural,
            part(&info.namespace),
            part(&info.name)
        ))
    }

    #[test]
    fn paths_are_understood_as_upstream_does() {
        let cases = [
            ("GET", "/api/v1/configmaps", "list configmaps - - -"),
            ("GET", "/api/v1/configmaps/", "list configmaps - - -"),
            ("GET", "/api/v1/namespaces/a/configmaps?watch=1", "watch configmaps a - -"),
            ("GET", "/api/v1/watch/namespaces/a/configmaps", "watch configmaps a - -"),
            ("GET", "/api/v1/namespaces/a/configmaps/b%3Ac", "get configmaps a b:c -"),
            ("POST", "/api/v1/namespaces/a/configmaps", "create configmaps a - -"),
            ("PUT", "/api/v1/namespaces/a/configmaps/b", "update configmaps a b -"),
            ("DELETE", "/api/v1/namespaces/a/configmaps", "deletecollection configmaps a - -"),
            ("GET", "/api/v1/namespaces/a", "get namespaces - a -"),
            ("PUT", "/api/v1/namespaces/a/finalize", "update namespaces - a finalize"),
            ("PATCH", "/api/v1/nodes/n/status", "patch nodes - n status"),
            ("GET", "/api/v1/namespaces/a/pods/p/log", "get pods a p log"),
            ("POST", "/api/v1/namespaces/a/pods/p/binding", "create pods a p binding"),
            ("GET", "/apis/coordination.k8s.io/v1/leases", "list leases - - -"),
        ];
        for (method, path, expected) in cases {
            assert_eq!(read(method, path).unwrap(), expected, "{method} {path}");
        }
    }

    #[test]
    fn what_is_not_served_is_refused_by_path_or_by_method() {
        for path in
            ["/api/v1/nothings", "/api/v2/pods", "/api/v1/pods/p", "/api/v1/namespaces/a/nodes", "/x", "/api/v1"]
        {
            assert!(matches!(read("GET", path), Err(ApiError::PathNotFound)), "{path}");
        }
        for (method, path) in
            [("POST", "/api/v1/nodes/n"), ("PUT", "/api/v1/nodes"), ("GET", "/api/v1/namespaces/a/pods/p/binding")]
        {
            assert!(matches!(read(method, path), Err(ApiError::MethodNotAllowed)), "{method} {path}");
        }
    }
}
