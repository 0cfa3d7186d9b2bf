//! Which families of addresses a service has, in a cluster that gives out IPv4 (`initIPFamilyFields` in
//! `pkg/registry/core/service/storage/alloc.go`). What names no family at all is left to validation.

use api::field::{ErrorList, Path, invalid};
use k8s_openapi::api::core::v1::ServiceSpec;
use serde_json::json;

const IPV4: &str = "IPv4";
const IPV6: &str = "IPv6";
const SINGLE: &str = "SingleStack";
const DUAL: &str = "RequireDualStack";

/// Completes policy and families of a service that has addresses, and refuses what this cluster has not. What is stored
/// already and not changed stays as it is.
pub(super) fn settle(spec: &mut ServiceSpec, old: Option<&ServiceSpec>, errors: &mut ErrorList) {
    if !super::has_address(spec) {
        return;
    }
    if let Some(old) = old.filter(|old| super::has_address(old)) {
        if are_same(spec, old) {
            return;
        }
        if spec.ip_family_policy.as_deref() == Some(SINGLE) && spec.ip_families == old.ip_families {
            // Who asks for one family and says nothing of it means the first (`trimFieldsForDualStackDowngrade`).
            spec.ip_families.iter_mut().for_each(|families| families.truncate(1));
        }
    }
    let path = Path::new("spec");
    let is_headless = spec.cluster_ip.as_deref() == Some("None");
    // Its endpoints are made by hand, and may be of every family.
    let is_by_hand = is_headless && spec.selector.as_ref().is_none_or(|selector| selector.is_empty());
    let policy = spec.ip_family_policy.get_or_insert_with(|| if is_by_hand { DUAL } else { SINGLE }.to_owned());
    let is_single = policy == SINGLE;
    let mut families = spec.ip_families.clone().unwrap_or_default();
    let before = errors.len();
    let ips = if is_headless { &[][..] } else { spec.cluster_ips.as_deref().unwrap_or(&[]) };
    let several = [(ips.len(), "cluster IPs"), (families.len(), "IP families")];
    for (_, what) in several.iter().filter(|(count, _)| is_single && *count > 1) {
        let detail = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
        errors.push(invalid(&path.child("ipFamilyPolicy"), policy.as_str(), &detail));
    }
    for (index, ip) in ips.iter().enumerate().skip(families.len()) {
        match ip.parse() {
            Ok(std::net::IpAddr::V6(_)) => {
                let path = path.child("clusterIPs").index(index);
                errors.push(invalid(&path, json!(ips), "IPv6 is not configured on this cluster"));
            }
            _ => families.push(IPV4.to_owned()),
        }
    }
    if errors.len() > before {
        return;
    }
    if !is_by_hand {
        if policy == DUAL {
            let detail = "this cluster is not configured for dual-stack services";
            errors.push(invalid(&path.child("ipFamilyPolicy"), policy.as_str(), detail));
        }
        for (index, family) in families.iter().enumerate().filter(|(_, family)| *family == IPV6) {
            let path = path.child("ipFamilies").index(index);
            errors.push(invalid(&path, family.as_str(), "not configured on this cluster"));
        }
    }
    if families.is_empty() {
        families.push(IPV4.to_owned());
    }
    if is_by_hand && !is_single && families.len() == 1 {
        let other = if families[0] == IPV4 { IPV6 } else { IPV4 };
        families.push(other.to_owned());
    }
    spec.ip_families = Some(families);
}

/// Whether nothing changed that has a say here.
fn are_same(new: &ServiceSpec, old: &ServiceSpec) -> bool {
    (&new.cluster_ip, &new.cluster_ips, &new.selector) == (&old.cluster_ip, &old.cluster_ips, &old.selector)
        && (&new.ip_families, &new.ip_family_policy) == (&old.ip_families, &old.ip_family_policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of a service, `policy families`, or why nothing.
    fn settled(spec: serde_json::Value) -> String {
        let mut spec: ServiceSpec = serde_json::from_value(spec).unwrap();
        let mut errors = ErrorList::new();
        settle(&mut spec, None, &mut errors);
        if !errors.is_empty() {
            return errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        }
        let mut again = spec.clone();
        settle(&mut again, None, &mut errors);
        assert_eq!((&again, errors.len()), (&spec, 0), "what is settled stays");
        format!("{} {}", spec.ip_family_policy.unwrap(), spec.ip_families.unwrap().join("+"))
    }

    #[test]
    fn a_service_has_the_families_of_the_cluster_and_no_other() {
        let cases = [
            (json!({}), "SingleStack IPv4"),
            (json!({"ipFamilyPolicy": "PreferDualStack"}), "PreferDualStack IPv4"),
            (
                json!({"ipFamilyPolicy": "RequireDualStack"}),
                r#"spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services"#,
            ),
            (
                json!({"ipFamilies": ["IPv6"]}),
                r#"spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster"#,
            ),
            (
                json!({"ipFamilies": ["IPv4", "IPv6"]}),
                r#"spec.ipFamilyPolicy: Invalid value: "SingleStack": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified"#,
            ),
            (
                json!({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack"}),
                r#"spec.ipFamilies[1]: Invalid value: "IPv6": not configured on this cluster"#,
            ),
            (
                json!({"clusterIP": "fd00::1", "clusterIPs": ["fd00::1"]}),
                r#"spec.clusterIPs[0]: Invalid value: ["fd00::1"]: IPv6 is not configured on this cluster"#,
            ),
            (
                json!({"clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9", "fd00::1"], "ipFamilyPolicy": "PreferDualStack"}),
                r#"spec.clusterIPs[1]: Invalid value: ["10.0.0.9","fd00::1"]: IPv6 is not configured on this cluster"#,
            ),
            (json!({"clusterIP": "None", "selector": {"a": "b"}}), "SingleStack IPv4"),
            (json!({"clusterIP": "None"}), "RequireDualStack IPv4+IPv6"),
            (json!({"clusterIP": "None", "ipFamilies": ["IPv6"]}), "RequireDualStack IPv6+IPv4"),
            (json!({"clusterIP": "None", "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]}), "SingleStack IPv6"),
        ];
        for (spec, expected) in cases {
            assert_eq!(settled(spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn a_change_may_give_up_a_family_and_leaves_what_was_stored_alone() {
        let spec = |value| -> ServiceSpec { serde_json::from_value(value).unwrap() };
        let both = json!({"clusterIP": "None", "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"});
        let mut single = spec(both.clone());
        single.ip_family_policy = Some(SINGLE.to_owned());
        let mut errors = ErrorList::new();
        settle(&mut single, Some(&spec(both)), &mut errors);
        assert_eq!((single.ip_families.unwrap().as_slice(), errors.len()), (&[IPV4.to_owned()][..], 0));

        let before = json!({"clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9"], "ipFamilyPolicy": "RequireDualStack"});
        let mut stored = spec(before.clone());
        settle(&mut stored, Some(&spec(before.clone())), &mut errors);
        assert_eq!((stored, errors.len()), (spec(before), 0));

        // One that had no address so far has none of a family either.
        let mut new = spec(json!({"type": "ClusterIP"}));
        settle(&mut new, Some(&spec(json!({"type": "ExternalName", "externalName": "a.example.org"}))), &mut errors);
        assert_eq!((new.ip_families, new.ip_family_policy), (Some(vec![IPV4.to_owned()]), Some(SINGLE.to_owned())));
    }
}
