//! Images: how they are named, when they are pulled and with whose credentials, and when they are removed.
//!
//! - [`reference`], [`credentials`]: names, and who may ask for them.
//! - [`puller`]: pulls, many at a time. [`collect`]: which images go.
//! - [`access`], [`records`]: which pods may use what was pulled for others, and what is remembered for that.

use crate::runtime::image::Progress;
use crate::runtime::{Credentials, Image, Runtime};

pub mod access;
pub mod collect;
pub mod credentials;
pub mod puller;
pub mod records;
pub mod reference;

/// What to do about an image before a container is made from it (`shouldPullImage`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It is there and may be used.
    Use,
    /// It must be pulled.
    Pull,
    /// It is not there and must not be pulled.
    Refuse,
}

/// Decides by the pull policy and by whether the image is `present`.
pub fn decide(policy: Option<&str>, present: bool) -> Decision {
    match (policy, present) {
        (Some("Always"), _) => Decision::Pull,
        (Some("Never"), false) => Decision::Refuse,
        (_, true) => Decision::Use,
        (_, false) => Decision::Pull,
    }
}

/// Why there is no image: the reason and message of a container's waiting state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ImageError {
    /// `ErrImagePull`.
    pub reason: &'static str,
    /// In words.
    pub message: String,
}

/// Pulls `image`, with the first of `credentials` that the registry accepts, or without any where there are none; which it
/// was.
pub async fn pull(
    runtime: &dyn Runtime,
    image: &str,
    credentials: &[Credentials],
    progress: &Progress,
) -> Result<(Image, Option<usize>), ImageError> {
    let failed = |message: String| ImageError { reason: "ErrImagePull", message };
    let mut attempts: Vec<Option<usize>> = (0..credentials.len()).map(Some).collect();
    if attempts.is_empty() {
        attempts.push(None);
    }
    let mut refusals: Vec<String> = Vec::new();
    for index in attempts {
        match runtime.pull(image, index.map(|index| &credentials[index]), progress).await {
            Ok(()) => {
                // It may be there, and nobody knows who may use it: another reason than that it was not pulled.
                let unknown = |message| ImageError { reason: "ImageInspectError", message };
                let found = runtime.image(image).await.map_err(|error| unknown(error.to_string()))?;
                let found = found.ok_or_else(|| unknown(format!("image \"{image}\" is not there after its pull")))?;
                return Ok((found, index));
            }
            Err(error) => refusals.push(error.to_string()),
        }
    }
    Err(failed(aggregate(refusals)))
}

/// Several errors in one text, each once (`utilerrors.NewAggregate`).
fn aggregate(mut errors: Vec<String>) -> String {
    let mut seen = std::collections::HashSet::new();
    errors.retain(|error| seen.insert(error.clone()));
    if errors.len() == 1 { errors.remove(0) } else { format!("[{}]", errors.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_said_once() {
        let said = |errors: &[&str]| aggregate(errors.iter().map(|error| (*error).to_owned()).collect());
        assert_eq!((said(&["a"]), said(&["a", "a"])), ("a".to_owned(), "a".to_owned()));
        assert_eq!(said(&["a", "b", "a"]), "[a, b]");
    }

    #[test]
    fn pull_policy_decides_with_what_is_present() {
        for (policy, present, expected) in [
            (Some("Always"), true, Decision::Pull),
            (Some("IfNotPresent"), true, Decision::Use),
            (Some("IfNotPresent"), false, Decision::Pull),
            (Some("Never"), true, Decision::Use),
            (Some("Never"), false, Decision::Refuse),
            (None, false, Decision::Pull),
        ] {
            assert_eq!(decide(policy, present), expected, "{policy:?} {present}");
        }
    }
}
