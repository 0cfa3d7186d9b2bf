//! Rules for names, label keys and values, as in `k8s.io/apimachinery/pkg/util/validation`.

/// The rule a kind's `metadata.name` follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain, at most 253 bytes: most kinds.
    Dns1123Subdomain,
    /// RFC 1123 label, at most 63 bytes: namespaces.
    Dns1123Label,
    /// RFC 1035 label, at most 63 bytes: services.
    Dns1035Label,
    /// Anything that is one path segment: RBAC objects and certificate signing requests use looser rules.
    PathSegment,
}

/// What is wrong with `name` under `rule`, in upstream's words; empty when nothing is.
pub fn validate_name(_rule: NameRule, _name: &str) -> Vec<String> {
    todo!()
}
