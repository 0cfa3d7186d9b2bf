//! Certificates end. Who holds one is warned a month ahead and every day from then on, until there is a newer one: at
//! known deadlines.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509Certificate};

/// How long before its end a certificate is warned about.
pub const AHEAD: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How often, from then on.
const AGAIN: SignedDuration = SignedDuration::from_hours(24);
/// A long wait is made of waits of at most this: timers stand still while a machine sleeps, and clocks are set.
const STEP: Duration = Duration::from_secs(6 * 3600);

/// A certificate that ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Which one, as a sentence begins with it.
    pub what: String,
    /// When it ends.
    pub at: Timestamp,
    /// How long before that it is warned about.
    pub ahead: SignedDuration,
}

impl Ending {
    /// A certificate that is warned about a month ahead.
    pub fn new(what: impl Into<String>, at: Timestamp) -> Ending {
        Ending { what: what.into(), at, ahead: AHEAD }
    }

    /// From when on it is warned about.
    fn first(&self) -> Timestamp {
        self.at.saturating_sub(self.ahead).unwrap_or(Timestamp::MIN)
    }
}

/// What there is to say about a certificate at `now`; nothing while it is good for long.
pub fn warning(ending: &Ending, now: Timestamp) -> Option<String> {
    if now < ending.first() {
        return None;
    }
    let (what, left) = (&ending.what, ending.at.duration_since(now));
    let at = Timestamp::from_second(ending.at.as_second()).unwrap_or(ending.at);
    Some(match left.as_hours() / 24 {
        _ if !left.is_positive() => format!("{what} has expired at {at}"),
        0 => format!("{what} expires in less than a day, at {at}"),
        1 => format!("{what} expires in 1 day, at {at}"),
        days => format!("{what} expires in {days} days, at {at}"),
    })
}

/// When, after `now`, there is something new to say: as it begins to be warned about, daily, and as it ends.
pub fn next_look(ending: &Ending, now: Timestamp) -> Timestamp {
    if now < ending.first() {
        return ending.first();
    }
    let tomorrow = now.saturating_add(AGAIN).unwrap_or(Timestamp::MAX);
    if now < ending.at { tomorrow.min(ending.at) } else { tomorrow }
}

/// Tells each warning about what `endings` finds, now, when that changes, and at each deadline; until nobody can change it
/// any more. `now` is the wall clock.
pub async fn watch<T>(
    mut held: watch::Receiver<T>,
    endings: impl Fn(&T) -> Vec<Ending>,
    now: impl Fn() -> Timestamp,
    tell: impl Fn(String),
) {
    loop {
        let (present, looked) = (endings(&held.borrow_and_update()), now());
        present.iter().filter_map(|ending| warning(ending, looked)).for_each(&tell);
        let next = present.iter().map(|ending| next_look(ending, looked)).min();
        tokio::select! {
            changed = held.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = sleep_until(next.unwrap_or(Timestamp::MAX), &now) => {}
        }
    }
}

/// Waits for a time of the wall clock, also where that is set, or the machine sleeps meanwhile.
pub async fn sleep_until(deadline: Timestamp, now: &impl Fn() -> Timestamp) {
    loop {
        let left = Duration::try_from(deadline.duration_since(now())).unwrap_or_default();
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(STEP)).await;
    }
}

/// When a certificate (DER) ends.
pub fn of_der(der: &[u8]) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// When the first certificate of a PEM text ends.
pub fn of_pem(pem: &[u8]) -> Option<Timestamp> {
    of_der(&CertificateDer::from_pem_slice(pem).ok()?)
}

/// The certificates that whoever has this configuration depends on: his own, and that of the cluster's CA.
pub fn of_config(config: &kube::Config) -> Vec<Ending> {
    let auth = &config.auth_info;
    let data = auth.client_certificate_data.as_ref().and_then(|data| STANDARD.decode(data).ok());
    let own = data.or_else(|| auth.client_certificate.as_ref().and_then(|path| std::fs::read(path).ok()));
    let own = own.and_then(|pem| of_pem(&pem)).map(|at| Ending::new("the client certificate of the kubeconfig", at));
    let roots = config.root_cert.iter().flatten().filter_map(|der| of_der(der));
    own.into_iter().chain(roots.min().map(|at| Ending::new("the certificate of the cluster's CA", at))).collect()
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_certificate_is_warned_about_a_month_ahead_and_daily() {
        let ending = Ending::new("it", at("2030-03-31T12:00:00Z"));
        let table = [
            ("2029-01-01T00:00:00Z", "", "2030-03-01T12:00:00Z"),
            ("2030-03-01T11:59:59Z", "", "2030-03-01T12:00:00Z"),
            ("2030-03-01T12:00:00Z", "it expires in 30 days, at 2030-03-31T12:00:00Z", "2030-03-02T12:00:00Z"),
            ("2030-03-30T11:00:00Z", "it expires in 1 day, at 2030-03-31T12:00:00Z", "2030-03-31T11:00:00Z"),
            ("2030-03-31T11:00:00Z", "it expires in less than a day, at 2030-03-31T12:00:00Z", "2030-03-31T12:00:00Z"),
            ("2030-03-31T12:00:00Z", "it has expired at 2030-03-31T12:00:00Z", "2030-04-01T12:00:00Z"),
            ("2031-01-01T00:00:00Z", "it has expired at 2030-03-31T12:00:00Z", "2031-01-02T00:00:00Z"),
        ];
        for (now, said, next) in table {
            let now = at(now);
            assert_eq!(warning(&ending, now).unwrap_or_default(), said, "{now}");
            assert_eq!(next_look(&ending, now), at(next), "{now}");
            assert!(next_look(&ending, now) > now, "no deadline is over already");
        }
        let endless = Ending::new("it", Timestamp::MAX);
        assert_eq!((warning(&endless, Timestamp::MIN), warning(&endless, at("2030-01-01T00:00:00Z"))), (None, None));
    }

    #[tokio::test(start_paused = true)]
    async fn deadlines_are_waited_for_and_a_renewal_ends_the_warnings() {
        let (start, base) = (tokio::time::Instant::now(), at("2030-01-01T00:00:00Z"));
        let now = move || base.checked_add(start.elapsed()).unwrap();
        let ends = |days: i64| vec![Ending::new("it", base + SignedDuration::from_hours(24 * days))];
        let (sender, held) = watch::channel(ends(365));
        let told = Mutex::new(Vec::new());
        let watching = watch(held, Clone::clone, now, |text| told.lock().push(text));
        let story = async {
            let days = |days: u64| tokio::time::sleep(Duration::from_secs(days * 24 * 3600 + 60));
            days(334).await;
            assert!(told.lock().is_empty(), "{:?}", told.lock());
            days(1).await;
            assert_eq!(told.lock().as_slice(), ["it expires in 30 days, at 2031-01-01T00:00:00Z"]);
            days(2).await;
            assert_eq!(told.lock().len(), 3);
            sender.send_replace(ends(730));
            days(100).await;
            assert_eq!(told.lock().len(), 3, "there is a newer one");
            drop(sender);
        };
        tokio::join!(watching, story);
    }
}
