//! What somebody wants to do, as authorizers see it: from a request, or from a review that asks about one.

use std::borrow::Cow;

use api::Verb;
use api::rbac::ResourceRequest;
use api::selector::FieldSelector;

use crate::query::Query;
use crate::request::{Asked, RequestInfo};
use crate::status::{ApiError, Subject};
use crate::user::User;

/// Who, and what. Compare `authorizer.Attributes` in `k8s.io/apiserver`.
pub(crate) struct Attributes<'a> {
    pub(crate) user: &'a User,
    pub(crate) verb: &'a str,
    pub(crate) target: Target<'a>,
}

/// Upon what.
pub(crate) enum Target<'a> {
    Resource(Resource<'a>),
    /// A path that is no resource.
    Path(&'a str),
}

/// A resource. Empty texts stand for what a request does not have.
#[derive(Default)]
pub(crate) struct Resource<'a> {
    pub(crate) group: &'a str,
    pub(crate) version: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    /// The one object it is about: by its URL, or by `fieldSelector=metadata.name=x`.
    pub(crate) name: Cow<'a, str>,
    pub(crate) fields: Option<FieldSelector>,
}

impl<'a> Attributes<'a> {
    pub(crate) fn of_request(user: &'a User, info: &'a RequestInfo, query: &Query) -> Attributes<'a> {
        let kind = info.kind.info;
        let selects = matches!(info.verb, Verb::List | Verb::Watch | Verb::DeleteCollection);
        let fields = selected(query, selects);
        let name = one_name(info.name.as_deref(), fields.as_ref().filter(|_| info.verb != Verb::DeleteCollection));
        // A namespace is in itself: who may read namespaces in one may read that one.
        let is_namespace = kind.group.is_empty() && kind.plural == "namespaces";
        let namespace = if is_namespace { info.name.as_deref() } else { info.namespace.as_deref() };
        let resource = Resource {
            group: kind.group,
            version: kind.version,
            resource: kind.plural,
            subresource: info.subresource.map_or("", api::Subresource::as_str),
            namespace: namespace.unwrap_or(""),
            name,
            fields,
        };
        Attributes { user, verb: info.verb.as_str(), target: Target::Resource(resource) }
    }

    /// Of a request for something that is not served.
    pub(crate) fn of_asked(user: &'a User, asked: &'a Asked, query: &Query) -> Attributes<'a> {
        let fields = selected(query, matches!(asked.verb, "list" | "watch" | "deletecollection"));
        let named_by = fields.as_ref().filter(|_| asked.verb != "deletecollection");
        let name = one_name(Some(&*asked.name).filter(|_| !asked.is_collection), named_by);
        let resource = Resource {
            group: &asked.group,
            version: &asked.version,
            resource: &asked.resource,
            subresource: &asked.subresource,
            namespace: &asked.namespace,
            name,
            fields,
        };
        Attributes { user, verb: asked.verb, target: Target::Resource(resource) }
    }

    pub(crate) fn of_path(user: &'a User, verb: &'a str, path: &'a str) -> Attributes<'a> {
        Attributes { user, verb, target: Target::Path(path) }
    }

    /// The answer to somebody who may not, in upstream's words (`responsewriters.Forbidden`).
    pub(crate) fn forbidden(&self, reason: &str) -> ApiError {
        let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let target = match &self.target {
            Target::Resource(target) => target,
            Target::Path(path) => {
                let (user, verb) = (self.user.name.clone(), self.verb.to_owned());
                return ApiError::ForbiddenPath { user, verb, path: format!("{path:?}{because}") };
            }
        };
        let resource = match target.subresource {
            "" => target.resource.to_owned(),
            below => format!("{}/{below}", target.resource),
        };
        let place = match target.namespace {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        let (user, verb, group) = (&self.user.name, self.verb, target.group);
        let message =
            format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {place}{because}");
        ApiError::Forbidden(Subject::named(target.group, target.resource, &target.name), message)
    }
}

fn selected(query: &Query, selects: bool) -> Option<FieldSelector> {
    query.get("fieldSelector").filter(|_| selects).and_then(|text| FieldSelector::parse(text).ok())
}

/// The one object it is about. What is deleted by a selector is not one object, whatever that names.
fn one_name<'a>(in_path: Option<&'a str>, fields: Option<&FieldSelector>) -> Cow<'a, str> {
    let selected = || fields.and_then(|f| f.exact_match("metadata.name")).map(str::to_owned);
    in_path.map_or_else(|| selected().map_or(Cow::Borrowed(""), Cow::Owned), Cow::Borrowed)
}

impl Resource<'_> {
    /// As rules of roles see it.
    pub(crate) fn asked<'a>(&'a self, verb: &'a str) -> ResourceRequest<'a> {
        let Resource { group, resource, subresource, name, .. } = self;
        ResourceRequest { verb, group, resource, subresource, name }
    }

    /// The value that the field selector demands of a field.
    pub(super) fn exact_field(&self, field: &str) -> Option<&str> {
        self.fields.as_ref().and_then(|f| f.exact_match(field))
    }
}
