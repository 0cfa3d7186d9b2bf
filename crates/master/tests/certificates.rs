//! Certificates that end before long are told of: by Events, by `kctl`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::ffi::OsStr;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apiserver::CertificateEnd;
use clap::Parser;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Event;
use kctl::{Cli, Console};
use kube::Api;
use kube::config::Kubeconfig;
use kube::runtime::{WatchStreamExt, watcher};
use master::{Master, Options};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const DAY: u64 = 24 * 3600;

/// Valid since yesterday, for so many days and half a one from now.
fn lasting(params: &mut CertificateParams, days: u64) {
    let now = Duration::from_secs(jiff::Timestamp::now().as_second().try_into().unwrap());
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + (now - Duration::from_secs(DAY));
    params.not_after = epoch + (now + Duration::from_secs(days * DAY + DAY / 2));
}

/// A CA that is near its end, where the master finds it.
fn write_ca(pki: &Path, days: u64) -> Issuer<'static, KeyPair> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "kubernetes");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    lasting(&mut params, days);
    let certificate = params.self_signed(&key).unwrap();
    std::fs::create_dir_all(pki).unwrap();
    std::fs::write(pki.join("ca.crt"), certificate.pem()).unwrap();
    std::fs::write(pki.join("ca.key"), key.serialize_pem()).unwrap();
    Issuer::new(params, key)
}

/// The admin's kubeconfig with another certificate in it.
fn write_kubeconfig(data_dir: &Path, issuer: &Issuer<'_, KeyPair>, days: u64) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "bob");
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    lasting(&mut params, days);
    let certificate = params.signed_by(&key, issuer).unwrap();
    std::fs::write(data_dir.join("bob.crt"), certificate.pem()).unwrap();
    std::fs::write(data_dir.join("bob.key"), key.serialize_pem()).unwrap();
    let text = std::fs::read_to_string(data_dir.join("admin.kubeconfig")).unwrap();
    let line = |line: &str| match line.split_once(':').map(|(key, _)| (key, key.trim_start_matches(['-', ' ']))) {
        Some((key, "client-certificate-data")) => format!("{}: bob.crt", key.replace("-data", "")),
        Some((key, "client-key-data")) => format!("{}: bob.key", key.replace("-data", "")),
        _ => line.to_owned(),
    };
    let text: Vec<String> = text.lines().map(line).collect();
    std::fs::write(data_dir.join("bob.kubeconfig"), text.join("\n")).unwrap();
}

#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What `kctl get namespaces` says beside its answer.
async fn beside(kubeconfig: &Path) -> String {
    let cli = Cli::try_parse_from(["kctl", "get", "namespaces", "--kubeconfig", kubeconfig.to_str().unwrap()]).unwrap();
    let said = Said::default();
    let (out, err) = (Box::new(std::io::sink()), Box::new(said.clone()));
    kctl::run(cli, &mut Console { out, err, input: Box::new(std::io::empty()) }).await.unwrap();
    let text = said.0.lock().unwrap().clone();
    String::from_utf8(text).unwrap()
}

async fn admin(data_dir: &Path) -> kube::Client {
    let kubeconfig = Kubeconfig::read_from(data_dir.join("admin.kubeconfig")).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

/// The first Event that a certificate ends.
async fn first_warning(client: &kube::Client) -> Event {
    let of_reason = watcher::Config::default().fields("reason=CertificateExpiring");
    let events = watcher(Api::namespaced(client.clone(), "default"), of_reason);
    let mut events = events.default_backoff().applied_objects().boxed();
    tokio::time::timeout(Duration::from_secs(60), events.try_next()).await.unwrap().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_and_a_user_near_their_end_are_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let issuer = write_ca(&dir.path().join("pki"), 20);
    let data_dir = dir.path().to_str().unwrap();
    let flags = ["master", "--bind-address", "127.0.0.1", "--secure-port", "0", "--data-dir", data_dir];
    let master = Master::start(Options::try_parse_from(flags).unwrap()).await.unwrap();
    let event = first_warning(&admin(dir.path()).await).await;
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    assert_eq!(event.involved_object.name.as_deref(), Some("kubernetes"));
    let message = event.message.unwrap_or_default();
    assert!(message.starts_with("the certificate of the cluster's CA expires in 20 days, at "), "{message}");

    let said = beside(&dir.path().join("admin.kubeconfig")).await;
    assert_eq!(said, format!("Warning: {message}\n"), "the admin's own lasts a year");
    write_kubeconfig(dir.path(), &issuer, 9);
    let said = beside(&dir.path().join("bob.kubeconfig")).await;
    let own = "Warning: the client certificate of the kubeconfig expires in 9 days, at ";
    assert!(said.starts_with(own) && said.lines().count() == 2, "{said}");
    master.stop().await;
}

/// The store's certificate as an etcd, ten seconds before it is to be renewed: the master has to start meanwhile.
fn write_etcd_server(pki: &Path, issuer: &Issuer<'_, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    lasting(&mut params, 60);
    params.not_after -= Duration::from_secs(DAY / 2 - 10);
    std::fs::write(pki.join("server.crt"), params.signed_by(&key, issuer).unwrap().pem()).unwrap();
    std::fs::write(pki.join("server.key"), key.serialize_pem()).unwrap();
}

/// The certificate that is shown to a client of the store.
async fn shown(address: SocketAddr, pki: &Path) -> CertificateDer<'static> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.join("ca.crt")).unwrap()).unwrap();
    let own = vec![CertificateDer::from_pem_file(pki.join("client.crt")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(pki.join("client.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_client_auth_cert(own, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let connecting = TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream);
    let stream = tokio::time::timeout(Duration::from_secs(60), connecting).await.unwrap().unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_as_an_etcd_has_newer_certificates_while_the_master_runs_and_its_ca_is_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let pki = dir.path().join("pki/etcd");
    write_etcd_server(&pki, &write_ca(&pki, 20));
    let flags = ["master", "--bind-address", "127.0.0.1", "--secure-port", "0"].into_iter().map(OsStr::new);
    let flags = flags.chain(["--etcd-listen-client-urls", "https://127.0.0.1:0", "--data-dir"].map(OsStr::new));
    let flags = flags.chain([dir.path().as_os_str()]);
    let master = Master::start(Options::try_parse_from(flags).unwrap()).await.unwrap();
    let of_server = |ends: &Vec<CertificateEnd>| ends.iter().find(|end| end.name == "etcd-server").unwrap().at;
    let mut ends = master.api_server().unwrap().certificate_ends();
    let begun = of_server(&ends.borrow());
    let address = master.etcd_addresses()[0];
    let before = shown(address, &pki).await;
    let renewed = ends.wait_for(|ends| of_server(ends) > begun);
    drop(tokio::time::timeout(Duration::from_secs(60), renewed).await.unwrap().unwrap());
    assert_ne!(shown(address, &pki).await, before, "without a restart");

    let client = admin(dir.path()).await;
    let message = first_warning(&client).await.message.unwrap_or_default();
    assert!(message.starts_with("the certificate of the CA for the store's clients expires in 20 days"), "{message}");
    let metrics = client.request_text(http::Request::get("/metrics").body(Vec::new()).unwrap()).await.unwrap();
    for name in ["etcd-ca", "etcd-server", "etcd-client"] {
        assert!(
            metrics.contains(&format!("apiserver_certificate_ttl_seconds{{certificate=\"{name}\"}} ")),
            "{metrics}"
        );
    }
    master.stop().await;
}
