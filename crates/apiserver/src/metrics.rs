//! `/metrics`, under kube-apiserver's names where it has them.

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::audit::Audit;
use crate::authn::TokenCounters;
use crate::request::RequestInfo;
use crate::respond::{self, ApiResponse};
use crate::server::Shared;

/// Upper bounds of the latency histogram, in seconds.
const LATENCY_BUCKETS: [f64; 12] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Those of upstream's `clientCertificateExpirationHistogram`
/// (`staging/src/k8s.io/apiserver/pkg/authentication/request/x509/x509.go`): half an hour to a year.
const EXPIRATION_BUCKETS: [f64; 14] = [
    0.0,
    1800.0,
    3600.0,
    7200.0,
    21_600.0,
    43_200.0,
    86_400.0,
    172_800.0,
    345_600.0,
    604_800.0,
    2_592_000.0,
    7_776_000.0,
    15_552_000.0,
    31_104_000.0,
];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    resource: &'static str,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DeprecatedLabels {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: &'static str,
    removed_release: &'static str,
}

impl DeprecatedLabels {
    /// All that are deprecated are of the core group, have nothing below them, and stay.
    fn of(resource: &'static str) -> DeprecatedLabels {
        DeprecatedLabels { group: "", version: "v1", resource, subresource: "", removed_release: "" }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DurationLabels {
    verb: &'static str,
    resource: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResourceLabels {
    resource: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindOfRequest {
    request_kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CertificateLabels {
    certificate: &'static str,
}

/// What is counted of a request.
pub(crate) struct Observed {
    verb: &'static str,
    resource: &'static str,
    long_running: bool,
    is_deprecated: bool,
    /// What is said to the client, whatever becomes of the request.
    pub(crate) warnings: Vec<Cow<'static, str>>,
    /// Whether whoever asks may not, before it is looked at what for.
    pub(crate) is_barred: bool,
}

impl Observed {
    pub(crate) fn new(method: &Method) -> Observed {
        let verb = match *method {
            Method::GET => "GET",
            Method::POST => "POST",
            Method::PUT => "PUT",
            Method::PATCH => "PATCH",
            Method::DELETE => "DELETE",
            _ => "other",
        };
        let warnings = Vec::new();
        Observed { verb, resource: "", long_running: false, is_deprecated: false, warnings, is_barred: false }
    }

    pub(crate) fn resource(&mut self, info: &RequestInfo) {
        self.verb = info.verb.as_str();
        self.resource = info.kind.info.plural;
        self.long_running = info.is_long_running();
    }

    pub(crate) fn deprecated(&mut self, warning: &'static str) {
        self.is_deprecated = true;
        self.warnings.push(warning.into());
    }
}

/// The counters, and the gauges filled when someone looks.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    deprecated: Family<DeprecatedLabels, Gauge>,
    /// Uses of service account tokens.
    pub(crate) tokens: TokenCounters,
    durations: Family<DurationLabels, Histogram>,
    objects: Family<ResourceLabels, Gauge>,
    events: Family<ResourceLabels, Gauge>,
    watchers: Family<ResourceLabels, Gauge>,
    in_flight: Family<KindOfRequest, Gauge>,
    client_certificates: Histogram,
    certificates: Family<CertificateLabels, Gauge<f64, std::sync::atomic::AtomicU64>>,
    resident: Gauge,
    cpu: Gauge<f64, std::sync::atomic::AtomicU64>,
}

impl Metrics {
    pub(crate) fn new(audit: Option<&Audit>) -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::default(),
            requests: Family::default(),
            deprecated: Family::default(),
            tokens: TokenCounters::default(),
            durations: Family::new_with_constructor(|| Histogram::new(LATENCY_BUCKETS)),
            objects: Family::default(),
            events: Family::default(),
            watchers: Family::default(),
            in_flight: Family::default(),
            client_certificates: Histogram::new(EXPIRATION_BUCKETS),
            certificates: Family::default(),
            resident: Gauge::default(),
            cpu: Gauge::default(),
        };
        metrics.register();
        if let Some((taken, lost)) = audit.map(Audit::counters) {
            metrics.registry.register("apiserver_audit_event", "Events given to the audit log", taken);
            metrics.registry.register("apiserver_audit_error", "Events the audit log has lost", lost);
        }
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("apiserver_request", "Requests by verb, resource and code", self.requests.clone());
        r.register(
            "apiserver_requested_deprecated_apis",
            "Deprecated APIs that have been requested",
            self.deprecated.clone(),
        );
        r.register_with_unit(
            "apiserver_request_duration",
            "Time until the answer began, watches and logs not counted",
            Unit::Seconds,
            self.durations.clone(),
        );
        r.register("apiserver_storage_objects", "Objects in the watch cache", self.objects.clone());
        r.register("apiserver_watch_cache_events", "Past events in the watch cache", self.events.clone());
        r.register("apiserver_longrunning_requests", "Open watches", self.watchers.clone());
        r.register("apiserver_current_inflight_requests", "Requests being worked on", self.in_flight.clone());
        r.register_with_unit(
            "apiserver_client_certificate_expiration",
            "Distribution of the remaining lifetime on the certificate used to authenticate a request",
            Unit::Seconds,
            self.client_certificates.clone(),
        );
        r.register_with_unit(
            "apiserver_certificate_ttl",
            "Time until a certificate of the cluster expires, negative if it has",
            Unit::Seconds,
            self.certificates.clone(),
        );
        self.tokens.register(r);
        r.register("process_resident_memory_bytes", "Resident memory", self.resident.clone());
        r.register("process_cpu_seconds", "User and system time", self.cpu.clone());
    }

    pub(crate) fn observe(&self, observed: &Observed, code: StatusCode, elapsed: Duration) {
        let Observed { verb, resource, long_running, is_deprecated, .. } = *observed;
        self.requests.get_or_create(&RequestLabels { verb, resource, code: code.as_u16() }).inc();
        if is_deprecated {
            self.deprecated.get_or_create(&DeprecatedLabels::of(resource)).set(1);
        }
        if !long_running {
            self.durations.get_or_create(&DurationLabels { verb, resource }).observe(elapsed.as_secs_f64());
        }
    }

    /// A request came with a client certificate that counts for so many seconds still.
    pub(crate) fn observe_certificate(&self, seconds_left: f64) {
        self.client_certificates.observe(seconds_left);
    }

    pub(crate) fn respond(&self, shared: &Shared) -> ApiResponse {
        for end in shared.pki.ends().borrow().iter() {
            let left = end.at.duration_since(Timestamp::now()).as_secs_f64();
            self.certificates.get_or_create(&CertificateLabels { certificate: end.name }).set(left);
        }
        for cache in shared.cache.kinds() {
            let labels = ResourceLabels { resource: cache.kind.info.plural };
            let (objects, events, watchers) = cache.sizes();
            for (family, value) in [(&self.objects, objects), (&self.events, events), (&self.watchers, watchers)] {
                family.get_or_create(&labels).set(i64::try_from(value).unwrap_or(i64::MAX));
            }
        }
        let limits = (shared.config.max_requests_inflight, shared.config.max_mutating_requests_inflight);
        let (reading, writing) = shared.in_flight.used(limits);
        for (request_kind, value) in [("readOnly", reading), ("mutating", writing)] {
            let gauge = self.in_flight.get_or_create(&KindOfRequest { request_kind });
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        if let Some((resident, cpu)) = process() {
            self.resident.set(resident);
            self.cpu.set(cpu);
        }
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        let media_type = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
        respond::with_type(StatusCode::OK, media_type, axum::body::Body::from(text))
    }
}

/// Bytes resident and seconds of CPU of this process, from `/proc/self`.
fn process() -> Option<(i64, f64)> {
    /// The unit of `/proc/self/stat` times; 100 on every Linux that matters.
    const TICKS_PER_SECOND: f64 = 100.0;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kilobytes: i64 = resident.split_whitespace().next()?.parse().ok()?;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold spaces: count after it.
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some((kilobytes * 1024, ticks / TICKS_PER_SECOND))
}
