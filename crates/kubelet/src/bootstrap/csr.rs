//! Certificates by CertificateSigningRequest: make a key, ask, wait for the signature by a watch.

use std::net::IpAddr;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};

use super::Error;
use super::credentials::Pair;

/// How long a signature may take.
const SIGNATURE_LIMIT: Duration = Duration::from_secs(300);

/// A certificate that is wanted.
#[derive(Clone, Debug)]
pub(super) struct Request {
    signer: &'static str,
    usages: [&'static str; 2],
    common_name: String,
    names: Vec<SanType>,
}

impl Request {
    /// The node's certificate as a client.
    pub(super) fn client(user: &str) -> Request {
        Request {
            signer: api::well_known::SIGNER_KUBELET_CLIENT,
            usages: ["digital signature", "client auth"],
            common_name: user.to_owned(),
            names: Vec::new(),
        }
    }

    /// The node's certificate as a server.
    pub(super) fn serving(node_name: &str, node_ip: IpAddr) -> Request {
        let name = node_name.try_into().ok().map(SanType::DnsName);
        Request {
            signer: api::well_known::SIGNER_KUBELET_SERVING,
            usages: ["digital signature", "server auth"],
            common_name: format!("{}{node_name}", api::well_known::USER_NODE_PREFIX),
            names: name.into_iter().chain([SanType::IpAddress(node_ip)]).collect(),
        }
    }

    /// Makes a key and gets a certificate for it.
    pub(super) async fn obtain(&self, client: &kube::Client) -> Result<Pair, Error> {
        let crypto = |error: rcgen::Error| Error::Crypto(error.to_string());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(crypto)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, api::well_known::GROUP_NODES);
        params.distinguished_name.push(DnType::CommonName, self.common_name.as_str());
        params.subject_alt_names = self.names.clone();
        let request = params.serialize_request(&key).and_then(|request| request.pem()).map_err(crypto)?;
        let certificate = self.sign(client, request).await?;
        Ok(Pair { certificate, key: key.serialize_pem() })
    }

    async fn sign(&self, client: &kube::Client, request: String) -> Result<String, Error> {
        let api: Api<CertificateSigningRequest> = Api::all(client.clone());
        let name = format!("node-csr-{}", uuid::Uuid::new_v4().simple());
        let object = CertificateSigningRequest {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            spec: CertificateSigningRequestSpec {
                request: ByteString(request.into_bytes()),
                signer_name: self.signer.to_owned(),
                usages: Some(self.usages.map(str::to_owned).to_vec()),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        };
        api.create(&PostParams::default(), &object).await?;
        let signed = tokio::time::timeout(SIGNATURE_LIMIT, signature(api, &name)).await;
        signed.unwrap_or(Err(Error::Timeout(SIGNATURE_LIMIT.as_secs())))
    }
}

/// Waits until the request is signed or refused. Connections that fail on the way are made again.
async fn signature(api: Api<CertificateSigningRequest>, name: &str) -> Result<String, Error> {
    let mut states = std::pin::pin!(watcher::watch_object(api, name).default_backoff());
    while let Some(state) = states.next().await {
        match state {
            Ok(request) => {
                if let Some(verdict) = request.as_ref().and_then(verdict) {
                    return verdict;
                }
            }
            Err(error) => tracing::debug!(%error, "waiting for a certificate"),
        }
    }
    Err(Error::Denied("its watch has ended".to_owned()))
}

fn verdict(request: &CertificateSigningRequest) -> Option<Result<String, Error>> {
    let status = request.status.as_ref()?;
    let refused = status.conditions.iter().flatten().find(|c| matches!(c.type_.as_str(), "Denied" | "Failed"));
    if let Some(condition) = refused {
        let message = condition.message.clone().or_else(|| condition.reason.clone());
        return Some(Err(Error::Denied(message.unwrap_or_default())));
    }
    let certificate = status.certificate.as_ref()?;
    Some(String::from_utf8(certificate.0.clone()).map_err(|_| Error::Crypto("the certificate is not PEM".to_owned())))
}
