//! Certificates are renewed when 80 % of their life is over: a known deadline, waited for. One that is missing is due at
//! once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::expiry;
use jiff::Timestamp;

use super::Error;
use super::certificates::Kept;
use super::credentials::{Pair, Validity};
use super::csr::Request;

/// Back-off of renewals that failed: first and longest.
const RETRY_MIN: Duration = Duration::from_secs(10);
const RETRY_MAX: Duration = Duration::from_secs(600);

/// One certificate that is kept fresh.
pub(super) struct Renewal {
    client: kube::Client,
    request: Request,
    path: PathBuf,
    kept: Arc<Kept>,
}

impl Renewal {
    pub(super) fn new(client: kube::Client, request: Request, path: PathBuf, kept: Arc<Kept>) -> Renewal {
        Renewal { client, request, path, kept }
    }

    /// Renews `pair` again and again; each new one is stored and handed to `install`.
    pub(super) async fn run(self, pair: Option<Pair>, install: impl Fn(&Pair) -> Result<(), Error>) {
        let mut backoff = RETRY_MIN;
        let validity = pair.and_then(|pair| pair.validity());
        self.kept.is(validity);
        let mut next = validity.map_or_else(Timestamp::now, due);
        loop {
            expiry::sleep_until(next, &Timestamp::now).await;
            match self.renew(&install).await {
                Ok(renewed) => {
                    tracing::info!(file = %self.path.display(), "got a new certificate");
                    backoff = RETRY_MIN;
                    let (validity, now) = (renewed.validity(), Timestamp::now());
                    self.kept.is(validity);
                    let soonest = crate::clock::after(now, RETRY_MIN);
                    next = validity.map_or(crate::clock::after(now, RETRY_MAX), due).max(soonest);
                }
                Err(error) => {
                    tracing::warn!(file = %self.path.display(), %error, "cannot renew a certificate");
                    self.kept.failed();
                    next = crate::clock::after(Timestamp::now(), backoff);
                    backoff = (backoff * 2).min(RETRY_MAX);
                }
            }
        }
    }

    async fn renew(&self, install: &impl Fn(&Pair) -> Result<(), Error>) -> Result<Pair, Error> {
        let pair = self.request.obtain(&self.client).await?;
        pair.write(&self.path)?;
        install(&pair)?;
        Ok(pair)
    }
}

/// When 80 % of `validity` are over.
fn due(validity: Validity) -> Timestamp {
    let life = crate::clock::until(validity.from, validity.to);
    crate::clock::after(validity.from, life * 4 / 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_at_four_fifths_of_a_life() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(due(Validity { from: at(1000), to: at(2000) }), at(1800));
    }
}
