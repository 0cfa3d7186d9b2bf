//! Memory that is of no more use once the master has started.

use std::io;
use std::ops::Range;
use std::time::Duration;

/// By then the caches are filled and every part of the master waits for something to do.
const SETTLED: Duration = Duration::from_secs(5);

/// Gives the pages of the program's code back, some time after the start.
///
/// A start runs through most of the program, once: every kind is decoded, every watch set up. A master that has nothing
/// to do afterwards runs through next to none of it, and would hold it until the machine is short of memory. What is run
/// again is mapped again from the file, which is in the system's cache: sixteen pages at a time, without reading a disk.
pub async fn give_back_code() {
    tokio::time::sleep(SETTLED).await;
    if let Err(error) = give_back_now() {
        tracing::debug!(%error, "the pages of the program's code stay");
    }
}

fn give_back_now() -> io::Result<()> {
    for pages in std::fs::read_to_string("/proc/self/maps")?.lines().filter_map(code) {
        let start = std::ptr::without_provenance_mut::<libc::c_void>(pages.start);
        #[allow(
            unsafe_code,
            reason = "what it drops are unchanged pages of files, which come back when they are touched"
        )]
        let result = unsafe { libc::madvise(start, pages.len(), libc::MADV_DONTNEED) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Where a file's code is mapped, if a line of `/proc/self/maps` is about that. Such a mapping cannot be written to, and
/// position independent code needs no relocations: its pages are those of the file.
fn code(line: &str) -> Option<Range<usize>> {
    let mut fields = line.split_ascii_whitespace();
    let (range, permissions) = (fields.next()?, fields.next()?);
    let path = fields.nth(3)?;
    let (start, end) = range.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    (permissions == "r-xp" && path.starts_with('/')).then_some(address(start)?..address(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_code_of_files_is_given_back() {
        let cases = [
            ("code", "5600-5700 r-xp 00cbe000 fe:00 100 /usr/bin/master", Some(0x5600..0x5700)),
            ("data", "5600-5700 rw-p 00cbe000 fe:00 100 /usr/bin/master", None),
            ("constants, which may have been relocated", "5600-5700 r--p 00cbe000 fe:00 100 /usr/bin/master", None),
            ("code of no file", "5600-5700 r-xp 00000000 00:00 0", None),
            ("code of the kernel", "5600-5700 r-xp 00000000 00:00 0 [vdso]", None),
            ("nonsense", "?", None),
        ];
        for (sentence, line, expected) in cases {
            assert_eq!(code(line), expected, "{sentence}");
        }
    }

    #[test]
    fn the_program_runs_on_without_its_code_in_memory() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        let before = resident();
        give_back_now().unwrap();
        assert!(resident() < before);
    }
}
