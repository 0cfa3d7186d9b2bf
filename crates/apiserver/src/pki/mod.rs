//! The cluster's keys: one CA, the server's certificate, the certificate it shows to kubelets, the admin's kubeconfig, the
//! join token, the key that signs service account tokens; those of an embedded store that is served. Made at first start, reused afterwards.

mod certificates;
mod etcd;
mod files;
mod join_token;
mod kubeconfig;

use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::authn::{SigningKey, VerifyingKey};
use crate::config::Config;
use crate::error::Error;

pub use etcd::EtcdPki;
pub(crate) use join_token::JoinToken;

/// The user and group of the server's certificate for kubelets.
const KUBELET_CLIENT: (&str, &str) = ("kube-apiserver-kubelet-client", "system:masters");
/// The user and group of the admin's kubeconfig.
const ADMIN: (&str, &str) = ("kubernetes-admin", "system:masters");

/// A certificate and its key.
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// Everything in the data directory that proves something.
pub(crate) struct Pki {
    pub(crate) ca: CertificateDer<'static>,
    pub(crate) ca_certificate_pem: String,
    pub(crate) server: Identity,
    pub(crate) kubelet_client: Identity,
    pub(crate) join_token: JoinToken,
    pub(crate) service_account_key: Arc<SigningKey>,
    /// More keys whose tokens count.
    pub(crate) service_account_keys: Vec<VerifyingKey>,
}

impl Pki {
    /// Reads what is there and makes what is missing, expired or no longer fitting.
    pub(crate) fn load_or_create(config: &Config) -> Result<Pki, Error> {
        let directory = config.data_dir.join("pki");
        files::create_directory(&directory)?;
        let (ca_certificate_pem, ca_key_pem) = authority(&directory, "kubernetes")?;
        let ca = parse_certificate(&ca_certificate_pem)?;
        let issuer = issuer(&ca_certificate_pem, &ca_key_pem)?;
        let server = certificates::server(config)?;
        let server = leaf(&directory, "apiserver", &ca, &issuer, server)?;
        let kubelet = certificates::client(KUBELET_CLIENT.0, KUBELET_CLIENT.1)?;
        let kubelet_client = leaf(&directory, "apiserver-kubelet-client", &ca, &issuer, kubelet)?;
        files::write_public(&config.data_dir.join("ca.crt"), &ca_certificate_pem)?;
        kubeconfig::write_admin(config, &ca, &ca_certificate_pem, || {
            pair(&certificates::client(ADMIN.0, ADMIN.1)?, &issuer)
        })?;
        let join_token = JoinToken::load_or_create(&config.data_dir.join("join-token"), &ca)?;
        Ok(Pki {
            ca,
            ca_certificate_pem,
            server: identity(&server)?,
            kubelet_client: identity(&kubelet_client)?,
            join_token,
            service_account_key: Arc::new(service_account_key(&directory, config)?),
            service_account_keys: service_account_keys(config)?,
        })
    }
}

/// PEM of a certificate and its key.
type Pair = (String, String);

fn damaged(reason: impl std::fmt::Display) -> Error {
    Error::Certificate(reason.to_string())
}

fn parse_certificate(pem: &str) -> Result<CertificateDer<'static>, Error> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(damaged)
}

fn identity((certificate, key): &Pair) -> Result<Identity, Error> {
    Ok(Identity {
        certificate: parse_certificate(certificate)?,
        key: PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(damaged)?,
    })
}

fn issuer(certificate: &str, key: &str) -> Result<Issuer<'static, KeyPair>, Error> {
    Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key).map_err(damaged)?).map_err(damaged)
}

/// A CA. It is never replaced: every identity it signed for hangs on it.
fn authority(directory: &Path, name: &str) -> Result<Pair, Error> {
    let paths = (directory.join("ca.crt"), directory.join("ca.key"));
    match (files::read(&paths.0)?, files::read(&paths.1)?) {
        (Some(certificate), Some(key)) => Ok((certificate, key)),
        (None, None) => {
            let key = KeyPair::generate().map_err(damaged)?;
            let certificate = certificates::authority(name).self_signed(&key).map_err(damaged)?;
            let pair = (certificate.pem(), key.serialize_pem());
            files::write_private(&paths.1, &pair.1)?;
            files::write_public(&paths.0, &pair.0)?;
            Ok(pair)
        }
        _ => Err(damaged(format!("{} holds only one of ca.crt and ca.key", directory.display()))),
    }
}

/// The key that signs service account tokens: the one that is given, else one where kubeadm keeps it. Masters that share
/// a store must share it, too. It is never replaced: every token in the cluster hangs on it.
fn service_account_key(directory: &Path, config: &Config) -> Result<SigningKey, Error> {
    let given = config.service_account_signing_key_file.as_deref();
    let path = given.map_or_else(|| directory.join("sa.key"), Path::to_owned);
    let pem = match files::read(&path)? {
        Some(pem) => pem,
        None if given.is_some() => return Err(damaged(format!("{}: no such file", path.display()))),
        None => {
            let pem = KeyPair::generate().map_err(damaged)?.serialize_pem();
            files::write_private(&path, &pem)?;
            pem
        }
    };
    SigningKey::from_pem(&pem).map_err(|reason| damaged(format!("{}: {reason}", path.display())))
}

/// The keys in the files that are given.
fn service_account_keys(config: &Config) -> Result<Vec<VerifyingKey>, Error> {
    let mut keys = Vec::new();
    for path in &config.service_account_key_files {
        let failed = |reason: &str| damaged(format!("{}: {reason}", path.display()));
        let pem = files::read(path)?.ok_or_else(|| failed("no such file"))?;
        keys.extend(VerifyingKey::all_from_pem(&pem).map_err(|reason| failed(&reason))?);
    }
    Ok(keys)
}

/// A certificate as `wanted`: the one that is there if it still fits, else a new one.
fn leaf(
    directory: &Path,
    name: &str,
    ca: &CertificateDer<'_>,
    issuer: &Issuer<'_, KeyPair>,
    wanted: CertificateParams,
) -> Result<Pair, Error> {
    let paths = (directory.join(format!("{name}.crt")), directory.join(format!("{name}.key")));
    if let (Some(certificate), Some(key)) = (files::read(&paths.0)?, files::read(&paths.1)?)
        && certificates::still_fits(&certificate, &key, ca, &wanted)
    {
        return Ok((certificate, key));
    }
    let made = pair(&wanted, issuer)?;
    files::write_private(&paths.1, &made.1)?;
    files::write_public(&paths.0, &made.0)?;
    Ok(made)
}

fn pair(wanted: &CertificateParams, issuer: &Issuer<'_, KeyPair>) -> Result<Pair, Error> {
    debug_assert!(wanted.key_usages.contains(&KeyUsagePurpose::DigitalSignature), "leaves sign handshakes");
    let key = KeyPair::generate().map_err(damaged)?;
    let certificate = wanted.signed_by(&key, issuer).map_err(damaged)?;
    Ok((certificate.pem(), key.serialize_pem()))
}
