//! Keys and certificates on disk: readable by root only, replaced whole or not at all.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Error;

/// The cluster's CA.
pub(super) const CA: &str = "ca.crt";
/// Key and certificate of the node as a client.
pub(super) const CLIENT: &str = "kubelet-client.pem";
/// Key and certificate of the node as a server.
pub(super) const SERVING: &str = "kubelet-serving.pem";

/// A certificate chain and its key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// When a certificate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
}

const KEY_HEADER: &str = "-----BEGIN PRIVATE KEY-----";

impl Pair {
    /// Reads what [`Pair::write`] wrote; `None` if there is none, or nothing usable.
    pub(super) fn read(path: &Path) -> Result<Option<Pair>, Error> {
        let Some(text) = read(path)? else { return Ok(None) };
        let Some((certificate, key)) = text.split_once(KEY_HEADER) else { return Ok(None) };
        Ok(Some(Pair { certificate: certificate.to_owned(), key: format!("{KEY_HEADER}{key}") }))
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), Error> {
        write(path, &format!("{}\n{}", self.certificate.trim_end(), self.key))
    }

    /// Whether it counts now and its subject is `user`.
    pub(super) fn is_valid_for(&self, user: &str) -> bool {
        self.certificate(|c| c.subject().iter_common_name().any(|name| name.as_str() == Ok(user))) == Some(true)
            && self.counts_now()
    }

    /// Whether it counts now and names the node and its address.
    pub(super) fn is_valid_serving(&self, node_name: &str, node_ip: IpAddr) -> bool {
        let address = match node_ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let names = self.certificate(|c| {
            let names = c.subject_alternative_name().ok().flatten().map(|e| e.value.general_names.clone());
            let names = names.unwrap_or_default();
            names.iter().any(|n| matches!(n, GeneralName::DNSName(name) if *name == node_name))
                && names.iter().any(|n| matches!(n, GeneralName::IPAddress(ip) if *ip == address))
        });
        names == Some(true) && self.counts_now()
    }

    fn counts_now(&self) -> bool {
        let now = Timestamp::now();
        self.validity().is_some_and(|validity| validity.from <= now && now < validity.to)
    }

    pub(super) fn validity(&self) -> Option<Validity> {
        self.certificate(|c| {
            let time = |seconds| Timestamp::from_second(seconds).ok();
            let validity = c.validity();
            Some(Validity { from: time(validity.not_before.timestamp())?, to: time(validity.not_after.timestamp())? })
        })?
    }

    fn certificate<T>(&self, read: impl FnOnce(&X509Certificate<'_>) -> T) -> Option<T> {
        let der = CertificateDer::from_pem_slice(self.certificate.as_bytes()).ok()?;
        let (_, parsed) = X509Certificate::from_der(&der).ok()?;
        Some(read(&parsed))
    }
}

/// Bytes as PEM.
pub(super) fn pem(label: &str, der: &[u8]) -> String {
    const LINE: usize = 64;
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(LINE).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

pub(super) fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { path: path.to_owned(), source }),
    }
}

pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Writes a file that only its owner reads, all of it or nothing.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Error> {
    let written = || -> std::io::Result<()> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let new = path.with_extension("new");
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    written().map_err(|source| Error::Io { path: path.to_owned(), source })
}
