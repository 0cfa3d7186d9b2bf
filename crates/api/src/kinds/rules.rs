//! Rules that validation of several kinds shares, in the wording of `pkg/apis/core/validation` upstream.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;

use crate::field::{ErrorList, Path, duplicate, forbidden, invalid, not_supported, required};
use crate::metadata::validate_labels;
use crate::names;
use crate::quantity::Quantity;

/// The greatest size of a Secret's or ConfigMap's data (`MaxSecretSize`).
pub(super) const MAX_DATA_SIZE: usize = 1024 * 1024;
/// Ways to carry bytes over IP.
pub(super) const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// Annotations of storage that have become fields, and what is said of them.
pub(super) const BETA_STORAGE_CLASS: (&str, &str) =
    ("volume.beta.kubernetes.io/storage-class", r#"deprecated since v1.8; use "storageClassName" attribute instead"#);
pub(super) const MOUNT_OPTIONS: (&str, &str) =
    ("volume.beta.kubernetes.io/mount-options", r#"deprecated since v1.31; use "mountOptions" attribute instead"#);

/// A warning of an annotation that has become a field.
pub(super) fn old_annotation(metadata: &ObjectMeta, (annotation, message): (&str, &str)) -> Vec<String> {
    let is_set = metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(annotation));
    is_set.then(|| format!("metadata.annotations[{annotation}]: {message}")).into_iter().collect()
}

/// One error per message.
pub(super) fn all(messages: Vec<String>, value: impl Into<Value>, path: &Path, errors: &mut ErrorList) {
    if !messages.is_empty() {
        let value = value.into();
        errors.extend(messages.iter().map(|message| invalid(path, value.clone(), message)));
    }
}

/// Must be given.
pub(super) fn given(value: &str, path: &Path, errors: &mut ErrorList) -> bool {
    if value.is_empty() {
        errors.push(required(path, ""));
    }
    !value.is_empty()
}

/// Must be given, and one of `supported`.
pub(super) fn one_of(value: Option<&str>, supported: &[&str], path: &Path, errors: &mut ErrorList) {
    let value = value.unwrap_or("");
    if given(value, path, errors) {
        optional_one_of(Some(value), supported, path, errors);
    }
}

/// If given, one of `supported`.
pub(super) fn optional_one_of(value: Option<&str>, supported: &[&str], path: &Path, errors: &mut ErrorList) {
    if let Some(value) = value
        && !supported.contains(&value)
    {
        errors.push(not_supported(path, value, supported));
    }
}

/// Zero or more.
pub(super) fn not_negative(value: impl Into<i64>, path: &Path, errors: &mut ErrorList) {
    let value = value.into();
    if value < 0 {
        errors.push(invalid(path, value, "must be greater than or equal to 0"));
    }
}

/// A name of RFC 1123 label form that must be given.
pub(super) fn dns_label(value: &str, path: &Path, errors: &mut ErrorList) {
    if given(value, path, errors) {
        all(names::is_dns1123_label(value), value, path, errors);
    }
}

/// A name of RFC 1123 subdomain form, as of most objects.
pub(super) fn dns_subdomain(value: &str, path: &Path, errors: &mut ErrorList) {
    all(names::is_dns1123_subdomain(value), value, path, errors);
}

/// A label's key.
pub(super) fn label_key(key: &str, path: &Path, errors: &mut ErrorList) {
    all(names::is_qualified_name(key), key, path, errors);
}

/// A `metav1.LabelSelector`.
pub(super) fn label_selector(selector: Option<&LabelSelector>, path: &Path, errors: &mut ErrorList) {
    let Some(selector) = selector else { return };
    validate_labels(selector.match_labels.as_ref(), &path.child("matchLabels"), errors);
    for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
        let path = path.child("matchExpressions").index(index);
        let values = expression.values.as_deref().unwrap_or(&[]);
        selector_values(&expression.operator, values, &path, errors);
        label_key(&expression.key, &path.child("key"), errors);
        for (index, value) in values.iter().enumerate() {
            all(names::is_label_value(value), value.as_str(), &path.child("values").index(index), errors);
        }
    }
}

/// The values that go with a set-based operator.
pub(super) fn selector_values(operator: &str, values: &[String], path: &Path, errors: &mut ErrorList) {
    match (operator, values) {
        ("In" | "NotIn", []) => {
            errors.push(required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        ("In" | "NotIn", _) | ("Exists" | "DoesNotExist", []) => {}
        ("Exists" | "DoesNotExist", _) => errors.push(forbidden(
            &path.child("values"),
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        )),
        _ => errors.push(invalid(&path.child("operator"), operator, "not a valid selector operator")),
    }
}

/// 1 to 65535.
pub(super) fn port_number(port: i32, path: &Path, errors: &mut ErrorList) {
    all(names::is_port_number(port.into()), port, path, errors);
}

/// A port's number or its name.
pub(super) fn port_number_or_name(port: &IntOrString, path: &Path, errors: &mut ErrorList) {
    match port {
        IntOrString::Int(number) => port_number(*number, path, errors),
        IntOrString::String(name) => all(names::is_port_name(name), name.as_str(), path, errors),
    }
}

/// An IP address.
pub(super) fn ip(value: &str, path: &Path, errors: &mut ErrorList) {
    all(names::is_ip(value), value, path, errors);
}

/// An address that others can send to: not this host, not this link (`ValidateNonSpecialIP`).
pub(super) fn sendable_ip(value: &str, path: &Path, errors: &mut ErrorList) {
    let before = errors.len();
    ip(value, path, errors);
    let (Ok(address), true) = (value.parse::<IpAddr>(), errors.len() == before) else { return };
    let (link_local, link_multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    let refusals = [
        (address.is_unspecified(), "may not be unspecified (0.0.0.0 or ::)"),
        (address.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)"),
        (link_local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"),
        (link_multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"),
    ];
    errors.extend(refusals.into_iter().filter(|(is, _)| *is).map(|(_, detail)| invalid(path, value, detail)));
}

/// No element of the path is `..`.
pub(super) fn no_backsteps(target: &str, path: &Path, errors: &mut ErrorList) {
    if target.split('/').any(|part| part == "..") {
        errors.push(invalid(path, target, "must not contain '..'"));
    }
}

/// A relative path that stays below where it starts.
pub(super) fn descending_path(target: &str, path: &Path, errors: &mut ErrorList) {
    if target.starts_with('/') {
        errors.push(invalid(path, target, "must be a relative path"));
    }
    no_backsteps(target, path, errors);
}

/// A relative path in a volume, where names that start with `..` belong to the atomic writer.
pub(super) fn descending_unreserved_path(target: &str, path: &Path, errors: &mut ErrorList) {
    descending_path(target, path, errors);
    if target.starts_with("..") && !target.starts_with("../") {
        errors.push(invalid(path, target, "must not start with '..'"));
    }
}

/// Permission bits.
pub(super) fn file_mode(mode: Option<i32>, path: &Path, errors: &mut ErrorList) {
    if let Some(mode) = mode
        && !(0..=0o777).contains(&mode)
    {
        errors.push(invalid(path, mode, "must be a number between 0 and 0777 (octal), both inclusive"));
    }
}

/// A well-formed quantity of at least zero; gives its value.
pub(super) fn quantity(amount: &Amount, path: &Path, errors: &mut ErrorList) -> Option<Quantity> {
    match amount.0.parse::<Quantity>() {
        Ok(quantity) if quantity.is_negative() => {
            errors.push(invalid(path, amount.0.as_str(), "must be greater than or equal to 0"));
            Some(quantity)
        }
        Ok(quantity) => Some(quantity),
        Err(error) => {
            errors.push(invalid(path, amount.0.as_str(), &error.to_string()));
            None
        }
    }
}

/// Well-formed quantities of at least zero, by what they are of.
pub(super) fn quantities(amounts: Option<&BTreeMap<String, Amount>>, path: &Path, errors: &mut ErrorList) {
    for (name, amount) in amounts.into_iter().flatten() {
        quantity(amount, &path.key(name), errors);
    }
}

/// A well-formed quantity above zero (`ValidatePositiveQuantityValue`).
pub(super) fn positive_quantity(amount: &Amount, path: &Path, errors: &mut ErrorList) {
    match amount.0.parse::<Quantity>() {
        Ok(quantity) if quantity > Quantity::ZERO => {}
        Ok(quantity) => errors.push(invalid(path, quantity.to_string(), "must be greater than zero")),
        Err(error) => errors.push(invalid(path, amount.0.as_str(), &error.to_string())),
    }
}

/// What can be asked for without a group in the name (`IsStandardResourceName`).
const STANDARD_RESOURCES: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

/// The name of something there is a limited amount of (`ValidateResourceName`).
pub(super) fn resource_name(name: &str, path: &Path, errors: &mut ErrorList) {
    let messages = names::is_qualified_name(name);
    if !messages.is_empty() {
        return all(messages, name, path, errors);
    }
    if !name.contains('/') && !STANDARD_RESOURCES.contains(&name) && !name.starts_with("hugepages-") {
        errors.push(invalid(path, name, "must be a standard resource type or fully qualified"));
    }
}

/// Ways a volume may be mounted.
const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// The access modes of a volume or claim.
pub(super) fn access_modes(modes: &[String], path: &Path, errors: &mut ErrorList) {
    for mode in modes {
        optional_one_of(Some(mode), ACCESS_MODES, path, errors);
    }
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        errors.push(forbidden(path, "may not use ReadWriteOncePod with other access modes"));
    }
}

/// The name of a storage class, and how a volume appears.
pub(super) fn storage_class_and_mode(class: Option<&str>, mode: Option<&str>, path: &Path, errors: &mut ErrorList) {
    if let Some(class) = class.filter(|c| !c.is_empty()) {
        dns_subdomain(class, &path.child("storageClassName"), errors);
    }
    optional_one_of(mode, &["Block", "Filesystem"], &path.child("volumeMode"), errors);
}

/// Values that must differ within one list.
pub(super) struct Unique<'a>(BTreeSet<Cow<'a, str>>);

impl<'a> Unique<'a> {
    pub(super) fn new() -> Unique<'a> {
        Unique(BTreeSet::new())
    }

    /// An error when `value` was there before.
    pub(super) fn add(&mut self, value: impl Into<Cow<'a, str>>, path: &Path, errors: &mut ErrorList) {
        let value = value.into();
        if self.0.contains(&value) {
            errors.push(duplicate(path, value.as_ref()));
        } else {
            self.0.insert(value);
        }
    }
}
