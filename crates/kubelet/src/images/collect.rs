//! Which images to remove (`pkg/kubelet/images/image_gc_manager.go`): those nobody uses, the longest unused first, when
//! the disk fills up or they grow old. Pure but for the memory of when images were first seen and last used, which
//! starts anew with the kubelet.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::runtime::Image;
use crate::stats::node::FileSystem;

/// When images are removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Percent of the disk in use from which on images are removed (`--image-gc-high-threshold`).
    pub high_percent: u8,
    /// Percent down to which they are (`--image-gc-low-threshold`).
    pub low_percent: u8,
    /// How long an image stays at least after it was first seen.
    pub min_age: SignedDuration,
    /// How long an image nobody uses stays at most (`imageMaximumGCAge`); `None`: for ever.
    pub max_age: Option<SignedDuration>,
    /// Names of images that stay, `*` at their end for anything.
    pub pinned: Vec<String>,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy {
            high_percent: 85,
            low_percent: 80,
            min_age: SignedDuration::from_mins(2),
            max_age: None,
            pinned: Vec::new(),
        }
    }
}

/// What is remembered of the images: when each was first seen, and last seen in use.
#[derive(Debug, Default)]
pub struct Memory {
    seen: BTreeMap<String, Seen>,
    since: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Seen {
    last_used: Option<Timestamp>,
    first_seen: Timestamp,
}

impl Memory {
    /// Takes notice of the images there are.
    pub fn observe(&mut self, images: &[Image], now: Timestamp) {
        self.since.get_or_insert(now);
        self.seen.retain(|id, _| images.iter().any(|image| image.id == *id));
        for image in images {
            let seen = self.seen.entry(image.id.clone()).or_insert(Seen { last_used: None, first_seen: now });
            if image.in_use {
                seen.last_used = Some(now);
            }
        }
    }
}

/// Bytes that must become free, if the disk is fuller than it should be.
pub fn wanted(fs: &FileSystem, policy: &Policy) -> Option<u64> {
    let used_percent = used_percent(fs)?;
    (used_percent >= u64::from(policy.high_percent)).then(|| {
        let keep_free = u128::from(fs.capacity) * u128::from(100_u8.saturating_sub(policy.low_percent)) / 100;
        u64::try_from(keep_free).unwrap_or(u64::MAX).saturating_sub(fs.available)
    })
}

/// How much of the disk is in use, as upstream counts it: whatever is not available.
pub fn used_percent(fs: &FileSystem) -> Option<u64> {
    let available = u128::from(fs.available.min(fs.capacity)) * 100;
    let free = available.checked_div(u128::from(fs.capacity))?;
    Some(100 - u64::try_from(free).unwrap_or(100))
}

/// The images that may go, the first first: unused, not pinned, old enough. After the list of those that are too old to
/// stay come those that go only where bytes are wanted.
pub fn removable<'a>(images: &'a [Image], memory: &Memory, policy: &Policy, now: Timestamp) -> Vec<&'a Image> {
    let old_enough = |seen: &Seen| now.duration_since(seen.first_seen) >= policy.min_age;
    let seen = |image: &Image| memory.seen.get(&image.id).copied();
    let mut found: Vec<(Seen, &Image)> = images
        .iter()
        .filter(|image| !image.in_use && !image.pinned && !is_pinned(image, &policy.pinned))
        .filter_map(|image| Some((seen(image).filter(old_enough)?, image)))
        .collect();
    found.sort_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.id.cmp(&y.id)));
    found.into_iter().map(|(_, image)| image).collect()
}

/// Those of `removable` that are too old to stay, whatever the disk. A kubelet that has not run for so long does not know.
pub fn outdated<'a>(removable: &[&'a Image], memory: &Memory, policy: &Policy, now: Timestamp) -> Vec<&'a Image> {
    let Some(max_age) = policy.max_age else { return Vec::new() };
    if memory.since.is_none_or(|since| now.duration_since(since) < max_age) {
        return Vec::new();
    }
    let is_outdated = |image: &&Image| {
        let seen = memory.seen.get(&image.id);
        seen.is_some_and(|seen| now.duration_since(seen.last_used.unwrap_or(seen.first_seen)) > max_age)
    };
    removable.iter().copied().filter(is_outdated).collect()
}

fn is_pinned(image: &Image, pinned: &[String]) -> bool {
    let matches = |name: &String| {
        pinned.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == pattern,
        })
    };
    image.names.iter().any(matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(minutes * 60).unwrap()
    }

    fn image(name: &str, in_use: bool) -> Image {
        Image { id: format!("id-{name}"), names: vec![format!("{name}:1")], size: 10, in_use, ..Image::default() }
    }

    fn names(images: &[&Image]) -> Vec<String> {
        images.iter().map(|image| image.names[0].clone()).collect()
    }

    #[test]
    fn the_longest_unused_goes_first_and_what_is_used_stays() {
        let mut memory = Memory::default();
        let policy = Policy { pinned: vec!["kept*".to_owned()], ..Policy::default() };
        memory.observe(&[image("a", true), image("b", true), image("kept", false)], at(0));
        memory.observe(&[image("a", true), image("b", false), image("c", false), image("kept", false)], at(10));
        let mut images =
            vec![image("a", false), image("b", false), image("c", false), image("d", true), image("kept", false)];
        images.push(Image { pinned: true, ..image("e", false) });
        memory.observe(&images, at(11));
        assert_eq!(names(&removable(&images, &memory, &policy, at(30))), ["c:1", "b:1", "a:1"]);
        let soon = removable(&images, &memory, &policy, at(11));
        assert_eq!(names(&soon), ["b:1", "a:1"], "c was seen a minute ago");
    }

    #[test]
    fn images_nobody_used_for_long_go_whatever_the_disk() {
        let mut memory = Memory::default();
        let policy = Policy { max_age: Some(SignedDuration::from_hours(1)), ..Policy::default() };
        let images = [image("a", false), image("b", false)];
        memory.observe(&[image("a", true), image("b", false)], at(0));
        memory.observe(&[image("a", true), image("b", false)], at(50));
        for (now, expected) in [(59, vec![]), (61, vec!["b:1"]), (111, vec!["b:1", "a:1"])] {
            let all = removable(&images, &memory, &policy, at(now));
            assert_eq!(names(&outdated(&all, &memory, &policy, at(now))), expected, "{now}");
        }
    }

    #[test]
    fn disks_are_emptied_to_the_low_mark_from_the_high_mark_on() {
        let policy = Policy::default();
        let fs = |available| FileSystem { capacity: 1000, available, ..FileSystem::default() };
        for (available, expected) in [(160, None), (159, Some(41)), (150, Some(50)), (0, Some(200)), (1000, None)] {
            assert_eq!(wanted(&fs(available), &policy), expected, "{available}");
        }
        assert_eq!(wanted(&FileSystem::default(), &policy), None, "a disk of no size is not full");
        assert_eq!(used_percent(&fs(2000)), Some(0), "more than everything is available");
    }

    proptest::proptest! {
        #[test]
        fn once_those_that_may_go_are_gone_no_other_may(
            all in proptest::collection::vec((proptest::bool::ANY, proptest::bool::ANY, 0..4i64), 0..9),
        ) {
            let (mut memory, policy) = (Memory::default(), Policy { pinned: vec!["kept*".to_owned()], ..Policy::default() });
            let mut images = Vec::new();
            for (index, (in_use, kept, minute)) in all.iter().enumerate() {
                images.push(image(&format!("{}{index}", if *kept { "kept" } else { "i" }), *in_use));
                memory.observe(&images, at(index as i64 + minute));
            }
            let now = at(8);
            let gone = names(&removable(&images, &memory, &policy, now));
            let left: Vec<Image> = images.iter().filter(|image| !gone.contains(&image.names[0])).cloned().collect();
            memory.observe(&left, now);
            proptest::prop_assert!(removable(&left, &memory, &policy, now).is_empty());
            proptest::prop_assert!(outdated(&removable(&left, &memory, &policy, now), &memory, &policy, now).is_empty());
            let stays = |image: &Image| image.in_use || image.names[0].starts_with("kept");
            proptest::prop_assert!(images.iter().filter(|image| stays(image)).all(|image| !gone.contains(&image.names[0])));
        }
    }
}
