//! etcd + kube-apiserver, asked for the same in the same run, where they are installed: `KUBE_APISERVER` names the program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Method;

use crate::etcd::{self, Etcd};
use crate::http::Target;
use crate::parts::{self, ApiServer, Bench};
use crate::process::{Process, TOKENS};
use crate::watchers;

/// What its figures are told under.
const NAME: &str = "etcd + kube-apiserver";
/// How long it may take to be ready.
const READY_MAX: Duration = Duration::from_secs(60);

/// Measures it as the parts of the same names measure a master.
pub(crate) async fn upstream(bench: &mut Bench) -> Result<()> {
    let Some(program) = std::env::var_os("KUBE_APISERVER").map(PathBuf::from) else {
        eprintln!("  not compared with {NAME}: KUBE_APISERVER names no program");
        return Ok(());
    };
    bench.upstream = Some(program);
    bench.report.of = Some(NAME);
    parts::requests(bench).await?;
    parts::watch(bench).await?;
    watchers::burst(bench).await?;
    parts::hold(bench).await?;
    bench.report.of = None;
    bench.upstream = None;
    Ok(())
}

/// Starts both on `port`, with data below `folder`.
pub(crate) async fn start(program: &Path, folder: &Path, port: u16) -> Result<ApiServer> {
    let folder = folder.join(format!("upstream-{port}"));
    std::fs::create_dir_all(&folder)?;
    let etcd = etcd::start(&folder)?.context("KUBE_APISERVER is given, but there is no etcd")?;
    let tokens = folder.join("tokens");
    std::fs::write(&tokens, TOKENS)?;
    let key = account_key(&folder)?;
    let process = Process::start(program, &arguments(&folder, &etcd, port, &tokens, &key), &[], &folder.join("log"))?;
    let begun = Instant::now();
    loop {
        match ready(port, &folder).await {
            Ok(target) => return Ok(ApiServer { target, processes: vec![process, etcd.process] }),
            Err(error) => ensure!(begun.elapsed() < READY_MAX, "kube-apiserver is not ready: {error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What tokens of accounts are signed with, in the form that every version reads.
fn account_key(folder: &Path) -> Result<PathBuf> {
    let key = folder.join("sa.key");
    let made =
        Command::new("openssl").args(["genrsa", "-traditional", "-out"]).arg(&key).stderr(Stdio::null()).status()?;
    ensure!(made.success(), "openssl made no key: {made}");
    Ok(key)
}

/// Admission as it is by default, but that nobody has to make accounts; the same client with the same rights.
fn arguments(folder: &Path, etcd: &Etcd, port: u16, tokens: &Path, key: &Path) -> Vec<String> {
    let values = [
        ("etcd-servers", etcd.endpoint.clone()),
        ("bind-address", "127.0.0.1".to_owned()),
        ("advertise-address", "127.0.0.1".to_owned()),
        ("secure-port", port.to_string()),
        ("cert-dir", folder.display().to_string()),
        ("token-auth-file", tokens.display().to_string()),
        ("authorization-mode", "RBAC".to_owned()),
        ("disable-admission-plugins", "ServiceAccount".to_owned()),
        ("service-cluster-ip-range", "10.96.0.0/16".to_owned()),
        ("service-account-issuer", "https://kubernetes.default.svc".to_owned()),
        ("service-account-key-file", key.display().to_string()),
        ("service-account-signing-key-file", key.display().to_string()),
    ];
    values.into_iter().map(|(flag, value)| format!("--{flag}={value}")).collect()
}

async fn ready(port: u16, folder: &Path) -> Result<Target> {
    // It signs a certificate for itself.
    let ca = std::fs::read(folder.join("apiserver.crt"))?;
    let target = Target::with_token(&format!("127.0.0.1:{port}"), &ca, "benchtoken")?;
    target.connect().await?.call(Method::GET, "/readyz", Bytes::new()).await?;
    // The namespace is made a moment after that.
    target.connect().await?.call(Method::GET, "/api/v1/namespaces/default", Bytes::new()).await?;
    Ok(target)
}
