//! The audit log: a file of lines, begun anew when it is large; a thread of its own writes it, and nobody waits for it.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use jiff::civil::DateTime;
use jiff::{Timestamp, ToSpan};
use prometheus_client::metrics::counter::Counter;

use crate::error::Error;

/// How many lines wait to be written at most (`--audit-log-batch-buffer-size` upstream), and how many bytes.
const QUEUE_LINES: usize = 10_000;
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// How a file that is full is called: the time it was closed stands before its ending (as lumberjack does).
const BACKUP_TIME: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// How large the log grows, and what is kept of it. Zero means without bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditLogLimits {
    /// Megabytes after which a new file is begun.
    pub max_size_megabytes: u64,
    /// Old files that are kept.
    pub max_backups: usize,
    /// Days old files are kept.
    pub max_age_days: u32,
}

/// The way into the log. When dropped, what waits is written first.
pub(super) struct Sink {
    queue: Option<SyncSender<Vec<u8>>>,
    waiting: Arc<AtomicUsize>,
    writer: Option<JoinHandle<()>>,
    /// Lines taken, and lines lost.
    pub(super) taken: Counter,
    pub(super) lost: Counter,
}

impl Sink {
    /// Opens the file at `path`; `-` is standard output.
    pub(super) fn open(path: &Path, limits: AuditLogLimits) -> Result<Sink, Error> {
        let failed = |source| Error::File { path: path.to_owned(), source };
        let mut output: Box<dyn Output> = match path.to_str() {
            Some("-") => Box::new(Stdout),
            _ => Box::new(LogFile::open(path.to_owned(), limits).map_err(failed)?),
        };
        let (queue, lines) = sync_channel(QUEUE_LINES);
        let (waiting, lost) = (Arc::new(AtomicUsize::new(0)), Counter::default());
        let counters = (waiting.clone(), lost.clone());
        let run = move || write_all(&lines, &mut *output, &counters.0, &counters.1);
        let writer = std::thread::Builder::new().name("audit-log".to_owned()).spawn(run).map_err(failed)?;
        Ok(Sink { queue: Some(queue), waiting, writer: Some(writer), taken: Counter::default(), lost })
    }

    /// Takes a line, or counts it as lost when too many wait.
    pub(super) fn put(&self, line: Vec<u8>) {
        let length = line.len();
        let fits = self.waiting.fetch_add(length, Ordering::Relaxed) + length <= QUEUE_BYTES;
        let taken = fits && self.queue.as_ref().is_some_and(|queue| queue.try_send(line).is_ok());
        if taken {
            self.taken.inc();
        } else {
            self.waiting.fetch_sub(length, Ordering::Relaxed);
            self.lost.inc();
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(writer) = self.writer.take() {
            // A writer that panicked has said so already.
            let _ = writer.join();
        }
    }
}

/// Writes until nobody can put anything any more. Lines that come together are flushed together.
fn write_all(lines: &Receiver<Vec<u8>>, output: &mut dyn Output, waiting: &AtomicUsize, lost: &Counter) {
    let mut fails = false;
    while let Ok(first) = lines.recv() {
        let mut outcome = Ok(());
        for line in std::iter::once(first).chain(lines.try_iter().take(QUEUE_LINES)) {
            waiting.fetch_sub(line.len(), Ordering::Relaxed);
            let written = output.write(&line, Timestamp::now());
            if written.is_err() {
                lost.inc();
            }
            outcome = outcome.and(written);
        }
        outcome = outcome.and(output.flush());
        match &outcome {
            // Told once, not for every line.
            Err(error) if !fails => tracing::error!(%error, "the audit log cannot be written"),
            _ => {}
        }
        fails = outcome.is_err();
    }
}

/// Where lines go.
trait Output: Send {
    fn write(&mut self, line: &[u8], now: Timestamp) -> std::io::Result<()>;
    fn flush(&mut self) -> std::io::Result<()>;
}

struct Stdout;

impl Output for Stdout {
    fn write(&mut self, line: &[u8], _: Timestamp) -> std::io::Result<()> {
        std::io::stdout().lock().write_all(line)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stdout().lock().flush()
    }
}

/// A file that is replaced by an empty one when it is full.
struct LogFile {
    path: PathBuf,
    file: BufWriter<File>,
    size: u64,
    limits: AuditLogLimits,
}

impl LogFile {
    fn open(path: PathBuf, limits: AuditLogLimits) -> std::io::Result<LogFile> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        let size = file.metadata()?.len();
        Ok(LogFile { path, file: BufWriter::new(file), size, limits })
    }

    fn rotate(&mut self, now: Timestamp) -> std::io::Result<()> {
        self.file.flush()?;
        std::fs::rename(&self.path, backup_of(&self.path, now))?;
        *self = LogFile::open(self.path.clone(), self.limits)?;
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let names: Vec<String> =
            std::fs::read_dir(folder)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        for name in outdated(&self.path, names, self.limits, now) {
            std::fs::remove_file(folder.join(name))?;
        }
        Ok(())
    }
}

impl Output for LogFile {
    fn write(&mut self, line: &[u8], now: Timestamp) -> std::io::Result<()> {
        let max = self.limits.max_size_megabytes.saturating_mul(1024 * 1024);
        if max > 0 && self.size > 0 && self.size + line.len() as u64 > max {
            self.rotate(now)?;
        }
        self.file.write_all(line)?;
        self.size += line.len() as u64;
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// `audit-2026-01-02T03-04-05.678.log` for `audit.log`.
fn backup_of(path: &Path, now: Timestamp) -> PathBuf {
    let (stem, ending) = name_parts(path);
    path.with_file_name(format!("{stem}-{}{ending}", now.strftime(BACKUP_TIME)))
}

fn name_parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let ending = text(path.extension());
    (text(path.file_stem()), if ending.is_empty() { ending } else { format!(".{ending}") })
}

/// Which of the files beside the log are old files of it that are not kept.
fn outdated(path: &Path, names: Vec<String>, limits: AuditLogLimits, now: Timestamp) -> Vec<String> {
    let (stem, ending) = name_parts(path);
    let closed = |name: &str| {
        let time = name.strip_prefix(&*stem)?.strip_prefix('-')?.strip_suffix(&*ending)?;
        DateTime::strptime(BACKUP_TIME, time).ok()
    };
    let mut backups: Vec<(DateTime, String)> = names.into_iter().filter_map(|n| Some((closed(&n)?, n))).collect();
    backups.sort_unstable_by(|a, b| b.cmp(a));
    let oldest = now.to_zoned(jiff::tz::TimeZone::UTC).datetime().saturating_sub(i64::from(limits.max_age_days).days());
    let is_outdated = |(index, (closed, _)): &(usize, (DateTime, String))| {
        (limits.max_backups > 0 && *index >= limits.max_backups) || (limits.max_age_days > 0 && *closed < oldest)
    };
    backups.into_iter().enumerate().filter(is_outdated).map(|(_, (_, name))| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: AuditLogLimits = AuditLogLimits { max_size_megabytes: 1, max_backups: 2, max_age_days: 0 };

    #[test]
    fn only_the_newest_old_files_are_kept() {
        let path = Path::new("/var/log/audit.log");
        let now: Timestamp = "2026-03-10T00:00:00Z".parse().unwrap();
        let at = |day: u32| format!("audit-2026-03-0{day}T01-02-03.004.log");
        let names = || vec![at(2), "audit.log".to_owned(), at(4), "audit-x.log".to_owned(), at(3), "other".to_owned()];
        let limits = |max_backups, max_age_days| AuditLogLimits { max_backups, max_age_days, ..LIMITS };
        let cases = [
            (limits(0, 0), vec![]),
            (limits(2, 0), vec![at(2)]),
            (limits(1, 0), vec![at(3), at(2)]),
            (limits(0, 7), vec![at(2)]),
            (limits(1, 8), vec![at(3), at(2)]),
        ];
        for (limits, expected) in cases {
            assert_eq!(outdated(path, names(), limits, now), expected, "{limits:?}");
        }
    }

    #[test]
    fn a_full_file_is_put_aside_and_no_line_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let limits = AuditLogLimits { max_backups: 0, ..LIMITS };
        let mut log = LogFile::open(path.clone(), limits).unwrap();
        let line = [vec![b'x'; 300 * 1024], b"\n".to_vec()].concat();
        let start: Timestamp = "2026-03-10T00:00:00Z".parse().unwrap();
        for second in 0..10 {
            log.write(&line, start.saturating_add(second.seconds()).unwrap()).unwrap();
        }
        log.flush().unwrap();
        let sizes: Vec<u64> =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).collect();
        assert_eq!(sizes.len(), 4, "three lines fit");
        assert_eq!(sizes.iter().sum::<u64>(), 10 * line.len() as u64);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), line.len() as u64);
    }

    #[test]
    fn what_waits_is_written_before_the_end_and_what_is_too_much_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let sink = Sink::open(&path, LIMITS).unwrap();
        for _ in 0..100 {
            sink.put(b"line\n".to_vec());
        }
        sink.put(vec![0; QUEUE_BYTES + 1]);
        assert_eq!((sink.taken.get(), sink.lost.get()), (100, 1));
        drop(sink);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 100);
    }
}
