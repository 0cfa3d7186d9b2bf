//! Certificates are renewed when 80 % of their life is over: a known deadline, waited for. One that is missing is due at
//! once.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::Error;
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
}

impl Renewal {
    pub(super) fn new(client: kube::Client, request: Request, path: PathBuf) -> Renewal {
        Renewal { client, request, path }
    }

    /// Renews `pair` again and again; each new one is stored and handed to `install`.
    pub(super) async fn run(self, pair: Option<Pair>, install: impl Fn(&Pair) -> Result<(), Error>) {
        let mut backoff = RETRY_MIN;
        let validity = pair.and_then(|pair| pair.validity());
        let mut wait = validity.map_or(Duration::ZERO, |validity| due(validity, Timestamp::now()));
        loop {
            tokio::time::sleep(wait).await;
            match self.renew(&install).await {
                Ok(renewed) => {
                    tracing::info!(file = %self.path.display(), "got a new certificate");
                    backoff = RETRY_MIN;
                    wait =
                        renewed.validity().map_or(RETRY_MAX, |validity| due(validity, Timestamp::now())).max(RETRY_MIN);
                }
                Err(error) => {
                    tracing::warn!(file = %self.path.display(), %error, "cannot renew a certificate");
                    wait = backoff;
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

/// How long until 80 % of `validity` are over.
fn due(validity: Validity, now: Timestamp) -> Duration {
    let life = crate::clock::until(validity.from, validity.to);
    crate::clock::until(now, crate::clock::after(validity.from, life * 4 / 5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_at_four_fifths_of_a_life() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let validity = Validity { from: at(1000), to: at(2000) };
        assert_eq!(due(validity, at(1000)), Duration::from_secs(800));
        assert_eq!(due(validity, at(1900)), Duration::ZERO);
    }
}
