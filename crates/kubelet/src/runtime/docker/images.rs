//! Images in Docker.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::models::{ContainerCreateBody, CreateImageInfo};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, ImportImageOptionsBuilder, ListContainersOptionsBuilder,
    ListImagesOptionsBuilder, PushImageOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptions,
    TagImageOptionsBuilder,
};
use futures::stream::{self, Stream, StreamExt};

use super::super::image::{Archive, ImageStore, Progress};
use super::super::{Credentials, Error, Image, Result};
use super::{DockerRuntime, pause};
use crate::images::reference::Reference;
use crate::names::go_duration;

/// A pull or push that says nothing for so long is given up (`imagePullProgressDeadline` of dockershim).
const PROGRESS_DEADLINE: Duration = Duration::from_secs(60);
/// The label of images that are to stay whatever happens; containerd's has the same meaning.
const PINNED: [&str; 2] = ["io.coracle.pinned", "io.cri-containerd.pinned"];
/// The label of containers that exist only so that their files can be read.
const FILES_OF_IMAGE: &str = "io.coracle.image-files";

#[async_trait::async_trait]
impl ImageStore for DockerRuntime {
    async fn image(&self, reference: &str) -> Result<Option<Image>> {
        find(&self.docker, reference).await
    }

    async fn images(&self) -> Result<Vec<Image>> {
        list(&self.docker).await
    }

    async fn pull(&self, reference: &str, credentials: Option<&Credentials>, progress: &Progress) -> Result<()> {
        pull(&self.docker, reference, credentials, progress).await
    }

    async fn push(&self, reference: &str, credentials: Option<&Credentials>) -> Result<()> {
        push(&self.docker, reference, credentials).await
    }

    async fn tag(&self, reference: &str, name: &str) -> Result<()> {
        tag(&self.docker, reference, name).await
    }

    async fn remove_image(&self, reference: &str) -> Result<()> {
        remove(&self.docker, reference).await
    }

    async fn load(&self, archive: Archive) -> Result<Vec<String>> {
        load(&self.docker, archive).await
    }

    async fn save(&self, references: &[String]) -> Result<Archive> {
        save(&self.docker, references).await
    }

    async fn image_files(&self, reference: &str, key: &str) -> Result<Archive> {
        files(&self.docker, &self.options.node_name, reference, key).await
    }
}

/// The image called `reference`, if it is present.
pub(super) async fn find(docker: &Docker, reference: &str) -> Result<Option<Image>> {
    let inspected = match docker.inspect_image(reference).await.map_err(super::error) {
        Ok(inspected) => inspected,
        Err(Error::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let digests = inspected.repo_digests.unwrap_or_default();
    let names: Vec<String> = inspected.repo_tags.unwrap_or_default().into_iter().chain(digests.clone()).collect();
    let labels = inspected.config.as_ref().and_then(|config| config.labels.clone()).unwrap_or_default();
    Ok(Some(Image {
        id: status_id(inspected.id.as_deref().unwrap_or_default(), &digests),
        content: inspected.id.unwrap_or_default(),
        pinned: is_pinned(&names, &labels),
        names,
        size: inspected.size.unwrap_or(0),
        user: inspected.config.and_then(|config| config.user).unwrap_or_default(),
        in_use: false,
    }))
}

/// An image as a pod's status names it: by its registry's digest, if it came from one.
pub(super) fn status_id(id: &str, digests: &[String]) -> String {
    match digests.first() {
        Some(digest) => format!("docker-pullable://{digest}"),
        None => format!("docker://{id}"),
    }
}

fn is_pinned(names: &[String], labels: &HashMap<String, String>) -> bool {
    names.iter().any(|name| name == pause::image()) || PINNED.iter().any(|label| labels.contains_key(*label))
}

/// Every image with a name, and whether any container of this Docker, ours or not, was made from it.
async fn list(docker: &Docker) -> Result<Vec<Image>> {
    let options = ListImagesOptionsBuilder::new().digests(true).build();
    let found = docker.list_images(Some(options)).await.map_err(super::error)?;
    let all = ListContainersOptionsBuilder::new().all(true).build();
    let containers = docker.list_containers(Some(all)).await.map_err(super::error)?;
    let used: HashSet<String> = containers.into_iter().filter_map(|container| container.image_id).collect();
    let named = |names: Vec<String>| names.into_iter().filter(|name| !name.contains("<none>")).collect::<Vec<_>>();
    let image = |summary: bollard::models::ImageSummary| {
        let names: Vec<String> = named(summary.repo_digests).into_iter().chain(named(summary.repo_tags)).collect();
        Image {
            in_use: used.contains(&summary.id),
            pinned: is_pinned(&names, &summary.labels),
            id: summary.id.clone(),
            content: summary.id,
            names,
            size: summary.size,
            user: String::new(),
        }
    };
    Ok(found.into_iter().map(image).filter(|image| !image.names.is_empty()).collect())
}

/// A reference as Docker's API takes it: the name, and the tag or digest.
fn split(reference: &str) -> Result<(String, String)> {
    let parsed = Reference::parse(reference);
    let parsed = parsed.ok_or_else(|| Error::Refused(format!("invalid reference format: {reference}")))?;
    let version = parsed.digest.or(parsed.tag).unwrap_or_default();
    Ok((format!("{}/{}", parsed.registry, parsed.repository), version))
}

fn shown(credentials: Option<&Credentials>) -> Option<DockerCredentials> {
    credentials.map(|credentials| DockerCredentials {
        username: Some(credentials.username.clone()),
        password: Some(credentials.password.clone()),
        identitytoken: credentials.identity_token.clone(),
        serveraddress: Some(credentials.server.clone()),
        ..DockerCredentials::default()
    })
}

/// Fetches an image from its registry. Dropping the future ends the pull.
async fn pull(docker: &Docker, reference: &str, credentials: Option<&Credentials>, told: &Progress) -> Result<()> {
    let (name, version) = split(reference)?;
    let mut layers = Layers::default();
    let follow = |step: CreateImageInfo| {
        let (done, total) = layers.follow(&step);
        told.set(done, total);
        None
    };
    let options = CreateImageOptionsBuilder::new().from_image(&name).tag(&version).build();
    progress("pull", reference, docker.create_image(Some(options), None, shown(credentials)), follow).await
}

/// The bytes of an image's layers that are here and that are to come, by layer, as Docker tells of them one by one.
#[derive(Default)]
struct Layers(HashMap<String, (u64, u64)>);

impl Layers {
    /// Takes in a step; the sums after it.
    fn follow(&mut self, step: &CreateImageInfo) -> (u64, u64) {
        if let Some(id) = &step.id {
            match (step.status.as_deref(), &step.progress_detail) {
                (Some("Downloading"), Some(detail)) => {
                    let [done, total] = [detail.current, detail.total].map(|bytes| bytes.unwrap_or(0).max(0) as u64);
                    self.0.insert(id.clone(), (done, total.max(done)));
                }
                (Some("Download complete"), _) => {
                    if let Some((done, total)) = self.0.get_mut(id) {
                        *done = *total;
                    }
                }
                _ => {}
            }
        }
        self.0.values().fold((0, 0), |sums, layer| (sums.0 + layer.0, sums.1 + layer.1))
    }
}

/// Sends an image to its registry.
async fn push(docker: &Docker, reference: &str, credentials: Option<&Credentials>) -> Result<()> {
    let (name, version) = split(reference)?;
    let options = PushImageOptionsBuilder::new().tag(&version).build();
    // Docker wants to be told who asks, also where nobody does.
    let credentials = shown(credentials).or_else(|| Some(DockerCredentials::default()));
    let refused = |step: bollard::models::PushImageInfo| step.error_detail.and_then(|detail| detail.message);
    progress("push", reference, docker.push_image(&name, Some(options), credentials), refused).await
}

/// Follows what Docker says to its end; `refused` finds an error in a step.
async fn progress<T>(
    what: &str,
    reference: &str,
    steps: impl Stream<Item = Result<T, bollard::errors::Error>>,
    mut refused: impl FnMut(T) -> Option<String>,
) -> Result<()> {
    let mut steps = std::pin::pin!(steps);
    let silent = || {
        let deadline = go_duration(PROGRESS_DEADLINE);
        Error::Refused(format!("cancelling {what} for \"{reference}\": no progress in {deadline}"))
    };
    while let Some(step) = tokio::time::timeout(PROGRESS_DEADLINE, steps.next()).await.map_err(|_| silent())? {
        // What the registry has not is no missing thing of this engine's.
        let step = step.map_err(|error| match super::error(error) {
            Error::NotFound(message) | Error::Conflict(message) => {
                Error::Refused(format!("Error response from daemon: {message}"))
            }
            error => error,
        })?;
        if let Some(message) = refused(step) {
            return Err(Error::Refused(message));
        }
    }
    Ok(())
}

async fn tag(docker: &Docker, reference: &str, name: &str) -> Result<()> {
    let parsed = Reference::parse(name).filter(|parsed| parsed.digest.is_none());
    let parsed = parsed.ok_or_else(|| Error::Refused(format!("invalid reference format: {name}")))?;
    // As it was written: Docker itself shortens what it shows.
    let version = parsed.tag.unwrap_or_default();
    let repo = name.strip_suffix(&format!(":{version}")).unwrap_or(name);
    let options = TagImageOptionsBuilder::new().repo(repo).tag(&version).build();
    docker.tag_image(reference, Some(options)).await.map_err(super::error)
}

async fn remove(docker: &Docker, reference: &str) -> Result<()> {
    docker.remove_image(reference, None::<RemoveImageOptions>, None).await.map(drop).map_err(super::error)
}

/// Takes an archive in; the names Docker says it has loaded.
async fn load(docker: &Docker, archive: Archive) -> Result<Vec<String>> {
    let options = ImportImageOptionsBuilder::new().quiet(true).build();
    let archive = archive.map(|piece| piece.map_err(std::io::Error::other));
    let mut answers = std::pin::pin!(docker.import_image_stream(options, archive, None));
    let mut loaded = Vec::new();
    while let Some(answer) = answers.next().await {
        let answer = answer.map_err(super::error)?;
        if let Some(message) = answer.error_detail.and_then(|detail| detail.message) {
            return Err(Error::Refused(message));
        }
        loaded.extend(answer.stream.as_deref().into_iter().flat_map(str::lines).filter_map(loaded_name));
    }
    Ok(loaded)
}

/// The name in a line of what Docker says about loading.
fn loaded_name(line: &str) -> Option<String> {
    let name = line.strip_prefix("Loaded image: ").or_else(|| line.strip_prefix("Loaded image ID: "))?;
    Some(name.trim().to_owned())
}

async fn save(docker: &Docker, references: &[String]) -> Result<Archive> {
    // What is not there is an error now, not one in the middle of the stream.
    for reference in references {
        docker.inspect_image(reference).await.map_err(super::error)?;
    }
    let names: Vec<&str> = references.iter().map(String::as_str).collect();
    Ok(docker.export_images(&names).map(|piece| piece.map_err(super::error)).boxed())
}

/// The files of an image: those of a container that is made from it, never started, and removed when they were read.
async fn files(docker: &Docker, node: &str, reference: &str, key: &str) -> Result<Archive> {
    let name = format!("coracle-image-files-{key}");
    remove_container(docker, &name).await?;
    let labels = [(crate::names::NODE.to_owned(), node.to_owned()), (FILES_OF_IMAGE.to_owned(), key.to_owned())];
    let body = ContainerCreateBody {
        image: Some(reference.to_owned()),
        // Never run, but Docker wants to know what would be.
        cmd: Some(vec!["/".to_owned()]),
        labels: Some(labels.into()),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::new().name(&name).build();
    let id = docker.create_container(Some(options), body).await.map_err(super::error)?.id;
    let made = Made { docker: docker.clone(), id: id.clone() };
    let files = docker.export_container(&id).map(|piece| piece.map_err(super::error)).boxed();
    let files = stream::unfold((files, made), |(mut files, made)| async move {
        files.next().await.map(|piece| (piece, (files, made)))
    });
    Ok(files.boxed())
}

/// Removes containers from which a kubelet that was killed was reading files.
pub(super) async fn remove_leftovers(docker: &Docker, node: &str) -> Result<()> {
    let labels = vec![format!("{}={node}", crate::names::NODE), FILES_OF_IMAGE.to_owned()];
    let filters = HashMap::from([("label", labels)]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    for left in docker.list_containers(Some(options)).await.map_err(super::error)? {
        remove_container(docker, left.id.as_deref().unwrap_or_default()).await?;
    }
    Ok(())
}

/// A container that goes with whoever reads its files.
struct Made {
    docker: Docker,
    id: String,
}

impl Drop for Made {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (docker, id) = (self.docker.clone(), self.id.clone());
        runtime.spawn(async move {
            if let Err(error) = remove_container(&docker, &id).await {
                tracing::warn!(id, %error, "cannot remove the container an image's files were read from");
            }
        });
    }
}

async fn remove_container(docker: &Docker, name: &str) -> Result<()> {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    match docker.remove_container(name, Some(options)).await.map_err(super::error) {
        Ok(()) | Err(Error::NotFound(_) | Error::Conflict(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::*;

    #[test]
    fn loaded_names_are_found_in_what_docker_says() {
        assert_eq!(loaded_name("Loaded image: busybox:1"), Some("busybox:1".to_owned()));
        assert_eq!(loaded_name("Loaded image ID: sha256:ab"), Some("sha256:ab".to_owned()));
        assert_eq!(loaded_name("unpacking"), None);
    }

    #[test]
    fn the_layers_of_an_image_are_summed_up() {
        let step = |id: &str, status: &str, current: i64, total: i64| CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: Some(ProgressDetail { current: Some(current), total: Some(total) }),
            ..CreateImageInfo::default()
        };
        let mut layers = Layers::default();
        for (step, sums) in [
            (step("latest", "Pulling from library/busybox", 0, 0), (0, 0)),
            (step("a", "Pulling fs layer", 0, 0), (0, 0)),
            (step("a", "Downloading", 10, 100), (10, 100)),
            (step("b", "Downloading", 5, 50), (15, 150)),
            (step("a", "Downloading", 90, 100), (95, 150)),
            (step("a", "Download complete", 0, 0), (105, 150)),
            (step("a", "Extracting", 1, 100), (105, 150)),
            (step("c", "Download complete", 0, 0), (105, 150)),
            (step("d", "Downloading", 7, -1), (112, 157)),
        ] {
            assert_eq!(layers.follow(&step), sums, "{step:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pull_without_progress_is_given_up() {
        let steps = stream::iter([Ok(())]).chain(stream::pending());
        let error = progress("pull", "x:1", steps, |()| None).await.unwrap_err();
        assert_eq!(error.to_string(), "cancelling pull for \"x:1\": no progress in 1m0s");
        let refused = stream::iter([Ok(()), Ok(())]);
        let error = progress("push", "x:1", refused, |()| Some("denied".to_owned())).await.unwrap_err();
        assert_eq!(error.to_string(), "denied");
    }
}
