//! Whether the machine runs short of memory, disk or process ids. The thresholds are upstream's hard eviction defaults
//! (`memory.available<100Mi`, `nodefs.available<10%`, `nodefs.inodesFree<5%`).

use std::fs;
use std::path::Path;

use nix::sys::statvfs::statvfs;

const MIN_MEMORY: i64 = 100 << 20;
const MIN_DISK_PERCENT: u64 = 10;
const MIN_INODES_PERCENT: u64 = 5;
const MIN_PIDS_PERCENT: u64 = 5;

/// What the machine runs short of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Memory.
    pub memory: bool,
    /// Disk, or entries on it.
    pub disk: bool,
    /// Process ids.
    pub pids: bool,
}

/// Measures the machine whose pods' files are below `data_dir`: three small reads.
pub fn measure(data_dir: &Path) -> Pressure {
    Pressure {
        memory: super::machine::meminfo("MemAvailable:").is_some_and(|available| available < MIN_MEMORY),
        disk: disk(data_dir),
        pids: pids().unwrap_or(false),
    }
}

fn disk(data_dir: &Path) -> bool {
    let Ok(stat) = statvfs(data_dir) else { return false };
    short(stat.blocks_available(), stat.blocks(), MIN_DISK_PERCENT)
        || short(stat.files_free(), stat.files(), MIN_INODES_PERCENT)
}

fn pids() -> Option<bool> {
    let max: u64 = fs::read_to_string("/proc/sys/kernel/pid_max").ok()?.trim().parse().ok()?;
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    let used: u64 = load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    Some(short(max.saturating_sub(used), max, MIN_PIDS_PERCENT))
}

/// Whether less than `percent` of `total` is `free`; file systems that do not count (total 0) are never short.
fn short(free: u64, total: u64, percent: u64) -> bool {
    total > 0 && u128::from(free) * 100 < u128::from(total) * u128::from(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortage_is_a_share_of_the_whole() {
        assert!(short(9, 100, 10));
        assert!(!short(10, 100, 10));
        assert!(!short(0, 0, 10));
    }
}
