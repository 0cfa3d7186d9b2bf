//! Levels and the labels that ask for them (`k8s.io/pod-security-admission/api`).

use std::collections::BTreeMap;
use std::fmt;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// A mode: the label of its level and the label of its version.
pub(super) struct Mode {
    level: &'static str,
    version: &'static str,
}

/// Refuses.
pub(super) const ENFORCE: Mode =
    Mode { level: "pod-security.kubernetes.io/enforce", version: "pod-security.kubernetes.io/enforce-version" };
/// Is told to the audit log.
pub(super) const AUDIT: Mode =
    Mode { level: "pod-security.kubernetes.io/audit", version: "pod-security.kubernetes.io/audit-version" };
/// Warns.
pub(super) const WARN: Mode =
    Mode { level: "pod-security.kubernetes.io/warn", version: "pod-security.kubernetes.io/warn-version" };

/// How much a pod may do, from everything to little.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Level> {
        match text {
            "privileged" => Some(Level::Privileged),
            "baseline" => Some(Level::Baseline),
            "restricted" => Some(Level::Restricted),
            _ => None,
        }
    }
}

/// Kubernetes `1.N`, whose rules a level is read by; `None` is the newest.
pub(super) type Version = Option<u32>;

/// A level as of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LevelVersion {
    pub(super) level: Level,
    pub(super) version: Version,
}

impl fmt::Display for LevelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            None => write!(f, "{level}:latest"),
            Some(minor) => write!(f, "{level}:v1.{minor}"),
        }
    }
}

/// Whether rules that came with Kubernetes `1.minor` hold.
pub(super) fn since(version: Version, minor: u32) -> bool {
    version.is_none_or(|v| v >= minor)
}

fn parse_version(text: &str) -> Option<Version> {
    if text == "latest" {
        return Some(None);
    }
    let minor = text.strip_prefix("v1.")?;
    let is_number = minor == "0" || !minor.starts_with('0') && minor.bytes().all(|b| b.is_ascii_digit());
    minor.parse().ok().filter(|_| is_number).map(Some)
}

/// Those of a namespace's labels that are about security.
pub(super) fn security_labels(labels: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let range = labels.range(PREFIX.to_owned()..);
    range.take_while(|(key, _)| key.starts_with(PREFIX)).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// What `labels` ask for in one mode; without a word privileged, and what cannot be read is restricted
/// (`PolicyToEvaluate`).
pub(super) fn of(labels: &BTreeMap<String, String>, mode: &Mode) -> LevelVersion {
    let level = labels.get(mode.level).map_or(Level::Privileged, |l| Level::parse(l).unwrap_or(Level::Restricted));
    let version = labels.get(mode.version).and_then(|v| parse_version(v)).flatten();
    LevelVersion { level, version }
}

/// What is wrong with a label of a mode.
pub(super) fn problem(label: &str, value: &str) -> Option<&'static str> {
    match label.strip_prefix(PREFIX)? {
        "enforce" | "audit" | "warn" => {
            Level::parse(value).is_none().then_some("must be one of privileged, baseline, restricted")
        }
        "enforce-version" | "audit-version" | "warn-version" => {
            parse_version(value).is_none().then_some("must be \"latest\" or \"v1.x\"")
        }
        _ => None,
    }
}
