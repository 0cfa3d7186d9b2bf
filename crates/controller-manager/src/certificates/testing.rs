//! Requests and a CA for the tests of this folder.

use api::well_known::{GROUP_BOOTSTRAPPERS, GROUP_NODES, SIGNER_KUBELET_CLIENT, SIGNER_KUBELET_SERVING};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, SanType};

use crate::Config;

/// A directory that goes with the test.
pub(super) struct Directory(std::path::PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A configuration with a CA of its own.
pub(super) fn with_ca() -> (Config, Directory) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    let directory = std::env::temp_dir().join(format!("controller-manager-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&directory).unwrap();
    let (ca_cert, ca_key) = (directory.join("ca.crt"), directory.join("ca.key"));
    std::fs::write(&ca_cert, certificate.pem()).unwrap();
    std::fs::write(&ca_key, key.serialize_pem()).unwrap();
    (Config { ca_cert, ca_key, ..Config::default() }, Directory(directory))
}

/// A request for node `box1`, changed by `change`.
pub(super) fn request_pem(change: impl Fn(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, GROUP_NODES);
    params.distinguished_name.push(DnType::CommonName, "system:node:box1");
    change(&mut params);
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap().into_bytes()
}

/// What someone who joins as `box1` asks for.
pub(super) fn client_csr() -> CertificateSigningRequest {
    CertificateSigningRequest {
        metadata: ObjectMeta {
            name: Some("csr".to_owned()),
            creation_timestamp: Some(Time(Timestamp::now())),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(request_pem(|_| ())),
            signer_name: SIGNER_KUBELET_CLIENT.to_owned(),
            usages: Some(vec!["digital signature".to_owned(), "client auth".to_owned()]),
            username: Some("system:bootstrap:abcdef".to_owned()),
            groups: Some(vec![GROUP_BOOTSTRAPPERS.to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    }
}

/// What node `box1` asks for to serve under these names.
pub(super) fn serving_csr(names: &[&str], addresses: &[[u8; 4]]) -> CertificateSigningRequest {
    let mut csr = client_csr();
    csr.spec.request.0 = request_pem(|params| {
        let names = names.iter().map(|name| SanType::DnsName((*name).try_into().unwrap()));
        params.subject_alt_names = names.collect();
        params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress((*address).into())));
    });
    csr.spec.signer_name = SIGNER_KUBELET_SERVING.to_owned();
    csr.spec.usages = Some(vec!["digital signature".to_owned(), "server auth".to_owned()]);
    csr.spec.username = Some("system:node:box1".to_owned());
    csr.spec.groups = Some(vec![GROUP_NODES.to_owned()]);
    csr
}

/// The node `box1`.
pub(super) fn node() -> Node {
    let address = NodeAddress { type_: "InternalIP".to_owned(), address: "192.168.0.7".to_owned() };
    Node {
        metadata: ObjectMeta { name: Some("box1".to_owned()), ..ObjectMeta::default() },
        spec: None,
        status: Some(NodeStatus { addresses: Some(vec![address]), ..NodeStatus::default() }),
    }
}
