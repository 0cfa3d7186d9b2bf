//! Endpoints: the addresses of a service's pods in one object, as clients before endpoint slices read them.
//!
//! Behaviour follows `pkg/controller/endpoint/endpoints_controller.go`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use api::well_known::LABEL_HEADLESS_SERVICE;
use client::{Lister, Outcome, WorkQueue};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Error;

use crate::context::{Context, Key, new_queue, outcome};
use crate::own_writes::OwnWrites;
use crate::pod::PodInfo;
use crate::rest::{self, Rest};
use crate::service_pods as backing;
use crate::trigger_times::{self, TriggerTimes};

const NAME: &str = "endpoint-controller";
const WORKERS: usize = 5;
/// More addresses than this do not fit into one object; the rest is found in the slices only.
const MAX_ADDRESSES: usize = 1000;
/// Set to `truncated` where [`MAX_ADDRESSES`] cut addresses off.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// Tells our Endpoints from hand-made ones.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

struct Controller {
    services: Lister<Service>,
    pods: Lister<PodInfo>,
    endpoints: Lister<Endpoints>,
    own_writes: OwnWrites<Key>,
    trigger_times: TriggerTimes,
    queue: WorkQueue<Key>,
    rest: Rest,
}

/// Adds the controller.
pub(crate) fn register(context: &mut Context) {
    let caches = context.caches();
    let controller = Arc::new(Controller {
        services: caches.services.clone(),
        pods: caches.pods.clone(),
        endpoints: caches.endpoints.clone(),
        own_writes: OwnWrites::new(),
        trigger_times: TriggerTimes::default(),
        queue: new_queue(),
        rest: context.rest.clone(),
    });

    let queue = controller.queue.clone();
    context.informers.services.on_change(move |change| queue.add(Key::of(&change.object().metadata)));
    let c = controller.clone();
    context.informers.pods.on_change(move |change| {
        backing::services_of(&c.services, change).into_iter().for_each(|key| c.queue.add(key));
    });
    let queue = controller.queue.clone();
    context.informers.endpoints.on_change(move |change| {
        // Hand-made Endpoints may well be older than their service.
        if is_ours(change.object()) {
            queue.add(Key::of(&change.object().metadata));
        }
    });

    let synced = async move {
        caches.services.synced().await;
        caches.pods.synced().await;
        caches.endpoints.synced().await;
    };
    let queue = controller.queue.clone();
    context.run_workers(synced, &queue, WORKERS, move |key| {
        let controller = controller.clone();
        async move {
            let result = controller.sync(&key).await;
            outcome(NAME, &key, result)
        }
    });
}

fn is_ours(endpoints: &Endpoints) -> bool {
    endpoints.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(MANAGED_BY))
}

impl Controller {
    async fn sync(&self, key: &Key) -> Result<Outcome, Error> {
        let cached = self.endpoints.get(Some(&key.namespace), &key.name);
        let version = |_: &str| {
            let metadata = &cached.as_ref()?.metadata;
            Some((metadata.uid.clone()?, metadata.resource_version.clone()?))
        };
        if let Some(wait) = self.own_writes.unseen(key, Instant::now(), version) {
            return Ok(Outcome::After(wait));
        }
        let service = self.services.get(Some(&key.namespace), &key.name);
        let pods = service.as_ref().map(|service| backing::pods_of(service, &self.pods)).unwrap_or_default();
        let trigger_time = self.trigger_times.look(key, service.as_deref(), &pods);
        if let Some(mut action) = plan(service.as_deref(), &pods, cached.as_deref()) {
            if let Action::Create(endpoints) | Action::Update(endpoints) = &mut action {
                trigger_times::annotate(&mut endpoints.metadata, trigger_time);
            }
            self.execute(key, action).await?;
        }
        Ok(Outcome::Done)
    }

    async fn execute(&self, key: &Key, action: Action) -> Result<(), Error> {
        let path = rest::path::<Endpoints>(Some(&key.namespace));
        let written = match action {
            Action::Create(endpoints) => self.rest.create(&path, rest::encode(&endpoints)).await?,
            Action::Update(endpoints) => self.rest.replace(&path, &key.name, None, rest::encode(&endpoints)).await?,
            Action::Delete { uid } => {
                self.rest.delete(&path, &key.name, &rest::only_uid(&uid)).await?;
                self.own_writes.deleted(key, &key.name, &uid, Instant::now());
                return Ok(());
            }
        };
        let written = written.metadata;
        self.own_writes.wrote(key, &key.name, &written.uid, &written.resource_version, Instant::now());
        Ok(())
    }
}

/// What to do with a service's Endpoints.
#[derive(Clone, Debug, PartialEq)]
enum Action {
    /// The service has none.
    Create(Endpoints),
    /// They are out of date.
    Update(Endpoints),
    /// Their service is gone.
    Delete { uid: String },
}

/// What must happen so that `current` shows the `pods` of `service`.
fn plan(service: Option<&Service>, pods: &[Arc<PodInfo>], current: Option<&Endpoints>) -> Option<Action> {
    let Some(service) = service else {
        let uid = current?.metadata.uid.clone().unwrap_or_default();
        return Some(Action::Delete { uid });
    };
    if !backing::is_managed(service) || service.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let wanted = wanted(service, pods, current);
    match current {
        None => Some(Action::Create(wanted)),
        Some(current) if *current == wanted => None,
        Some(_) => Some(Action::Update(wanted)),
    }
}

/// The Endpoints as they should be, keeping what is not ours to decide.
fn wanted(service: &Service, pods: &[Arc<PodInfo>], current: Option<&Endpoints>) -> Endpoints {
    let (subsets, truncated) = subsets(service, pods);
    let mut metadata = current.map(|current| current.metadata.clone()).unwrap_or_else(|| ObjectMeta {
        name: service.metadata.name.clone(),
        namespace: service.metadata.namespace.clone(),
        ..ObjectMeta::default()
    });
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.to_owned(), NAME.to_owned());
    labels.remove(LABEL_HEADLESS_SERVICE);
    if backing::is_headless(service) {
        labels.insert(LABEL_HEADLESS_SERVICE.to_owned(), String::new());
    }
    metadata.labels = Some(labels);
    let mut annotations = metadata.annotations.take().unwrap_or_default();
    annotations.remove(OVER_CAPACITY);
    if truncated {
        annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    }
    metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    Endpoints { metadata, subsets: (!subsets.is_empty()).then_some(subsets) }
}

/// An address and whether it is ready.
type Address = (bool, EndpointAddress);

/// The addresses grouped by the ports they have in common, and whether some did not fit.
fn subsets(service: &Service, pods: &[Arc<PodInfo>]) -> (Vec<EndpointSubset>, bool) {
    let mut backed: Vec<_> = pods.iter().filter_map(|pod| Some((pod, address_of(service, pod)?))).collect();
    let truncated = backed.len() > MAX_ADDRESSES;
    backed.sort_by(|(_, (ready_a, a)), (_, (ready_b, b))| ready_b.cmp(ready_a).then_with(|| a.ip.cmp(&b.ip)));
    backed.truncate(MAX_ADDRESSES);

    let mut groups: BTreeMap<Vec<usize>, Vec<EndpointPort>> = BTreeMap::new();
    if backing::ports(service).is_empty() && backing::is_headless(service) {
        groups.insert((0..backed.len()).collect(), Vec::new());
    }
    for port in backing::ports(service) {
        let mut by_number: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (n, (pod, _)) in backed.iter().enumerate() {
            if let Some(number) = backing::target_port(pod, port) {
                by_number.entry(number).or_default().push(n);
            }
        }
        for (number, members) in by_number {
            groups.entry(members).or_default().push(EndpointPort {
                name: port.name.clone().filter(|name| !name.is_empty()),
                port: number,
                protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
                app_protocol: port.app_protocol.clone(),
            });
        }
    }
    groups.retain(|members, _| !members.is_empty());
    let subsets = groups.into_iter().map(|(members, ports)| {
        let addresses: Vec<_> = members.into_iter().map(|n| &backed[n].1).collect();
        subset(&addresses, ports)
    });
    (subsets.collect(), truncated)
}

fn subset(addresses: &[&Address], ports: Vec<EndpointPort>) -> EndpointSubset {
    let with = |wanted: bool| {
        let some: Vec<_> = addresses.iter().filter(|(ready, _)| *ready == wanted).map(|(_, a)| a.clone()).collect();
        (!some.is_empty()).then_some(some)
    };
    EndpointSubset {
        addresses: with(true),
        not_ready_addresses: with(false),
        ports: (!ports.is_empty()).then_some(ports),
    }
}

/// The pod's address in the Endpoints, if it belongs there.
fn address_of(service: &Service, pod: &PodInfo) -> Option<Address> {
    let publish = backing::publishes_not_ready(service);
    if pod.is_terminal() || (pod.is_terminating() && !publish) {
        return None;
    }
    let ip = backing::address(pod, backing::families(service).first()?)?;
    let address = EndpointAddress {
        ip: ip.to_owned(),
        node_name: pod.node.as_deref().map(str::to_owned),
        hostname: backing::hostname(pod, service),
        target_ref: Some(backing::target_ref(pod)),
    };
    Some((publish || pod.ready, address))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::api::core::v1::ServicePort;
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    use proptest::prelude::*;

    use super::super::service_pods::testing::{pod, service, serving, unready};
    use super::*;
    use crate::pod::Phase;

    /// `ready|not ready:ports` for each subset, addresses by their last number.
    fn shown(service: &Service, pods: &[PodInfo]) -> Vec<String> {
        let pods: Vec<_> = pods.iter().cloned().map(Arc::new).collect();
        let last = |addresses: Option<Vec<EndpointAddress>>| {
            let all: Vec<_> = addresses.unwrap_or_default().into_iter().map(|a| a.ip[9..].to_owned()).collect();
            all.join(",")
        };
        let text = |subset: EndpointSubset| {
            let ports: Vec<_> = subset.ports.unwrap_or_default().iter().map(|p| p.port.to_string()).collect();
            format!("{}|{}:{}", last(subset.addresses), last(subset.not_ready_addresses), ports.join(","))
        };
        subsets(service, &pods).0.into_iter().map(text).collect()
    }

    #[test]
    fn addresses_are_shown_by_readiness_and_ports() {
        let mut publishing = service();
        publishing.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
        let other_port = PodInfo { common: serving(9090).common, ..pod(1) };
        let terminating = PodInfo { deletion: Some(Timestamp::UNIX_EPOCH), ..pod(1) };
        let finished = PodInfo { phase: Phase::Succeeded, ..pod(1) };
        let without_ip = PodInfo { ips: Box::default(), ..pod(1) };
        let cases = [
            ("ready pods share a subset", service(), vec![pod(0), pod(1)], vec!["1,2|:8080"]),
            ("a pod that is not ready is shown apart", service(), vec![pod(0), unready(1)], vec!["1|2:8080"]),
            ("unless the service wants it", publishing.clone(), vec![pod(0), unready(1)], vec!["1,2|:8080"]),
            ("a name may mean different numbers", service(), vec![pod(0), other_port], vec!["1|:8080", "2|:9090"]),
            ("a terminating pod is not shown", service(), vec![pod(0), terminating.clone()], vec!["1|:8080"]),
            ("unless the service wants it, too", publishing, vec![pod(0), terminating], vec!["1,2|:8080"]),
            ("a finished pod is not shown", service(), vec![finished], vec![]),
            ("a pod without address is not shown", service(), vec![without_ip], vec![]),
        ];
        for (sentence, service, pods, expected) in cases {
            assert_eq!(shown(&service, &pods), expected, "{sentence}");
        }
    }

    #[test]
    fn ports_with_the_same_addresses_share_a_subset() {
        let mut service = service();
        let second = ServicePort { port: 443, target_port: Some(IntOrString::Int(8443)), ..ServicePort::default() };
        service.spec.as_mut().unwrap().ports.as_mut().unwrap().push(second);
        assert_eq!(shown(&service, &[pod(0), pod(1)]), ["1,2|:8080,8443"]);
    }

    #[test]
    fn a_headless_service_needs_no_ports() {
        let mut service = service();
        let spec = service.spec.as_mut().unwrap();
        (spec.ports, spec.cluster_ip) = (None, Some("None".into()));
        assert_eq!(shown(&service, &[pod(0)]), ["1|:"]);
        assert!(wanted(&service, &[], None).metadata.labels.unwrap().contains_key(LABEL_HEADLESS_SERVICE));
    }

    #[test]
    fn endpoints_live_and_die_with_their_service() {
        let pods = [Arc::new(pod(0))];
        let Some(Action::Create(created)) = plan(Some(&service()), &pods, None) else { panic!("not created") };
        assert!(matches!(plan(None, &[], Some(&created)), Some(Action::Delete { .. })));
        assert_eq!(plan(None, &[], None), None);
    }

    #[test]
    fn hand_made_endpoints_are_left_alone() {
        let mut service = service();
        service.spec.as_mut().unwrap().selector = None;
        assert_eq!(plan(Some(&service), &[], Some(&Endpoints::default())), None);
    }

    #[test]
    fn what_does_not_fit_is_cut_off_and_told() {
        let pods: Vec<_> = (0..MAX_ADDRESSES + 1).map(|n| Arc::new(pod(n))).collect();
        let endpoints = wanted(&service(), &pods, None);
        assert_eq!(endpoints.subsets.unwrap()[0].addresses.as_ref().unwrap().len(), MAX_ADDRESSES);
        assert_eq!(endpoints.metadata.annotations.unwrap()[OVER_CAPACITY], "truncated");
    }

    proptest! {
        #[test]
        fn planning_again_on_the_result_gives_nothing(ready in proptest::collection::vec(any::<bool>(), 0..30)) {
            let pods: Vec<_> = ready.iter().enumerate().map(|(n, r)| Arc::new(if *r { pod(n) } else { unready(n) })).collect();
            let Some(Action::Create(created)) = plan(Some(&service()), &pods, None) else { panic!("not created") };
            prop_assert_eq!(plan(Some(&service()), &pods, Some(&created)), None);
            let Some(Action::Update(updated)) = plan(Some(&service()), &pods[..pods.len() / 2], Some(&created)) else {
                prop_assert!(pods.is_empty());
                return Ok(());
            };
            prop_assert_eq!(plan(Some(&service()), &pods[..pods.len() / 2], Some(&updated)), None);
        }
    }
}
