//! The config map `kube-system/extension-apiserver-authentication`: by which CA a server beside this one believes
//! clients (`pkg/controlplane/controller/clusterauthenticationtrust`).
//!
//! What is there already counts, too: several servers write it, each its own CA, and a CA stays until it has ended.
//! Nobody is believed here for what a header says (`--requestheader-client-ca-file` upstream), so nothing of it is
//! written; what somebody else wrote of it stays as long as there is a CA with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::well_known::NAMESPACE_SYSTEM;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::admission::Effects;
use crate::cache::{Closed, Cursor, Filter, Urgency};
use crate::server::Shared;
use crate::status::{ApiError, Subject};
use crate::storage::{Current, Write};
use crate::tracking::Tracking;
use crate::user::User;

const NAME: &str = "extension-apiserver-authentication";
const CLIENT_CA: &str = "client-ca-file";
const HEADER_CA: &str = "requestheader-client-ca-file";
/// What else is said of those who are believed for what a header says.
const OF_HEADERS: [&str; 5] = [
    "requestheader-username-headers",
    "requestheader-uid-headers",
    "requestheader-group-headers",
    "requestheader-extra-headers-prefix",
    "requestheader-allowed-names",
];
/// How long a certificate counts after its end, as clocks differ.
const SLACK: SignedDuration = SignedDuration::from_mins(5);
/// How long lies between two attempts where one failed.
const RETRY: Duration = Duration::from_secs(60);

type Data = BTreeMap<String, String>;

/// Writes the config map, and keeps it right until the server stops.
pub(crate) async fn publish(shared: &Arc<Shared>) {
    let Some(kind) = api::kinds::by_kind("v1", "ConfigMap") else { return };
    let filter = Filter::all(kind.info, Some(NAMESPACE_SYSTEM));
    let (_, mut changes) = shared.cache.of(kind).follow_from_now(&filter, 0, Urgency::InTurn);
    let mut is_right = is_written(shared).await;
    let shared = shared.clone();
    tokio::spawn(async move {
        let key = kind.info.registry_key(Some(NAMESPACE_SYSTEM), NAME);
        loop {
            tokio::select! {
                changed = changed(&mut changes, &key) => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY), if !is_right => {}
            }
            is_right = is_written(&shared).await;
        }
    });
}

/// Waits until the object under `key` may have changed, or the server stops.
async fn changed(changes: &mut Cursor, key: &str) -> Result<(), Closed> {
    loop {
        changes.news().await?;
        let mut is_it = false;
        let read = changes.read(|event| {
            is_it |= *event.entry.key == *key;
            true
        });
        if is_it || read.is_err() {
            return Ok(());
        }
    }
}

async fn is_written(shared: &Arc<Shared>) -> bool {
    let written = write(shared).await;
    if let Err(error) = &written {
        tracing::warn!(%error, namespace = NAMESPACE_SYSTEM, name = NAME, "cannot say by which CA clients are believed");
    }
    written.is_ok()
}

async fn write(shared: &Arc<Shared>) -> Result<(), ApiError> {
    let kind = api::kinds::by_kind("v1", "ConfigMap").ok_or(ApiError::PathNotFound)?;
    let (subject, key) = (Subject::new(kind.info, NAME), kind.info.registry_key(Some(NAMESPACE_SYSTEM), NAME));
    let wanted = |data: &Data| {
        let wanted = wanted(data, &shared.pki.ca_certificate_pem, Timestamp::now());
        wanted.map_err(|reason| ApiError::Internal(format!("it holds what is no certificate: {reason}")))
    };
    if shared.cache.of(kind).get(&key).is_none() {
        let metadata =
            ObjectMeta { name: Some(NAME.into()), namespace: Some(NAMESPACE_SYSTEM.into()), ..ObjectMeta::default() };
        let map = ConfigMap { metadata, data: Some(wanted(&Data::new())?), ..ConfigMap::default() };
        let user = Arc::new(User::master("system:apiserver"));
        match shared.create(&user, kind, Some(NAMESPACE_SYSTEM), Box::new(map), false).await {
            Err(ApiError::AlreadyExists(_)) => {}
            created => return created.map(|_| ()),
        }
    }
    let change = |current: &Current, _: &_| {
        let Some(map) = current.object.as_any().downcast_ref::<ConfigMap>() else { return Ok(Write::Keep) };
        let data = map.data.clone().unwrap_or_default();
        let wanted = wanted(&data)?;
        if wanted == data {
            return Ok(Write::Keep);
        }
        let mut new = ConfigMap { data: Some(wanted), ..map.clone() };
        new.metadata.resource_version = None;
        let managed = Some(Tracking::server().updated(current, &new, None, None));
        Ok(Write::Put(Box::new(new), Effects { managed, ..Effects::default() }))
    };
    match shared.modify(kind, &subject, &key, false, change).await {
        // Whoever deletes it is told of at once, as a change.
        Ok(_) | Err(ApiError::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What the map has to say that says `data`: that and our CA. An error where it holds what cannot be read, as nobody
/// knows then what to keep.
fn wanted(data: &Data, ca: &str, now: Timestamp) -> Result<Data, String> {
    let held = |key: &str| data.get(key).filter(|pem| !pem.is_empty()).map(|pem| certificates(pem)).transpose();
    let clients = held(CLIENT_CA)?.into_iter().flatten().chain(certificates(ca)?);
    let clients = bundle(clients, now);
    let proxies = bundle(held(HEADER_CA)?.into_iter().flatten(), now);
    let mut wanted = Data::new();
    if !proxies.is_empty() {
        wanted.extend(OF_HEADERS.map(|key| (key.to_owned(), data.get(key).map_or("[]", |value| value).to_owned())));
        wanted.insert(HEADER_CA.to_owned(), proxies);
    }
    if !clients.is_empty() {
        wanted.insert(CLIENT_CA.to_owned(), clients);
    }
    Ok(wanted)
}

/// The certificates in a PEM; an error where there is none.
fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|error| error.to_string())?;
    if all.is_empty() { Err("data does not contain any valid RSA or ECDSA certificates".to_owned()) } else { Ok(all) }
}

/// Those that have not ended, each once, as PEM.
fn bundle(all: impl Iterator<Item = CertificateDer<'static>>, now: Timestamp) -> String {
    let mut kept: Vec<CertificateDer<'static>> = Vec::new();
    for certificate in all.filter(|certificate| counts(certificate, now)) {
        if !kept.contains(&certificate) {
            kept.push(certificate);
        }
    }
    kept.iter().map(|certificate| pem(certificate)).collect()
}

fn counts(certificate: &[u8], now: Timestamp) -> bool {
    let parsed = X509Certificate::from_der(certificate);
    let end = parsed.ok().and_then(|(_, c)| Timestamp::from_second(c.validity().not_after.timestamp()).ok());
    end.and_then(|end| end.checked_add(SLACK).ok()).is_none_or(|end| end > now)
}

/// As Go writes it.
fn pem(certificate: &[u8]) -> String {
    const LINE: usize = 64;
    let text = STANDARD.encode(certificate);
    let lines = (0..text.len()).step_by(LINE).map(|at| &text[at..text.len().min(at + LINE)]);
    let lines: String = lines.flat_map(|line| [line, "\n"]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// A certificate that ends in so many minutes.
    fn ca(minutes: u64) -> String {
        let now = Duration::from_secs(Timestamp::now().as_second().try_into().unwrap());
        let mut params = CertificateParams::default();
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + Duration::from_secs(60 * minutes);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem().replace("\r\n", "\n")
    }

    fn data(entries: &[(&str, &str)]) -> Data {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn our_ca_stands_beside_those_that_are_there_until_they_end() {
        let (now, ours, other, proxy) = (Timestamp::now(), ca(60), ca(60), ca(60));
        let later = now.checked_add(SignedDuration::from_mins(66)).unwrap();
        let both = format!("{other}{ours}");
        let of_headers = OF_HEADERS.map(|key| (key, "[]"));
        let with_proxy = [&of_headers[..], &[(HEADER_CA, &*proxy), (CLIENT_CA, &*ours)]].concat();
        let cases: [(&str, Data, Timestamp, Data); 7] = [
            ("nothing is there", data(&[]), now, data(&[(CLIENT_CA, &ours)])),
            ("another's is", data(&[(CLIENT_CA, &other)]), now, data(&[(CLIENT_CA, &both)])),
            ("both are", data(&[(CLIENT_CA, &both)]), now, data(&[(CLIENT_CA, &both)])),
            ("both have ended", data(&[(CLIENT_CA, &both)]), later, data(&[])),
            ("other keys are", data(&[("a", "b"), (OF_HEADERS[0], "[]")]), now, data(&[(CLIENT_CA, &ours)])),
            ("that of a proxy is", data(&[(HEADER_CA, &proxy)]), now, data(&with_proxy)),
            ("that of a proxy has ended", data(&[(HEADER_CA, &proxy)]), later, data(&[])),
        ];
        for (sentence, data, now, expected) in cases {
            let written = wanted(&data, &ours, now).unwrap();
            assert_eq!(written, expected, "{sentence}");
            assert_eq!(wanted(&written, &ours, now).unwrap(), written, "{sentence}: again there is nothing to do");
        }
        assert!(wanted(&data(&[(CLIENT_CA, "mine")]), &ours, now).is_err(), "nobody knows what it was");
    }
}
