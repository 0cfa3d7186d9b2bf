//! What a request asks for: verb, resource, namespace, name, subresource, read from method, path and query.
//!
//! Compare `RequestInfoFactory` in `k8s.io/apiserver/pkg/endpoints/request`.

use api::{Kind, Scope, Subresource, Verb};
use http::Method;

use crate::query::{Query, decode};
use crate::status::{ApiError, Subject};

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
        self.verb == Verb::Watch || self.subresource == Some(Subresource::Log) || self.connects()
    }

    /// Whether the request passes through to a node, pod or service.
    pub(crate) fn connects(&self) -> bool {
        self.subresource.is_some_and(Subresource::connects)
    }
}

/// Path segments below `/api` or `/apis`.
struct Location<'a> {
    group: &'a str,
    version: &'a str,
    watch: bool,
    rest: &'a [&'a str],
}

/// The segments of a path. An empty one within it is of no resource; what follows `proxy` is not ours to judge.
fn segments(path: &str) -> Vec<&str> {
    path.strip_prefix('/').unwrap_or(path).trim_end_matches('/').split('/').collect()
}

fn locate<'a>(segments: &'a [&'a str]) -> Option<Location<'a>> {
    let (group, version, rest) = match segments {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    if segments.iter().take_while(|segment| **segment != "proxy").any(|segment| segment.is_empty()) {
        return None;
    }
    match rest {
        [] => None,
        // The form `/api/v1/watch/pods`, deprecated since 1.11 and still served upstream.
        ["watch", rest @ ..] if !rest.is_empty() => Some(Location { group, version, watch: true, rest }),
        _ => Some(Location { group, version, watch: false, rest }),
    }
}

/// Whether `path` is a resource's: below a version of a group.
pub(crate) fn is_resource(path: &str) -> bool {
    locate(&segments(path)).is_some()
}

/// What `method` on `path` asks for; `PathNotFound` when no such resource is served.
pub(crate) fn parse(method: &Method, path: &str, query: &Query) -> Result<RequestInfo, ApiError> {
    let segments = segments(path);
    let location = locate(&segments).ok_or(ApiError::PathNotFound)?;
    let (namespace, resource, rest) = match location.rest {
        // `/namespaces/x/status` is the namespace's status, `/namespaces/x/pods` are pods in it.
        ["namespaces", _, sub @ ("status" | "finalize")] => (None, "namespaces", vec![location.rest[1], *sub]),
        ["namespaces", namespace, resource, rest @ ..] => (Some(decode(namespace, false)), *resource, rest.to_vec()),
        [resource, rest @ ..] => (None, *resource, rest.to_vec()),
        [] => return Err(ApiError::PathNotFound),
    };
    let kind = api::kinds::by_resource(location.group, location.version, resource).ok_or(ApiError::PathNotFound)?;
    let (name, subresource) = match rest.as_slice() {
        [] => (None, None),
        [name] => (Some(decode(name, false)), None),
        [name, sub] => (Some(decode(name, false)), Some(subresource(kind, sub)?)),
        // What follows is for whoever is behind the proxy to understand.
        [name, "proxy", ..] => (Some(decode(name, false)), Some(subresource(kind, "proxy")?)),
        _ => return Err(ApiError::PathNotFound),
    };
    scope_fits(kind, namespace.as_deref(), name.as_deref())?;
    // A slash is one, however it is written.
    if [&namespace, &name].into_iter().flatten().any(|part| part.contains('/')) {
        return Err(ApiError::PathNotFound);
    }
    let watch = location.watch || query.flag("watch");
    let (named, below) = (name.is_some(), subresource.is_some());
    if location.watch && below {
        return Err(ApiError::PathNotFound);
    }
    let allowed = subresource.map_or(kind.info.verbs, |s| s.info().verbs);
    let is_allowed = |v: Verb| allowed.contains(&v) && (named || is_for_all(kind, namespace.as_deref(), v));
    if !["GET", "POST", "PUT", "PATCH", "DELETE"].iter().filter_map(|m| verb(m, named, below)).any(is_allowed) {
        return Err(ApiError::PathNotFound);
    }
    let verb = match verb(method.as_str(), named, below) {
        // Whoever is behind a proxy may know methods that objects do not.
        None if subresource == Some(Subresource::Proxy) && matches!(method.as_str(), "HEAD" | "OPTIONS") => {
            Some(Verb::Get)
        }
        Some(Verb::Get | Verb::List) if watch && !below && (!named || location.watch) => Some(Verb::Watch),
        // The deprecated form is for watches only.
        Some(_) if location.watch => None,
        verb => verb,
    };
    let verb = verb.filter(|v| is_allowed(*v)).ok_or(ApiError::MethodNotAllowed)?;
    Ok(RequestInfo { verb, kind, namespace, name, subresource })
}

/// What a request for something that is not served asks for, by its path alone: whoever may not do it is told that, and
/// not what is there.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) verb: &'static str,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: String,
    pub(crate) resource: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
    pub(crate) is_collection: bool,
}

impl Asked {
    /// Of a path that is a resource's. Compare `NewRequestInfo` upstream: other methods than these have an empty verb.
    pub(crate) fn of(method: &Method, path: &str, query: &Query) -> Asked {
        let segments = segments(path);
        let Some(location) = locate(&segments) else { return Asked::default() };
        let (namespace, parts) = match location.rest {
            ["namespaces", namespace, "status" | "finalize", ..] | ["namespaces", namespace] => {
                (*namespace, location.rest)
            }
            ["namespaces", namespace, parts @ ..] => (*namespace, parts),
            parts => ("", parts),
        };
        let part = |at: usize| parts.get(at).map(|part| decode(part, false)).unwrap_or_default();
        let is_collection = parts.len() < 2;
        let verb = match method.as_str() {
            _ if location.watch => "watch",
            "GET" | "HEAD" if is_collection && query.flag("watch") => "watch",
            "GET" | "HEAD" => {
                if is_collection {
                    "list"
                } else {
                    "get"
                }
            }
            "POST" => "create",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => {
                if is_collection {
                    "deletecollection"
                } else {
                    "delete"
                }
            }
            _ => "",
        };
        Asked {
            verb,
            group: location.group.to_owned(),
            version: location.version.to_owned(),
            namespace: decode(namespace, false),
            resource: part(0),
            name: part(1),
            subresource: part(2),
            is_collection,
        }
    }
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

/// What lies in namespaces is read across them, but made and deleted in one at a time (`registerResourceHandlers` upstream).
fn is_for_all(kind: &Kind, namespace: Option<&str>, verb: Verb) -> bool {
    kind.info.scope == Scope::Cluster || namespace.is_some() || matches!(verb, Verb::List | Verb::Watch)
}

/// The verb a method stands for on a collection, on an object, or `below` one. Of HEAD upstream knows nothing.
fn verb(method: &str, named: bool, below: bool) -> Option<Verb> {
    match method {
        "GET" => Some(if named { Verb::Get } else { Verb::List }),
        "POST" => (below || !named).then_some(Verb::Create),
        "PUT" => named.then_some(Verb::Update),
        "PATCH" => named.then_some(Verb::Patch),
        "DELETE" => Some(if named { Verb::Delete } else { Verb::DeleteCollection }),
        _ => None,
    }
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
            ("POST", "/api/v1/namespaces/a/bindings", "create bindings a - -"),
            ("GET", "/api/v1/namespaces/a/pods/p/exec?command=ls", "get pods a p exec"),
            ("POST", "/api/v1/namespaces/a/pods/p/portforward", "create pods a p portforward"),
            ("PUT", "/api/v1/namespaces/a/pods/proxy/proxy/a//b/", "update pods a proxy proxy"),
            ("OPTIONS", "/api/v1/namespaces/a/services/https:s:1/proxy/x", "get services a https:s:1 proxy"),
            ("HEAD", "/api/v1/namespaces/a/pods/p/proxy//x", "get pods a p proxy"),
            ("DELETE", "/api/v1/nodes/n:10250/proxy", "delete nodes - n:10250 proxy"),
        ];
        for (method, path, expected) in cases {
            assert_eq!(read(method, path).unwrap(), expected, "{method} {path}");
        }
    }

    #[test]
    fn what_is_not_served_is_refused_by_path_or_by_method() {
        for path in [
            "/api/v1/proxy/nodes/n",
            "/api/v1/nothings",
            "/api/v2/pods",
            "/api/v1/pods/p",
            "/api/v1/namespaces/a/nodes",
            "/api/v1/namespaces/a/bindings/b",
            "/api/v1/bindings",
            "/api/v1/watch/namespaces/a/pods/p/status",
            "/api/v1//pods",
            "/api/v1/namespaces/a/pods/p%2Fq",
            "/api/v1/namespaces/a%2Fb/pods",
            "//api/v1/pods",
            "/x",
            "/api/v1",
        ] {
            assert!(matches!(read("GET", path), Err(ApiError::PathNotFound)), "{path}");
        }
        for (method, path) in [
            ("POST", "/api/v1/nodes/n"),
            ("PUT", "/api/v1/nodes"),
            ("GET", "/api/v1/namespaces/a/pods/p/binding"),
            ("DELETE", "/api/v1/namespaces/a/pods/p/status"),
            ("DELETE", "/api/v1/namespaces"),
            ("PUT", "/api/v1/namespaces/a/pods/p/exec"),
            ("GET", "/api/v1/namespaces/a/bindings"),
            ("GET", "/api/v1/namespaces/a/bindings?watch=1"),
            ("HEAD", "/api/v1/namespaces/a"),
            ("DELETE", "/api/v1/watch/namespaces/a"),
            ("POST", "/api/v1/pods"),
            ("POST", "/api/v1/watch/namespaces/a/pods"),
            ("DELETE", "/api/v1/watch/namespaces/a/pods/p"),
            ("DELETE", "/api/v1/configmaps"),
        ] {
            assert!(matches!(read(method, path), Err(ApiError::MethodNotAllowed)), "{method} {path}");
        }
    }

    #[test]
    fn what_is_not_served_is_asked_for_all_the_same() {
        for (method, path, expected) in [
            ("GET", "/api/v1/namespaces/a/foos", "list foos.v1. a  "),
            ("HEAD", "/api/v1/foos?watch=1", "watch foos.v1.   "),
            ("GET", "/api/v1/namespaces/a/pods/p/foo/bar", "get pods.v1. a p foo"),
            ("POST", "/apis/g/v2/foos/x", "create foos.v2.g  x "),
            ("PUT", "/api/v1/namespaces", "update namespaces.v1.   "),
            ("DELETE", "/api/v1/namespaces", "deletecollection namespaces.v1.   "),
            ("POST", "/api/v1/namespaces/a", "create namespaces.v1. a a "),
            ("GET", "/api/v1/namespaces/a/status/x", "get namespaces.v1. a a status"),
            ("POST", "/api/v1/watch/namespaces/a/pods", "watch pods.v1. a  "),
            ("OPTIONS", "/api/v1/nodes/n%3A1", " nodes.v1.  n:1 "),
        ] {
            let (path, query) = path.split_once('?').map_or((path, None), |(p, q)| (p, Some(q)));
            let asked = Asked::of(&method.parse().unwrap(), path, &Query::parse(query));
            let Asked { verb, group, version, namespace, resource, name, subresource, .. } = asked;
            let told = format!("{verb} {resource}.{version}.{group} {namespace} {name} {subresource}");
            assert_eq!(told, expected, "{method} {path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_path_is_understood_or_refused(
            method in "GET|HEAD|POST|PUT|PATCH|DELETE|[A-Z]{1,8}",
            parts in proptest::collection::vec("api|apis|v1|namespaces|watch|pods|nodes|status|proxy|rbac.authorization.k8s.io|roles|%2[fF]|%|%zz|\\.\\.|[a-z%./]{0,6}", 0..9),
            query in "[a-z=&%+]{0,20}|watch=(1|true|0|false)",
        ) {
            let (path, method) = (format!("/{}", parts.join("/")), method.parse().unwrap());
            let parsed = parse(&method, &path, &Query::parse(Some(&query)));
            proptest::prop_assert!(is_resource(&path) || parsed.is_err());
            if let Ok(info) = parsed {
                proptest::prop_assert!(info.key().starts_with(&info.kind.info.registry_prefix()));
                proptest::prop_assert_eq!(info.namespace.is_some() && info.kind.info.scope == Scope::Cluster, false);
            }
        }

        #[test]
        fn what_is_escaped_comes_back(text in "\\PC{0,30}", odd in "[%a-f0-9+]{0,20}") {
            proptest::prop_assert_eq!(&decode(&crate::query::encode(&text), true), &text);
            decode(&odd, true);
        }
    }
}
