//! The cluster's keys: one CA, the server's certificate, the certificate it shows to kubelets, the admin's kubeconfig, the
//! join token, the key that signs service account tokens; those of an embedded store that is served. Made at first start, reused afterwards.

mod certificates;
mod etcd;
mod files;
mod identity;
mod join_token;
mod kubeconfig;
mod renewal;

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rcgen::{CertificateParams, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authn::{SigningKey, VerifyingKey};
use crate::config::Config;
use crate::error::Error;

use etcd::EtcdPki;
pub(crate) use identity::{Callers, Identity};
pub(crate) use join_token::JoinToken;
pub(crate) use renewal::renew;

/// The user and group of the server's certificate for kubelets.
const KUBELET_CLIENT: (&str, &str) = ("kube-apiserver-kubelet-client", "system:masters");
/// The user and group of the admin's kubeconfig.
const ADMIN: (&str, &str) = ("kubernetes-admin", "system:masters");

/// Until when a certificate of the cluster counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateEnd {
    /// `ca`, `apiserver`, `apiserver-kubelet-client`, `admin.kubeconfig`; `etcd-ca`, `etcd-server`, `etcd-client` where the
    /// store is served as an etcd.
    pub name: &'static str,
    /// When it ends.
    pub at: Timestamp,
}

/// The names of the CAs'.
const CA: &str = "ca";
const ETCD_CA: &str = "etcd-ca";

/// Everything in the data directory that proves something.
pub(crate) struct Pki {
    pub(crate) ca: CertificateDer<'static>,
    pub(crate) ca_certificate_pem: String,
    pub(crate) server: Arc<Identity>,
    pub(crate) kubelet_client: Arc<Identity>,
    /// Where the store is served as an etcd.
    pub(crate) etcd: Option<EtcdPki>,
    pub(crate) join_token: JoinToken,
    pub(crate) service_account_key: Arc<SigningKey>,
    /// More keys whose tokens count.
    pub(crate) service_account_keys: Vec<VerifyingKey>,
    ends: watch::Sender<Vec<CertificateEnd>>,
}

impl Pki {
    /// Whether there is a CA, or a part of one.
    pub(crate) fn is_there(config: &Config) -> bool {
        ["ca.crt", "ca.key"].iter().any(|name| config.data_dir.join("pki").join(name).exists())
    }

    /// Reads what is there and makes what is missing, expired or no longer fitting.
    pub(crate) fn load_or_create(config: &Config) -> Result<Pki, Error> {
        let directory = config.data_dir.join("pki");
        files::create_directory(&directory)?;
        let (ca_certificate_pem, ca_key_pem) = authority(&directory, "kubernetes")?;
        let ca = parse_certificate(&ca_certificate_pem)?;
        let leaves = Leaves::load_or_create(config, &ca, (&ca_certificate_pem, &ca_key_pem))?;
        files::write_public(&config.data_dir.join("ca.crt"), &ca_certificate_pem)?;
        let join_token = JoinToken::load_or_create(&config.data_dir.join("join-token"), &ca)?;
        let etcd = (!config.etcd_addresses.is_empty()).then(|| EtcdPki::load_or_create(config)).transpose()?;
        let (etcd, etcd_ends) = etcd.unzip();
        let ends = leaves.ends(&ca_certificate_pem).into_iter().chain(etcd_ends.into_iter().flatten()).collect();
        Ok(Pki {
            server: Arc::new(Identity::new(&leaves.server, Some(&ca))?),
            kubelet_client: Arc::new(Identity::new(&leaves.kubelet_client, None)?),
            etcd,
            ends: watch::channel(ends).0,
            ca,
            ca_certificate_pem,
            join_token,
            service_account_key: Arc::new(service_account_key(&directory, config)?),
            service_account_keys: service_account_keys(config)?,
        })
    }

    /// Makes anew what ends before long, and shows it from now on. What cannot be renewed keeps nothing else from it.
    fn renew(&self, config: &Config) -> Result<(), Vec<Error>> {
        let own = self.renew_own(config);
        let etcd = self.etcd.as_ref().map_or(Ok(Vec::new()), |etcd| etcd.renew(config));
        let newer: Vec<&CertificateEnd> = [&own, &etcd].into_iter().flatten().flatten().collect();
        self.ends.send_modify(|ends| {
            for end in ends {
                end.at = newer.iter().find(|newer| newer.name == end.name).map_or(end.at, |newer| newer.at);
            }
        });
        let failed: Vec<Error> = [own.err(), etcd.err()].into_iter().flatten().collect();
        if failed.is_empty() { Ok(()) } else { Err(failed) }
    }

    fn renew_own(&self, config: &Config) -> Result<Vec<CertificateEnd>, Error> {
        let ca_key_pem = held_key(&config.data_dir.join("pki"), &self.ca_certificate_pem)?;
        let leaves = Leaves::load_or_create(config, &self.ca, (&self.ca_certificate_pem, &ca_key_pem))?;
        self.server.replace(&leaves.server, Some(&self.ca))?;
        self.kubelet_client.replace(&leaves.kubelet_client, None)?;
        Ok(leaves.ends(&self.ca_certificate_pem))
    }

    /// Until when each certificate counts, and word of a newer one.
    pub(crate) fn ends(&self) -> watch::Receiver<Vec<CertificateEnd>> {
        self.ends.subscribe()
    }
}

/// What the CA signs for its own server and its admin.
struct Leaves {
    server: Pair,
    kubelet_client: Pair,
    admin: Pair,
}

impl Leaves {
    fn load_or_create(config: &Config, ca: &CertificateDer<'_>, (ca_pem, key): (&str, &str)) -> Result<Leaves, Error> {
        let (directory, issuer) = (config.data_dir.join("pki"), issuer(ca_pem, key)?);
        let server = leaf(&directory, "apiserver", ca, &issuer, certificates::server(config)?)?;
        let kubelet = certificates::client(KUBELET_CLIENT.0, KUBELET_CLIENT.1)?;
        let kubelet_client = leaf(&directory, "apiserver-kubelet-client", ca, &issuer, kubelet)?;
        let admin =
            kubeconfig::write_admin(config, ca, ca_pem, || pair(&certificates::client(ADMIN.0, ADMIN.1)?, &issuer))?;
        Ok(Leaves { server, kubelet_client, admin })
    }

    fn ends(&self, ca_pem: &str) -> Vec<CertificateEnd> {
        ends(&[
            (CA, ca_pem),
            ("apiserver", &self.server.0),
            ("apiserver-kubelet-client", &self.kubelet_client.0),
            ("admin.kubeconfig", &self.admin.0),
        ])
    }
}

/// When certificates (name and PEM) end.
fn ends(all: &[(&'static str, &str)]) -> Vec<CertificateEnd> {
    all.iter().filter_map(|(name, pem)| Some(CertificateEnd { name, at: certificates::end(pem)? })).collect()
}

/// PEM of a certificate and its key.
type Pair = (String, String);

fn damaged(reason: impl std::fmt::Display) -> Error {
    Error::Certificate(reason.to_string())
}

fn parse_certificate(pem: &str) -> Result<CertificateDer<'static>, Error> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(damaged)
}

fn issuer(certificate: &str, key: &str) -> Result<Issuer<'static, KeyPair>, Error> {
    Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key).map_err(damaged)?).map_err(damaged)
}

/// Whether a CA's certificate (PEM) and its key are usable, and belong together.
pub fn check_ca(certificate: &str, key: &str) -> Result<(), Error> {
    let (der, key) = (parse_certificate(certificate)?, KeyPair::from_pem(key).map_err(damaged)?);
    let (_, parsed) = X509Certificate::from_der(&der).map_err(damaged)?;
    let same = parsed.public_key().subject_public_key.data.as_ref() == key.public_key_raw();
    if same { Ok(()) } else { Err(damaged("ca.crt and ca.key do not belong together")) }
}

/// The key of the CA that is in use. Another CA counts from the next start on.
fn held_key(directory: &Path, ca_certificate_pem: &str) -> Result<String, Error> {
    let path = directory.join("ca.key");
    let key = files::read(&path)?.ok_or_else(|| damaged(format!("{}: no such file", path.display())))?;
    check_ca(ca_certificate_pem, &key)?;
    Ok(key)
}

/// A CA. It is never replaced: every identity it signed for hangs on it.
fn authority(directory: &Path, name: &str) -> Result<Pair, Error> {
    let paths = (directory.join("ca.crt"), directory.join("ca.key"));
    match (files::read(&paths.0)?, files::read(&paths.1)?) {
        (Some(certificate), Some(key)) => {
            check_ca(&certificate, &key)?;
            Ok((certificate, key))
        }
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
