//! Removes images nobody uses when their disk fills up, or when they are old; which ones, [`collect`] decides.

use std::sync::Arc;
use std::time::Duration;

use client::EventType;
use jiff::Timestamp;
use tokio::time::Instant;

use crate::Kubelet;
use crate::images::collect::{self, Memory};
use crate::runtime::{Error, Image};
use crate::stats::node::{FileSystem, NodeUsage};

/// How often images are looked at (`ImageGCPeriod`).
const PERIOD: Duration = Duration::from_secs(300);

/// Takes note of pulls whose end the kubelet before this one did not see.
pub(crate) async fn recover(kubelet: &Kubelet) {
    let records = kubelet.node.records.clone();
    if !records.are_incomplete() {
        return;
    }
    match kubelet.runtime.images().await {
        Ok(images) => drop(tokio::task::spawn_blocking(move || records.recover(&images)).await),
        Err(error) => tracing::warn!(%error, "cannot list images; those on their way at the last end stay for nobody"),
    }
}

/// Removes images.
pub(super) struct ImageCollector {
    kubelet: Arc<Kubelet>,
    memory: Memory,
    looked: Option<Instant>,
    failed: bool,
}

impl ImageCollector {
    pub(super) fn new(kubelet: Arc<Kubelet>) -> ImageCollector {
        ImageCollector { kubelet, memory: Memory::default(), looked: None, failed: false }
    }

    /// Looks, if it is time to.
    pub(super) async fn round(&mut self, usage: &NodeUsage, now: Timestamp) {
        if self.looked.is_some_and(|at| at.elapsed() < PERIOD) {
            return;
        }
        let Ok(images) = self.kubelet.runtime.images().await else { return };
        self.looked = Some(Instant::now());
        self.forget(&images, now).await;
        self.memory.observe(&images, now);
        let policy = self.kubelet.config.image_gc.clone();
        let removable = collect::removable(&images, &self.memory, &policy, now);
        for image in collect::outdated(&removable, &self.memory, &policy, now) {
            self.remove(image).await;
        }
        // Images on a disk of their own are measured there, others where pods' files are.
        let Some(fs) = usage.image_fs.or(usage.fs) else { return };
        match collect::wanted(&fs, &policy) {
            Some(wanted) => self.free(&removable, wanted, &fs).await,
            None => self.failed = false,
        }
    }

    /// Forgets who may use images that are not there any more.
    async fn forget(&self, images: &[Image], before: Timestamp) {
        let (records, images) = (self.kubelet.node.records.clone(), images.to_vec());
        // A panic there is told by the runtime.
        let _ = tokio::task::spawn_blocking(move || records.prune(&images, before)).await;
    }

    /// Removes every image that may go.
    pub(super) async fn remove_unused(&mut self, now: Timestamp) {
        let Ok(images) = self.kubelet.runtime.images().await else { return };
        self.memory.observe(&images, now);
        for image in collect::removable(&images, &self.memory, &self.kubelet.config.image_gc, now) {
            self.remove(image).await;
        }
    }

    async fn free(&mut self, removable: &[&Image], wanted: u64, fs: &FileSystem) {
        let mut freed = 0;
        for image in removable {
            if freed >= wanted {
                break;
            }
            freed += self.remove(image).await;
        }
        if freed >= wanted {
            self.failed = false;
            return;
        }
        let (percent, capacity) = (collect::used_percent(fs).unwrap_or(0), readable(fs.capacity));
        let message = format!(
            "Insufficient free disk space on the node's image filesystem ({percent}% of {capacity} used). Failed to free \
             sufficient space by deleting unused images (freed {freed} bytes)."
        );
        self.kubelet.node_event(EventType::Warning, "FreeDiskSpaceFailed", message.clone());
        // Once may be chance.
        if std::mem::replace(&mut self.failed, true) {
            self.kubelet.node_event(EventType::Warning, "ImageGCFailed", message);
        }
    }

    /// Removes all names of an image; the bytes that gave.
    async fn remove(&self, image: &Image) -> u64 {
        for name in &image.names {
            match self.kubelet.runtime.remove_image(name).await {
                Ok(()) | Err(Error::NotFound(_)) => {}
                Err(error) => {
                    tracing::warn!(image = name, %error, "cannot remove an image");
                    return 0;
                }
            }
        }
        tracing::info!(image = image.names.first(), bytes = image.size, "removed an image nobody uses");
        u64::try_from(image.size).unwrap_or(0)
    }
}

/// `89.9 GiB`.
fn readable(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < units.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{size:.1} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        assert_eq!([0, 1536, 96_528_000_000].map(readable), ["0.0 B", "1.5 KiB", "89.9 GiB"]);
    }
}
