//! What is told of claims that wait for a volume, and how often.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::events::EventType;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use super::matching::{best, claim_ref, storage_class};
use super::plan::{BIND_COMPLETED, BOUND_BY_CONTROLLER, has, is_bound_to, means, volume_name};

/// How often each claim that waits is told of again (`PVClaimBinderSyncPeriod`). Who writes the Events counts those
/// that repeat, and leaves out most.
const PERIOD: SignedDuration = SignedDuration::from_secs(15);

/// An Event about a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waits {
    pub(super) event_type: EventType,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Why a claim waits, where there is something to tell of it (`syncUnboundClaim` in `pv_controller.go`).
pub(super) fn waits(claim: &PersistentVolumeClaim, volumes: &[Arc<PersistentVolume>]) -> Option<Waits> {
    if has(&claim.metadata, BIND_COMPLETED) || claim.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let Some(name) = volume_name(claim) else {
        let free = |volume: &PersistentVolume| claim_ref(volume).is_none_or(|reference| means(reference, claim));
        let is_found = volumes.iter().any(|volume| is_bound_to(volume, claim)) || best(claim, volumes, free).is_some();
        return (!is_found).then(|| none_fits(claim));
    };
    let named = volumes.iter().find(|volume| volume.metadata.name.as_deref() == Some(name))?;
    let is_anothers = claim_ref(named).is_some_and(|reference| !means(reference, claim));
    (is_anothers && !has(&claim.metadata, BOUND_BY_CONTROLLER)).then(|| Waits {
        event_type: EventType::Warning,
        reason: "FailedBinding",
        message: format!("volume {name:?} already bound to a different claim."),
    })
}

fn none_fits(claim: &PersistentVolumeClaim) -> Waits {
    let class = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    match storage_class(&claim.metadata, class) {
        class if class.is_empty() => Waits {
            event_type: EventType::Normal,
            reason: "FailedBinding",
            message: "no persistent volumes available for this claim and no storage class is set".to_owned(),
        },
        // There are no classes here.
        class => Waits {
            event_type: EventType::Warning,
            reason: "ProvisioningFailed",
            message: format!("storageclass.storage.k8s.io {class:?} not found"),
        },
    }
}

/// The claims that were told of, by UID: at which version, and when.
#[derive(Default)]
pub(super) struct Told(HashMap<Option<String>, (Option<String>, Timestamp)>);

impl Told {
    /// What is to be told now: of each claim that waits at once, whenever it has changed, and again and again. And when
    /// there is more to tell though nothing changes.
    pub(super) fn due<'a>(
        &mut self,
        claims: &'a [Arc<PersistentVolumeClaim>],
        volumes: &[Arc<PersistentVolume>],
        now: Timestamp,
    ) -> (Vec<(&'a PersistentVolumeClaim, Waits)>, Option<Duration>) {
        let (mut due, mut told) = (Vec::new(), HashMap::new());
        for (claim, waits) in claims.iter().filter_map(|claim| Some((claim, waits(claim, volumes)?))) {
            let (uid, version) = (claim.metadata.uid.clone(), claim.metadata.resource_version.clone());
            let before = self.0.remove(&uid).filter(|(at, _)| *at == version).map(|(_, at)| at);
            let before = before.filter(|at| now.duration_since(*at) < PERIOD);
            if before.is_none() {
                due.push((&**claim, waits));
            }
            told.insert(uid, (version, before.unwrap_or(now)));
        }
        self.0 = told;
        let next = self.0.values().map(|(_, at)| PERIOD.saturating_sub(now.duration_since(*at))).min();
        (due, next.and_then(|next| Duration::try_from(next).ok()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::plan::tests::{claim, volume};
    use super::*;

    #[test]
    fn a_claim_that_waits_is_told_why() {
        let plain = |_: &mut Value| ();
        let class = |v: &mut Value| v["spec"]["storageClassName"] = json!("fast");
        let named = |v: &mut Value| v["spec"]["volumeName"] = json!("v");
        let of = |name: &'static str| {
            move |v: &mut Value| v["spec"]["claimRef"] = json!({"namespace": "default", "name": name})
        };
        let none = "Normal FailedBinding no persistent volumes available for this claim and no storage class is set";
        let cases = [
            ("there is none", claim("c", "1Gi", plain), vec![], none),
            ("it is too small", claim("c", "2Gi", plain), vec![volume("v", "1Gi", plain)], none),
            ("it is another's", claim("c", "1Gi", plain), vec![volume("v", "1Gi", of("d"))], none),
            ("one fits", claim("c", "1Gi", plain), vec![volume("v", "1Gi", plain)], ""),
            ("it is its own", claim("c", "1Gi", plain), vec![volume("v", "1Gi", of("c"))], ""),
            (
                "nobody makes one of its class",
                claim("c", "1Gi", class),
                vec![volume("v", "1Gi", plain)],
                "Warning ProvisioningFailed storageclass.storage.k8s.io \"fast\" not found",
            ),
            ("the one it names is not there", claim("c", "1Gi", named), vec![], ""),
            (
                "the one it names is another's",
                claim("c", "1Gi", named),
                vec![volume("v", "1Gi", of("d"))],
                "Warning FailedBinding volume \"v\" already bound to a different claim.",
            ),
            (
                "it was bound",
                claim("c", "1Gi", |v| v["metadata"]["annotations"] = json!({BIND_COMPLETED: "yes"})),
                vec![],
                "",
            ),
        ];
        for (sentence, claim, volumes, expected) in cases {
            let told = waits(&claim, &volumes)
                .map(|waits| format!("{} {} {}", waits.event_type.as_str(), waits.reason, waits.message));
            assert_eq!(told.unwrap_or_default(), expected, "{sentence}");
        }
    }

    #[test]
    fn it_is_told_again_when_it_changes_and_every_fifteen_seconds() {
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let of_version =
            |version: &'static str| vec![claim("c", "1Gi", |v| v["metadata"]["resourceVersion"] = json!(version))];
        let mut told = Told::default();
        for (sentence, seconds, version, expected, next) in [
            ("at once", 0, "1", 1, 15),
            ("not twice", 5, "1", 0, 10),
            ("it has changed", 6, "2", 1, 15),
            ("not yet", 20, "2", 0, 1),
            ("again", 21, "2", 1, 15),
        ] {
            let claims = of_version(version);
            let (due, in_) = told.due(&claims, &[], at(seconds));
            assert_eq!((due.len(), in_), (expected, Some(Duration::from_secs(next))), "{sentence}");
        }
        let bound = [volume("v", "1Gi", |_| ())];
        assert_eq!(told.due(&of_version("2"), &bound, at(60)).1, None, "it waits no more");
        assert!(told.0.is_empty());
    }
}
