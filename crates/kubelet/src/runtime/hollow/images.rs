//! Images in a machine without any: whatever is asked for by name is there, unless it was broken. What was pulled, tagged
//! or loaded is listed as well.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt};

use super::super::image::{Archive, ImageStore, Progress};
use super::super::{Credentials, Error, Image, Result};
use super::{Hollow, State};

/// The images of a machine.
#[derive(Default)]
pub(super) struct Images {
    /// Why pulls of some fail.
    broken: BTreeMap<String, String>,
    /// Who may pull those that are not for everyone: user and password, and whether anybody has.
    locked: BTreeMap<String, (String, String, bool)>,
    /// Sizes of those that are listed, by name.
    listed: BTreeMap<String, i64>,
    pull_time: Duration,
    pulls: usize,
}

impl Hollow {
    /// Lets every pull of `reference` fail with `message`, and every look for it find nothing.
    pub fn break_image(&self, reference: &str, message: &str) {
        self.shared.state.lock().images.broken.insert(reference.to_owned(), message.to_owned());
    }

    /// Lets only who is `username` with that `password` pull `reference`.
    pub fn lock_image(&self, reference: &str, username: &str, password: &str) {
        let who = (username.to_owned(), password.to_owned(), false);
        self.shared.state.lock().images.locked.insert(reference.to_owned(), who);
    }

    /// Lets `reference` be pulled again.
    pub fn mend_image(&self, reference: &str) {
        self.shared.state.lock().images.broken.remove(reference);
    }

    /// Lets every pull from now on take so long.
    pub fn slow_pulls(&self, time: Duration) {
        self.shared.state.lock().images.pull_time = time;
    }

    /// How many pulls were begun.
    pub fn pulls(&self) -> usize {
        self.shared.state.lock().images.pulls
    }

    /// Has an image of that size.
    pub fn put_image(&self, reference: &str, size: i64) {
        self.shared.state.lock().images.listed.insert(reference.to_owned(), size);
    }
}

impl State {
    fn image(&self, reference: &str) -> Image {
        Image {
            id: format!("hollow://{reference}"),
            content: reference.to_owned(),
            names: vec![reference.to_owned()],
            size: self.images.listed.get(reference).copied().unwrap_or(1),
            user: String::new(),
            in_use: self.containers.values().any(|entry| entry.container.image == reference),
            pinned: false,
        }
    }
}

#[async_trait::async_trait]
impl ImageStore for Hollow {
    async fn image(&self, reference: &str) -> Result<Option<Image>> {
        let state = self.shared.state.lock();
        let name = reference.trim_start_matches("hollow://");
        let absent = state.images.broken.contains_key(name) || state.images.locked.get(name).is_some_and(|l| !l.2);
        Ok((!absent).then(|| state.image(name)))
    }

    async fn images(&self) -> Result<Vec<Image>> {
        let state = self.shared.state.lock();
        Ok(state.images.listed.keys().map(|name| state.image(name)).collect())
    }

    async fn pull(&self, reference: &str, credentials: Option<&Credentials>, progress: &Progress) -> Result<()> {
        let (time, size) = {
            let mut state = self.shared.state.lock();
            state.images.pulls += 1;
            if let Some(message) = state.images.broken.get(reference) {
                return Err(Error::Refused(message.clone()));
            }
            if let Some((username, password, pulled)) = state.images.locked.get_mut(reference) {
                if !credentials.is_some_and(|c| c.username == *username && c.password == *password) {
                    let message = format!("pull access denied for {reference}, may require 'docker login'");
                    return Err(Error::Refused(message));
                }
                *pulled = true;
            }
            (state.images.pull_time, state.image(reference).size as u64)
        };
        if !time.is_zero() {
            progress.set(0, size);
            tokio::time::sleep(time / 2).await;
            progress.set(size / 2, size);
            tokio::time::sleep(time / 2).await;
        }
        Ok(())
    }

    async fn push(&self, reference: &str, _credentials: Option<&Credentials>) -> Result<()> {
        match self.shared.state.lock().images.broken.get(reference) {
            Some(message) => Err(Error::Refused(message.clone())),
            None => Ok(()),
        }
    }

    async fn tag(&self, reference: &str, name: &str) -> Result<()> {
        let mut state = self.shared.state.lock();
        if state.images.broken.contains_key(reference) {
            return Err(Error::NotFound(format!("No such image: {reference}")));
        }
        let size = state.image(reference).size;
        state.images.listed.insert(name.to_owned(), size);
        Ok(())
    }

    async fn remove_image(&self, reference: &str) -> Result<()> {
        let mut state = self.shared.state.lock();
        let name = reference.trim_start_matches("hollow://");
        if state.image(name).in_use {
            return Err(Error::Conflict(format!("image {name} is being used by a container")));
        }
        let removed = state.images.listed.remove(name);
        removed.map(drop).ok_or_else(|| Error::NotFound(format!("No such image: {name}")))
    }

    /// The archive is the names of images, one a line, as [`ImageStore::save`] writes them here.
    async fn load(&self, mut archive: Archive) -> Result<Vec<String>> {
        let mut text = Vec::new();
        while let Some(piece) = archive.next().await {
            text.extend_from_slice(&piece?);
        }
        let names: Vec<String> = String::from_utf8_lossy(&text).lines().map(str::to_owned).collect();
        let mut state = self.shared.state.lock();
        state.images.listed.extend(names.iter().map(|name| (name.clone(), 1)));
        Ok(names)
    }

    async fn save(&self, references: &[String]) -> Result<Archive> {
        let state = self.shared.state.lock();
        if let Some(missing) = references.iter().find(|name| state.images.broken.contains_key(*name)) {
            return Err(Error::NotFound(format!("No such image: {missing}")));
        }
        let lines: Vec<_> = references.iter().map(|name| Ok(Bytes::from(format!("{name}\n")))).collect();
        Ok(stream::iter(lines).boxed())
    }

    async fn image_files(&self, _reference: &str, _key: &str) -> Result<Archive> {
        // Two empty blocks are an archive without files.
        Ok(stream::iter([Ok(Bytes::from_static(&[0; 1024]))]).boxed())
    }
}
