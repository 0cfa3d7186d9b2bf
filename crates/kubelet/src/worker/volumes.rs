//! Volumes that come from elsewhere: claims are looked up, exports mounted, images pulled and unpacked. All of it ends
//! when the pod is to end.

use k8s_openapi::api::core::v1::Pod;

use super::Worker;
use crate::volumes::claims::{self, Claims};
use crate::volumes::{self, Elsewhere, image, nfs};

/// How often the directory of a pod is removed again where that failed: for some two minutes, then at the next start.
const TEAR_DOWN_RETRIES: u32 = 7;

impl Worker {
    /// Removes what the pod had on disk, later and later again where something of it is in use. As long as that may help, the
    /// pod's object stays (`SyncTerminatedPod`).
    pub(super) async fn tear_down(&mut self) {
        let uid = crate::pod::uid(&self.handle.desired().pod).to_owned();
        for _ in 0..TEAR_DOWN_RETRIES {
            if self.kubelet.tear_down_volumes(&uid).await {
                return;
            }
            tokio::time::sleep(self.failed("volumes")).await;
        }
        if !self.kubelet.tear_down_volumes(&uid).await {
            tracing::error!(uid, "the pod's directory stays until the kubelet starts again");
        }
    }

    /// The volumes the pod's claims are bound to.
    pub(super) async fn claims(&self, pod: &Pod) -> Result<Claims, String> {
        let wanted = pod.spec.as_ref().map(claims::wanted).unwrap_or_default();
        if !self.kubelet.runtime.uses_files() {
            return Ok(Claims::new());
        }
        let namespace = crate::pod::namespace(&pod.metadata);
        let mut found = Claims::new();
        for name in wanted {
            let volume = claims::fetch(&self.kubelet.client, namespace, &name).await;
            let volume = volume.map_err(|error| {
                format!("Unable to attach or mount volumes: failed to process volumes=[{name}]: {error}")
            })?;
            found.insert(name, volume);
        }
        Ok(found)
    }

    /// Mounts and unpacks what is not there yet; the message of the FailedMount event if that fails.
    pub(super) async fn make_volumes_from_elsewhere(&mut self, pod: &Pod, claims: &Claims) -> Result<(), String> {
        if !self.kubelet.runtime.uses_files() {
            return Ok(());
        }
        let ending = self.handle.ending.clone();
        for (name, what, place) in volumes::elsewhere(&self.kubelet.config.data_dir, pod, claims) {
            let made = async {
                match &what {
                    Elsewhere::Nfs(export) => nfs::ensure(export, &place).await,
                    Elsewhere::Image(reference, policy) => {
                        self.unpack_image(pod, &name, reference, policy.as_deref(), &place).await
                    }
                }
            };
            let made = tokio::select! {
                biased;
                () = ending.cancelled() => Err("the pod is to end".to_owned()),
                made = made => made,
            };
            made.map_err(|message| format!("MountVolume.SetUp failed for volume \"{name}\" : {message}"))?;
        }
        Ok(())
    }

    async fn unpack_image(
        &mut self,
        pod: &Pod,
        volume: &str,
        reference: &str,
        policy: Option<&str>,
        place: &std::path::Path,
    ) -> Result<(), String> {
        if image::is_ready(place).map_err(|error| error.to_string())? {
            return Ok(());
        }
        if reference.is_empty() {
            // Upstream waits for somebody to fill it in.
            return Err("the volume names no image".to_owned());
        }
        let found = self.image_for(pod, None, reference, policy).await;
        found.map_err(|error| format!("{}: {}", error.reason, error.message))?;
        let key = format!("{}-{volume}", crate::pod::uid(pod));
        let files = self.kubelet.runtime.image_files(reference, &key).await.map_err(|error| error.to_string())?;
        image::unpack(files, place).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::watch;
    use tokio::time::Instant;

    use super::*;
    use crate::Config;
    use crate::runtime::Runtime;
    use crate::runtime::hollow::Hollow;
    use crate::status_writer::Outgoing;
    use crate::worker::{Desired, Handle};

    /// The worker of a pod whose directory, a file, cannot be removed as one.
    async fn worker(dir: &std::path::Path) -> Worker {
        let place = volumes::pod_dir(dir, "u1");
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(&place, "in the way").unwrap();
        let hollow = Hollow::default();
        hollow.use_files();
        let machine = hollow.machine().await.unwrap();
        let config = Config::new("box1", "127.0.0.1".parse().unwrap(), dir);
        let kubelet = crate::testing::kubelet(&hollow, &machine, config, &crate::testing::empty_api());
        let pod = crate::pod::testing::pod(serde_json::json!({"containers": []}));
        let handle = Arc::new(Handle::new(Desired { pod: Arc::new(pod), gone: true }));
        Worker::new(kubelet, handle, watch::channel(Outgoing::default()).0)
    }

    #[tokio::test(start_paused = true)]
    async fn a_directory_that_is_in_use_is_removed_when_it_no_longer_is() {
        let dir = tempfile::tempdir().unwrap();
        let (mut worker, place) = (worker(dir.path()).await, volumes::pod_dir(dir.path(), "u1"));
        let begun = Instant::now();
        let freed = async {
            tokio::time::sleep(Duration::from_millis(2500)).await;
            std::fs::remove_file(&place).unwrap();
            std::fs::create_dir(&place).unwrap();
        };
        tokio::join!(worker.tear_down(), freed);
        assert!(!place.exists());
        assert_eq!(begun.elapsed().as_secs(), 3, "it was tried at once, after one second, and after two more");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stays_in_use_holds_nobody_up_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let mut worker = worker(dir.path()).await;
        let begun = Instant::now();
        worker.tear_down().await;
        assert_eq!(begun.elapsed().as_secs(), 1 + 2 + 4 + 8 + 16 + 32 + 60);
    }
}
