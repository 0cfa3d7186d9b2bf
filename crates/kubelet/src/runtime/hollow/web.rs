//! HTTP servers of pods in a machine without a network: each connection is answered once.

use std::sync::Weak;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};

use super::Shared;

/// Bytes on their way in either direction, and of a request.
const BUFFER_BYTES: usize = 4 << 10;
/// Requests that are remembered.
const MAX_REQUESTS: usize = 4096;

/// A connection to a server that answers one request with `status`, and remembers it.
pub(super) fn serve(status: u16, shared: Weak<Shared>) -> DuplexStream {
    let (near, far) = tokio::io::duplex(BUFFER_BYTES);
    tokio::spawn(async move {
        let mut stream = BufReader::new(far);
        let mut path = None;
        loop {
            let mut line = String::new();
            match stream.read_line(&mut line).await {
                Ok(1..) if line.trim().is_empty() => break,
                Ok(1..) => path = path.or_else(|| line.split(' ').nth(1).map(str::to_owned)),
                _ => return,
            }
        }
        if let (Some(shared), Some(path)) = (shared.upgrade(), path) {
            let now = shared.clock.now();
            let mut state = shared.state.lock();
            if state.requests.len() < MAX_REQUESTS {
                state.requests.push((path, now));
            }
        }
        let answer = format!("HTTP/1.1 {status} Hollow\r\nContent-Length: 7\r\nConnection: close\r\n\r\nhollow\n");
        // The client may be gone, which is no news.
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    });
    near
}
