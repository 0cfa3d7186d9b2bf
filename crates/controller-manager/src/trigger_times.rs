//! Since when what Endpoints and slices show has been so: an annotation by which others measure how long it takes until
//! a proxy knows (`endpointslice/util/trigger_time_tracker.go`).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;

use crate::context::Key;
use crate::pod::PodInfo;

const ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// What was known of each service when it was last looked at.
#[derive(Default)]
pub(crate) struct TriggerTimes {
    services: Mutex<HashMap<Key, Seen>>,
    names: RandomState,
}

/// When the service was made, and when each of its pods became ready or ceased to be. Keys are hashes of names.
struct Seen {
    service: Option<Timestamp>,
    pods: HashMap<u64, Timestamp>,
}

impl TriggerTimes {
    /// The earliest change since the last look; for a service that was not known, when it was made. To be asked at each
    /// look, whether or not it leads to a write.
    pub(crate) fn look(&self, key: &Key, service: Option<&Service>, pods: &[Arc<PodInfo>]) -> Option<Timestamp> {
        let Some(service) = service else {
            self.services.lock().remove(key);
            return None;
        };
        let pods = pods.iter().filter_map(|pod| Some((self.names.hash_one(&pod.name), pod.ready_changed?)));
        let now =
            Seen { service: service.metadata.creation_timestamp.as_ref().map(|time| time.0), pods: pods.collect() };
        let mut services = self.services.lock();
        let earliest = match services.get(key) {
            None => now.service,
            Some(before) => {
                let changed = now.pods.iter().filter(|(pod, at)| before.pods.get(pod).is_none_or(|old| *at > old));
                let changed = changed.map(|(_, at)| *at);
                changed.chain(now.service.filter(|at| Some(*at) > before.service)).min()
            }
        };
        services.insert(key.clone(), now);
        earliest
    }
}

/// Says in what is written why it is: by the change at that time, or not by one.
pub(crate) fn annotate(metadata: &mut ObjectMeta, time: Option<Timestamp>) {
    match time {
        Some(time) => {
            metadata.annotations.get_or_insert_default().insert(ANNOTATION.to_owned(), time.to_string());
        }
        None => {
            if let Some(annotations) = &mut metadata.annotations {
                annotations.remove(ANNOTATION);
            }
            metadata.annotations.take_if(|annotations| annotations.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::service_pods::testing;

    fn at(seconds: i64) -> Option<Timestamp> {
        Some(Timestamp::from_second(seconds).unwrap())
    }

    fn pod(n: usize, seconds: i64) -> Arc<PodInfo> {
        Arc::new(PodInfo { ready_changed: at(seconds), ..testing::pod(n) })
    }

    fn service(seconds: i64) -> Service {
        let mut service = testing::service();
        service.metadata.creation_timestamp = at(seconds).map(Time);
        service
    }

    #[test]
    fn the_earliest_change_since_the_last_look_counts() {
        let (times, key) = (TriggerTimes::default(), Key::new("default", "web"));
        let waits = Arc::new(PodInfo { ready_changed: None, ..testing::pod(3) });
        for (sentence, service, pods, expected) in [
            ("the service is new", service(10), vec![pod(0, 20), pod(1, 21)], at(10)),
            ("nothing has changed", service(10), vec![pod(0, 20), pod(1, 21)], None),
            ("two pods have", service(10), vec![pod(0, 31), pod(1, 30)], at(30)),
            ("one is new", service(10), vec![pod(0, 31), pod(1, 30), pod(2, 5)], at(5)),
            ("nobody has heard of one", service(10), vec![pod(0, 31), pod(1, 30), pod(2, 5), waits], None),
            ("one is gone", service(10), vec![pod(1, 30), pod(2, 5)], None),
            ("it is back", service(10), vec![pod(0, 31), pod(1, 30), pod(2, 5)], at(31)),
            ("the service was made anew", service(40), vec![pod(0, 41)], at(40)),
        ] {
            assert_eq!(times.look(&key, Some(&service), &pods), expected, "{sentence}");
        }
        assert_eq!(times.look(&key, None, &[]), None, "it is gone");
        assert_eq!(times.look(&key, Some(&service(50)), &[pod(0, 60)]), at(50), "there is another");
    }

    #[test]
    fn the_annotation_comes_and_goes() {
        let mut metadata = ObjectMeta::default();
        annotate(&mut metadata, at(0));
        assert_eq!(metadata.annotations.as_ref().unwrap()[ANNOTATION], "1970-01-01T00:00:00Z");
        annotate(&mut metadata, None);
        assert_eq!(metadata, ObjectMeta::default());
    }
}
