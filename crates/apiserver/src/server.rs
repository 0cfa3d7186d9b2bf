//! The API server as a value: started once, asked from everywhere.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use futures::FutureExt;
use http::header::{CACHE_CONTROL, USER_AGENT, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Request, Response};
use store::Store;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::allocators::Ranges;
use crate::audit::{Audit, Ended, Trail};
use crate::authn::{Authenticator, Caller, Issuer, bootstrap_token, legacy};
use crate::cache::{self, Cache};
use crate::component_status::Components;
use crate::config::Config;
use crate::connect::Tunnels;
use crate::error::Error;
use crate::inflight::InFlight;
use crate::leases::SharedLease;
use crate::metrics::{Metrics, Observed};
use crate::negotiate::{self, Encoding};
use crate::pki::{self, CertificateEnd, Pki};
use crate::respond;
use crate::status::ApiError;
use crate::subresources::kubelet::KubeletClient;
use crate::turns::Turns;
use crate::usage::Usages;
use crate::user::User;
use crate::{authentication_trust, bootstrap, compaction, pretty, route, serve};

/// How the service accounts of controllers begin.
const CONTROLLER_PREFIX: &str = "system:serviceaccount:kube-system:";

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) cache: Arc<Cache>,
    pub(crate) pki: Pki,
    pub(crate) authenticator: Authenticator,
    pub(crate) issuer: Arc<Issuer>,
    pub(crate) metrics: Metrics,
    pub(crate) audit: Option<Arc<Audit>>,
    pub(crate) in_flight: InFlight,
    pub(crate) event_lease: SharedLease,
    pub(crate) turns: Turns,
    pub(crate) components: Arc<Components>,
    pub(crate) kubelets: KubeletClient,
    pub(crate) tunnels: Tunnels,
    pub(crate) usages: Usages,
    pub(crate) stop: CancellationToken,
}

impl Shared {
    /// What services may be given.
    pub(crate) fn ranges(&self) -> Ranges {
        Ranges { addresses: self.config.service_cluster_ip_range, ports: self.config.service_node_port_range.clone() }
    }

    /// Answers one request. A panic is an answer too: 500.
    pub(crate) async fn handle(self: &Arc<Self>, caller: Caller, request: Request<Body>) -> Response<Body> {
        let started = Instant::now();
        let mut observed = Observed::new(request.method());
        if let Some(left) = caller.certificate_seconds_left() {
            self.metrics.observe_certificate(left);
        }
        let mut trail = Trail::begin(self.audit.as_ref(), &request, caller.address());
        let is_for_people = pretty::is_wanted(request.uri().query(), request.headers());
        let form = if negotiate::wants_yaml(request.headers()) { Encoding::Yaml } else { Encoding::Json };
        let refusal = |error: &ApiError| {
            let status = respond::error(error, form);
            if is_for_people { pretty::respond(status) } else { status }
        };
        let routed = route::route(self, &caller, request, &mut observed, &mut trail);
        let mut response = match AssertUnwindSafe(routed).catch_unwind().await {
            Ok(Ok(response)) => trail.end(response, Ended::Answered),
            Ok(Err(error)) => trail.end(refusal(&error), Ended::Refused(&error)),
            Err(_) => {
                let error = ApiError::Internal("the request could not be processed".into());
                trail.end(refusal(&error), Ended::Panicked)
            }
        };
        if observed.is_barred {
            response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, respond::NOSNIFF);
        }
        respond::warn(&mut response, &observed.warnings);
        response.headers_mut().entry(CACHE_CONTROL).or_insert(respond::NOT_KEPT);
        self.metrics.observe(&observed, response.status(), started.elapsed());
        response
    }
}

/// What a component calls itself: controllers are parts of the controller manager, and manage fields under its name
/// (`SimpleControllerClientBuilder`).
fn agent(user: &str) -> String {
    match user.strip_prefix(CONTROLLER_PREFIX) {
        Some(_) => format!("kube-controller-manager/{}/{user}", env!("CARGO_PKG_VERSION")),
        None => user.strip_prefix("system:").unwrap_or(user).to_owned(),
    }
}

/// A running API server; clones are handles to the same one.
#[derive(Clone)]
pub struct ApiServer {
    shared: Arc<Shared>,
}

impl ApiServer {
    /// Makes certificates, kubeconfig and join token where they are missing, fills the watch cache, and writes the objects
    /// every cluster has. Background work ends with `stop`.
    pub async fn start(config: Config, store: Arc<dyn Store>, stop: CancellationToken) -> Result<ApiServer, Error> {
        let audit = config.audit.as_ref().map(Audit::new).transpose()?.map(Arc::new);
        let cache = Arc::new(Cache::new(store.clone()));
        cache::load(&cache, &*store).await?;
        // A second CA in one cluster would lock out every node and admin of the first.
        if config.store_is_shared && !Pki::is_there(&config) && bootstrap::has_begun(&cache) {
            return Err(Error::NoKeys { data_dir: config.data_dir });
        }
        let pki = Pki::load_or_create(&config)?;
        let issuer = Arc::new(Issuer::new(pki.service_account_key.clone(), &pki.service_account_keys, &config)?);
        let (uses, used) = legacy::channel();
        let tokens = config.token_auth_file.as_deref();
        let authenticator = Authenticator::new(tokens, issuer.clone(), cache.clone(), uses)?;
        tokio::spawn(cache::run(cache.clone(), store.clone(), stop.clone()));
        tokio::spawn(cache::age(cache.clone(), stop.clone()));
        let shared = Arc::new(Shared {
            in_flight: InFlight::new(config.max_requests_inflight, config.max_mutating_requests_inflight),
            kubelets: KubeletClient::new(&pki)?,
            tunnels: Tunnels::new(config.max_tunnels),
            usages: Usages::default(),
            metrics: Metrics::new(audit.as_deref()),
            audit,
            event_lease: SharedLease::default(),
            turns: Turns::default(),
            components: Arc::default(),
            config,
            store,
            cache,
            pki,
            authenticator,
            issuer,
            stop,
        });
        bootstrap::write_system_objects(&shared).await?;
        authentication_trust::publish(&shared).await;
        tokio::spawn(legacy::note(shared.clone(), used));
        let renewing = shared.clone();
        tokio::spawn(async move { pki::renew(&renewing.pki, &renewing.config, &renewing.stop).await });
        if let Some(interval) = shared.config.compaction_interval {
            tokio::spawn(compaction::run(shared.store.clone(), interval, shared.stop.clone()));
        }
        Ok(ApiServer { shared })
    }

    /// The API as a service in this process, for a component that is `user` and manages what it writes under that name.
    pub fn service_as(&self, user: User) -> axum::Router {
        let agent = HeaderValue::try_from(agent(&user.name)).ok();
        let user = Arc::new(user);
        let shared = self.shared.clone();
        axum::Router::new().fallback(move |mut request: Request<Body>| {
            let (shared, user) = (shared.clone(), user.clone());
            if let Some(agent) = &agent {
                request.headers_mut().entry(USER_AGENT).or_insert_with(|| agent.clone());
            }
            async move { shared.handle(Caller::InProcess(user), request).await }
        })
    }

    /// Serves HTTPS on `listener` until told to stop, then lets requests finish for a bounded time.
    pub async fn serve(&self, listener: tokio::net::TcpListener) -> Result<(), Error> {
        serve::serve(&self.shared, listener).await
    }

    /// The cluster's CA certificate, PEM.
    pub fn ca_certificate(&self) -> &str {
        &self.shared.pki.ca_certificate_pem
    }

    /// How the store's clients are heard where it is served as an etcd: a newer certificate is shown as soon as there is one.
    pub fn etcd_tls(&self) -> Result<Option<Arc<rustls::ServerConfig>>, Error> {
        let tls = self.shared.pki.etcd.as_ref().map(|etcd| etcd.tls().map(Arc::new));
        tls.transpose()
    }

    /// Until when the CA's certificate, the server's own and the admin's count, and word of newer ones.
    pub fn certificate_ends(&self) -> watch::Receiver<Vec<CertificateEnd>> {
        self.shared.pki.ends()
    }

    /// What a minion joins with, `<id>.<secret>.<sha256 of the CA certificate>`: the token of the first start, as long as it
    /// lets anybody in.
    pub async fn join_token(&self) -> Option<String> {
        let token = &self.shared.pki.join_token;
        let known = bootstrap_token::authenticate(&self.shared.cache, token.bearer(), jiff::Timestamp::now()).await;
        known.is_ok().then(|| token.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_write_as_the_controller_manager() {
        let manager = |user: &str| api::apply::manager_of_user_agent(&agent(user));
        assert_eq!(manager("system:serviceaccount:kube-system:node-controller"), "kube-controller-manager");
        assert_eq!(manager("system:kube-scheduler"), "kube-scheduler");
        assert_eq!(manager("system:serviceaccount:default:robot"), "serviceaccount:default:robot");
        assert_eq!(manager("admin"), "admin");
    }
}
