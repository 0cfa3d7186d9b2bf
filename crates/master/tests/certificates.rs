//! Certificates that end before long are told of: by Events, by `kctl`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Event;
use kctl::{Cli, Console};
use kube::Api;
use kube::config::Kubeconfig;
use kube::runtime::{WatchStreamExt, watcher};
use master::{Master, Options};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

const DAY: u64 = 24 * 3600;

/// Valid since yesterday, for so many days and half a one from now.
fn lasting(params: &mut CertificateParams, days: u64) {
    let now = Duration::from_secs(jiff::Timestamp::now().as_second().try_into().unwrap());
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + (now - Duration::from_secs(DAY));
    params.not_after = epoch + (now + Duration::from_secs(days * DAY + DAY / 2));
}

/// A CA that is near its end, where the master finds it.
fn write_ca(data_dir: &Path, days: u64) -> Issuer<'static, KeyPair> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "kubernetes");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    lasting(&mut params, days);
    let certificate = params.self_signed(&key).unwrap();
    std::fs::create_dir(data_dir.join("pki")).unwrap();
    std::fs::write(data_dir.join("pki/ca.crt"), certificate.pem()).unwrap();
    std::fs::write(data_dir.join("pki/ca.key"), key.serialize_pem()).unwrap();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_and_a_user_near_their_end_are_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let issuer = write_ca(dir.path(), 20);
    let data_dir = dir.path().to_str().unwrap();
    let flags = ["master", "--bind-address", "127.0.0.1", "--secure-port", "0", "--data-dir", data_dir];
    let master = Master::start(Options::try_parse_from(flags).unwrap()).await.unwrap();

    let kubeconfig = Kubeconfig::read_from(dir.path().join("admin.kubeconfig")).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    let events: Api<Event> = Api::namespaced(kube::Client::try_from(config).unwrap(), "default");
    let of_reason = watcher::Config::default().fields("reason=CertificateExpiring");
    let mut events = watcher(events, of_reason).default_backoff().applied_objects().boxed();
    let event = tokio::time::timeout(Duration::from_secs(60), events.try_next()).await.unwrap().unwrap().unwrap();
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
