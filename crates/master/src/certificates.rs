//! Warns of certificates that end: in the log, and by Events about the Service `kubernetes`.

use apiserver::{ApiServer, CertificateEnd, User};
use client::expiry::{self, Ending};
use client::{EventType, Recorder, Tasks};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::watch;

use crate::start::client_of;

/// Why the Events are written.
const REASON: &str = "CertificateExpiring";

/// Warns of the CAs' certificates, and of the API server's own and the store's where they could not be renewed.
pub(crate) fn watch(server: &ApiServer, tasks: &Tasks) {
    let client = client_of(server, User::new("system:apiserver", ["system:masters"]));
    let recorder = Recorder::new(client, "apiserver", None, tasks);
    let endings = |ends: &Vec<CertificateEnd>| ends.iter().map(ending).collect();
    tasks.spawn(expiry::watch(server.certificate_ends(), endings, Timestamp::now, teller(recorder)));
}

/// Warns of the certificates a component depends on that reaches the API server by a kubeconfig.
pub(crate) fn watch_kubeconfig(endings: Vec<Ending>, client: kube::Client, component: &'static str, tasks: &Tasks) {
    let recorder = Recorder::new(client, component, None, tasks);
    tasks.spawn(async move {
        // Nobody changes them: the file is read once.
        let (_sender, held) = watch::channel(endings);
        expiry::watch(held, Clone::clone, Timestamp::now, teller(recorder)).await;
    });
}

fn ending(end: &CertificateEnd) -> Ending {
    let what = match end.name {
        "ca" => "the certificate of the cluster's CA",
        "apiserver" => "the API server's serving certificate",
        "apiserver-kubelet-client" => "the API server's certificate for kubelets",
        "admin.kubeconfig" => "the client certificate in admin.kubeconfig",
        "etcd-ca" => "the certificate of the CA for the store's clients",
        "etcd-server" => "the store's serving certificate as an etcd",
        "etcd-client" => "the certificate for the store's clients in pki/etcd",
        other => other,
    };
    Ending::new(what, end.at)
}

/// The Service everybody sees stands for the API server, which is no object.
fn teller(recorder: Recorder) -> impl Fn(String) {
    let text = |text: &str| Some(text.to_owned());
    let service = ObjectReference {
        api_version: text("v1"),
        kind: text("Service"),
        namespace: text("default"),
        name: text("kubernetes"),
        ..ObjectReference::default()
    };
    move |said| {
        tracing::warn!("{said}");
        recorder.event(&service, EventType::Warning, REASON, said);
    }
}
