//! How a pod's processes find names.

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::json;

use crate::field::{ErrorList, Path, invalid, required};
use crate::kinds::rules;
use crate::names;

const POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
/// What resolvers read at most.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCH_PATHS: usize = 32;
const MAX_SEARCH_LENGTH: usize = 2048;

pub(super) fn policy(policy: Option<&str>, path: &Path, errors: &mut ErrorList) {
    rules::one_of(policy, POLICIES, path, errors);
}

pub(super) fn config(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let none = spec.dns_policy.as_deref() == Some("None");
    let Some(config) = spec.dns_config.as_ref() else {
        if none {
            errors.push(required(path, "must provide `dnsConfig` when `dnsPolicy` is None"));
        }
        return;
    };
    let nameservers = config.nameservers.as_deref().unwrap_or(&[]);
    let servers = path.child("nameservers");
    if none && nameservers.is_empty() {
        errors.push(required(&servers, "must provide at least one DNS nameserver when `dnsPolicy` is None"));
    }
    if nameservers.len() > MAX_NAMESERVERS {
        let detail = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        errors.push(invalid(&servers, json!(nameservers), &detail));
    }
    for (index, nameserver) in nameservers.iter().enumerate() {
        rules::ip(nameserver, &servers.index(index), errors);
    }
    searches(config.searches.as_deref().unwrap_or(&[]), &path.child("searches"), errors);
    for (index, option) in config.options.iter().flatten().enumerate() {
        let name = option.name.as_deref().unwrap_or("");
        if name.is_empty() {
            errors.push(required(&path.child("options").index(index), "must not be empty"));
        }
    }
}

fn searches(searches: &[String], path: &Path, errors: &mut ErrorList) {
    if searches.len() > MAX_SEARCH_PATHS {
        let detail = format!("must not have more than {MAX_SEARCH_PATHS} search paths");
        errors.push(invalid(path, json!(searches), &detail));
    }
    if searches.join(" ").len() > MAX_SEARCH_LENGTH {
        let detail =
            format!("must not have more than {MAX_SEARCH_LENGTH} characters (including spaces) in the search list");
        errors.push(invalid(path, json!(searches), &detail));
    }
    for (index, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        // A final dot is allowed, and so are underscores, which names of services on other systems have.
        let plain = search.strip_suffix('.').unwrap_or(search).replace('_', "a");
        rules::all(names::is_dns1123_subdomain(&plain), search.as_str(), &path.index(index), errors);
    }
}

pub(super) fn host_aliases(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let path = path.index(index);
        rules::ip(&alias.ip, &path.child("ip"), errors);
        for hostname in alias.hostnames.iter().flatten() {
            rules::dns_subdomain(hostname, &path.child("hostnames"), errors);
        }
    }
}
