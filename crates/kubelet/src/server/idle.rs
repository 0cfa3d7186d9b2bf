//! Streams over which nothing passes end after a while (`streamingConnectionIdleTimeout`): whoever forgot them leaves neither
//! a shell in a container nor one of the server's sessions behind. Anything that is read or written counts, pings too.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

/// A connection that remembers when something last passed.
pub(super) struct Watched<T> {
    inner: T,
    passed: Passed,
}

/// When something last passed over a connection.
#[derive(Clone)]
pub(super) struct Passed {
    start: Instant,
    millis: Arc<AtomicU64>,
}

impl<T> Watched<T> {
    /// Watches `inner` from now on.
    pub(super) fn new(inner: T) -> (Watched<T>, Passed) {
        let passed = Passed { start: Instant::now(), millis: Arc::default() };
        (Watched { inner, passed: passed.clone() }, passed)
    }
}

impl Passed {
    fn note(&self) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.millis.store(millis, Ordering::Relaxed);
    }

    /// Waits until nothing has passed for so long; for ever, where that is no time at all.
    pub(super) async fn nothing_for(&self, timeout: Duration) {
        if timeout.is_zero() {
            return std::future::pending().await;
        }
        loop {
            let last = self.start + Duration::from_millis(self.millis.load(Ordering::Relaxed));
            let due = last + timeout;
            if Instant::now() >= due {
                return;
            }
            sleep_until(due).await;
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.passed.note();
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, bytes))?;
        self.passed.note();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_passes_either_way_is_no_idleness() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let (mut ours, passed) = Watched::new(ours);
        let start = Instant::now();
        let idle = tokio::spawn(async move {
            passed.nothing_for(Duration::from_secs(60)).await;
            start.elapsed()
        });
        tokio::time::advance(Duration::from_secs(50)).await;
        ours.write_all(b"a").await.unwrap();
        tokio::time::advance(Duration::from_secs(50)).await;
        theirs.write_all(b"b").await.unwrap();
        assert_eq!(ours.read_u8().await.unwrap(), b'b');
        assert_eq!(idle.await.unwrap().as_secs(), 160);
    }

    #[tokio::test(start_paused = true)]
    async fn no_time_is_no_bound() {
        let (_ours, passed) = Watched::new(tokio::io::empty());
        let waited = tokio::time::timeout(Duration::from_secs(1_000_000), passed.nothing_for(Duration::ZERO)).await;
        assert!(waited.is_err());
    }
}
