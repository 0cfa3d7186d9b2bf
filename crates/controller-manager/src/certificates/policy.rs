//! What each signer signs, and who may have it without asking a human.

use std::collections::BTreeSet;
use std::net::IpAddr;

use api::well_known::{GROUP_MASTERS, GROUP_NODES, SIGNER_KUBELET_CLIENT, SIGNER_KUBELET_SERVING, USER_NODE_PREFIX};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;

use super::request::Request;

/// Signs client certificates that a human has approved.
const SIGNER_CLIENT: &str = "kubernetes.io/kube-apiserver-client";

/// What we think of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Another signer's.
    NotOurs,
    /// Not what its signer signs, whoever approves it.
    Unsignable(String),
    /// Could be signed, but only a human may approve it.
    Unentitled(String),
    /// A node's client certificate: may be approved if the API server says that its user has one of these rights.
    Recognized(&'static [Right]),
    /// Recognized, but the user has none of the rights, as yet.
    Refused(String),
    /// May be approved, and why.
    Entitled(String),
}

/// A right to have certificates: to create `certificatesigningrequests/<subresource>`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Right {
    /// The subresource.
    pub(super) subresource: &'static str,
    /// What is said when a request is approved by it.
    pub(super) message: &'static str,
}

/// One's own client certificate again, or else that of any node.
const OWN_OR_ANY: &[Right] = &[
    Right {
        subresource: "selfnodeclient",
        message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
    },
    Right {
        subresource: "nodeclient",
        message: "Auto approving kubelet client certificate after SubjectAccessReview.",
    },
];

/// Judges a request; `node` is the object of the node that made it, if a node did.
pub(super) fn judge(csr: &CertificateSigningRequest, node: Option<&Node>) -> Verdict {
    let signer = csr.spec.signer_name.as_str();
    if ![SIGNER_CLIENT, SIGNER_KUBELET_CLIENT, SIGNER_KUBELET_SERVING].contains(&signer) {
        return Verdict::NotOurs;
    }
    let judged = Request::parse(csr).map_err(Verdict::Unsignable).and_then(|request| {
        signable(csr, &request).map_err(Verdict::Unsignable)?;
        Ok(entitled(csr, &request, node))
    });
    judged.unwrap_or_else(|verdict| verdict)
}

/// Whether the request is what its signer signs
/// (`ValidateKubeletClientCSR`, `ValidateKubeletServingCSR` in `pkg/apis/certificates/helpers.go`).
fn signable(csr: &CertificateSigningRequest, request: &Request) -> Result<(), String> {
    match csr.spec.signer_name.as_str() {
        SIGNER_KUBELET_CLIENT => {
            node_organization(request)?;
            for (names, what) in [
                (!request.dns_names.is_empty(), "DNS"),
                (!request.mail_addresses.is_empty(), "Email"),
                (!request.addresses.is_empty(), "IP"),
                (!request.uris.is_empty(), "URI"),
            ] {
                not_allowed(names, what)?;
            }
            node_common_name(request)?;
            node_usages(csr, "client auth")
        }
        SIGNER_KUBELET_SERVING => {
            node_organization(request)?;
            if request.dns_names.is_empty() && request.addresses.is_empty() {
                return Err("DNS or IP subjectAltName is required".to_owned());
            }
            not_allowed(!request.mail_addresses.is_empty(), "Email")?;
            not_allowed(!request.uris.is_empty(), "URI")?;
            node_usages(csr, "server auth")?;
            node_common_name(request)
        }
        _ => {
            // The subject restriction of upstream's admission: nobody becomes cluster admin by a request.
            if request.organizations.iter().any(|organization| organization == GROUP_MASTERS) {
                return Err(format!("organization {GROUP_MASTERS} is not allowed"));
            }
            client_usages(csr)
        }
    }
}

fn node_organization(request: &Request) -> Result<(), String> {
    let fits = request.organizations == [GROUP_NODES];
    if fits { Ok(()) } else { Err(format!("subject organization is not {GROUP_NODES}")) }
}

/// Unlike upstream the name of a node must follow, as it is nobody's certificate otherwise.
fn node_common_name(request: &Request) -> Result<(), String> {
    match request.common_name.strip_prefix(USER_NODE_PREFIX) {
        Some(node) if !node.is_empty() => Ok(()),
        _ => Err(format!("subject common name does not begin with {USER_NODE_PREFIX}")),
    }
}

fn not_allowed(there_are: bool, what: &str) -> Result<(), String> {
    if there_are { Err(format!("{what} subjectAltNames are not allowed")) } else { Ok(()) }
}

/// What nodes use a key for: these and no others; without the encipherment where the key is not RSA.
fn node_usages(csr: &CertificateSigningRequest, purpose: &str) -> Result<(), String> {
    let usages: BTreeSet<&str> = csr.spec.usages.iter().flatten().map(String::as_str).collect();
    let all = BTreeSet::from([purpose, "digital signature", "key encipherment"]);
    let without_rsa = BTreeSet::from([purpose, "digital signature"]);
    if usages == all || usages == without_rsa {
        return Ok(());
    }
    Err(format!("usages did not match [{}]", all.into_iter().collect::<Vec<_>>().join(" ")))
}

/// `validAPIServerClientUsages` in `pkg/controller/certificates/signer`.
fn client_usages(csr: &CertificateSigningRequest) -> Result<(), String> {
    const PURPOSE: &str = "client auth";
    let usages = csr.spec.usages.as_deref().unwrap_or(&[]);
    let allowed = ["digital signature", "key encipherment", PURPOSE];
    if let Some(other) = usages.iter().find(|usage| !allowed.contains(&usage.as_str())) {
        return Err(format!("invalid usage for client certificate: {other}"));
    }
    if !usages.iter().any(|usage| usage == PURPOSE) {
        return Err(format!("missing required usage for client certificate: {PURPOSE}"));
    }
    Ok(())
}

/// Whether the user may have it (`pkg/controller/certificates/approver/sarapprove.go`).
fn entitled(csr: &CertificateSigningRequest, request: &Request, node: Option<&Node>) -> Verdict {
    let user = csr.spec.username.as_deref().unwrap_or_default();
    let is_itself = user == request.common_name;
    let is_node = csr.spec.groups.iter().flatten().any(|group| group == GROUP_NODES);
    match csr.spec.signer_name.as_str() {
        SIGNER_KUBELET_CLIENT => Verdict::Recognized(if is_itself { OWN_OR_ANY } else { &OWN_OR_ANY[1..] }),
        SIGNER_KUBELET_SERVING if is_itself && is_node => {
            let why = "Auto approving kubelet serving certificate for the node's own addresses.";
            own_names(request, node).map_or_else(Verdict::Unentitled, |()| Verdict::Entitled(why.to_owned()))
        }
        SIGNER_CLIENT => Verdict::Unentitled("client certificates of users are for a human to approve".to_owned()),
        _ => Verdict::Unentitled(format!("user {user} may not have a certificate for {}", request.common_name)),
    }
}

/// Whether the request names only the node and its addresses. Loopback is every host's own.
fn own_names(request: &Request, node: Option<&Node>) -> Result<(), String> {
    let Some(node) = node else { return Err("the node does not exist yet".to_owned()) };
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    let own: Vec<_> = addresses.into_iter().flatten().map(|a| a.address.as_str()).collect();
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let foreign_name = |dns: &&String| *dns != name && *dns != "localhost" && !own.contains(&dns.as_str());
    if let Some(dns) = request.dns_names.iter().find(foreign_name) {
        return Err(format!("{dns} is not a name of node {name}"));
    }
    let own: Vec<IpAddr> = own.iter().filter_map(|address| address.parse().ok()).collect();
    match request.addresses.iter().find(|address| !address.is_loopback() && !own.contains(address)) {
        Some(address) => Err(format!("{address} is not an address of node {name}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{DnType, SanType};

    use super::super::testing::{client_csr, node, request_pem, serving_csr};
    use super::*;

    type Change = fn(&mut CertificateSigningRequest);
    type ChangeRequest = fn(&mut rcgen::CertificateParams);
    type Check = fn(&Verdict) -> bool;
    type Names = &'static [&'static str];
    type Addresses = &'static [[u8; 4]];

    fn user(csr: &mut CertificateSigningRequest, name: &str) {
        csr.spec.username = Some(name.to_owned());
    }

    #[test]
    fn client_certificates_of_nodes_are_recognized_and_one_s_own_as_such() {
        let cases: &[(&str, Change, Check)] = &[
            ("one who joins", |_| (), |v| *v == Verdict::Recognized(&OWN_OR_ANY[1..])),
            ("the node itself", |c| user(c, "system:node:box1"), |v| *v == Verdict::Recognized(OWN_OR_ANY)),
            ("another node", |c| user(c, "system:node:box2"), |v| *v == Verdict::Recognized(&OWN_OR_ANY[1..])),
            ("another signer", |c| c.spec.signer_name = "example.com/x".into(), |v| *v == Verdict::NotOurs),
            (
                "more usages",
                |c| c.spec.usages.as_mut().unwrap().push("server auth".into()),
                |v| matches!(v, Verdict::Unsignable(_)),
            ),
            ("no usage", |c| c.spec.usages = None, |v| matches!(v, Verdict::Unsignable(_))),
            ("no request", |c| c.spec.request.0.clear(), |v| matches!(v, Verdict::Unsignable(_))),
            ("bytes", |c| c.spec.request.0 = vec![0xff; 10], |v| matches!(v, Verdict::Unsignable(_))),
        ];
        for (sentence, change, expected) in cases {
            let mut csr = client_csr();
            change(&mut csr);
            let verdict = judge(&csr, None);
            assert!(expected(&verdict), "{sentence}: {verdict:?}");
        }
    }

    #[test]
    fn a_client_certificate_names_a_node_and_nothing_else() {
        let cases: &[(&str, ChangeRequest)] = &[
            ("another organization", |p| p.distinguished_name.push(DnType::OrganizationName, "system:masters")),
            ("another common name", |p| p.distinguished_name.push(DnType::CommonName, "admin")),
            ("a node without name", |p| p.distinguished_name.push(DnType::CommonName, "system:node:")),
            ("further names", |p| p.subject_alt_names.push(SanType::IpAddress([10, 0, 0, 1].into()))),
        ];
        for (sentence, change) in cases {
            let mut csr = client_csr();
            csr.spec.request.0 = request_pem(change);
            assert!(matches!(judge(&csr, None), Verdict::Unsignable(_)), "{sentence}");
        }
    }

    #[test]
    fn what_a_signer_does_not_sign_is_told_in_upstreams_words() {
        let client = |change: ChangeRequest, usages: &[&str]| {
            let mut csr = client_csr();
            csr.spec.request.0 = request_pem(change);
            csr.spec.usages = Some(usages.iter().map(|u| (*u).to_owned()).collect());
            csr
        };
        let user = |csr: CertificateSigningRequest| {
            let mut csr = csr;
            csr.spec.signer_name = SIGNER_CLIENT.into();
            csr
        };
        let usages: &[&str] = &["digital signature", "client auth"];
        let organization: ChangeRequest = |p| p.distinguished_name.push(DnType::OrganizationName, "x");
        let name: ChangeRequest = |p| p.distinguished_name.push(DnType::CommonName, "x");
        let uri: ChangeRequest = |p| p.subject_alt_names.push(SanType::URI("http://x".try_into().unwrap()));
        let cases = [
            (client(organization, usages), "subject organization is not system:nodes"),
            (client(name, usages), "subject common name does not begin with system:node:"),
            (client(uri, usages), "URI subjectAltNames are not allowed"),
            (client(|_| (), &["client auth"]), "usages did not match [client auth digital signature key encipherment]"),
            (serving_csr(&[], &[]), "DNS or IP subjectAltName is required"),
            (user(client(|_| (), &["server auth"])), "invalid usage for client certificate: server auth"),
            (
                user(client(|_| (), &["digital signature"])),
                "missing required usage for client certificate: client auth",
            ),
        ];
        for (csr, expected) in cases {
            assert_eq!(judge(&csr, None), Verdict::Unsignable(expected.to_owned()));
        }
    }

    #[test]
    fn a_serving_certificate_names_the_node_and_its_addresses_only() {
        let cases: &[(&str, Names, Addresses, bool)] = &[
            ("its name and address", &["box1"], &[[192, 168, 0, 7]], true),
            ("loopback", &["localhost"], &[[127, 0, 0, 1]], true),
            ("another's name", &["box2"], &[], false),
            ("another's address", &["box1"], &[[192, 168, 0, 8]], false),
        ];
        for (sentence, names, addresses, expected) in cases {
            let verdict = judge(&serving_csr(names, addresses), Some(&node()));
            assert_eq!(matches!(verdict, Verdict::Entitled(_)), *expected, "{sentence}: {verdict:?}");
        }
        let unknown = judge(&serving_csr(&["box1"], &[]), None);
        assert!(matches!(unknown, Verdict::Unentitled(_)), "a node that does not exist has no names");
        assert!(matches!(judge(&serving_csr(&[], &[]), Some(&node())), Verdict::Unsignable(_)), "no names at all");
    }
}
