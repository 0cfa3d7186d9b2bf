//! Image references: `[registry/]repository[:tag][@digest]` (`github.com/distribution/reference`).

/// The registry of references that name none.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Longest repository name.
const MAX_NAME: usize = 255;
/// Longest tag.
const MAX_TAG: usize = 128;

/// A reference, taken apart and filled up with defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `docker.io`.
    pub registry: String,
    /// `library/busybox`.
    pub repository: String,
    /// `latest`, unless there is a digest.
    pub tag: Option<String>,
    /// `sha256:…`.
    pub digest: Option<String>,
}

impl Reference {
    /// Takes `text` apart; `None` if it is no reference.
    pub fn parse(text: &str) -> Option<Reference> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash belongs to the registry's port.
        let colon = rest.rfind(':').filter(|colon| rest.rfind('/').is_none_or(|slash| *colon > slash));
        let (name, tag) = match colon {
            Some(colon) => (&rest[..colon], Some(&rest[colon + 1..])),
            None => (rest, None),
        };
        let (registry, path) = match name.split_once('/') {
            Some((first, path)) if first.contains(['.', ':']) || first == "localhost" => (first, path),
            _ => (DEFAULT_REGISTRY, name),
        };
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        let official = registry == DEFAULT_REGISTRY && !path.contains('/');
        let repository = if official { format!("library/{path}") } else { path.to_owned() };
        let valid = name.len() <= MAX_NAME
            && path.split('/').all(is_component)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_digest);
        let tag = tag.or(if digest.is_none() { Some("latest") } else { None });
        valid.then(|| Reference {
            registry: registry.to_owned(),
            repository,
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }
}

/// Lower case letters and digits, joined by `.`, `_`, `__` or dashes.
fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let edges = bytes.first().is_some_and(|b| alphanumeric(*b)) && bytes.last().is_some_and(|b| alphanumeric(*b));
    let joined = |separator: &str| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-');
    edges && component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).all(joined)
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = tag.as_bytes();
    (1..=MAX_TAG).contains(&bytes.len()) && word(bytes[0]) && bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    let is_hex = |hex: &str| hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    digest.split_once(':').is_some_and(|(algorithm, hex)| !algorithm.is_empty() && is_hex(hex))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_filled_up_with_defaults() {
        for (text, registry, repository, tag) in [
            ("busybox", "docker.io", "library/busybox", Some("latest")),
            ("busybox:1.36", "docker.io", "library/busybox", Some("1.36")),
            ("user/app", "docker.io", "user/app", Some("latest")),
            ("quay.io/a/b/c:v1", "quay.io", "a/b/c", Some("v1")),
            ("localhost:5000/x", "localhost:5000", "x", Some("latest")),
            ("localhost/x:y", "localhost", "x", Some("y")),
        ] {
            let parsed = Reference::parse(text).unwrap();
            assert_eq!(
                (parsed.registry.as_str(), parsed.repository.as_str(), parsed.tag.as_deref()),
                (registry, repository, tag)
            );
        }
        let digest = format!("busybox@sha256:{}", "a".repeat(64));
        assert_eq!(Reference::parse(&digest).unwrap().tag, None);
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        for text in ["", "Busybox", "a b", "x:", "a//b", "x@sha256:zz", "-x", "a..b", "x:-tag", "http://x/y"] {
            assert_eq!(Reference::parse(text), None, "{text}");
        }
    }
}
