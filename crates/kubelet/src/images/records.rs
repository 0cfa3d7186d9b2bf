//! What is remembered of images that were pulled for pods: a file for each image under `image_manager/pulled`, and one under
//! `image_manager/pulling` while a pull is under way, in upstream's form and under its names
//! (`pkg/kubelet/images/pullmanager/fs_pullrecords.go`). Whatever cannot be read counts as pulled with credentials that
//! nobody knows.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::access::{Access, Granted, Grants, PullSecret, Verification, access, name};
use crate::runtime::Image;

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";

/// A file under `pulled`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Record {
    kind: String,
    api_version: String,
    last_updated_time: Option<Timestamp>,
    image_ref: String,
    credential_mapping: Grants,
}

/// A file under `pulling`.
#[derive(Deserialize)]
struct Intended {
    image: String,
}

/// What is remembered, in memory and, where there is a disk, there.
#[derive(Default)]
pub struct Records {
    dir: Option<PathBuf>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// By file name.
    pulled: BTreeMap<String, Record>,
    /// By the names of images.
    intended: BTreeMap<String, Pulls>,
}

/// The pulls of an image that are not known to be over.
#[derive(Default)]
struct Pulls {
    /// How many are under way.
    under_way: usize,
    /// Whether one may have brought the image without anyone noting it.
    unseen: bool,
}

/// A pull under way; when it is dropped, it is not any more.
pub struct Intent {
    records: Arc<Records>,
    image: String,
    settled: AtomicBool,
}

impl Intent {
    /// It is known how the pull ended, and kept where it brought the image.
    pub fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }
}

impl Drop for Intent {
    fn drop(&mut self) {
        self.records.ended(&self.image, self.settled.load(Ordering::Relaxed));
    }
}

/// `sha256-…`: names have characters that file names have not.
fn file_name(of: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, of.as_bytes());
    format!("sha256-{}", crate::names::hex(digest.as_ref()))
}

impl Records {
    /// What a kubelet before left under `data_dir`; without one, nothing outlives the process.
    pub fn open(data_dir: Option<&Path>) -> Records {
        let dir = data_dir.map(|data_dir| data_dir.join("image_manager"));
        let mut known = Known::default();
        if let Some(dir) = &dir {
            for (name, bytes) in files(&dir.join("pulled")) {
                known.pulled.insert(name, serde_json::from_slice(&bytes).unwrap_or_default());
            }
            for (_, bytes) in files(&dir.join("pulling")) {
                if let Ok(Intended { image }) = serde_json::from_slice(&bytes) {
                    known.intended.insert(image, Pulls { unseen: true, under_way: 0 });
                }
            }
        }
        Records { dir, known: Mutex::new(known) }
    }

    /// Whether a pod with these secrets may use `image`, which is here as `found`, without a pull.
    pub fn may_use(&self, policy: &Verification, image: &str, found: &Image, secrets: &[PullSecret]) -> bool {
        let (needed, verdict) = {
            let known = self.known.lock();
            let record = known.pulled.get(&file_name(&found.content));
            let pulled = record.is_some() || known.intended.contains_key(image);
            let grants = record.map(|record| &record.credential_mapping);
            (policy.is_needed(image, pulled), access(image, grants, secrets))
        };
        match verdict {
            _ if !needed => true,
            Access::Ask => false,
            Access::Granted => true,
            Access::Remember(secret) => {
                self.grant(image, &found.content, Some(Granted::to(Some(secret))));
                true
            }
        }
    }

    /// A pull of `image` begins: should nobody hear of its end, it is known that there was one.
    pub fn intend(self: &Arc<Records>, image: &str) -> Intent {
        self.known.lock().intended.entry(image.to_owned()).or_default().under_way += 1;
        let intent = json!({"kind": "ImagePullIntent", "apiVersion": API_VERSION, "image": image});
        self.write("pulling", &file_name(image), intent.to_string().as_bytes());
        Intent { records: self.clone(), image: image.to_owned(), settled: AtomicBool::new(false) }
    }

    /// `image` was pulled as `found`, by its registry's leave for `secret`, or for everyone; whether that is kept.
    pub fn pulled(&self, image: &str, found: &Image, secret: Option<PullSecret>) -> bool {
        self.grant(image, &found.content, Some(Granted::to(secret)))
    }

    /// Someone put `found` here as `image`, or gave it that name, and meant it for all.
    pub fn preloaded(&self, image: &str, found: &Image) {
        if self.known.lock().pulled.contains_key(&file_name(&found.content)) {
            self.grant(image, &found.content, Some(Granted::to(None)));
        }
    }

    /// Whether there were pulls whose end no kubelet saw.
    pub fn are_incomplete(&self) -> bool {
        self.known.lock().intended.values().any(|pulls| pulls.unseen)
    }

    /// Makes records of pulls whose end no kubelet saw, as far as `images` has them.
    pub fn recover(&self, images: &[Image]) {
        let left: Vec<String> = {
            let known = self.known.lock();
            known.intended.iter().filter(|(_, pulls)| pulls.unseen).map(|(image, _)| image.clone()).collect()
        };
        for image in left {
            let is = |found: &&Image| found.names.iter().any(|n| same_reference(n, &image));
            if images.iter().find(is).is_none_or(|found| self.grant(&image, &found.content, None)) {
                self.seen(&image);
            }
        }
    }

    /// Forgets what was known `before` of images that are not among `images` any more.
    pub fn prune(&self, images: &[Image], before: Timestamp) {
        let there: std::collections::BTreeSet<String> = images.iter().map(|image| file_name(&image.content)).collect();
        let mut known = self.known.lock();
        let gone: Vec<String> = known
            .pulled
            .iter()
            .filter(|(file, record)| !there.contains(*file) && record.last_updated_time.is_none_or(|at| at < before))
            .map(|(file, _)| file.clone())
            .collect();
        for file in gone {
            known.pulled.remove(&file);
            self.remove("pulled", &file);
        }
    }

    /// Adds to the record of an image; whether it is on the disk.
    fn grant(&self, image: &str, content: &str, granted: Option<Granted>) -> bool {
        let file = file_name(content);
        let mut known = self.known.lock();
        let is_new = !known.pulled.contains_key(&file);
        let record = known.pulled.entry(file.clone()).or_default();
        let changed =
            granted.is_some_and(|granted| record.credential_mapping.entry(name(image)).or_default().merge(granted));
        if !is_new && !changed {
            return true;
        }
        record.kind = "ImagePulledRecord".to_owned();
        record.api_version = API_VERSION.to_owned();
        record.image_ref = content.to_owned();
        record.last_updated_time = Some(Timestamp::now());
        // Under the lock, so that the last word is the newest.
        let bytes = serde_json::to_vec(record).unwrap_or_default();
        self.write("pulled", &file, &bytes)
    }

    /// A pull of `image` is over, `settled` or not.
    fn ended(&self, image: &str, settled: bool) {
        let mut known = self.known.lock();
        let Some(pulls) = known.intended.get_mut(image) else { return };
        pulls.under_way = pulls.under_way.saturating_sub(1);
        pulls.unseen |= !settled;
        self.forget_if_over(&mut known, image);
    }

    /// What an unseen pull of `image` brought is kept.
    fn seen(&self, image: &str) {
        let mut known = self.known.lock();
        known.intended.get_mut(image).into_iter().for_each(|pulls| pulls.unseen = false);
        self.forget_if_over(&mut known, image);
    }

    fn forget_if_over(&self, known: &mut Known, image: &str) {
        if known.intended.get(image).is_some_and(|pulls| pulls.under_way == 0 && !pulls.unseen) {
            known.intended.remove(image);
            self.remove("pulling", &file_name(image));
        }
    }

    /// Whether it is on the disk, where there is one.
    fn write(&self, folder: &str, file: &str, bytes: &[u8]) -> bool {
        let Some(dir) = &self.dir else { return true };
        let written = write(&dir.join(folder), file, bytes);
        written
            .inspect_err(|error| tracing::warn!(folder, file, %error, "cannot write what is remembered of an image"))
            .is_ok()
    }

    fn remove(&self, folder: &str, file: &str) {
        let Some(dir) = &self.dir else { return };
        match fs::remove_file(dir.join(folder).join(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(folder, file, %error, "cannot forget what is remembered of an image");
            }
            _ => {}
        }
    }
}

/// Whether two ways to write a reference mean the same.
fn same_reference(one: &str, other: &str) -> bool {
    let parsed = |text| super::reference::Reference::parse(text);
    parsed(one).is_some_and(|one| parsed(other) == Some(one))
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok().filter(|name| name.starts_with("sha256-"))?;
        Some((name, fs::read(entry.path()).unwrap_or_default()))
    };
    entries.filter_map(read).collect()
}

/// Whole or not at all, and for nobody else to read.
fn write(folder: &Path, file: &str, bytes: &[u8]) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let new = folder.join(format!("new-{file}"));
    let mut open = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    open.write_all(bytes)?;
    fs::rename(new, folder.join(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(content: &str) -> Image {
        Image { content: content.into(), names: vec!["r.example.com/app:1".into()], ..Image::default() }
    }

    fn secret(uid: &str, hash: &str) -> PullSecret {
        PullSecret { uid: uid.into(), namespace: "ns".into(), name: uid.into(), credential_hash: hash.into() }
    }

    const APP: &str = "r.example.com/app:1";

    fn names(dir: &Path) -> Vec<String> {
        files(dir).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn what_was_pulled_with_a_secret_is_remembered_until_the_image_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Arc::new(Records::open(Some(dir.path())));
        let policy = Verification::default();
        let may =
            |records: &Records, secrets: &[PullSecret]| records.may_use(&policy, APP, &image("sha256:1"), secrets);
        let records = open();
        assert!(may(&records, &[]), "who put it here meant it for all");
        let intent = records.intend(APP);
        assert!(records.pulled(APP, &image("sha256:1"), Some(secret("a", "hash-1"))));
        intent.settle();
        drop(intent);
        assert_eq!(names(&dir.path().join("image_manager/pulling")), [""; 0]);
        for records in [records, open()] {
            assert!(
                !may(&records, &[])
                    && !may(&records, &[secret("b", "hash-2")])
                    && may(&records, &[secret("a", "hash-1")])
            );
        }
        let records = open();
        assert!(may(&records, &[secret("b", "hash-1")]), "the same credentials");
        assert!(may(&open(), &[secret("b", "hash-3")]), "and from then on the secret");
        let text = fs::read_to_string(dir.path().join("image_manager/pulled").join(file_name("sha256:1"))).unwrap();
        assert!(
            text.contains(r#""credentialMapping":{"r.example.com/app":{"kubernetesSecrets":[{"uid":"a""#),
            "{text}"
        );

        records.preloaded("mine:1", &image("sha256:1"));
        assert!(
            records.may_use(&policy, "mine:1", &image("sha256:1"), &[]) && !may(&records, &[]),
            "a name of its own"
        );
        records.prune(&[image("sha256:1")], Timestamp::MAX);
        records.prune(&[], Timestamp::MIN);
        assert!(!may(&records, &[]), "it is there, or newer than the list");
        records.prune(&[], Timestamp::MAX);
        assert!(may(&open(), &[]) && names(&dir.path().join("image_manager/pulled")).is_empty());
    }

    #[test]
    fn a_pull_whose_end_nobody_saw_is_for_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Arc::new(Records::open(Some(dir.path())));
        std::mem::forget(open().intend(APP));
        std::mem::forget(open().intend("r.example.com/other:1"));
        let records = open();
        let policy = Verification::default();
        assert!(!records.may_use(&policy, APP, &image("sha256:1"), &[]));
        records.recover(&[image("sha256:1")]);
        assert_eq!(names(&dir.path().join("image_manager/pulling")), [""; 0]);
        assert!(!open().may_use(&policy, APP, &image("sha256:1"), &[]), "the registry is to say who may");
        // Neither does one that was given up in the middle, nor a refusal that follows it, let anyone in.
        drop(records.intend("r.example.com/third:1"));
        let refused = records.intend("r.example.com/third:1");
        refused.settle();
        drop(refused);
        assert!(records.are_incomplete());
        assert!(!open().may_use(&policy, "r.example.com/third:1", &image("sha256:3"), &[]));
        records.recover(&[]);
        assert!(!records.are_incomplete(), "it is not here");
        let broken = dir.path().join("image_manager/pulled").join(file_name("sha256:2"));
        fs::write(broken, "{").unwrap();
        assert!(!open().may_use(&policy, APP, &image("sha256:2"), &[]), "what cannot be read hides nothing");
    }
}
