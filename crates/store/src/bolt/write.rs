//! Writing a file, front to back.
//!
//! The first pages say where the last one is. So the content is laid out twice: once to learn that, once to write it.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::{
    BRANCH, BUCKET, ELEMENT_BYTES, FREE_LIST, HEADER_BYTES, LEAF, MAGIC, META, META_BYTES, PAGE_BYTES, VERSION,
};

/// The first page after the metas and the free list.
const FIRST_PAGE: u64 = 3;
const FREE_LIST_PAGE: u64 = 2;

/// Where the content ends and begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    root: u64,
    pages: u64,
}

impl Layout {
    /// Lays out what `fill` writes, without keeping it.
    pub(crate) fn of(fill: &impl Fn(&mut Pages<'_>) -> io::Result<()>) -> io::Result<Layout> {
        Pages::filled(&mut io::sink(), fill)
    }

    /// How large the file will be.
    pub(crate) fn bytes(&self) -> u64 {
        self.pages * PAGE_BYTES as u64
    }
}

/// Writes a file of what `fill` writes, which must be the same it was when it was laid out.
pub(crate) fn write(
    out: &mut dyn Write,
    layout: &Layout,
    fill: &impl Fn(&mut Pages<'_>) -> io::Result<()>,
) -> io::Result<()> {
    for page in 0..2 {
        out.write_all(&meta(page, layout))?;
    }
    out.write_all(&page(FREE_LIST_PAGE, FREE_LIST, &[]))?;
    match Pages::filled(out, fill)? {
        written if written == *layout => Ok(()),
        _ => Err(io::Error::other("the content changed while it was written")),
    }
}

fn meta(number: u64, layout: &Layout) -> Vec<u8> {
    let mut content = Vec::with_capacity(META_BYTES);
    for short in [MAGIC, VERSION, PAGE_BYTES as u32, 0] {
        content.extend_from_slice(&short.to_le_bytes());
    }
    // Its number is the transaction's, too: of the two metas the one of the later transaction counts.
    for long in [layout.root, 0, FREE_LIST_PAGE, layout.pages, number] {
        content.extend_from_slice(&long.to_le_bytes());
    }
    let sum = super::checksum(&content);
    content.extend_from_slice(&sum.to_le_bytes());
    let mut bytes = header(number, META, 0, 0);
    bytes.extend_from_slice(&content);
    bytes.resize(PAGE_BYTES, 0);
    bytes
}

fn header(number: u64, flags: u16, count: usize, overflow: usize) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.extend_from_slice(&flags.to_le_bytes());
    bytes.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(overflow).unwrap_or(u32::MAX).to_le_bytes());
    bytes
}

/// An element of a leaf (flags, value) or of a branch (the page below).
struct Element {
    key: Box<[u8]>,
    value: Value,
}

enum Value {
    Plain(Box<[u8]>),
    Bucket([u8; 16]),
    Page(u64),
}

impl Element {
    fn bytes(&self) -> usize {
        ELEMENT_BYTES + self.key.len() + self.content().len()
    }

    fn content(&self) -> &[u8] {
        match &self.value {
            Value::Plain(value) => value,
            Value::Bucket(bucket) => bucket,
            Value::Page(_) => &[],
        }
    }

    fn encode(&self, at: u32, out: &mut Vec<u8>) {
        let key = self.key.len() as u32;
        let words = match &self.value {
            Value::Plain(value) => [0, at, key, value.len() as u32],
            Value::Bucket(bucket) => [BUCKET, at, key, bucket.len() as u32],
            Value::Page(page) => [at, key, *page as u32, (*page >> 32) as u32],
        };
        words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
    }
}

/// A whole page, with those it reaches into.
fn page(number: u64, flags: u16, elements: &[Element]) -> Vec<u8> {
    let bytes = HEADER_BYTES + elements.iter().map(Element::bytes).sum::<usize>();
    let pages = bytes.div_ceil(PAGE_BYTES).max(1);
    let mut out = header(number, flags, elements.len(), pages - 1);
    let mut content = HEADER_BYTES + elements.len() * ELEMENT_BYTES;
    for element in elements {
        // Positions count from the element itself.
        element.encode((content - out.len()) as u32, &mut out);
        content += element.key.len() + element.content().len();
    }
    for element in elements {
        out.extend_from_slice(&element.key);
        out.extend_from_slice(element.content());
    }
    out.resize(pages * PAGE_BYTES, 0);
    out
}

/// The pages of a file, as they are written.
pub(crate) struct Pages<'o> {
    out: &'o mut dyn Write,
    next: u64,
    buckets: BTreeMap<Vec<u8>, u64>,
}

impl<'o> Pages<'o> {
    fn filled(out: &'o mut dyn Write, fill: &impl Fn(&mut Pages<'_>) -> io::Result<()>) -> io::Result<Layout> {
        let mut pages = Pages { out, next: FIRST_PAGE, buckets: BTreeMap::new() };
        fill(&mut pages)?;
        let buckets = std::mem::take(&mut pages.buckets);
        let mut tree = Tree::new(&mut pages);
        for (name, root) in buckets {
            let mut bucket = [0; 16];
            bucket[..8].copy_from_slice(&root.to_le_bytes());
            tree.add(Element { key: name.into(), value: Value::Bucket(bucket) })?;
        }
        let root = tree.finish()?;
        Ok(Layout { root, pages: pages.next })
    }

    /// Writes a bucket; `entries` brings them in the order of their keys.
    pub(crate) fn bucket(
        &mut self,
        name: &[u8],
        entries: impl FnOnce(&mut Tree<'_, 'o>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut tree = Tree::new(self);
        entries(&mut tree)?;
        let root = tree.finish()?;
        self.buckets.insert(name.to_vec(), root);
        Ok(())
    }

    fn write(&mut self, flags: u16, elements: &[Element]) -> io::Result<u64> {
        let number = self.next;
        let bytes = page(number, flags, elements);
        self.out.write_all(&bytes)?;
        self.next += (bytes.len() / PAGE_BYTES) as u64;
        Ok(number)
    }
}

/// A tree being written: its leaves first, then what leads to them.
pub(crate) struct Tree<'p, 'o> {
    pages: &'p mut Pages<'o>,
    leaf: Vec<Element>,
    leaf_bytes: usize,
    /// The first key and the page of everything on the level that is finished.
    level: Vec<Element>,
}

impl<'p, 'o> Tree<'p, 'o> {
    fn new(pages: &'p mut Pages<'o>) -> Tree<'p, 'o> {
        Tree { pages, leaf: Vec::new(), leaf_bytes: HEADER_BYTES, level: Vec::new() }
    }

    /// Adds an entry. Keys come in order.
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.add(Element { key: key.into(), value: Value::Plain(value.into()) })
    }

    fn add(&mut self, element: Element) -> io::Result<()> {
        if !self.leaf.is_empty() && self.leaf_bytes + element.bytes() > PAGE_BYTES {
            self.finish_leaf()?;
        }
        self.leaf_bytes += element.bytes();
        self.leaf.push(element);
        Ok(())
    }

    fn finish_leaf(&mut self) -> io::Result<()> {
        let page = self.pages.write(LEAF, &self.leaf)?;
        let first = self.leaf.first().map_or_else(Default::default, |element| element.key.clone());
        self.level.push(Element { key: first, value: Value::Page(page) });
        self.leaf.clear();
        self.leaf_bytes = HEADER_BYTES;
        Ok(())
    }

    /// Writes what leads to the leaves; returns the root's page.
    fn finish(mut self) -> io::Result<u64> {
        if !self.leaf.is_empty() || self.level.is_empty() {
            self.finish_leaf()?;
        }
        while self.level.len() > 1 {
            let mut below = std::mem::take(&mut self.level).into_iter().peekable();
            while below.peek().is_some() {
                let (mut branch, mut bytes) = (Vec::new(), HEADER_BYTES);
                // At least two, however long their keys are, so that every level is smaller than the one below.
                while let Some(next) = below.next_if(|next| branch.len() < 2 || bytes + next.bytes() <= PAGE_BYTES) {
                    bytes += next.bytes();
                    branch.push(next);
                }
                let page = self.pages.write(BRANCH, &branch)?;
                let first = branch.swap_remove(0).key;
                self.level.push(Element { key: first, value: Value::Page(page) });
            }
        }
        match self.level.pop() {
            Some(Element { value: Value::Page(root), .. }) => Ok(root),
            _ => Err(io::Error::other("a tree without a root")),
        }
    }
}
