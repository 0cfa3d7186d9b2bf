//! What the server serves, and what users call it. Read once per run.

use serde_json::Value;

use crate::Error;
use crate::object::group_version;
use crate::session::{Session, encode};

/// Asks for all groups in one answer; a server that does not know how answers in the old way.
const ACCEPT_AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// One resource of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// API group, empty for core.
    pub group: String,
    /// Version in the group.
    pub version: String,
    /// `pods`.
    pub plural: String,
    /// `pod`.
    pub singular: String,
    /// `Pod`.
    pub kind: String,
    /// `po`.
    pub short_names: Vec<String>,
    /// `all`.
    pub categories: Vec<String>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// `get`, `list`, …
    pub verbs: Vec<String>,
}

/// Everything the server serves, in its order.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// The resources, subresources left out.
    pub resources: Vec<Resource>,
    /// Every `apiVersion`.
    pub versions: Vec<String>,
}

impl Resource {
    /// A namespaced resource of the core group that every server serves, for verbs that need to ask for no other.
    pub fn core_namespaced(plural: &str, singular: &str, kind: &str) -> Resource {
        resource("", "v1", [&plural.into(), &singular.into()], kind, true, &Value::Null)
    }

    /// `v1` or `discovery.k8s.io/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods` or `endpointslices.discovery.k8s.io`.
    pub fn qualified_plural(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `pod` or `endpointslice.discovery.k8s.io`: what messages about an object begin with.
    pub fn qualified_singular(&self) -> String {
        if self.group.is_empty() { self.singular.clone() } else { format!("{}.{}", self.singular, self.group) }
    }

    /// `pod/web`.
    pub fn name_of(&self, name: &str) -> String {
        format!("{}/{name}", self.qualified_singular())
    }

    /// The path of the collection (`namespace`: of one namespace), or of one object.
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let mut path = format!("{root}/{}", self.api_version());
        if let Some(namespace) = namespace.filter(|_| self.namespaced) {
            path.push_str(&format!("/namespaces/{}", encode(namespace)));
        }
        path.push_str(&format!("/{}", self.plural));
        if let Some(name) = name {
            path.push_str(&format!("/{}", encode(name)));
        }
        path
    }

    /// Whether `name` means this resource.
    fn is_called(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.plural == name
            || self.singular == name
            || self.kind.to_lowercase() == name
            || self.short_names.contains(&name)
    }
}

impl Discovery {
    /// Asks the server.
    pub async fn load(session: &Session) -> Result<Discovery, Error> {
        let mut found = Discovery::default();
        for root in ["/api", "/apis"] {
            let answer = session.get_as(root, ACCEPT_AGGREGATED).await?;
            if answer["kind"] == "APIGroupDiscoveryList" {
                found.add_aggregated(&answer);
                continue;
            }
            for version in legacy_versions(&answer) {
                let list = session.get(&format!("{root}/{version}")).await?;
                found.add_legacy(&version, &list);
            }
        }
        Ok(found)
    }

    /// The resource users call `name`: plural, singular, kind or short name, with `.group` or `.version.group` behind.
    pub fn resolve(&self, name: &str) -> Result<&Resource, Error> {
        let (bare, qualifier) = name.split_once('.').unwrap_or((name, ""));
        let fits = |r: &&Resource| {
            let versioned = format!("{}.{}", r.version, r.group);
            qualifier.is_empty() || r.group.starts_with(qualifier) || versioned.trim_end_matches('.') == qualifier
        };
        let mut candidates = self.resources.iter().filter(fits);
        candidates
            .clone()
            .find(|r| r.plural == bare.to_lowercase())
            .or_else(|| candidates.find(|r| r.is_called(bare)))
            .ok_or_else(|| Error::message(format!("the server doesn't have a resource type \"{name}\"")))
    }

    /// The resources a word means: one, or all of a category.
    pub fn resolve_all(&self, name: &str) -> Result<Vec<&Resource>, Error> {
        let category: Vec<&Resource> =
            self.resources.iter().filter(|r| r.categories.iter().any(|c| c == name)).collect();
        if category.is_empty() { self.resolve(name).map(|r| vec![r]) } else { Ok(category) }
    }

    /// The resource of objects with this `apiVersion` and `kind`.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Result<&Resource, Error> {
        let found = self.resources.iter().find(|r| r.kind == kind && r.api_version() == api_version);
        found.ok_or_else(|| {
            Error::message(format!(
                "resource mapping not found: no matches for kind \"{kind}\" in version \"{api_version}\"\nensure CRDs are \
                 installed first"
            ))
        })
    }

    fn add_aggregated(&mut self, answer: &Value) {
        for group in answer["items"].as_array().into_iter().flatten() {
            let name = group["metadata"]["name"].as_str().unwrap_or("");
            for version in group["versions"].as_array().into_iter().flatten() {
                let number = version["version"].as_str().unwrap_or("");
                self.add_version(name, number);
                for r in version["resources"].as_array().into_iter().flatten() {
                    let kind = r["responseKind"]["kind"].as_str().unwrap_or("");
                    self.add(resource(
                        name,
                        number,
                        [&r["resource"], &r["singularResource"]],
                        kind,
                        r["scope"] == "Namespaced",
                        r,
                    ));
                }
            }
        }
    }

    fn add_legacy(&mut self, api_version: &str, list: &Value) {
        let (group, version) = group_version(api_version);
        self.add_version(group, version);
        for r in list["resources"].as_array().into_iter().flatten() {
            let kind = r["kind"].as_str().unwrap_or("");
            self.add(resource(group, version, [&r["name"], &r["singularName"]], kind, r["namespaced"] == true, r));
        }
    }

    fn add_version(&mut self, group: &str, version: &str) {
        self.versions.push(if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") });
    }

    fn add(&mut self, resource: Resource) {
        if !resource.plural.contains('/') && !resource.plural.is_empty() {
            self.resources.push(resource);
        }
    }
}

/// The `apiVersion`s in an answer of the old sort.
fn legacy_versions(answer: &Value) -> Vec<String> {
    let strings = |value: &Value| {
        value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let groups = answer["groups"].as_array().into_iter().flatten();
    let grouped = groups.flat_map(|g| g["versions"].as_array().into_iter().flatten());
    let grouped = grouped.filter_map(|v| v["groupVersion"].as_str().map(str::to_owned));
    strings(&answer["versions"]).into_iter().chain(grouped).collect()
}

fn resource(
    group: &str,
    version: &str,
    [plural, singular]: [&Value; 2],
    kind: &str,
    namespaced: bool,
    rest: &Value,
) -> Resource {
    let strings = |key: &str| {
        rest[key].as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let singular = Some(text(singular)).filter(|s| !s.is_empty()).unwrap_or_else(|| kind.to_lowercase());
    Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: text(plural),
        singular,
        kind: kind.to_owned(),
        short_names: strings("shortNames"),
        categories: strings("categories"),
        namespaced,
        verbs: strings("verbs"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    /// What our server serves of the most common.
    pub(crate) fn sample() -> Discovery {
        let row = |name: &str, singular: &str, kind: &str, short: &[&str], namespaced: bool, all: bool| {
            let categories = if all { json!(["all"]) } else { json!([]) };
            json!({"name": name, "singularName": singular, "kind": kind, "shortNames": short, "namespaced": namespaced,
                   "categories": categories, "verbs": ["get", "list", "watch", "create", "delete"]})
        };
        let mut discovery = Discovery::default();
        let core = [
            row("namespaces", "namespace", "Namespace", &["ns"], false, false),
            row("nodes", "node", "Node", &["no"], false, false),
            row("pods", "pod", "Pod", &["po"], true, true),
            row("pods/log", "", "Pod", &[], true, false),
            row("replicationcontrollers", "replicationcontroller", "ReplicationController", &["rc"], true, true),
            row("services", "service", "Service", &["svc"], true, true),
            row("configmaps", "configmap", "ConfigMap", &["cm"], true, false),
        ];
        discovery.add_legacy("v1", &json!({"resources": core}));
        let slices = row("endpointslices", "endpointslice", "EndpointSlice", &[], true, false);
        discovery.add_legacy("discovery.k8s.io/v1", &json!({"resources": [slices]}));
        discovery
    }

    #[test]
    fn resources_are_known_by_all_their_names() {
        let discovery = sample();
        for name in ["po", "pod", "pods", "Pod", "PODS"] {
            assert_eq!(discovery.resolve(name).unwrap().plural, "pods", "{name}");
        }
        for name in ["endpointslices", "endpointslice.discovery.k8s.io", "endpointslices.v1.discovery.k8s.io"] {
            assert_eq!(discovery.resolve(name).unwrap().plural, "endpointslices", "{name}");
        }
        assert_eq!(discovery.resolve_all("all").unwrap().len(), 3);
        let error = discovery.resolve("nonsense").unwrap_err().to_string();
        assert_eq!(error, "error: the server doesn't have a resource type \"nonsense\"");
    }

    #[test]
    fn paths_follow_scope_and_group() {
        let discovery = sample();
        let path = |resource: &str, namespace, name| discovery.resolve(resource).unwrap().path(namespace, name);
        assert_eq!(path("pods", Some("default"), Some("web")), "/api/v1/namespaces/default/pods/web");
        assert_eq!(path("pods", None, None), "/api/v1/pods");
        assert_eq!(path("nodes", Some("default"), Some("box1")), "/api/v1/nodes/box1");
        let slices = path("endpointslices", Some("default"), None);
        assert_eq!(slices, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices");
    }

    #[test]
    fn both_answers_of_discovery_say_the_same() {
        let aggregated = json!({"items": [{"metadata": {"name": ""}, "versions": [{"version": "v1", "resources": [
            {"resource": "pods", "singularResource": "pod", "scope": "Namespaced", "responseKind": {"kind": "Pod"},
             "shortNames": ["po"], "categories": ["all"], "verbs": ["get", "list", "watch", "create", "delete"]}]}]}]});
        let mut discovery = Discovery::default();
        discovery.add_aggregated(&aggregated);
        assert_eq!(discovery.resources[0], *sample().resolve("pods").unwrap());
    }
}
