//! Reading a file somebody brought: every number in it may be wrong.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{BRANCH, BUCKET, ELEMENT_BYTES, HEADER_BYTES, LEAF, MAGIC, META, META_BYTES, VERSION};

/// The page sizes bbolt can have.
const PAGE_BYTES: std::ops::RangeInclusive<u64> = 512..=65536;

/// The deepest a tree may be: even with two children a page that is more than any disk holds.
const MAX_DEPTH: usize = 48;

/// The largest page with those it reaches into: more than the largest value.
const MAX_PAGE_BYTES: u64 = 64 << 20;

/// An open file.
pub(crate) struct Database {
    file: File,
    page_bytes: u64,
    pages: u64,
    root: u64,
}

/// What a leaf's element is.
enum Found<'a> {
    Value(&'a [u8]),
    Bucket(&'a [u8]),
}

type Visit<'v> = dyn FnMut(&[u8], Found<'_>) -> io::Result<()> + 'v;

impl Database {
    /// Opens a file, by the later of its two metas that is whole.
    pub(crate) fn new(file: File) -> io::Result<Database> {
        let mut first = vec![0; HEADER_BYTES + META_BYTES];
        file.read_exact_at(&mut first, 0).map_err(|_| damaged("it is too short"))?;
        // The first meta says how large a page is; where it is damaged the second is looked for where etcd puts it.
        let sizes = [meta(&first).map(|meta| meta.page_bytes), Some(4096)];
        let second = sizes.into_iter().flatten().find_map(|page_bytes| {
            let mut second = first.clone();
            file.read_exact_at(&mut second, page_bytes).ok()?;
            meta(&second)
        });
        let metas = [meta(&first), second];
        let newest = metas.into_iter().flatten().max_by_key(|meta| meta.transaction);
        let meta = newest.ok_or_else(|| damaged("it is not a database of etcd's"))?;
        Ok(Database { file, page_bytes: meta.page_bytes, pages: meta.pages, root: meta.root })
    }

    /// The names of its buckets, in order.
    pub(crate) fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        self.root_bucket(|name, _| {
            names.push(name.to_vec());
            Ok(())
        })?;
        Ok(names)
    }

    /// Visits the entries of a bucket in order. Returns whether there is such a bucket.
    pub(crate) fn each(
        &self,
        bucket: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> io::Result<()>,
    ) -> io::Result<bool> {
        let mut wanted = None;
        self.root_bucket(|name, found| {
            if name == bucket {
                wanted = Some(found.to_vec());
            }
            Ok(())
        })?;
        let Some(header) = wanted else { return Ok(false) };
        let mut plain = |key: &[u8], found: Found<'_>| match found {
            Found::Value(value) => visit(key, value),
            Found::Bucket(_) => Err(damaged("a bucket within a bucket")),
        };
        match long(&header, 0)? {
            // A small bucket is kept in one page behind its header.
            0 => leaf(header.get(16..).unwrap_or_default(), &mut plain)?,
            root => self.walk(root, &mut plain)?,
        }
        Ok(true)
    }

    fn root_bucket(&self, mut visit: impl FnMut(&[u8], &[u8]) -> io::Result<()>) -> io::Result<()> {
        self.walk(self.root, &mut |name, found| match found {
            Found::Bucket(header) => visit(name, header),
            Found::Value(_) => Err(damaged("a value outside of any bucket")),
        })
    }

    fn walk(&self, root: u64, visit: &mut Visit<'_>) -> io::Result<()> {
        // No page may be met twice; so many are there.
        let mut left = self.pages;
        self.walk_page(root, MAX_DEPTH, &mut left, visit)
    }

    fn walk_page(&self, number: u64, depth: usize, left: &mut u64, visit: &mut Visit<'_>) -> io::Result<()> {
        *left = left.checked_sub(1).ok_or_else(|| damaged("a page leads to itself"))?;
        let page = self.page(number)?;
        match short(&page, 8)? as u16 {
            LEAF => leaf(&page, visit),
            BRANCH if depth > 0 => {
                for n in 0..count(&page)? {
                    let below = long(&page, HEADER_BYTES + n * ELEMENT_BYTES + 8)?;
                    self.walk_page(below, depth - 1, left, visit)?;
                }
                Ok(())
            }
            _ => Err(damaged("a page is neither leaf nor branch")),
        }
    }

    fn page(&self, number: u64) -> io::Result<Vec<u8>> {
        if number >= self.pages {
            return Err(damaged("a page lies behind the last"));
        }
        let mut header = [0; HEADER_BYTES];
        let at = number.checked_mul(self.page_bytes).ok_or_else(|| damaged("a page lies behind the last"))?;
        self.file.read_exact_at(&mut header, at).map_err(|_| damaged("it is cut short"))?;
        let bytes = (u64::from(short(&header, 12)?) + 1) * self.page_bytes;
        if long(&header, 0)? != number || bytes > MAX_PAGE_BYTES {
            return Err(damaged("a page is not the one it should be"));
        }
        let mut page = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut page, at).map_err(|_| damaged("it is cut short"))?;
        Ok(page)
    }
}

/// Visits the elements of a leaf.
fn leaf(page: &[u8], visit: &mut Visit<'_>) -> io::Result<()> {
    for n in 0..count(page)? {
        let element = HEADER_BYTES + n * ELEMENT_BYTES;
        let word = |at: usize| short(page, element + at);
        let (flags, at, key, value) = (word(0)?, word(4)? as usize, word(8)? as usize, word(12)? as usize);
        let content = page.get(element + at..).and_then(|rest| rest.split_at_checked(key));
        let content = content.and_then(|(key, rest)| Some((key, rest.get(..value)?)));
        let (key, value) = content.ok_or_else(|| damaged("an entry lies outside of its page"))?;
        visit(key, if flags & BUCKET == 0 { Found::Value(value) } else { Found::Bucket(value) })?;
    }
    Ok(())
}

fn count(page: &[u8]) -> io::Result<usize> {
    Ok((short(page, 8)? >> 16) as usize)
}

struct Meta {
    page_bytes: u64,
    root: u64,
    pages: u64,
    transaction: u64,
}

/// A meta page, if it is whole.
fn meta(page: &[u8]) -> Option<Meta> {
    let content = page.get(HEADER_BYTES..HEADER_BYTES + META_BYTES)?;
    let (body, sum) = content.split_at(META_BYTES - 8);
    let is_meta = short(page, 8).ok()? as u16 == META
        && short(body, 0).ok()? == MAGIC
        && short(body, 4).ok()? == VERSION
        && long(sum, 0).ok()? == super::checksum(body);
    let page_bytes = u64::from(short(body, 8).ok()?);
    let long = |at| long(body, at).ok();
    let meta = Meta { page_bytes, root: long(16)?, pages: long(40)?, transaction: long(48)? };
    (is_meta && PAGE_BYTES.contains(&page_bytes) && page_bytes.is_power_of_two()).then_some(meta)
}

fn short(bytes: &[u8], at: usize) -> io::Result<u32> {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    word.map(|word| u32::from_le_bytes(*word)).ok_or_else(|| damaged("a page is cut short"))
}

fn long(bytes: &[u8], at: usize) -> io::Result<u64> {
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    word.map(|word| u64::from_le_bytes(*word)).ok_or_else(|| damaged("a page is cut short"))
}

fn damaged(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}
