//! SPDY/3.1, the server's side: what kubectl up to 1.30 and older clients multiplex exec, attach and port-forward with.
//!
//! ```text
//!  bytes ─▶ frame::Decoder ─▶ session (reads) ─▶ Stream per SYN_STREAM ─▶ whoever serves it
//!  bytes ◀─ frame::Encoder ◀─ session (writes) ◀────── mux::Writer ◀──────┘
//! ```
//!
//! - [`frame`]: frames and bytes, without I/O.
//! - [`headers`]: header blocks, compressed with the protocol's dictionary.
//! - [`session`]: streams over a connection.
//!
//! Written after the drafts draft-mbelshe-httpbis-spdy-00 and SPDY/3.1 (chromium.org). What no peer of ours uses is left
//! out: pushed streams, credentials, and send windows: Go's spdystream, which all of kubectl is built on, never sends a
//! WINDOW_UPDATE, so whoever kept to its windows would stop after 64 KiB. What holds a sender back is the connection
//! itself: what is read is bounded by what is consumed.

pub(crate) mod frame;
pub(crate) mod headers;
pub(crate) mod session;

pub(crate) use session::{Incoming, Stream, session};

#[cfg(test)]
mod tests;
