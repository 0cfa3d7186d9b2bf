//! Names and labels of containers: how a pod is written onto what runs for it, and read back. The names and labels are
//! those of upstream's Docker runtime, so that tools that know them keep working.

use std::collections::HashMap;
use std::time::Duration;

use crate::runtime::PodIdentity;

/// The pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// The pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The pod's UID.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// The container's name in the pod's spec; `POD` for a sandbox.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
/// `podsandbox` or `container`.
pub const CONTAINER_TYPE: &str = "io.kubernetes.docker.type";
/// The sandbox a container joined.
pub const SANDBOX_ID: &str = "io.kubernetes.sandbox.id";
/// [`crate::pod::container_hash`].
pub const HASH: &str = "annotation.io.kubernetes.container.hash";
/// How often containers of the name were restarted before.
pub const RESTART_COUNT: &str = "annotation.io.kubernetes.container.restartCount";
/// Seconds a container may take to end.
pub const GRACE_PERIOD: &str = "annotation.io.kubernetes.pod.terminationGracePeriod";
/// Seconds its successor waits, if it ends soon.
pub const BACKOFF: &str = "io.coracle.container.backoff";
/// What the container was made to use: `shares/quota/memory`, 0 for no limit.
pub const RESOURCES: &str = "io.coracle.container.resources";
/// How many sandboxes the pod had before.
pub const ATTEMPT: &str = "io.coracle.sandbox.attempt";
/// The node the container belongs to: several kubelets may share one Docker.
pub const NODE: &str = "io.coracle.node";
/// The image as it was asked for.
pub const IMAGE: &str = "io.coracle.container.image";
/// The image as it was found or pulled, by its registry's digest where it has one: what Docker says of a container names
/// no registry.
pub const IMAGE_ID: &str = "io.coracle.container.image-id";

/// [`CONTAINER_NAME`] of a sandbox.
pub const SANDBOX: &str = "POD";
/// [`CONTAINER_TYPE`] of a sandbox.
pub const TYPE_SANDBOX: &str = "podsandbox";
/// [`CONTAINER_TYPE`] of a container.
pub const TYPE_CONTAINER: &str = "container";

/// `k8s_<container>_<pod>_<namespace>_<uid>_<attempt>`; a fresh one for each attempt, because removing a container and
/// reusing its name races in Docker.
pub fn container_name(pod: &PodIdentity, container: &str, attempt: u32) -> String {
    format!("k8s_{container}_{}_{}_{}_{attempt}", pod.name, pod.namespace, pod.uid)
}

/// The labels that every container and sandbox of `pod` on `node` has.
pub fn pod_labels(pod: &PodIdentity, node: &str) -> HashMap<String, String> {
    [
        (POD_NAME, pod.name.clone()),
        (POD_NAMESPACE, pod.namespace.clone()),
        (POD_UID, pod.uid.clone()),
        (GRACE_PERIOD, pod.grace_period_seconds.to_string()),
        (NODE, node.to_owned()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// Whose container the labels say it is.
pub fn pod_identity(labels: &HashMap<String, String>) -> Option<PodIdentity> {
    Some(PodIdentity {
        namespace: labels.get(POD_NAMESPACE)?.clone(),
        name: labels.get(POD_NAME)?.clone(),
        uid: labels.get(POD_UID)?.clone(),
        grace_period_seconds: number(labels, GRACE_PERIOD).unwrap_or(crate::pod::DEFAULT_GRACE_SECONDS),
    })
}

/// The number a label holds.
pub fn number<N: std::str::FromStr>(labels: &HashMap<String, String>, key: &str) -> Option<N> {
    labels.get(key)?.parse().ok()
}

/// A duration as Go prints it: `10s`, `2m40s`, `1.5s`, `250ms`.
pub fn go_duration(duration: Duration) -> String {
    let (hours, minutes) = (duration.as_secs() / 3600, duration.as_secs() / 60 % 60);
    let seconds = (duration - Duration::from_secs(hours * 3600 + minutes * 60)).as_secs_f64();
    match (hours, minutes) {
        (0, 0) if duration.is_zero() => "0s".to_owned(),
        (0, 0) if seconds < 1.0 => format!("{}ms", seconds * 1000.0),
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> PodIdentity {
        PodIdentity { namespace: "ns".into(), name: "web".into(), uid: "u-1".into(), grace_period_seconds: 7 }
    }

    #[test]
    fn names_tell_whose_container_it_is_and_which_attempt() {
        assert_eq!(container_name(&pod(), "httpd", 3), "k8s_httpd_web_ns_u-1_3");
        assert_eq!(container_name(&pod(), SANDBOX, 0), "k8s_POD_web_ns_u-1_0");
    }

    #[test]
    fn labels_read_back_as_they_were_written() {
        assert_eq!(pod_identity(&pod_labels(&pod(), "box1")), Some(pod()));
        assert_eq!(pod_identity(&HashMap::new()), None);
    }

    #[test]
    fn durations_read_as_go_prints_them() {
        let printed = |millis| go_duration(Duration::from_millis(millis));
        assert_eq!(
            [0, 250, 1500, 10_000, 160_000, 300_000, 3_600_000].map(printed),
            ["0s", "250ms", "1.5s", "10s", "2m40s", "5m0s", "1h0m0s"]
        );
    }
}
