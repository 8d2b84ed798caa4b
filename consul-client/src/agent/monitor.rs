//! An agent's log as it is written.

use std::{fmt, pin::Pin, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;

use super::Agent;
use crate::{Result, request::Request};

impl Agent {
    /// The agent's log from now on, of this level (`trace`, `debug`, `info`, `warn`, `err`) and above. It holds a connection of the
    /// blocking pool, and ends when the agent does.
    ///
    /// ```no_run
    /// # async fn run(consul: consul_client::Client) -> consul_client::Result<()> {
    /// let mut log = consul.agent().monitor("info").await?;
    /// while let Some(line) = log.next().await {
    ///     println!("{}", line?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As any read until it begins; after that the stream says when the connection breaks.
    pub async fn monitor(&self, level: &str) -> Result<LogStream> {
        let request = Request::get("/v1/agent/monitor").param("loglevel", level);
        let (_, chunks) = self.client.chunks(request, HEAD_LIMIT).await?;
        Ok(LogStream { chunks: Box::pin(chunks), lines: Lines::default() })
    }
}

/// The lines of an agent's log: see [`Agent::monitor`].
#[must_use = "nothing is read until it is polled"]
pub struct LogStream {
    chunks: Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>,
    lines: Lines,
}

impl LogStream {
    /// The next line; `None` when the agent ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<String>> {
        loop {
            if let Some(line) = self.lines.take() {
                return Some(Ok(line));
            }
            match std::future::poll_fn(|context| self.chunks.as_mut().poll_next(context)).await {
                Some(Ok(chunk)) => self.lines.add(&chunk),
                Some(Err(error)) => return Some(Err(error)),
                None => return self.lines.rest().map(Ok),
            }
        }
    }
}

impl fmt::Debug for LogStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStream").finish_non_exhaustive()
    }
}

/// Bytes as lines. Pure.
#[derive(Default)]
struct Lines(BytesMut);

impl Lines {
    fn add(&mut self, chunk: &[u8]) {
        self.0.extend_from_slice(chunk);
    }

    /// A whole line, or what would otherwise grow without bound.
    fn take(&mut self) -> Option<String> {
        let line = match self.0.iter().position(|byte| *byte == b'\n') {
            Some(end) => self.0.split_to(end + 1),
            None if self.0.len() >= LONGEST_LINE => self.0.split_to(LONGEST_LINE),
            None => return None,
        };
        Some(text(&line))
    }

    /// What is left when nothing more comes.
    fn rest(&mut self) -> Option<String> {
        let line = self.0.split();
        (!line.is_empty()).then(|| text(&line))
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end_matches(['\r', '\n']).to_owned()
}

/// The agent answers before it has anything to tell.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
const LONGEST_LINE: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_wherever_the_pieces_break() {
        let mut lines = Lines::default();
        lines.add(b"one\ntw");
        assert_eq!((lines.take().as_deref(), lines.take()), (Some("one"), None));
        lines.add(b"o\r\n\nthree");
        let mut seen = Vec::new();
        while let Some(line) = lines.take() {
            seen.push(line);
        }
        seen.extend(lines.rest());
        assert_eq!(seen, ["two", "", "three"]);
        assert_eq!(lines.rest(), None);
        lines.add(&vec![b'x'; LONGEST_LINE + 1]);
        assert_eq!((lines.take().unwrap().len(), lines.rest().unwrap().len()), (LONGEST_LINE, 1));
    }
}
