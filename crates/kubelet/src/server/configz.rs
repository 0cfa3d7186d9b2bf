//! `GET /configz`: the configuration this kubelet runs with, in upstream's words (`kubelet.config.k8s.io/v1beta1`).

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Shared;
use crate::config::Config;
use crate::images::access::Verification;
use crate::names::go_duration;
use crate::node::eviction::signals::{self, Amount, Signal, Threshold};

pub(super) async fn configz(State(shared): State<Shared>) -> Response {
    let config = &shared.kubelet.config;
    let mut all = config.configz.clone();
    all.insert("kubeletconfig".to_owned(), shown(config));
    Json(all).into_response()
}

fn shown(config: &Config) -> Value {
    let all: Vec<Threshold> = config.eviction_hard.iter().chain(&config.eviction_soft).cloned().collect();
    let mut shown = json!({
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "port": config.port,
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true, "cacheTTL": "2m0s"}},
        "authorization": {
            "mode": "Webhook",
            "webhook": {"cacheAuthorizedTTL": "5m0s", "cacheUnauthorizedTTL": "30s"},
        },
        "clusterDomain": config.cluster_domain,
        "nodeStatusUpdateFrequency": go_duration(config.lease_renew_interval),
        "nodeStatusReportFrequency": go_duration(config.node_status_report_interval),
        "nodeLeaseDurationSeconds": config.lease_duration.as_secs(),
        "streamingConnectionIdleTimeout": go_duration(config.streaming_idle_timeout),
        "maxPods": config.max_pods,
        "imagePullCredentialsVerificationPolicy": config.image_verification.name(),
        "maxParallelImagePulls": config.max_parallel_image_pulls,
        "imageGCHighThresholdPercent": config.image_gc.high_percent,
        "imageGCLowThresholdPercent": config.image_gc.low_percent,
        "evictionPressureTransitionPeriod": go_duration(config.eviction_pressure_transition_period),
        "evictionHard": thresholds(&config.eviction_hard),
        "evictionSoft": thresholds(&config.eviction_soft),
        "evictionSoftGracePeriod": of_each(&config.eviction_soft, |t| t.grace.map(go_duration)),
        "evictionMinimumReclaim": of_each(&all, |t| t.min_reclaim.map(|amount| amount_of(t.signal, amount))),
        "evictionMaxPodGracePeriod": config.eviction_max_pod_grace_period,
        "enableServer": config.serving.is_some(),
    });
    if let Some(shutdown) = &config.shutdown {
        shown["shutdownGracePeriod"] = json!(go_duration(shutdown.grace));
        shown["shutdownGracePeriodCriticalPods"] = json!(go_duration(shutdown.critical));
    }
    if let Verification::NotListed(patterns) = &config.image_verification {
        shown["preloadedImagesVerificationAllowlist"] = json!(patterns);
    }
    if let Some(dns) = config.cluster_dns {
        shown["clusterDNS"] = json!([dns]);
    }
    if let Some(address) = config.healthz {
        shown["healthzPort"] = json!(address.port());
        shown["healthzBindAddress"] = json!(address.ip());
    }
    shown
}

fn thresholds(thresholds: &[Threshold]) -> Value {
    of_each(thresholds, |threshold| Some(amount_of(threshold.signal, threshold.amount)))
}

/// Something of each threshold, by its signal.
fn of_each(thresholds: &[Threshold], what: impl Fn(&Threshold) -> Option<String>) -> Value {
    let entry = |threshold: &Threshold| Some((threshold.signal.name().to_owned(), json!(what(threshold)?)));
    thresholds.iter().filter_map(entry).collect::<serde_json::Map<_, _>>().into()
}

fn amount_of(signal: Signal, amount: Amount) -> String {
    match amount {
        Amount::Quantity(amount) => signals::shown(signal, amount),
        Amount::Percent(percent) => format!("{percent}%"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_shown() {
        let mut config = Config::new("box1", "10.0.0.1".parse().unwrap(), "/x");
        config.max_pods = 7;
        config.healthz = Some(([127, 0, 0, 1], 10248).into());
        let shown = shown(&config);
        assert_eq!((&shown["maxPods"], &shown["healthzPort"]), (&json!(7), &json!(10248)));
        assert_eq!(shown["nodeStatusReportFrequency"], "5m0s");
        assert_eq!(
            (&shown["evictionHard"]["memory.available"], &shown["evictionHard"]["nodefs.available"]),
            (&json!("100Mi"), &json!("10%"))
        );
        assert!(shown.get("clusterDNS").is_none());
    }
}
