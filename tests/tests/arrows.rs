//! The shape of the workspace, checked: which crate may depend on which, and where third-party types may live.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every arrow docs/architecture.md draws: a crate and what it may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("store", &["api"]),
    ("client", &["api"]),
    ("daemon", &[]),
    ("apiserver", &["api", "store"]),
    ("scheduler", &["api", "client"]),
    ("controller-manager", &["api", "client"]),
    ("kubelet", &["api", "client"]),
    ("proxy", &["api", "client"]),
    ("kctl", &["api", "client"]),
    ("master", &["api", "store", "apiserver", "client", "scheduler", "controller-manager", "daemon"]),
    ("minion", &["api", "client", "kubelet", "proxy", "daemon"]),
];

/// Third-party crates that stay in one place, and where: the manifests that may name them and the source folder that
/// may use them.
const AT_HOME: &[(&str, &str, &str)] = &[
    ("etcd-client", "store", "crates/store/src/etcd"),
    ("redb", "store", "crates/store/src/embedded"),
    ("bollard", "kubelet", "crates/kubelet/src/runtime/docker"),
    ("hickory-proto", "proxy", "crates/proxy/src/dns"),
    ("axum", "apiserver kubelet", "crates"),
    ("k8s-openapi", "", "crates"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The names in the dependency tables of a manifest, development ones left out.
fn dependencies(manifest: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(manifest).unwrap();
    let mut inside = false;
    let mut names = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            inside = matches!(table.trim_end_matches(']'), "dependencies" | "build-dependencies")
                || (table.starts_with("target.") && table.ends_with(".dependencies]"));
        } else if inside && let Some(name) = line.split(['.', '=', ' ']).next().filter(|n| !n.is_empty()) {
            names.insert(name.trim_matches('"').to_owned());
        }
    }
    names
}

fn crates() -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        found.insert(name, dependencies(&folder.join("Cargo.toml")));
    }
    found
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn crates_depend_on_each_other_only_as_drawn() {
    let drawn: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let found = crates();
    let ours: BTreeSet<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(ours, drawn.keys().copied().collect(), "the folders of crates/ are the crates of the drawing");
    for (name, dependencies) in &found {
        for dependency in dependencies.iter().filter(|d| ours.contains(d.as_str())) {
            let allowed = drawn[name.as_str()].contains(&dependency.as_str());
            assert!(allowed, "crates/{name}/Cargo.toml: no arrow leads from {name} to {dependency}");
        }
    }
}

#[test]
fn third_party_types_stay_at_home() {
    let found = crates();
    for (library, home, folder) in AT_HOME.iter().filter(|(_, home, _)| !home.is_empty()) {
        for (name, dependencies) in &found {
            let allowed = home.split(' ').any(|h| h == name);
            assert!(allowed || !dependencies.contains(*library), "crates/{name} names {library}, whose home is {home}");
        }
        let word = format!("{}::", library.replace('-', "_"));
        let mut files = Vec::new();
        for name in home.split(' ') {
            sources(&root().join("crates").join(name).join("src"), &mut files);
        }
        for file in files.iter().filter(|f| !f.starts_with(root().join(folder))) {
            let at_home = file.with_extension("") == root().join(folder);
            let used = fs::read_to_string(file)
                .unwrap()
                .lines()
                .any(|l| !l.trim_start().starts_with("//") && l.contains(&word));
            assert!(at_home || !used, "{} uses {library}, whose home is {folder}", file.display());
        }
    }
}

#[test]
fn every_crate_opens_with_a_map() {
    for name in crates().keys() {
        let source = root().join("crates").join(name).join("src");
        let text = fs::read_to_string(source.join("lib.rs")).unwrap();
        let lines = text.lines().take_while(|l| l.starts_with("//!")).count();
        assert!((5..=45).contains(&lines), "crates/{name}/src/lib.rs opens with {lines} lines of map");
    }
}

/// Waiting is for a notification or a known deadline. Each file that sleeps says here which deadline it is.
const SLEEPS: &[(&str, &str)] = &[
    ("crates/kubelet/src/node/lease.rs", "a heartbeat is due at fixed times, whatever happens"),
    ("crates/kubelet/src/node/container_gc.rs", "ended containers are collected at fixed times, by their age"),
    (
        "crates/kubelet/src/node/eviction/mod.rs",
        "the kernel says nothing when a disk fills up: it is measured at fixed times",
    ),
    ("crates/kubelet/src/node/runtime_health.rs", "a runtime that hangs tells nobody: it is asked at fixed times"),
    (
        "crates/proxy/tests/kernel/affinity.rs",
        "the kernel forgets a client after a time that is known, and says nothing",
    ),
    ("crates/kubelet/src/pods.rs", "the rare comparison with the runtime, in case one of its events was lost"),
];

#[test]
fn nothing_sleeps_without_a_reason() {
    let mut files = Vec::new();
    sources(&root().join("crates"), &mut files);
    for file in files {
        let relative = file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let sleeps = code.lines().any(|l| {
            !l.trim_start().starts_with("//") && (l.contains("thread::sleep(") || l.contains("time::interval("))
        });
        let reason = SLEEPS.iter().find(|(f, _)| *f == relative);
        assert!(!sleeps || reason.is_some(), "{relative} sleeps or polls: wait for a notification or a deadline");
    }
}
