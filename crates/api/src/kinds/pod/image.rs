//! What names an image, after `ParseNormalizedNamed` in `github.com/distribution/reference`.

/// The longest name, without tag and digest.
const MAX_NAME: usize = 255;
/// The longest tag.
const MAX_TAG: usize = 128;
/// The fewest digits of a digest.
const MIN_DIGITS: usize = 32;
/// An image's identifier, which is no name of one.
const ID_DIGITS: usize = 64;

/// Whether a text names an image: `[domain[:port]/]path[:tag][@digest]`.
pub(super) fn is_reference(text: &str) -> bool {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    let (domain, rest) = match rest.split_once('/') {
        Some((first, rest)) if is_domain_here(first) => (Some(first), rest),
        _ => (None, rest),
    };
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    let is_id = text.len() == ID_DIGITS && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    !is_id
        && domain.map_or(0, |domain| domain.len() + 1) + path.len() <= MAX_NAME
        && domain.is_none_or(is_domain)
        && path.split('/').all(is_component)
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest)
}

/// What stands before the first slash is a domain if it looks like none of a path.
fn is_domain_here(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (domain, None),
    };
    let is_label = |label: &str| {
        let ends = [label.bytes().next(), label.bytes().last()];
        ends.iter().all(|b| b.is_some_and(|b| b.is_ascii_alphanumeric()))
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(is_label)
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Lower case and digits, parted by a dot, one or two underscores, or dashes.
fn is_component(component: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = [component.bytes().next(), component.bytes().last()];
    let parts = component.split(|c: char| c.is_ascii() && is_word(c as u8)).filter(|part| !part.is_empty());
    ends.iter().all(|b| b.is_some_and(is_word))
        && parts.into_iter().all(|part| matches!(part, "." | "_" | "__") || part.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|b| is_word(b) || matches!(b, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, digits)) = digest.split_once(':') else { return false };
    let is_part = |part: &str| {
        part.bytes().next().is_some_and(|b| b.is_ascii_alphabetic()) && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(is_part)
        && digits.len() >= MIN_DIGITS
        && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_an_image() {
        let digest = format!("sha256:{}", "a1".repeat(32));
        for good in ["web", "a/web:1.0_b", "localhost/x", "Host.example:5000/a/b__c--d:V", "10.0.0.1:1/a", "a.b/c"] {
            assert!(is_reference(good), "{good}");
            assert!(is_reference(&format!("{good}@{digest}")), "{good}@");
        }
        let (id, long) = ("a1".repeat(32), "a".repeat(256));
        for bad in [
            "", "Web", "a//b", ":latest", "a:", "a b", "a:b:c", "a@x", "-a", "a___b", "a.-b", "x.y:z/a", "a/", &id,
            &long,
        ] {
            assert!(!is_reference(bad), "{bad}");
        }
    }
}
