//! The machine itself, as its kernel shows it.

use std::fs;
use std::path::Path;

use nix::sys::statvfs::statvfs;

use crate::runtime::Machine;

/// The architecture as Kubernetes names it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The machine with pods' files below `data_dir`; the runtime's version is for the runtime to fill in.
pub fn detect(data_dir: &Path) -> Machine {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let machine_id = read("/etc/machine-id");
    let system_uuid = Some(read("/sys/class/dmi/id/product_uuid")).filter(|id| !id.is_empty());
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Machine {
        milli_cpu: i64::try_from(cpus).unwrap_or(1) * 1000,
        memory: total_memory(),
        ephemeral_storage: disk_bytes(data_dir),
        architecture: architecture().to_owned(),
        operating_system: "linux".to_owned(),
        kernel_version: read("/proc/sys/kernel/osrelease"),
        os_image: os_image(&fs::read_to_string("/etc/os-release").unwrap_or_default()),
        system_uuid: system_uuid.unwrap_or_else(|| machine_id.clone()),
        machine_id,
        boot_id: read("/proc/sys/kernel/random/boot_id"),
        runtime_version: String::new(),
        image_dir: None,
    }
}

fn total_memory() -> i64 {
    meminfo("MemTotal:").unwrap_or(0)
}

/// A line of `/proc/meminfo` in bytes.
fn meminfo(name: &str) -> Option<i64> {
    let table = fs::read_to_string("/proc/meminfo").ok()?;
    let line = table.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: i64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}

/// Size of the file system of `dir`, or of the nearest directory above it that exists.
fn disk_bytes(dir: &Path) -> i64 {
    let existing = dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/"));
    let stat = statvfs(existing);
    stat.map_or(0, |stat| i64::try_from(stat.blocks().saturating_mul(stat.fragment_size())).unwrap_or(i64::MAX))
}

fn os_image(release: &str) -> String {
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_is_read_from_the_kernel() {
        let machine = detect(Path::new("/no/such/dir"));
        assert!(machine.memory > 0 && machine.milli_cpu >= 1000 && machine.ephemeral_storage > 0);
        assert!(!machine.kernel_version.is_empty() && !machine.boot_id.is_empty());
    }

    #[test]
    fn distribution_is_named_as_it_names_itself() {
        assert_eq!(os_image("ID=debian\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
        assert_eq!(os_image(""), "Linux");
    }
}
