//! Which slices to create, update and delete so that they show a service's pods, touching as few as possible.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::owners;
use api::well_known::{LABEL_HEADLESS_SERVICE, LABEL_MANAGED_BY, LABEL_SERVICE_NAME};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::MANAGER;
use super::endpoints::{Group, wanted};
use crate::pod::PodInfo;
use crate::service_pods as backing;

/// Upstream's `--max-endpoints-per-slice`.
const MAX_ENDPOINTS: usize = 100;

/// A write of one slice.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// No slice has room for some endpoints.
    Create(EndpointSlice),
    /// Its endpoints, ports or labels are out of date.
    Update(EndpointSlice),
    /// It shows nothing that should be shown.
    Delete {
        /// Name.
        name: String,
        /// UID.
        uid: String,
    },
}

/// The writes that make `slices` show the `pods` of `service`. `zone` tells where a node stands.
pub(super) fn plan(
    service: Option<&Service>,
    pods: &[Arc<PodInfo>],
    slices: &[Arc<EndpointSlice>],
    zone: impl Fn(&str) -> Option<String>,
) -> Vec<Action> {
    let mut existing: Vec<&EndpointSlice> = slices.iter().map(|slice| &**slice).collect();
    existing.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let Some(service) = service else { return existing.into_iter().map(delete).collect() };
    // A service whose selector was taken away keeps its slices, for whoever looks after it now.
    if service.metadata.deletion_timestamp.is_some() || !backing::is_managed(service) {
        return Vec::new();
    }
    let mut groups: BTreeMap<Group, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in existing {
        groups.entry(Group::of(slice)).or_default().push(slice);
    }
    let (mut creations, mut rest) = (Vec::new(), Vec::new());
    for (group, endpoints) in wanted(service, pods, zone) {
        let place = Placement::new(groups.remove(&group).unwrap_or_default(), endpoints);
        place.actions(service, &group, &mut creations, &mut rest);
    }
    rest.extend(groups.into_values().flatten().map(delete));
    recycle(creations, rest, slices)
}

fn delete(slice: &EndpointSlice) -> Action {
    let (name, uid) = (slice.metadata.name.clone(), slice.metadata.uid.clone());
    Action::Delete { name: name.unwrap_or_default(), uid: uid.unwrap_or_default() }
}

/// The slices of one group with the endpoints that stay where they are, and the endpoints that need a place.
struct Placement<'a> {
    slices: Vec<(&'a EndpointSlice, Vec<Endpoint>)>,
    homeless: Vec<Endpoint>,
}

/// What makes two endpoints the same one: its address and its pod.
fn identity(endpoint: &Endpoint) -> (Option<String>, Option<String>) {
    (endpoint.addresses.first().cloned(), endpoint.target_ref.as_ref().and_then(|target| target.uid.clone()))
}

impl<'a> Placement<'a> {
    fn new(slices: Vec<&'a EndpointSlice>, endpoints: Vec<Endpoint>) -> Placement<'a> {
        let order: Vec<_> = endpoints.iter().map(identity).collect();
        let mut wanted: HashMap<_, _> = endpoints.into_iter().map(|endpoint| (identity(&endpoint), endpoint)).collect();
        let keep = |slice: &'a EndpointSlice| {
            let kept = slice.endpoints.iter().filter_map(|old| wanted.remove(&identity(old)));
            (slice, kept.take(MAX_ENDPOINTS).collect())
        };
        let slices = slices.into_iter().map(keep).collect();
        let homeless = order.iter().filter_map(|identity| wanted.remove(identity)).collect();
        let mut placement = Placement { slices, homeless };
        placement.fill();
        placement
    }

    /// Places what it can: first in slices that change anyway, then in the fullest one that takes all of the rest.
    fn fill(&mut self) {
        for (slice, kept) in self.slices.iter_mut().filter(|(slice, kept)| slice.endpoints != *kept) {
            let room = MAX_ENDPOINTS.saturating_sub(kept.len()).min(self.homeless.len());
            kept.extend(self.homeless.drain(..room));
            tracing::trace!(slice = ?slice.metadata.name, room, "filling a slice that changes anyway");
        }
        let count = self.homeless.len() % MAX_ENDPOINTS;
        if count == 0 {
            return;
        }
        let takes_all = self.slices.iter_mut().filter(|(_, kept)| kept.len() + count <= MAX_ENDPOINTS);
        if let Some((_, kept)) = takes_all.max_by_key(|(_, kept)| kept.len()) {
            let rest = self.homeless.len() - count;
            kept.extend(self.homeless.drain(rest..));
        }
    }

    fn actions(self, service: &Service, group: &Group, creations: &mut Vec<EndpointSlice>, rest: &mut Vec<Action>) {
        // A service without endpoints keeps one empty slice.
        let mut shown = self.slices.iter().any(|(_, kept)| !kept.is_empty()) || !self.homeless.is_empty();
        for (old, kept) in self.slices {
            if kept.is_empty() && std::mem::replace(&mut shown, true) {
                rest.push(delete(old));
                continue;
            }
            let new = slice(service, group, old.metadata.clone(), kept);
            if differs(&new, old) {
                rest.push(Action::Update(new));
            }
        }
        for endpoints in self.homeless.chunks(MAX_ENDPOINTS) {
            creations.push(slice(service, group, new_metadata(service), endpoints.to_vec()));
        }
        if !shown {
            creations.push(slice(service, group, new_metadata(service), Vec::new()));
        }
    }
}

/// Whether a slice of the same group must be written. Spellings of the ports that mean the same do not count.
fn differs(new: &EndpointSlice, old: &EndpointSlice) -> bool {
    new.endpoints != old.endpoints || new.metadata != old.metadata
}

fn new_metadata(service: &Service) -> ObjectMeta {
    ObjectMeta {
        generate_name: service.metadata.name.as_ref().map(|name| format!("{name}-")),
        namespace: service.metadata.namespace.clone(),
        ..ObjectMeta::default()
    }
}

fn slice(service: &Service, group: &Group, mut metadata: ObjectMeta, endpoints: Vec<Endpoint>) -> EndpointSlice {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(LABEL_HEADLESS_SERVICE);
    labels.insert(LABEL_SERVICE_NAME.to_owned(), service.metadata.name.clone().unwrap_or_default());
    labels.insert(LABEL_MANAGED_BY.to_owned(), MANAGER.to_owned());
    if backing::is_headless(service) {
        labels.insert(LABEL_HEADLESS_SERVICE.to_owned(), String::new());
    }
    metadata.labels = Some(labels);
    metadata.owner_references = Some(vec![owners::controller_reference(service)]);
    let ports = group.ports();
    EndpointSlice {
        metadata,
        address_type: group.address_type.clone(),
        ports: (!ports.is_empty()).then_some(ports),
        endpoints,
    }
}

/// Writes what would be created into slices that would be deleted: one write instead of two, and no moment without.
fn recycle(creations: Vec<EndpointSlice>, rest: Vec<Action>, slices: &[Arc<EndpointSlice>]) -> Vec<Action> {
    let mut creations = creations;
    let mut actions = Vec::new();
    for action in rest {
        let Action::Delete { name, .. } = &action else {
            actions.push(action);
            continue;
        };
        let old = slices.iter().find(|slice| slice.metadata.name.as_ref() == Some(name));
        let successor = old.and_then(|old| {
            let n = creations.iter().position(|new| new.address_type == old.address_type)?;
            let mut new = creations.swap_remove(n);
            let (labels, owners) = (new.metadata.labels.take(), new.metadata.owner_references.take());
            new.metadata = ObjectMeta { labels, owner_references: owners, ..old.metadata.clone() };
            Some(Action::Update(new))
        });
        actions.push(successor.unwrap_or(action));
    }
    creations.into_iter().map(Action::Create).chain(actions).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::super::super::service_pods::testing::{pod, service, serving, unready};
    use super::*;

    fn pods(numbers: impl IntoIterator<Item = usize>) -> Vec<Arc<PodInfo>> {
        numbers.into_iter().map(|n| Arc::new(pod(n))).collect()
    }

    fn plan_for(pods: &[Arc<PodInfo>], slices: &[Arc<EndpointSlice>]) -> Vec<Action> {
        plan(Some(&service()), pods, slices, |_| None)
    }

    /// Does to `slices` what the executor would.
    fn apply(slices: &mut Vec<Arc<EndpointSlice>>, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Create(mut slice) => {
                    let name = format!("web-{}", slices.len() + 1000 * slice.endpoints.len());
                    slice.metadata.uid = Some(name.clone());
                    slice.metadata.name = Some(name);
                    slices.push(Arc::new(slice));
                }
                Action::Update(new) => {
                    let old = slices.iter_mut().find(|old| old.metadata.name == new.metadata.name);
                    *old.unwrap() = Arc::new(new);
                }
                Action::Delete { name, .. } => slices.retain(|slice| slice.metadata.name.as_ref() != Some(&name)),
            }
        }
    }

    fn sizes(slices: &[Arc<EndpointSlice>]) -> Vec<usize> {
        let mut sizes: Vec<_> = slices.iter().map(|slice| slice.endpoints.len()).collect();
        sizes.sort_unstable();
        sizes
    }

    #[test]
    fn conditions_tell_ready_serving_and_terminating_apart() {
        let going = PodInfo { deletion: Some(Timestamp::UNIX_EPOCH), ..pod(0) };
        let mut publishing = service();
        publishing.spec.as_mut().unwrap().publish_not_ready_addresses = Some(true);
        let cases = [
            ("a ready pod", service(), pod(0), [true, true, false]),
            ("a pod that is not ready", service(), unready(0), [false, false, false]),
            ("a pod that is going", service(), going.clone(), [false, true, true]),
            ("published though not ready", publishing.clone(), unready(0), [true, false, false]),
            ("published though going", publishing, going, [true, true, true]),
        ];
        for (sentence, service, pod, expected) in cases {
            let mut slices = Vec::new();
            apply(&mut slices, plan(Some(&service), &[Arc::new(pod)], &[], |_| Some("z".to_owned())));
            let endpoint = &slices[0].endpoints[0];
            let shown = endpoint.conditions.clone().unwrap();
            assert_eq!([shown.ready, shown.serving, shown.terminating], expected.map(Some), "{sentence}");
            assert_eq!(endpoint.zone.as_deref(), Some("z"));
        }
    }

    #[test]
    fn a_service_without_pods_has_one_empty_slice() {
        let mut slices = Vec::new();
        apply(&mut slices, plan_for(&[], &[]));
        assert_eq!(sizes(&slices), [0]);
        let actions = plan_for(&pods(0..1), &slices);
        assert!(matches!(&actions[..], [Action::Update(_)]), "the empty slice is used, not replaced");
        apply(&mut slices, actions);
        let actions = plan_for(&[], &slices);
        apply(&mut slices, actions);
        assert_eq!(sizes(&slices), [0]);
    }

    #[test]
    fn slices_hold_a_hundred_endpoints_and_a_change_touches_one() {
        let mut slices = Vec::new();
        apply(&mut slices, plan_for(&pods(0..250), &[]));
        assert_eq!(sizes(&slices), [50, 100, 100]);
        assert_eq!(plan_for(&pods((0..250).filter(|n| *n != 120)), &slices).len(), 1);
        assert_eq!(plan_for(&pods((0..251).filter(|n| *n != 120)), &slices).len(), 1, "one goes, one comes");
        assert_eq!(plan_for(&pods(0..251), &slices).len(), 1);
    }

    #[test]
    fn slices_go_with_their_service_but_not_with_its_selector() {
        let mut slices = Vec::new();
        apply(&mut slices, plan_for(&pods(0..150), &[]));
        assert_eq!(plan(None, &[], &slices, |_| None).len(), 2);
        let mut bare = service();
        bare.spec.as_mut().unwrap().selector = None;
        assert_eq!(plan(Some(&bare), &[], &slices, |_| None), vec![]);
    }

    #[test]
    fn pods_with_other_port_numbers_get_a_slice_of_their_own() {
        let other = PodInfo { common: serving(9090).common, ..pod(1) };
        let mut slices = Vec::new();
        apply(&mut slices, plan_for(&[Arc::new(pod(0)), Arc::new(other)], &[]));
        assert_eq!(sizes(&slices), [1, 1]);
    }

    #[test]
    fn a_slice_bears_the_labels_and_the_owner_its_readers_look_for() {
        let mut slices = Vec::new();
        apply(&mut slices, plan_for(&pods(0..1), &[]));
        let metadata = &slices[0].metadata;
        assert_eq!(metadata.labels.as_ref().unwrap()[LABEL_SERVICE_NAME], "web");
        assert_eq!(metadata.labels.as_ref().unwrap()[LABEL_MANAGED_BY], MANAGER);
        assert_eq!(metadata.owner_references.as_ref().unwrap()[0].kind, "Service");
        assert_eq!(service_of_slice(&slices[0]), Some("web".to_owned()));
    }

    fn service_of_slice(slice: &EndpointSlice) -> Option<String> {
        super::super::service_of(slice).map(|key| key.name)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn planning_again_on_the_result_gives_nothing(
            rounds in proptest::collection::vec(proptest::collection::btree_set(0..350_usize, 0..300), 1..4),
        ) {
            let mut slices = Vec::new();
            for round in rounds {
                let count = round.len();
                let pods = pods(round);
                let actions = plan_for(&pods, &slices);
                apply(&mut slices, actions);
                prop_assert_eq!(plan_for(&pods, &slices), vec![]);
                prop_assert_eq!(sizes(&slices).iter().sum::<usize>(), count);
                prop_assert!(sizes(&slices).iter().all(|size| *size <= MAX_ENDPOINTS));
            }
        }
    }
}
