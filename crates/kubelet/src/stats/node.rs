//! The machine as a whole: what all its processes use, and its file systems.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::sys::statvfs::statvfs;

use super::cgroup::{Cgroup, ROOT, keyed};
use super::{Interface, Memory, Usage, network};

/// The machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeUsage {
    /// What all processes use; of memory, the limit is what there is.
    pub usage: Usage,
    /// What passed to and from other machines.
    pub network: Vec<Interface>,
    /// The file system pods' volumes are on.
    pub fs: Option<FileSystem>,
    /// The file system images are on.
    pub image_fs: Option<FileSystem>,
    /// How many processes there may be.
    pub max_processes: Option<u64>,
    /// When it was started.
    pub booted_at: Option<Timestamp>,
}

/// A file system, in bytes and entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileSystem {
    /// Its size.
    pub capacity: u64,
    /// What may still be written.
    pub available: u64,
    /// What is written.
    pub used: u64,
    /// How many entries it has room for; 0 where it does not count them.
    pub inodes: u64,
    /// For how many there is still room.
    pub inodes_free: u64,
}

/// The file system `path` is on.
pub fn file_system(path: &Path) -> Option<FileSystem> {
    let stat = statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.fragment_size());
    Some(FileSystem {
        capacity: bytes(stat.blocks()),
        available: bytes(stat.blocks_available()),
        used: bytes(stat.blocks().saturating_sub(stat.blocks_free())),
        inodes: stat.files(),
        inodes_free: stat.files_free(),
    })
}

/// Measures the machine whose pods' files are below `data_dir` and images below `image_dir`.
pub fn measure(data_dir: &Path, image_dir: Option<&Path>, now: Timestamp) -> NodeUsage {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let root = PathBuf::from(ROOT);
    let mut usage = Cgroup::root(&root).usage(now).unwrap_or_default();
    let meminfo = read("/proc/meminfo");
    let of_kernel = || memory(&meminfo, &fs::read_to_string(root.join("memory.stat")).unwrap_or_default());
    // The topmost group of version 2 does not count its memory.
    usage.memory = usage.memory.or_else(of_kernel);
    if let Some(memory) = &mut usage.memory {
        memory.limit = kib(&meminfo, "MemTotal");
    }
    usage.processes = processes(&read("/proc/loadavg"));
    usage.at = now;
    NodeUsage {
        usage,
        network: network::outer(network::interfaces(&read("/proc/net/dev"))),
        fs: file_system(data_dir),
        image_fs: image_dir.and_then(file_system),
        max_processes: read("/proc/sys/kernel/pid_max").trim().parse().ok(),
        booted_at: keyed(&read("/proc/stat"), "btime").and_then(|at| Timestamp::from_second(at as i64).ok()),
    }
}

/// Memory of the whole machine.
fn memory(meminfo: &str, stat: &str) -> Option<Memory> {
    let usage = kib(meminfo, "MemTotal")?.saturating_sub(kib(meminfo, "MemFree")?);
    let of = |key: &str| keyed(stat, key).unwrap_or(0);
    Some(Memory {
        usage,
        working_set: usage.saturating_sub(keyed(stat, "inactive_file").or(kib(meminfo, "Inactive(file)")).unwrap_or(0)),
        rss: keyed(stat, "anon").or(kib(meminfo, "AnonPages")).unwrap_or(0),
        page_faults: of("pgfault"),
        major_page_faults: of("pgmajfault"),
        limit: None,
    })
}

/// A line of `/proc/meminfo` in bytes.
fn kib(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The number of processes and threads in a `/proc/loadavg`.
fn processes(loadavg: &str) -> Option<u64> {
    loadavg.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_the_machine_is_what_is_not_free() {
        let meminfo = "MemTotal:       1000 kB\nMemFree:         400 kB\nInactive(file):  100 kB\nAnonPages:   50 kB\n";
        let found = memory(meminfo, "").unwrap();
        assert_eq!((found.usage, found.working_set, found.rss), (600 << 10, 500 << 10, 50 << 10));
        let counted = memory(meminfo, "anon 7\ninactive_file 1024\npgfault 3\n").unwrap();
        assert_eq!((counted.working_set, counted.rss, counted.page_faults), (599 << 10, 7, 3));
        assert_eq!(processes("0.1 0.2 0.3 2/413 9999\n"), Some(413));
    }

    #[test]
    fn this_machine_is_measured() {
        let usage = measure(Path::new("/"), None, Timestamp::now());
        let memory = usage.usage.memory.unwrap();
        assert!(memory.working_set > 0 && memory.limit.unwrap() >= memory.working_set);
        assert!(usage.usage.cpu_nanos.unwrap() > 0 && usage.usage.processes.unwrap() > 0);
        assert!(usage.fs.unwrap().capacity > 0 && usage.booted_at.unwrap() < Timestamp::now());
    }
}
