//! The manifest directory: every file of it is a manifest, but those whose names begin with a dot. Read when inotify
//! says that something changed (`pkg/kubelet/config/file_linux.go`), and now and then in case it did not.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::StaticPods;
use super::manifest::{self, FILE, Origin};

/// Longer files are no manifests.
const MAX_BYTES: u64 = 10 << 20;
/// How often the directory is looked for while it is not there, and read though nothing seems to have changed
/// (`fileCheckFrequency`).
const CHECK_INTERVAL: Duration = Duration::from_secs(20);

/// Follows `dir` for ever.
pub(crate) async fn follow(dir: PathBuf, node_name: String, pods: StaticPods) {
    let mut problems = BTreeMap::new();
    loop {
        // Watched before it is read: no change falls between.
        let watch = watch(&dir);
        pods.set(FILE, read(&dir, &node_name, &mut problems, |path, problem| pods.refused(path, problem)));
        match watch {
            Ok(watch) => {
                tokio::select! {
                    changed = changed(&watch) => if changed.is_err() { tokio::time::sleep(CHECK_INTERVAL).await },
                    () = tokio::time::sleep(CHECK_INTERVAL) => {}
                }
            }
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "cannot watch the manifest directory");
                tokio::time::sleep(CHECK_INTERVAL).await;
            }
        }
    }
}

#[expect(deprecated, reason = "an OwnedFd keeps its descriptor as long as it lives, and the successor is unsafe")]
fn watch(dir: &Path) -> io::Result<AsyncFd<OwnedFd>> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    // A link is made and never written.
    let flags = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF;
    inotify.add_watch(dir, flags)?;
    AsyncFd::with_interest(inotify.into(), Interest::READABLE)
}

/// Waits for the next change; what it was is seen when the directory is read.
async fn changed(watch: &AsyncFd<OwnedFd>) -> io::Result<()> {
    watch.readable().await.map(drop)
}

/// The pods of all files that are good ones. A bad file is told once, and keeps nothing from running but its own pod.
fn read(dir: &Path, node_name: &str, problems: &mut BTreeMap<PathBuf, String>, tell: impl Fn(&str, &str)) -> Vec<Pod> {
    let mut paths: Vec<PathBuf> = match std::fs::read_dir(dir) {
        Ok(entries) => entries.filter_map(|entry| Some(entry.ok()?.path())).collect(),
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "cannot read the manifest directory");
            return Vec::new();
        }
    };
    paths.retain(|path| path.is_file() && !hidden(path));
    paths.sort();
    let mut found = Vec::new();
    let mut bad = BTreeMap::new();
    for path in paths {
        match manifests(&path, node_name) {
            Ok(pods) => found.extend(pods),
            Err(problem) => drop(bad.insert(path, problem)),
        }
    }
    for (path, problem) in &bad {
        if problems.get(path) != Some(problem) {
            tell(&path.to_string_lossy(), problem);
        }
    }
    *problems = bad;
    found
}

fn hidden(path: &Path) -> bool {
    path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'))
}

fn manifests(path: &Path, node_name: &str) -> Result<Vec<Pod>, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > MAX_BYTES {
        return Err(format!("{length} bytes are more than {MAX_BYTES}"));
    }
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    manifest::pods(&text, Origin { source: FILE, place: &path.to_string_lossy(), node_name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  - {{name: c, image: i}}\n"
        )
    }

    #[test]
    fn a_bad_file_is_told_by_name_and_line_and_the_others_count() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("b.yaml"), manifest("b")).unwrap();
        std::fs::write(dir.path().join("a.yaml"), manifest("a")).unwrap();
        std::fs::write(dir.path().join(".c.yaml.swp"), "not yet").unwrap();
        let bad = dir.path().join("bad.yaml");
        std::fs::write(&bad, "apiVersion: v1\nkind: Pod\n  name: [\n").unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        let (mut problems, told) = (BTreeMap::new(), std::cell::RefCell::new(Vec::new()));
        let tell = |path: &str, problem: &str| told.borrow_mut().push(format!("{path}: {problem}"));
        let names: Vec<_> =
            read(dir.path(), "n", &mut problems, tell).into_iter().map(|pod| pod.metadata.name.unwrap()).collect();
        assert_eq!(names, ["a-n", "b-n"]);
        assert_eq!(problems.len(), 1);
        assert!(problems[&bad].contains("line"), "{}", problems[&bad]);
        read(dir.path(), "n", &mut problems, tell);
        assert_eq!(*told.borrow(), [format!("{}: {}", bad.display(), problems[&bad])], "once");
    }

    #[tokio::test]
    async fn changes_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        for change in [
            |dir: &Path| std::fs::write(dir.join("a"), "x").unwrap(),
            |dir: &Path| std::fs::rename(dir.join("a"), dir.join("b")).unwrap(),
            |dir: &Path| std::fs::hard_link(dir.join("b"), dir.join("c")).unwrap(),
            |dir: &Path| std::os::unix::fs::symlink("b", dir.join("d")).unwrap(),
            |dir: &Path| std::fs::remove_file(dir.join("b")).unwrap(),
        ] {
            let watch = watch(dir.path()).unwrap();
            change(dir.path());
            tokio::time::timeout(Duration::from_secs(10), changed(&watch)).await.unwrap().unwrap();
        }
    }
}
