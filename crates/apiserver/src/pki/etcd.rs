//! The keys of the embedded store where it is served as an etcd: a CA of its own, as kubeadm gives one to etcd. The
//! cluster's CA signs for every node and user, none of whom may read what lies in the store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::identity::{Callers, Identity};
use super::{CertificateEnd, ETCD_CA, Pair, authority, certificates, ends, files, held_key, issuer, leaf};
use super::{damaged, parse_certificate};
use crate::config::Config;
use crate::error::Error;

/// What such a store shows, and whom it believes.
pub(crate) struct EtcdPki {
    ca: CertificateDer<'static>,
    ca_certificate_pem: String,
    server: Arc<Identity>,
}

impl EtcdPki {
    /// Reads what is in `pki/etcd` of the data directory and makes what is missing, expired or no longer fitting: also a
    /// client's certificate, `client.crt`, for whoever may read the data directory anyway. With when each of them ends.
    pub(super) fn load_or_create(config: &Config) -> Result<(EtcdPki, Vec<CertificateEnd>), Error> {
        let directory = directory(&config.data_dir);
        files::create_directory(&directory)?;
        let (ca_certificate_pem, ca_key) = authority(&directory, "etcd-ca")?;
        let ca = parse_certificate(&ca_certificate_pem)?;
        let leaves = Leaves::load_or_create(config, &ca, (&ca_certificate_pem, &ca_key))?;
        let ends = leaves.ends(&ca_certificate_pem);
        let server = Arc::new(Identity::new(&leaves.server, None)?);
        Ok((EtcdPki { ca, ca_certificate_pem, server }, ends))
    }

    /// Makes anew what ends before long, and shows it from now on.
    pub(super) fn renew(&self, config: &Config) -> Result<Vec<CertificateEnd>, Error> {
        let key = held_key(&directory(&config.data_dir), &self.ca_certificate_pem)?;
        let leaves = Leaves::load_or_create(config, &self.ca, (&self.ca_certificate_pem, &key))?;
        self.server.replace(&leaves.server, None)?;
        Ok(leaves.ends(&self.ca_certificate_pem))
    }

    /// How its clients are heard: those with a certificate of this CA only.
    pub(crate) fn tls(&self) -> Result<rustls::ServerConfig, Error> {
        self.server.tls(&self.ca, Callers::Known, &[b"h2"]).map_err(damaged)
    }
}

fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("pki").join("etcd")
}

/// What that CA signs.
struct Leaves {
    server: Pair,
    client: Pair,
}

impl Leaves {
    fn load_or_create(config: &Config, ca: &CertificateDer<'_>, (ca_pem, key): (&str, &str)) -> Result<Leaves, Error> {
        let (directory, issuer) = (directory(&config.data_dir), issuer(ca_pem, key)?);
        let server = certificates::etcd_server(&config.etcd_addresses)?;
        let server = leaf(&directory, "server", ca, &issuer, server)?;
        let client = leaf(&directory, "client", ca, &issuer, certificates::etcd_client())?;
        Ok(Leaves { server, client })
    }

    fn ends(&self, ca_pem: &str) -> Vec<CertificateEnd> {
        ends(&[(ETCD_CA, ca_pem), ("etcd-server", &self.server.0), ("etcd-client", &self.client.0)])
    }
}
