//! Until when a pod may stay on a node with taints.

use std::time::Duration;

use api::nodes;
use api::well_known::{TAINT_NOT_READY, TAINT_UNREACHABLE};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::taints::NO_EXECUTE;
use crate::pod::PodInfo;

/// The first taint that will evict `pod`, and when. `since` says when a taint came; `patience` is how long a pod that
/// says nothing about it stays on a node that is not ready or unreachable.
pub(super) fn deadline<'a>(
    pod: &PodInfo,
    taints: &'a [Taint],
    since: impl Fn(&Taint) -> Timestamp,
    patience: Duration,
) -> Option<(&'a Taint, Timestamp)> {
    let evicting = taints.iter().filter(|taint| taint.effect == NO_EXECUTE);
    let deadlines = evicting.filter_map(|taint| {
        let stay = stay(&pod.common.tolerations, taint, patience)?;
        Some((taint, since(taint).saturating_add(stay).unwrap_or(Timestamp::MAX)))
    });
    deadlines.min_by_key(|(_, at)| *at)
}

/// How long a pod with these tolerations stays in spite of `taint`; `None` is forever.
fn stay(tolerations: &[Toleration], taint: &Taint, patience: Duration) -> Option<Duration> {
    let matching: Vec<_> = tolerations.iter().filter(|t| nodes::toleration_matches(t, taint)).collect();
    if matching.is_empty() {
        // Admission gives pods tolerations for these two; a pod that slipped past it is treated alike.
        let patient = taint.key == TAINT_NOT_READY || taint.key == TAINT_UNREACHABLE;
        return Some(if patient { patience } else { Duration::ZERO });
    }
    let seconds = matching.iter().filter_map(|toleration| toleration.toleration_seconds).min()?;
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::super::plan::testing::{NOW, now};
    use super::*;
    use crate::pod::Common;

    fn taint(key: &str, effect: &str) -> Taint {
        Taint { key: key.to_owned(), effect: effect.to_owned(), ..Taint::default() }
    }

    fn toleration(key: &str, seconds: Option<i64>) -> Toleration {
        Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            toleration_seconds: seconds,
            ..Toleration::default()
        }
    }

    #[test]
    fn a_pod_stays_as_long_as_it_tolerates() {
        let cases = [
            ("nothing evicts from a node without taints", vec![], vec![], None),
            ("a taint that only keeps away", vec![taint("x", "NoSchedule")], vec![], None),
            ("an untolerated taint", vec![taint("x", NO_EXECUTE)], vec![], Some(0)),
            ("a taint tolerated forever", vec![taint("x", NO_EXECUTE)], vec![toleration("x", None)], None),
            ("a taint tolerated for a time", vec![taint("x", NO_EXECUTE)], vec![toleration("x", Some(30))], Some(30)),
            ("a negative time is none", vec![taint("x", NO_EXECUTE)], vec![toleration("x", Some(-1))], Some(0)),
            ("unreachable without a toleration", vec![taint(TAINT_UNREACHABLE, NO_EXECUTE)], vec![], Some(300)),
            (
                "the earliest of two counts",
                vec![taint(TAINT_UNREACHABLE, NO_EXECUTE), taint("x", NO_EXECUTE)],
                vec![toleration("x", Some(30)), toleration("x", Some(20))],
                Some(20),
            ),
        ];
        for (sentence, taints, tolerations, expected) in cases {
            let common = Common { tolerations, ..Common::default() }.into();
            let pod = PodInfo { common, ..PodInfo::default() };
            let at = deadline(&pod, &taints, |_| now(), Duration::from_secs(300)).map(|(_, at)| at.as_second() - NOW);
            assert_eq!(at, expected, "{sentence}");
        }
    }
}
