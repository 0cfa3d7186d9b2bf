//! What an answer holds while it is on its way: a place among the requests in flight, and the time it may take. A client
//! that does not read gives both back in time (`WithTimeoutForNonLongRunningRequests` upstream cuts such an answer off).

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::connections::End;
use crate::respond::ApiResponse;

/// The connection takes an answer of up to this size at once: it holds nothing.
const SMALL_BYTES: u64 = 64 * 1024;

/// Ends the connection a request came on; among the request's extensions.
#[derive(Clone)]
pub(crate) struct Connection(pub(crate) Arc<End>);

struct Kept {
    body: Body,
    _place: Option<OwnedSemaphorePermit>,
}

/// A body that is let go of at its deadline.
struct Held {
    kept: Arc<Mutex<Option<Kept>>>,
    _unread: DropGuard,
}

/// The answer, which keeps `place` until it is read or `deadline` has come.
pub(crate) fn hold(
    response: ApiResponse,
    place: Option<OwnedSemaphorePermit>,
    deadline: Instant,
    connection: Option<Connection>,
) -> ApiResponse {
    if response.body().size_hint().upper().is_some_and(|most| most <= SMALL_BYTES) {
        return response;
    }
    response.map(|body| {
        let kept = Arc::new(Mutex::new(Some(Kept { body, _place: place })));
        let unread = CancellationToken::new();
        let cut = cut_off(Arc::downgrade(&kept), deadline, connection);
        tokio::spawn({
            let gone = unread.clone();
            async move { gone.run_until_cancelled(cut).await }
        });
        Body::new(Held { kept, _unread: unread.drop_guard() })
    })
}

/// A client that goes on reading learns that the answer is cut off; one that still does not, after as long again, loses
/// its connection.
async fn cut_off(kept: Weak<Mutex<Option<Kept>>>, deadline: Instant, connection: Option<Connection>) {
    let allowed = deadline.saturating_duration_since(Instant::now());
    tokio::time::sleep_until(deadline).await;
    let unread = kept.upgrade().and_then(|kept| kept.lock().take());
    drop(unread);
    tokio::time::sleep(allowed).await;
    if let Some(Connection(connection)) = connection {
        connection.cut();
    }
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.kept.lock().as_mut() {
            Some(kept) => Pin::new(&mut kept.body).poll_frame(cx),
            None => Poll::Ready(Some(Err(axum::Error::new(io::Error::from(io::ErrorKind::TimedOut))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.kept.lock().as_ref().is_some_and(|kept| kept.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.kept.lock().as_ref().map_or_else(SizeHint::default, |kept| kept.body.size_hint())
    }
}
