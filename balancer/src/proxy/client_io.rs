//! The connection of a client: what hyper does not see, and does not limit.
//!
//! A request with both Content-Length and Transfer-Encoding: hyper takes the length out before a service sees the
//! head (RFC 9112 6.3 allows that, and what we forward is framed anew). Such a request is an attack or a defect
//! all the same. So the bytes between two requests are kept, up to a limit, and looked at when a transfer encoding
//! was used. A head that was pipelined behind another request escapes this; it is then forwarded framed by its
//! encoding alone and the connection closes, as hyper does it.
//!
//! A client that does not read its answer: hyper waits for ever. Here a write has a deadline.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// What was read since the last request.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    head: Arc<Mutex<Option<Vec<u8>>>>,
    limit: usize,
}

impl Seen {
    pub(crate) fn new(limit: usize) -> Self {
        Self { head: Arc::new(Mutex::new(Some(Vec::new()))), limit }
    }

    /// As if these bytes had been read.
    pub(crate) fn with(bytes: &[u8]) -> Self {
        let seen = Self::new(bytes.len());
        seen.note(bytes);
        seen
    }

    /// A request has begun: what follows is its body.
    pub(crate) fn pause(&self) {
        *self.head() = None;
    }

    /// A request is over: what follows is a head.
    pub(crate) fn resume(&self) {
        *self.head() = Some(Vec::new());
    }

    /// Whether the head of a request with this method has a Content-Length.
    pub(crate) fn has_length(&self, method: &str) -> bool {
        let head = self.head();
        let Some(bytes) = head.as_ref() else { return false };
        let start = format!("{method} ").into_bytes();
        let mut lines = bytes.split(|byte| *byte == b'\n').skip_while(|line| !line.starts_with(&start));
        lines.by_ref().take_while(|line| !line.trim_ascii().is_empty()).any(|line| {
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            name.trim_ascii().eq_ignore_ascii_case(b"content-length")
        })
    }

    fn note(&self, read: &[u8]) {
        if let Some(bytes) = self.head().as_mut() {
            let room = self.limit.saturating_sub(bytes.len()).min(read.len());
            bytes.extend_from_slice(read.get(..room).unwrap_or_default());
        }
    }

    fn head(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client's stream: remembers heads, and does not wait for ever to write.
#[derive(Debug)]
pub(crate) struct ClientIo<T> {
    io: T,
    seen: Option<Seen>,
    write_timeout: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<T> ClientIo<T> {
    pub(crate) fn new(io: T, seen: Option<Seen>, write_timeout: Duration) -> Self {
        Self { io, seen, write_timeout, stalled: None }
    }

    /// Passes a write's result on, unless it has been pending for too long.
    fn bound<R>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        let timer = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.write_timeout)));
        std::task::ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ClientIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if let Some(seen) = &self.seen {
            seen.note(buf.filled().get(before..).unwrap_or_default());
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ClientIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write(cx, buf);
        self.bound(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.bound(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_bytes_are_looked_through(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), text in "(POST / HTTP/1.1\r\n)?[A-Za-z:\r\n -]{0,80}") {
            use crate::proxy::fuzzing;
            for bytes in [&bytes[..], text.as_bytes()] {
                let _ = (fuzzing::head(bytes), fuzzing::chain(bytes), fuzzing::cookie(bytes));
            }
            let hidden = format!("POST / HTTP/1.1\r\nX: {}\r\nContent-LENGTH: 1\r\n\r\n", text.replace(['\r', '\n'], ""));
            proptest::prop_assert!(fuzzing::head(hidden.as_bytes()));
        }
    }

    #[test]
    fn only_the_head_counts() {
        let seen = Seen::new(1024);
        seen.note(b"POST / HTTP/1.1\r\nHost: a\r\n");
        seen.note(b"CONTENT-length : 4\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert!(seen.has_length("POST"));
        seen.pause();
        seen.note(b"ignored");
        seen.resume();
        seen.note(b"POST / HTTP/1.1\r\nHost: a\r\n\r\nContent-Length: 4\r\n");
        assert!(!seen.has_length("POST"));
    }
}
