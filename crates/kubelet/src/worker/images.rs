//! Sees that images are there before something is made from them (`pkg/kubelet/images/image_manager.go`).

use std::sync::Arc;
use std::time::Duration;

use client::EventType;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::execute::StartError;
use super::{ImageBackoff, Worker};
use crate::clock::{after, until};
use crate::images::access::PullSecret;
use crate::images::puller::Pull;
use crate::images::records::{Intent, Records};
use crate::images::{self, Decision, ImageError, credentials};
use crate::names::go_duration;
use crate::pod::backoff;
use crate::runtime::Image;

impl Worker {
    /// Sees that the container's image is there.
    pub(super) async fn ensure_image(&mut self, pod: &Pod, container: &Container) -> Result<Image, StartError> {
        let image = container.image.as_deref().unwrap_or_default();
        self.image_for(pod, Some(&container.name), image, container.image_pull_policy.as_deref()).await
    }

    /// Sees that an image is there for one of the pod's containers, or for a volume.
    pub(super) async fn image_for(
        &mut self,
        pod: &Pod,
        container: Option<&str>,
        image: &str,
        policy: Option<&str>,
    ) -> Result<Image, StartError> {
        if images::reference::Reference::parse(image).is_none() {
            let message = format!(
                "Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": invalid reference format"
            );
            self.image_event(pod, container, EventType::Warning, "InspectFailed", message.clone());
            return Err(self.image_error(pod, container, ImageError { reason: "InvalidImageName", message }));
        }
        let present = self.kubelet.runtime.image(image).await;
        let present = present.map_err(|e| StartError { reason: "ImageInspectError", message: e.to_string() })?;
        let present = match (images::decide(policy, present.is_some()), present) {
            (Decision::Use, Some(found)) => found,
            (Decision::Refuse, _) => return Err(self.never_pulled(pod, container, image)),
            _ => return self.pull(pod, container, image).await,
        };
        if self.may_use(pod, image, &present).await {
            let message =
                format!("Container image \"{image}\" already present on machine and can be accessed by the pod");
            self.image_event(pod, container, EventType::Normal, "Pulled", message);
            return Ok(present);
        }
        match policy {
            // For who may not use it, it is not there.
            Some("Never") => Err(self.never_pulled(pod, container, image)),
            _ => self.pull(pod, container, image).await,
        }
    }

    fn never_pulled(&self, pod: &Pod, container: Option<&str>, image: &str) -> StartError {
        let message = format!("Container image \"{image}\" is not present with pull policy of Never");
        self.image_event(pod, container, EventType::Warning, "ErrImageNeverPull", message.clone());
        self.image_error(pod, container, ImageError { reason: "ErrImageNeverPull", message })
    }

    /// Whether the pod may use an image that is here, by what its registry said before.
    async fn may_use(&mut self, pod: &Pod, image: &str, found: &Image) -> bool {
        let secrets = credentials::matching(image, &self.pull_secrets(pod).await);
        let secrets: Vec<PullSecret> = secrets.into_iter().map(|(_, secret)| secret).collect();
        let (policy, image, found) = (self.kubelet.config.image_verification.clone(), image.to_owned(), found.clone());
        self.recorded(move |records| records.may_use(&policy, &image, &found, &secrets)).await.unwrap_or(false)
    }

    /// Looks into what is remembered, or adds to it: on disk, so beside the tasks.
    async fn recorded<T: Send + 'static>(&self, work: impl FnOnce(&Arc<Records>) -> T + Send + 'static) -> Option<T> {
        let records = self.kubelet.node.records.clone();
        if !self.kubelet.runtime.uses_files() {
            return Some(work(&records));
        }
        tokio::task::spawn_blocking(move || work(&records)).await.ok()
    }

    async fn pull(&mut self, pod: &Pod, container: Option<&str>, image: &str) -> Result<Image, StartError> {
        let now = self.kubelet.config.clock.now();
        if let Some(backoff) = self.image_backoffs.get_mut(image).filter(|backoff| backoff.until > now) {
            let message = format!("Back-off pulling image \"{image}\"");
            let error = ImageError { reason: "ImagePullBackOff", message: format!("{message}: {}", backoff.error) };
            if !std::mem::replace(&mut backoff.told, true) {
                self.image_event(pod, container, EventType::Normal, "BackOff", message);
                return Err(self.image_error(pod, container, error));
            }
            return Err(StartError { reason: error.reason, message: error.message });
        }
        self.image_event(pod, container, EventType::Normal, "Pulling", format!("Pulling image \"{image}\""));
        let (credentials, secrets): (Vec<_>, Vec<_>) =
            credentials::matching(image, &self.pull_secrets(pod).await).into_iter().unzip();
        let name = image.to_owned();
        // Held until it is remembered how the pull ended.
        let intent = self.recorded(move |records| records.intend(&name)).await;
        let kubelet = self.kubelet.clone();
        let tell = |done, total| {
            let message = format!("Pulling image \"{image}\": {done} of {total} bytes so far");
            self.image_event(pod, container, EventType::Normal, "Pulling", message);
        };
        let pulled = kubelet.node.images.pull_and_tell(&kubelet.runtime, image, credentials, tell).await;
        match pulled {
            Ok(Pull { image: found, accepted, took: pulling }) => {
                let secret = accepted.and_then(|index| secrets.get(index).cloned());
                let (name, there) = (image.to_owned(), found.clone());
                let kept = self.recorded(move |records| records.pulled(&name, &there, secret)).await;
                intent.iter().filter(|_| kept == Some(true)).for_each(Intent::settle);
                self.image_backoffs.remove(image);
                let waiting = until(now, self.kubelet.config.clock.now());
                let [pulling, waiting] =
                    [pulling, waiting].map(|time| go_duration(Duration::from_millis(time.as_millis() as u64)));
                let message = format!(
                    "Successfully pulled image \"{image}\" in {pulling} ({waiting} including waiting). Image size: {} bytes.",
                    found.size
                );
                self.image_event(pod, container, EventType::Normal, "Pulled", message);
                Ok(found)
            }
            Err(error) => {
                intent.iter().filter(|_| error.reason == "ErrImagePull").for_each(Intent::settle);
                self.back_off_pulling(image, &error);
                let message = format!("Failed to pull image \"{image}\": {error}");
                self.image_event(pod, container, EventType::Warning, "Failed", message);
                Err(self.image_error(pod, container, error))
            }
        }
    }

    fn back_off_pulling(&mut self, image: &str, error: &ImageError) {
        let before = self.image_backoffs.get(image).map(|b| b.wait).unwrap_or_default();
        let wait = (before * 2).clamp(backoff::INITIAL, backoff::MAX);
        let until = after(self.kubelet.config.clock.now(), wait);
        let error = format!("{}: {}", error.reason, error.message);
        self.image_backoffs.insert(image.to_owned(), ImageBackoff { until, wait, told: false, error });
    }

    fn image_error(&self, pod: &Pod, container: Option<&str>, error: ImageError) -> StartError {
        self.image_event(pod, container, EventType::Warning, "Failed", format!("Error: {}", error.reason));
        StartError { reason: error.reason, message: error.message }
    }

    fn image_event(&self, pod: &Pod, container: Option<&str>, type_: EventType, reason: &str, message: String) {
        match container {
            Some(name) => self.container_event(pod, name, type_, reason, message),
            None => self.pod_event(pod, type_, reason, message),
        }
    }
}
