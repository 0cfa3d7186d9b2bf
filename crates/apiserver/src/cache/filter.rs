//! Which objects of a kind a request wants: namespace, labels, fields.

use api::selector::{FieldRequirement, FieldSelector, Selector};
use api::{KindInfo, Scope};

use super::entry::Selectable;
use crate::query::Query;
use crate::status::ApiError;

/// A field that may be asked for and never has a value: upstream accepts its name and leaves it out of the pod's fields
/// (`ToSelectableFields` in `pkg/registry/core/pod/strategy.go`).
const NEVER_SET: &str = "status.podIPs";

/// A request's selection.
#[derive(Debug)]
pub(crate) struct Filter {
    info: &'static KindInfo,
    /// Keys of the kind, or of one namespace of it.
    pub(crate) prefix: String,
    pub(crate) labels: Selector,
    pub(crate) fields: FieldSelector,
}

impl Filter {
    /// Everything of a kind, or of one namespace of it.
    pub(crate) fn all(info: &'static KindInfo, namespace: Option<&str>) -> Filter {
        let mut prefix = info.registry_prefix();
        if let Some(namespace) = namespace {
            prefix.push_str(namespace);
            prefix.push('/');
        }
        Filter { info, prefix, labels: Selector::default(), fields: FieldSelector::default() }
    }

    /// What `labelSelector` and `fieldSelector` of a query select.
    pub(crate) fn parse(
        info: &'static KindInfo,
        namespace: Option<&str>,
        name: Option<&str>,
        query: &Query,
    ) -> Result<Filter, ApiError> {
        let mut filter = Filter::all(info, namespace);
        if let Some(text) = query.get("labelSelector") {
            filter.labels = Selector::parse(text).map_err(|e| ApiError::BadRequest(e.to_string()))?;
        }
        let fields = FieldSelector::parse(query.get("fieldSelector").unwrap_or(""));
        let fields = fields.map_err(|e| ApiError::BadRequest(e.to_string()))?;
        let requirements = fields.requirements().iter().cloned().map(|requirement| filter.of_today(requirement));
        filter.fields = FieldSelector::of(requirements.collect());
        if let Some(name) = name {
            filter.only(name)?;
        }
        for requirement in filter.fields.requirements() {
            filter.known_field(&requirement.field)?;
        }
        Ok(filter)
    }

    /// The old path form `watch/pods/name`.
    fn only(&mut self, name: &str) -> Result<(), ApiError> {
        let named = FieldRequirement { field: "metadata.name".to_owned(), equal: true, value: name.to_owned() };
        let given = self.fields.requirements();
        if !given.is_empty() && !given.contains(&named) {
            let other = "fieldSelector metadata.name doesn't match requested name";
            return Err(ApiError::BadRequest(other.to_owned()));
        }
        let others = given.iter().filter(|requirement| **requirement != named);
        self.fields = FieldSelector::of(others.chain([&named]).cloned().collect());
        Ok(())
    }

    /// Old clients ask pods for `spec.host` (`addConversionFuncs` in `pkg/apis/core/v1/conversion.go`).
    fn of_today(&self, mut requirement: FieldRequirement) -> FieldRequirement {
        if self.info.kind == "Pod" && requirement.field == "spec.host" {
            requirement.field = "spec.nodeName".to_owned();
        }
        requirement
    }

    /// Kinds without fields of their own share one conversion upstream (`DefaultMetaV1FieldSelectorConversion`), which
    /// knows a namespace even where there is none.
    fn known_field(&self, field: &str) -> Result<(), ApiError> {
        let plain = self.info.selectable_fields.is_empty();
        let known = match field {
            "metadata.name" => true,
            "metadata.namespace" => plain || self.info.scope == Scope::Namespaced,
            NEVER_SET if self.info.kind == "Pod" => true,
            field => self.info.selectable_fields.contains(&field),
        };
        match (known, plain) {
            (true, _) => Ok(()),
            (false, true) => Err(ApiError::BadRequest(format!(
                "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
            ))),
            (false, false) => Err(ApiError::BadRequest(format!("field label not supported: {field}"))),
        }
    }

    /// The kind selected from.
    pub(crate) fn info(&self) -> &'static KindInfo {
        self.info
    }

    /// Whether it looks at nothing but the key.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The value `field` must have, if the selection demands exactly one.
    pub(crate) fn exact(&self, field: &str) -> Option<&str> {
        let mut requirements = self.fields.requirements().iter();
        requirements.find(|r| r.equal && r.field == field).map(|r| r.value.as_str())
    }

    /// Whether the object under `key` is selected.
    pub(crate) fn matches(&self, key: &str, object: &Selectable) -> bool {
        key.starts_with(&self.prefix)
            && (self.labels.is_empty() || self.labels.matches(object.labels.as_deref()))
            && (self.fields.is_empty() || self.fields.matches(|field| self.value_of(field, key, object)))
    }

    fn value_of<'a>(&self, field: &str, key: &'a str, object: &'a Selectable) -> Option<&'a str> {
        match field {
            "metadata.name" => key.rsplit('/').next(),
            "metadata.namespace" if self.info.scope == Scope::Cluster => Some(""),
            "metadata.namespace" => key.rsplit('/').nth(1),
            NEVER_SET => Some(""),
            field => {
                let index = self.info.selectable_fields.iter().position(|f| *f == field)?;
                object.fields.get(index).map(|f| &**f)
            }
        }
    }
}
