//! Control groups as files: where the group of a process is, and what its files say.
//!
//! Version 1 has a tree for each controller, version 2 one tree; a hybrid machine has both, and its memory is then
//! still counted in the trees of version 1. Compare `opencontainers/runc/libcontainer/cgroups` and what cAdvisor makes
//! of it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{Memory, Usage};

/// Where the trees are mounted.
pub const ROOT: &str = "/sys/fs/cgroup";
/// Version 1 has no word for "no limit" but a number near the greatest.
const NO_LIMIT: u64 = 1 << 62;

/// The directories of one control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cgroup {
    /// One directory for each controller.
    V1 {
        /// Of `cpuacct`.
        cpu: PathBuf,
        /// Of `memory`.
        memory: PathBuf,
        /// Of `pids`, where the kernel has it.
        pids: Option<PathBuf>,
    },
    /// One directory.
    V2(PathBuf),
}

impl Cgroup {
    /// The group of a process, from its `/proc/<pid>/cgroup`, in the trees below `root`.
    pub fn of_process(root: &Path, table: &str) -> Option<Cgroup> {
        let path_of = |controller: &str| {
            let line = table.lines().filter_map(|line| line.splitn(3, ':').collect::<Vec<_>>().try_into().ok());
            line.into_iter().find_map(|[_, controllers, path]: [&str; 3]| {
                let named = controllers.split(',').any(|name| name == controller);
                (named && is_plain(path)).then(|| path.trim_start_matches('/').to_owned())
            })
        };
        match (path_of("cpuacct"), path_of("memory")) {
            (Some(cpu), Some(memory)) => Some(Cgroup::V1 {
                cpu: root.join("cpuacct").join(cpu),
                memory: root.join("memory").join(memory),
                pids: path_of("pids").map(|path| root.join("pids").join(path)),
            }),
            // Version 2 is the line without controllers.
            _ => path_of("").map(|path| Cgroup::V2(root.join(path))),
        }
    }

    /// The group all others are in.
    pub fn root(root: &Path) -> Cgroup {
        if is_unified(root) {
            return Cgroup::V2(root.to_owned());
        }
        Cgroup::V1 { cpu: root.join("cpuacct"), memory: root.join("memory"), pids: None }
    }

    /// What the group uses; `None` where there is no such group (any more).
    pub fn usage(&self, at: Timestamp) -> Option<Usage> {
        match self {
            Cgroup::V1 { cpu, memory, pids } => {
                let cpu_nanos = read(cpu, "cpuacct.usage").and_then(|text| number(&text));
                let memory = memory_v1(memory);
                let processes =
                    pids.as_ref().and_then(|pids| read(pids, "pids.current")).and_then(|text| number(&text));
                (cpu_nanos.is_some() || memory.is_some()).then_some(Usage { at, cpu_nanos, memory, processes })
            }
            Cgroup::V2(dir) => {
                let cpu = read(dir, "cpu.stat").and_then(|text| keyed(&text, "usage_usec"));
                let cpu_nanos = cpu.map(|micros| micros.saturating_mul(1000));
                let memory = memory_v2(dir);
                let processes = read(dir, "pids.current").and_then(|text| number(&text));
                (cpu_nanos.is_some() || memory.is_some()).then_some(Usage { at, cpu_nanos, memory, processes })
            }
        }
    }

    /// Has all of the group's processes end when one takes more memory than there is, where the kernel can (version 2); where
    /// there are none any more it is no failure that it cannot.
    pub fn end_together(&self) -> std::io::Result<()> {
        let Cgroup::V2(dir) = self else { return Ok(()) };
        // Not created where a kernel before 4.19 has none.
        let file = fs::OpenOptions::new().write(true).open(dir.join("memory.oom.group"));
        match file.and_then(|mut file| file.write_all(b"1")) {
            Err(_) if self.process().is_none() => Ok(()),
            done => done,
        }
    }

    /// A process of the group.
    pub fn process(&self) -> Option<u32> {
        let dir = match self {
            Cgroup::V1 { memory, .. } => memory,
            Cgroup::V2(dir) => dir,
        };
        read(dir, "cgroup.procs")?.lines().next()?.parse().ok()
    }
}

/// Whether all controllers are in one tree, of version 2.
pub fn is_unified(root: &Path) -> bool {
    root.join("cgroup.controllers").exists()
}

/// A path of a group never leads upwards, unless the reader is in a namespace where it cannot be seen.
fn is_plain(path: &str) -> bool {
    path.starts_with('/') && !path.split('/').any(|part| part == "..")
}

fn memory_v1(dir: &Path) -> Option<Memory> {
    let usage = number(&read(dir, "memory.usage_in_bytes")?)?;
    let stat = read(dir, "memory.stat").unwrap_or_default();
    let of = |key: &str| keyed(&stat, key).unwrap_or(0);
    let limit = read(dir, "memory.limit_in_bytes").and_then(|text| number(&text));
    Some(Memory {
        usage,
        working_set: usage.saturating_sub(of("total_inactive_file")),
        rss: of("total_rss"),
        page_faults: of("total_pgfault"),
        major_page_faults: of("total_pgmajfault"),
        limit: limit.filter(|limit| *limit < NO_LIMIT),
    })
}

fn memory_v2(dir: &Path) -> Option<Memory> {
    let usage = number(&read(dir, "memory.current")?)?;
    let stat = read(dir, "memory.stat").unwrap_or_default();
    let of = |key: &str| keyed(&stat, key).unwrap_or(0);
    Some(Memory {
        usage,
        working_set: usage.saturating_sub(of("inactive_file")),
        rss: of("anon"),
        page_faults: of("pgfault"),
        major_page_faults: of("pgmajfault"),
        limit: read(dir, "memory.max").and_then(|text| number(&text)),
    })
}

fn read(dir: &Path, file: &str) -> Option<String> {
    fs::read_to_string(dir.join(file)).ok()
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The number behind `key` in a table of keys and numbers.
pub(super) fn keyed(table: &str, key: &str) -> Option<u64> {
    let mut lines = table.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(name, _)| *name == key).and_then(|(_, value)| number(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    /// `/proc/<pid>/cgroup` of a container of Docker 20.10 with cgroupfs.
    const V1: &str =
        "9:name=systemd:/docker/4f\n8:pids:/docker/4f\n4:memory:/docker/4f\n2:cpu,cpuacct:/docker/4f\n0::/\n";
    /// The same with Docker 28 and systemd.
    const V2: &str = "0::/system.slice/docker-4f.scope\n";

    #[test]
    fn version_1_is_read_as_recorded() {
        let root = tree(&[
            ("cpuacct/docker/4f/cpuacct.usage", "34718192\n"),
            ("memory/docker/4f/memory.usage_in_bytes", "1728512\n"),
            ("memory/docker/4f/memory.limit_in_bytes", "67108864\n"),
            ("memory/docker/4f/cgroup.procs", "4711\n4712\n"),
            (
                "memory/docker/4f/memory.stat",
                "cache 1\nrss 2\ninactive_file 3\nhierarchical_memory_limit 67108864\ntotal_cache 540672\ntotal_rss 131072\n\
                 total_pgfault 1551\ntotal_pgmajfault 2\ntotal_inactive_file 405504\n",
            ),
            ("pids/docker/4f/pids.current", "1\n"),
        ]);
        let group = Cgroup::of_process(root.path(), V1).unwrap();
        let usage = group.usage(Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!((usage.cpu_nanos, usage.processes), (Some(34_718_192), Some(1)));
        let expected = Memory {
            usage: 1_728_512,
            working_set: 1_323_008,
            rss: 131_072,
            page_faults: 1551,
            major_page_faults: 2,
            limit: Some(64 << 20),
        };
        assert_eq!(usage.memory, Some(expected));
        assert_eq!(group.process(), Some(4711));
        fs::write(root.path().join("memory/docker/4f/memory.limit_in_bytes"), "9223372036854771712\n").unwrap();
        assert_eq!(group.usage(Timestamp::UNIX_EPOCH).unwrap().memory.unwrap().limit, None);
    }

    #[test]
    fn version_2_is_read_as_recorded() {
        let root = tree(&[
            ("cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma misc\n"),
            (
                "system.slice/docker-4f.scope/cpu.stat",
                "usage_usec 28430\nuser_usec 8122\nsystem_usec 20307\nnr_periods 0\n",
            ),
            ("system.slice/docker-4f.scope/memory.current", "5873664\n"),
            ("system.slice/docker-4f.scope/memory.max", "max\n"),
            (
                "system.slice/docker-4f.scope/memory.stat",
                "anon 421888\nfile 4055040\nkernel 1396736\ninactive_file 3637248\nactive_file 417792\npgfault 1840\npgmajfault 31\n",
            ),
            ("system.slice/docker-4f.scope/pids.current", "2\n"),
        ]);
        let usage = Cgroup::of_process(root.path(), V2).unwrap().usage(Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!((usage.cpu_nanos, usage.processes), (Some(28_430_000), Some(2)));
        let memory = usage.memory.unwrap();
        assert_eq!((memory.usage, memory.working_set, memory.rss), (5_873_664, 2_236_416, 421_888));
        assert_eq!((memory.page_faults, memory.major_page_faults, memory.limit), (1840, 31, None));
        assert_eq!(Cgroup::root(root.path()), Cgroup::V2(root.path().to_owned()));
    }

    #[test]
    fn processes_of_a_group_end_together_where_the_kernel_can() {
        let file = "system.slice/docker-4f.scope/memory.oom.group";
        let root = tree(&[(file, "0\n")]);
        let group = Cgroup::of_process(root.path(), V2).unwrap();
        group.end_together().unwrap();
        assert_eq!(fs::read_to_string(root.path().join(file)).unwrap().trim(), "1");
        // A container that has ended, or a kernel that is too old: nothing is made up.
        fs::remove_file(root.path().join(file)).unwrap();
        group.end_together().unwrap();
        fs::write(root.path().join("system.slice/docker-4f.scope/cgroup.procs"), "4711\n").unwrap();
        group.end_together().unwrap_err();
        assert!(!root.path().join(file).exists());
        Cgroup::of_process(root.path(), V1).unwrap().end_together().unwrap();
    }

    #[test]
    fn a_group_that_is_gone_or_out_of_sight_uses_nothing() {
        let root = tree(&[]);
        assert_eq!(Cgroup::of_process(root.path(), V1).unwrap().usage(Timestamp::UNIX_EPOCH), None);
        assert_eq!(Cgroup::of_process(root.path(), V2).unwrap().usage(Timestamp::UNIX_EPOCH), None);
        assert_eq!(Cgroup::of_process(root.path(), "0::/../../docker/4f\n"), None);
        assert_eq!(Cgroup::of_process(root.path(), "nonsense\n"), None);
    }
}
