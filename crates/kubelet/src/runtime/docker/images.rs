//! Images in Docker.

use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptionsBuilder};
use futures::StreamExt;

use super::super::{Credentials, Error, Image, Result};
use crate::images::reference::Reference;

/// The image called `reference`, if it is present.
pub(super) async fn find(docker: &Docker, reference: &str) -> Result<Option<Image>> {
    let inspected = match docker.inspect_image(reference).await.map_err(super::error) {
        Ok(inspected) => inspected,
        Err(Error::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let digests = inspected.repo_digests.unwrap_or_default();
    Ok(Some(Image {
        id: status_id(inspected.id.as_deref().unwrap_or_default(), &digests),
        names: inspected.repo_tags.unwrap_or_default().into_iter().chain(digests).collect(),
        size: inspected.size.unwrap_or(0),
        user: inspected.config.and_then(|config| config.user).unwrap_or_default(),
    }))
}

/// An image as a pod's status names it: by its registry's digest, if it came from one.
pub(super) fn status_id(id: &str, digests: &[String]) -> String {
    match digests.first() {
        Some(digest) => format!("docker-pullable://{digest}"),
        None => format!("docker://{id}"),
    }
}

/// Every image with a name.
pub(super) async fn list(docker: &Docker) -> Result<Vec<Image>> {
    let options = ListImagesOptionsBuilder::new().digests(true).build();
    let found = docker.list_images(Some(options)).await.map_err(super::error)?;
    let named = |names: Vec<String>| names.into_iter().filter(|name| !name.contains("<none>")).collect::<Vec<_>>();
    let image = |summary: bollard::models::ImageSummary| Image {
        id: summary.id,
        names: named(summary.repo_digests).into_iter().chain(named(summary.repo_tags)).collect(),
        size: summary.size,
        user: String::new(),
    };
    Ok(found.into_iter().map(image).filter(|image| !image.names.is_empty()).collect())
}

/// Fetches an image from its registry. Dropping the future ends the pull.
pub(super) async fn pull(docker: &Docker, reference: &str, credentials: Option<&Credentials>) -> Result<()> {
    let Some(parsed) = Reference::parse(reference) else {
        return Err(Error::Refused(format!("invalid reference format: {reference}")));
    };
    let version = parsed.digest.or(parsed.tag).unwrap_or_default();
    let name = format!("{}/{}", parsed.registry, parsed.repository);
    let options = CreateImageOptionsBuilder::new().from_image(&name).tag(&version).build();
    let credentials = credentials.map(|credentials| DockerCredentials {
        username: Some(credentials.username.clone()),
        password: Some(credentials.password.clone()),
        identitytoken: credentials.identity_token.clone(),
        serveraddress: Some(credentials.server.clone()),
        ..DockerCredentials::default()
    });
    let mut progress = std::pin::pin!(docker.create_image(Some(options), None, credentials));
    while let Some(step) = progress.next().await {
        step.map_err(super::error)?;
    }
    Ok(())
}
