//! Room on the disk. A store that found it full is well again only when there is enough for what has to come: else it would
//! take what fits into its journal, fail at the next larger step, and so on by turns.

use std::path::Path;

use nix::sys::statvfs::statvfs;

use super::row::{LeaseChange, Writes};
use crate::Error;

/// Of a small disk it is enough if this part is free.
const PART: u64 = 20;

/// What a file system has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) total: u64,
    pub(super) free: u64,
}

impl Room {
    /// `None` where that cannot be found out.
    pub(super) fn at(dir: &Path) -> Option<Room> {
        let found = statvfs(dir).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.fragment_size());
        Some(Room { total: bytes(found.blocks()), free: bytes(found.blocks_available()) })
    }

    /// Why a full store stays full, where it does: it takes what a full journal brings into the database.
    pub(super) fn lack(self, journal_bytes: u64) -> Option<Error> {
        let (free, needed) = (self.free, journal_bytes.min(self.total / PART));
        let reason = || format!("{free} bytes are free, writing goes on with {needed}");
        (free < needed).then(|| Error::NoSpace(reason()))
    }
}

/// Whether writes leave more behind than was there. What does not is tried on a full disk, too: it is how room is made.
pub(super) fn grows(writes: &Writes<'_>) -> bool {
    let puts = writes.rows.iter().any(|(_, row)| row.created != 0);
    puts || matches!(writes.lease, Some(LeaseChange::Granted { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_store_waits_for_what_its_journal_may_bring_but_not_for_more_than_a_part_of_a_small_disk() {
        const MIB: u64 = 1 << 20;
        for (total, free, is_enough) in [
            (100 << 30, 16 * MIB, true),
            (100 << 30, 16 * MIB - 1, false),
            (100 << 30, 0, false),
            (40 * MIB, 2 * MIB, true),
            (40 * MIB, 2 * MIB - 1, false),
        ] {
            let lack = Room { total, free }.lack(16 * MIB);
            assert_eq!(lack.is_none(), is_enough, "{free} of {total}: {lack:?}");
        }
    }
}
