//! Volumes that come from elsewhere: claims are looked up, exports mounted, images pulled and unpacked. All of it ends
//! when the pod is to end.

use k8s_openapi::api::core::v1::Pod;

use super::Worker;
use crate::volumes::claims::{self, Claims};
use crate::volumes::{self, Elsewhere, image, nfs};

impl Worker {
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
