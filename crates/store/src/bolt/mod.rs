//! The file format of etcd's database (bbolt), as much of it as a snapshot needs: written once, front to back, and read.
//!
//! ```text
//!  page 0, 1   meta: magic, version, page size, the root bucket's page, the free list's page, pages in all, checksum
//!  page 2      the free list: empty
//!  page 3 …    trees of leaf and branch pages, one for each bucket; then the tree of the root bucket, which names them
//! ```
//!
//! A page is a header (its number u64, flags u16, count u16, further pages it reaches into u32), then `count` elements of
//! sixteen bytes, then the keys and values they point to. All integers are little endian. See `bbolt/internal/common`
//! (`page.go`, `meta.go`, `bucket.go`).
//!
//! [`write`] makes a file of buckets, [`read`] walks one and trusts nothing in it.

pub(crate) mod read;
pub(crate) mod write;

/// Bytes of a page, as bbolt has them where memory pages are as large.
const PAGE_BYTES: usize = 4096;

/// Bytes of a page's header and of one of its elements.
const HEADER_BYTES: usize = 16;
const ELEMENT_BYTES: usize = 16;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREE_LIST: u16 = 0x10;

/// The flag of a leaf's element whose value is a bucket: its root page and a number that counts up, both u64.
const BUCKET: u32 = 1;

const MAGIC: u32 = 0xed0c_daed;
const VERSION: u32 = 2;

/// Bytes of a meta page's content: magic, version, page size, flags, root (16), free list, pages, transaction, checksum.
const META_BYTES: usize = 4 * 4 + 16 + 4 * 8;

/// FNV-1a of 64 bits, the checksum of a meta page.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;

    use proptest::prelude::*;

    use super::read::Database;
    use super::write::{Layout, Pages, write};

    type Buckets = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

    fn file_of(buckets: &Buckets) -> Vec<u8> {
        let fill = |pages: &mut Pages<'_>| {
            for (name, entries) in buckets {
                pages.bucket(name, |tree| entries.iter().try_for_each(|(key, value)| tree.push(key, value)))?;
            }
            Ok(())
        };
        let layout = Layout::of(&fill).unwrap();
        let mut bytes = Vec::new();
        write(&mut bytes, &layout, &fill).unwrap();
        assert_eq!(bytes.len() as u64, layout.bytes());
        bytes
    }

    fn read_all(bytes: &[u8]) -> std::io::Result<Buckets> {
        let mut file = tempfile::tempfile()?;
        file.write_all(bytes)?;
        let database = Database::new(file)?;
        let mut found = Buckets::new();
        for name in database.names()? {
            let mut entries = BTreeMap::new();
            database.each(&name, |key, value| {
                entries.insert(key.to_vec(), value.to_vec());
                Ok(())
            })?;
            found.insert(name, entries);
        }
        Ok(found)
    }

    fn buckets() -> impl Strategy<Value = Buckets> {
        let key = prop::collection::vec(any::<u8>(), 1..300);
        let value = prop_oneof![
            9 => prop::collection::vec(any::<u8>(), 0..400),
            1 => (0..30_000usize).prop_map(|size| vec![7; size]),
        ];
        let entries = prop::collection::btree_map(key, value, 0..120);
        prop::collection::btree_map(prop::collection::vec(any::<u8>(), 1..20), entries, 0..4)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn what_was_written_is_read_and_damage_is_an_error_at_most(
            buckets in buckets(), place in any::<prop::sample::Index>(), garbage in 1..=255u8, cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = file_of(&buckets);
            prop_assert_eq!(&read_all(&bytes).unwrap(), &buckets);
            let cut = cut.index(bytes.len());
            let _ = read_all(&bytes[..cut]);
            let place = place.index(bytes.len());
            bytes[place] ^= garbage;
            let _ = read_all(&bytes);
        }
    }

    #[test]
    fn a_tree_of_several_levels_is_read_in_order() {
        let entries = (0..200_000u64).map(|n| (n.to_be_bytes().to_vec(), vec![1; 20])).collect();
        let buckets = Buckets::from([(b"key".to_vec(), entries)]);
        assert!(read_all(&file_of(&buckets)).unwrap() == buckets);
    }
}
