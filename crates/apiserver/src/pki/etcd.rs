//! The keys of the embedded store where it is served as an etcd: a CA of its own, as kubeadm gives one to etcd. The
//! cluster's CA signs for every node and user, none of whom may read what lies in the store.

use std::net::IpAddr;
use std::path::Path;

use super::{authority, certificates, files, issuer, leaf, parse_certificate};
use crate::error::Error;

/// What such a store shows, and whom it believes; all PEM.
pub struct EtcdPki {
    /// The CA that signs for the store's clients, and for nothing else.
    pub ca: String,
    /// The server's certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl EtcdPki {
    /// Reads what is in `pki/etcd` of the data directory and makes what is missing, expired or no longer fitting: also a
    /// client's certificate, `client.crt`, for whoever may read the data directory anyway.
    pub fn load_or_create(data_dir: &Path, addresses: &[IpAddr]) -> Result<EtcdPki, Error> {
        let directory = data_dir.join("pki").join("etcd");
        files::create_directory(&directory)?;
        let (ca_certificate, ca_key) = authority(&directory, "etcd-ca")?;
        let ca = parse_certificate(&ca_certificate)?;
        let issuer = issuer(&ca_certificate, &ca_key)?;
        let server = certificates::etcd_server(addresses)?;
        let (certificate, key) = leaf(&directory, "server", &ca, &issuer, server)?;
        leaf(&directory, "client", &ca, &issuer, certificates::etcd_client())?;
        Ok(EtcdPki { ca: ca_certificate, certificate, key })
    }
}
