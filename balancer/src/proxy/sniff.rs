//! Sees a request with both Content-Length and Transfer-Encoding for what it is.
//!
//! hyper takes the length out before a service sees the head (RFC 9112 6.3 allows that, and what we forward is
//! framed anew). Such a request is an attack or a defect all the same. So the connection keeps the bytes read
//! since the last request ended, up to a limit, and the head among them is looked at when a transfer encoding was
//! used. A head that was pipelined behind another request may escape this; it is then forwarded framed by
//! its encoding alone and the connection closes, as hyper does it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What was read lately.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    bytes: Arc<Mutex<Vec<u8>>>,
    limit: usize,
}

impl Seen {
    pub(crate) fn new(limit: usize) -> Self {
        Self { bytes: Arc::default(), limit }
    }

    /// Forgets what was read so far: a request begins its body, or has ended.
    pub(crate) fn forget(&self) {
        self.bytes().clear();
    }

    /// Whether the head of a request with this method has a Content-Length.
    pub(crate) fn has_length(&self, method: &str) -> bool {
        let bytes = self.bytes();
        let start = format!("{method} ").into_bytes();
        let mut lines = bytes.split(|byte| *byte == b'\n').skip_while(|line| !line.starts_with(&start));
        lines.by_ref().take_while(|line| !line.trim_ascii().is_empty()).any(|line| {
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            name.trim_ascii().eq_ignore_ascii_case(b"content-length")
        })
    }

    fn note(&self, read: &[u8]) {
        let mut bytes = self.bytes();
        let room = self.limit.saturating_sub(bytes.len()).min(read.len());
        bytes.extend_from_slice(read.get(..room).unwrap_or_default());
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that remembers what was read from it.
#[derive(Debug)]
pub(crate) struct Sniffed<T> {
    io: T,
    seen: Seen,
}

impl<T> Sniffed<T> {
    pub(crate) fn new(io: T, seen: Seen) -> Self {
        Self { io, seen }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Sniffed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.seen.note(buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Sniffed<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
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

    #[test]
    fn only_the_head_counts() {
        let seen = Seen::new(1024);
        seen.note(b"POST / HTTP/1.1\r\nHost: a\r\n");
        seen.note(b"CONTENT-length : 4\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert!(seen.has_length("POST"));
        seen.forget();
        seen.note(b"POST / HTTP/1.1\r\nHost: a\r\n\r\nContent-Length: 4\r\n");
        assert!(!seen.has_length("POST"));
    }
}
