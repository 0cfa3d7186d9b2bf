//! A connection whose peer takes nothing for too long ends, and with it all that waits to be sent there.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// A stream whose writes fail once the peer has taken nothing for [`Stalled::new`]'s `most`. A timer is set only where a
/// write has to wait, so that a peer that keeps up costs none.
pub(crate) struct Stalled<S> {
    stream: S,
    most: Duration,
    waits_forever: Arc<AtomicBool>,
    is_waiting: bool,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Stalled<S> {
    /// `waits_forever` may become true later, once the peer is free to take its time.
    pub(crate) fn new(stream: S, most: Duration, waits_forever: Arc<AtomicBool>) -> Stalled<S> {
        Stalled { stream, most, waits_forever, is_waiting: false, timer: None }
    }

    fn told<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.is_waiting = false;
            return outcome;
        }
        if self.waits_forever.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let end = Instant::now() + self.most;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        if !std::mem::replace(&mut self.is_waiting, true) {
            timer.as_mut().reset(end);
        }
        ready!(timer.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stalled<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stalled<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.told(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // One piece goes by `send`, which costs less than `writev`: nearly all that a watch is told is one record of TLS.
        let mut pieces = slices.iter().filter(|slice| !slice.is_empty());
        let outcome = match (pieces.next(), pieces.next()) {
            (Some(only), None) => Pin::new(&mut self.stream).poll_write(cx, only),
            _ => Pin::new(&mut self.stream).poll_write_vectored(cx, slices),
        };
        self.told(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const MOST: Duration = Duration::from_secs(60);

    fn pair(waits_forever: bool) -> (Stalled<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(8);
        (Stalled::new(near, MOST, Arc::new(AtomicBool::new(waits_forever))), far)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_left() {
        let (mut near, _far) = pair(false);
        let began = Instant::now();
        let error = near.write_all(&[0; 9]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, 60));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_one_is_waited_for() {
        let (mut near, mut far) = pair(false);
        let writing = tokio::spawn(async move { near.write_all(&[0; 80]).await });
        for _ in 0..80 {
            tokio::time::advance(MOST / 2).await;
            far.read_u8().await.unwrap();
        }
        writing.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_is_free_to_take_its_time_is_waited_for_too() {
        let (mut near, _far) = pair(true);
        let outcome = tokio::time::timeout(10 * MOST, near.write_all(&[0; 9])).await;
        assert!(outcome.is_err(), "{outcome:?}");
    }
}
