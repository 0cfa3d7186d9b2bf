//! What others are told of the node's certificates: until when they count, and how often they could not be renewed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use client::EventType;
use client::expiry::{self, Ending};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use super::credentials::Validity;
use crate::Kubelet;

/// Why an Event about the node was written.
const REASON: &str = "CertificateExpiring";

/// The node's certificates.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The one it shows to the API server.
    pub client: Arc<Kept>,
    /// The one the node server shows.
    pub serving: Arc<Kept>,
}

impl Default for Certificates {
    fn default() -> Certificates {
        let kept = |what| Arc::new(Kept { what, ends: watch::channel(None).0, errors: AtomicU64::new(0) });
        Certificates { client: kept("client"), serving: kept("serving") }
    }
}

/// A certificate that is kept fresh.
#[derive(Debug)]
pub struct Kept {
    what: &'static str,
    pub(super) ends: watch::Sender<Option<Validity>>,
    errors: AtomicU64,
}

impl Kept {
    /// It was read, or renewed.
    pub(super) fn is(&self, validity: Option<Validity>) {
        self.ends.send_replace(validity);
    }

    /// It could not be renewed.
    pub(super) fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// Seconds until it ends, negative when that is over; without end where there is none (as upstream).
    pub fn ttl_seconds(&self, now: Timestamp) -> f64 {
        let ends = *self.ends.borrow();
        ends.map_or(f64::INFINITY, |validity| validity.to.duration_since(now).as_secs_f64())
    }

    /// How often it could not be renewed.
    pub fn renew_errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }
}

/// A certificate is renewed when a fifth of its life is left. One that has a month left, or half of that, has missed it.
fn ending(what: &str, validity: Validity) -> Ending {
    let life = validity.to.duration_since(validity.from);
    let ahead = expiry::AHEAD.min(SignedDuration::from_secs(life.as_secs() / 10));
    Ending { ahead, ..Ending::new(format!("the node's {what} certificate"), validity.to) }
}

/// Writes an Event about the node whenever there is something to say about one of its certificates.
pub(crate) async fn warn(kubelet: Arc<Kubelet>, kept: Arc<Kept>) {
    let endings = |validity: &Option<Validity>| validity.map(|v| ending(kept.what, v)).into_iter().collect();
    let clock = kubelet.config.clock;
    let tell = |said: String| {
        let errors = kept.renew_errors();
        tracing::warn!(errors, "{said}");
        let message = format!("{said}; it could not be renewed {errors} times, the minion's log says why");
        kubelet.node_event(EventType::Warning, REASON, message);
    };
    expiry::watch(kept.ends.subscribe(), endings, || clock.now(), tell).await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::Json;
    use axum::extract::{Path, State};
    use axum::routing::post;
    use client::{Recorder, Tasks};
    use serde_json::Value;
    use tokio::sync::mpsc;

    use super::*;
    use crate::Config;
    use crate::clock::Clock;
    use crate::runtime::Runtime;
    use crate::runtime::hollow::Hollow;

    #[tokio::test(start_paused = true)]
    async fn a_certificate_that_is_not_renewed_is_an_event_about_the_node() {
        let (sender, mut events) = mpsc::channel(8);
        let take = |Path(namespace): Path<String>, State(events): State<mpsc::Sender<_>>, Json(event): Json<Value>| {
            let answer = event.clone();
            async move { events.send((namespace, event)).await.map(|()| Json(answer)).map_err(|e| e.to_string()) }
        };
        let router = axum::Router::new().route("/api/v1/namespaces/{namespace}/events", post(take)).with_state(sender);
        let (client, tasks) = (kube::Client::new(router, "default"), Tasks::new());
        let hollow = Hollow::new(Clock::tokio());
        let machine = hollow.machine().await.unwrap();
        let config = Config { clock: Clock::tokio(), ..Config::new("box1", [127, 0, 0, 1].into(), "/nonexistent") };
        let now = config.clock.now();
        let kubelet = crate::testing::kubelet(&hollow, &machine, config, &client);
        let mut kubelet = Arc::into_inner(kubelet).unwrap();
        kubelet.recorder = Recorder::new(client, "kubelet", Some("box1"), &tasks);
        let kept = Certificates::default().client;
        kept.is(Some(Validity { from: now, to: crate::clock::after(now, Duration::from_secs(1000)) }));
        tasks.spawn(warn(Arc::new(kubelet), kept.clone()));

        let waited = tokio::time::Instant::now();
        let (namespace, event) = events.recv().await.unwrap();
        assert!(waited.elapsed() >= Duration::from_secs(900), "{:?}", waited.elapsed());
        assert_eq!((namespace.as_str(), event["type"].as_str()), ("default", Some("Warning")));
        assert_eq!((event["involvedObject"]["kind"].as_str(), event["reason"].as_str()), (Some("Node"), Some(REASON)));
        let message = event["message"].as_str().unwrap();
        assert!(message.starts_with("the node's client certificate expires in less than a day"), "{message}");

        kept.is(Some(Validity { from: now, to: crate::clock::after(now, Duration::from_secs(100_000)) }));
        let none = tokio::time::timeout(Duration::from_secs(10_000), events.recv()).await;
        assert!(none.is_err(), "there is a newer one: {none:?}");
        assert!(tasks.stop(Duration::from_secs(5)).await);
    }

    #[test]
    fn a_certificate_is_warned_about_after_its_renewal_was_due() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let day = 24 * 3600;
        for (sentence, days, first) in [
            ("a year: a month ahead", 365, 335 * day),
            ("a hundred days: at nine tenths", 100, 90 * day),
            ("a day: at nine tenths", 1, day * 9 / 10),
        ] {
            let ending = ending("client", Validity { from: at(0), to: at(days * day) });
            assert_eq!(expiry::warning(&ending, at(first - 1)), None, "{sentence}");
            let said = expiry::warning(&ending, at(first)).unwrap();
            assert!(said.starts_with("the node's client certificate expires in "), "{sentence}: {said}");
        }
    }

    #[test]
    fn what_is_left_is_counted_past_the_end() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let certificates = Certificates::default();
        assert_eq!(certificates.client.ttl_seconds(at(0)), f64::INFINITY);
        certificates.client.is(Some(Validity { from: at(0), to: at(100) }));
        certificates.client.failed();
        assert_eq!((certificates.client.ttl_seconds(at(30)), certificates.client.ttl_seconds(at(130))), (70.0, -30.0));
        assert_eq!((certificates.client.renew_errors(), certificates.serving.renew_errors()), (1, 0));
    }
}
