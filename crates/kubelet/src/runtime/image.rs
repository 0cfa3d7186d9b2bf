//! What the kubelet needs of the runtime's store of images.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::stream::BoxStream;

use super::Result;

/// An image that is present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// As a pod's status names it.
    pub id: String,
    /// What it is, whatever its names: the engine's own id of it.
    pub content: String,
    /// `repository:tag` and `repository@digest`.
    pub names: Vec<String>,
    /// Bytes.
    pub size: i64,
    /// The user it runs as, empty for root.
    pub user: String,
    /// Whether a container, running or not, was made from it.
    pub in_use: bool,
    /// Whether it says itself that it must stay.
    pub pinned: bool,
}

/// Who asks a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// User.
    pub username: String,
    /// Password.
    pub password: String,
    /// A token instead of a password.
    pub identity_token: Option<String>,
    /// The registry they are for.
    pub server: String,
}

/// How far a pull is, for those who watch it.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    /// So many bytes are here, of those that are known to come.
    pub fn set(&self, done: u64, total: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    /// The bytes that are here, and all that are known to come; nothing before the registry has said anything.
    pub fn bytes(&self) -> Option<(u64, u64)> {
        let total = self.total.load(Ordering::Relaxed);
        (total > 0).then(|| (self.done.load(Ordering::Relaxed).min(total), total))
    }
}

/// A stream of a tar archive.
pub type Archive = BoxStream<'static, Result<Bytes>>;

/// The runtime's images.
#[async_trait::async_trait]
pub trait ImageStore: Send + Sync + 'static {
    /// The image called `reference`, or with this id, if it is present. Whether it is in use is not looked up.
    async fn image(&self, reference: &str) -> Result<Option<Image>>;

    /// Every image with a name.
    async fn images(&self) -> Result<Vec<Image>>;

    /// Fetches an image, and says how far it is.
    async fn pull(&self, reference: &str, credentials: Option<&Credentials>, progress: &Progress) -> Result<()>;

    /// Sends an image to the registry its name says.
    async fn push(&self, reference: &str, credentials: Option<&Credentials>) -> Result<()>;

    /// Gives an image another name.
    async fn tag(&self, reference: &str, name: &str) -> Result<()>;

    /// Takes a name away from an image, and the image with its last one. A conflict where a container uses it.
    async fn remove_image(&self, reference: &str) -> Result<()>;

    /// Takes images in from an archive as [`ImageStore::save`] gives it; their names.
    async fn load(&self, archive: Archive) -> Result<Vec<String>>;

    /// Images with all their layers, as an archive.
    async fn save(&self, references: &[String]) -> Result<Archive>;

    /// The files of an image, as an archive. `key` tells apart who needs them at the same time.
    async fn image_files(&self, reference: &str, key: &str) -> Result<Archive>;
}
