//! The server's own certificates are made anew while it runs, long before they end; a CA never is.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::certificates::RENEW_DAYS;
use super::{CA, CertificateEnd, ETCD_CA, Pki};
use crate::config::Config;

/// A long wait is made of waits of at most this: timers stand still while a machine sleeps, and clocks are set.
const STEP: Duration = Duration::from_secs(6 * 3600);
/// How long lies between two attempts at least.
const RETRY: Duration = Duration::from_secs(3600);

/// Renews what becomes due until told to stop.
pub(crate) async fn renew(pki: &Pki, config: &Config, stop: &CancellationToken) {
    loop {
        let wait = Duration::try_from(due(&pki.ends.borrow()).duration_since(Timestamp::now())).unwrap_or_default();
        let step = if wait.is_zero() {
            match pki.renew(config) {
                Ok(()) => tracing::info!("made new certificates of this master"),
                Err(errors) => {
                    errors.iter().for_each(|error| tracing::warn!(%error, "cannot renew this master's certificates"));
                }
            }
            RETRY
        } else {
            wait.min(STEP)
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(step) => {}
        }
    }
}

/// When the first of them is so near its end that it is made anew.
fn due(ends: &[CertificateEnd]) -> Timestamp {
    let leaves = ends.iter().filter(|end| ![CA, ETCD_CA].contains(&end.name)).map(|end| end.at);
    let first = leaves.min().unwrap_or(Timestamp::MAX);
    first.saturating_sub(SignedDuration::from_hours(24 * RENEW_DAYS)).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rcgen::CertificateParams;

    use super::super::{certificates, files, issuer, pair};
    use super::*;

    /// A certificate as `wanted` that is to be renewed in `seconds`, in place of the one that is there.
    fn write_aged(directory: &Path, name: &str, mut wanted: CertificateParams, seconds: i64) {
        let path = |name: &str| directory.join(name);
        let read = |name: &str| files::read(&path(name)).unwrap().unwrap();
        let end = Timestamp::now().as_second() + RENEW_DAYS * 24 * 3600 + seconds;
        let end = Duration::from_secs(end.try_into().unwrap());
        wanted.not_after = rcgen::date_time_ymd(1970, 1, 1) + end;
        let (certificate, key) = pair(&wanted, &issuer(&read("ca.crt"), &read("ca.key")).unwrap()).unwrap();
        files::write_private(&path(&format!("{name}.key")), &key).unwrap();
        files::write_public(&path(&format!("{name}.crt")), &certificate).unwrap();
    }

    /// What the ends are before and after they change for the first time.
    async fn first_change(pki: &Pki, config: &Config) -> (Vec<CertificateEnd>, Vec<CertificateEnd>) {
        let (mut ends, stop) = (pki.ends(), CancellationToken::new());
        let before = ends.borrow_and_update().clone();
        let changed = async {
            tokio::time::timeout(Duration::from_secs(60), ends.changed()).await.unwrap().unwrap();
            stop.cancel();
        };
        tokio::join!(renew(pki, config, &stop), changed);
        (before, ends.borrow().clone())
    }

    #[tokio::test]
    async fn a_certificate_is_made_anew_while_the_server_runs() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::new(directory.path());
        Pki::load_or_create(&config).unwrap();
        write_aged(&directory.path().join("pki"), "apiserver", certificates::server(&config).unwrap(), 2);
        let pki = Pki::load_or_create(&config).unwrap();
        let shown = pki.server.current();
        let (before, after) = first_change(&pki, &config).await;
        let names: Vec<&str> = after.iter().map(|end| end.name).collect();
        assert_eq!(names, ["ca", "apiserver", "apiserver-kubelet-client", "admin.kubeconfig"]);
        assert!(after[1].at > before[1].at, "{before:?} {after:?}");
        assert_eq!((&after[0], &after[2..]), (&before[0], &before[2..]), "the others have time");
        assert_ne!(pki.server.current().cert[0], shown.cert[0], "the newer one is shown");
        assert_eq!(pki.server.current().cert[1], pki.ca, "with the CA, which joining minions compare");
    }

    #[tokio::test]
    async fn so_is_that_of_the_store_as_an_etcd_though_others_cannot_be() {
        let directory = tempfile::tempdir().unwrap();
        let etcd_addresses = vec!["127.0.0.1".parse().unwrap()];
        let config = Config { etcd_addresses, ..Config::new(directory.path()) };
        Pki::load_or_create(&config).unwrap();
        let folder = directory.path().join("pki");
        let wanted = certificates::etcd_server(&config.etcd_addresses).unwrap();
        write_aged(&folder.join("etcd"), "server", wanted, 2);
        let pki = Pki::load_or_create(&config).unwrap();
        std::fs::remove_file(folder.join("ca.key")).unwrap();
        let (before, after) = first_change(&pki, &config).await;
        let names: Vec<&str> = after.iter().map(|end| end.name).collect();
        assert_eq!(names[4..], ["etcd-ca", "etcd-server", "etcd-client"]);
        assert!(after[5].at > before[5].at, "{before:?} {after:?}");
        assert_eq!((&after[..5], &after[6]), (&before[..5], &before[6]), "the others have time");

        // Nor is a CA made anew, whose clients would not be believed.
        for name in ["ca.key", "ca.crt", "server.crt"] {
            std::fs::remove_file(folder.join("etcd").join(name)).unwrap();
        }
        let error = pki.etcd.as_ref().unwrap().renew(&config).unwrap_err().to_string();
        assert!(error.ends_with("etcd/ca.key: no such file") && !folder.join("etcd/ca.crt").exists(), "{error}");
        let failed = pki.renew(&config).unwrap_err();
        let said: Vec<_> = failed.iter().map(|error| error.to_string().contains("etcd/ca.key")).collect();
        assert_eq!(said, [false, true], "what went wrong with both: {failed:?}");
    }

    #[test]
    fn leaves_are_due_sixty_days_before_the_first_ends() {
        let end = |name, days: i64| CertificateEnd { name, at: Timestamp::from_second(days * 24 * 3600).unwrap() };
        assert_eq!(
            due(&[end(CA, 10), end(ETCD_CA, 9), end("apiserver", 400), end("admin.kubeconfig", 365)]),
            end("", 305).at
        );
        assert_eq!(due(&[end(CA, 10)]).as_second(), (Timestamp::MAX - SignedDuration::from_hours(1440)).as_second());
    }
}
