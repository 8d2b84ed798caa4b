//! The logs of a service's tasks, told apart by stream and task.
//!
//! Without a terminal the engine sends frames: one byte for the stream, three of padding, four for the length (big endian), then
//! the line (Docker Engine API, "Attach to a container: stream format"). With details each line begins with its time and the task
//! that wrote it. With a terminal there are no frames, only lines.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_util::stream::unfold;

use crate::client::{Client, Opened};
use crate::error::{Error, Result};
use crate::model::{NodeId, Service, TaskId};
use crate::request::Request;

/// Which part of the logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOptions {
    /// Goes on with what is written later, until the stream is dropped. The default is off.
    pub follow: bool,
    /// Only the last so many lines of each task. The default is all.
    pub tail: Option<u64>,
    /// Only what was written since then (since 1970).
    pub since: Option<Duration>,
    /// Standard output; on by default.
    pub stdout: bool,
    /// Standard error; on by default.
    pub stderr: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { follow: false, tail: None, since: None, stdout: true, stderr: true }
    }
}

impl LogOptions {
    /// Goes on with what is written later.
    #[must_use]
    pub fn follow(mut self) -> Self {
        self.follow = true;
        self
    }

    /// Only the last so many lines of each task.
    #[must_use]
    pub fn tail(mut self, lines: u64) -> Self {
        self.tail = Some(lines);
        self
    }
}

/// One line, or a part of one that was too long for the engine's log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogLine {
    /// Where the task wrote it.
    pub stream: LogStream,
    /// When, as the engine writes it (RFC 3339); empty if it did not say.
    pub time: String,
    /// The task; `None` if the engine did not say.
    pub task_id: Option<TaskId>,
    /// Its node.
    pub node_id: Option<NodeId>,
    /// The line's bytes, without its end.
    pub bytes: Bytes,
}

impl LogLine {
    /// The line, with what is no UTF-8 replaced.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }
}

/// Where a line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LogStream {
    /// Standard output; with a terminal, both.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The lines of a service's logs, as [`Services::logs`](crate::Services::logs) hands them out. Dropping it closes the connection.
pub struct Logs {
    lines: Pin<Box<dyn Stream<Item = Result<LogLine>> + Send>>,
}

impl Stream for Logs {
    type Item = Result<LogLine>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.lines.as_mut().poll_next(cx)
    }
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logs").finish_non_exhaustive()
    }
}

pub(crate) async fn open(client: &Client, service: &Service, options: &LogOptions) -> Result<Logs> {
    let flag = |on: bool| if on { "true" } else { "false" };
    let container = service.spec.task_template.container_spec.as_ref();
    let tty = container.and_then(|c| c.rest.get("TTY")?.as_bool()).unwrap_or(false);
    let what = format!("read the logs of service {:?}", service.name());
    let tail = options.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
    let mut request = Request::get(what.clone(), &["services", service.id.as_str(), "logs"])
        .query("stdout", flag(options.stdout))
        .query("stderr", flag(options.stderr))
        .query("follow", flag(options.follow))
        .query("tail", &tail)
        .query("timestamps", "true")
        .query("details", "true");
    if let Some(since) = options.since {
        request = request.query("since", &since.as_secs().to_string());
    }
    let opened = client.open(request).await?;
    let state = Reading { opened: Some(opened), decoder: LogDecoder::new(tty), ready: VecDeque::new(), what };
    let lines = unfold(state, |mut state| async move { state.next().await.map(|item| (item, state)) });
    Ok(Logs { lines: Box::pin(lines) })
}

struct Reading {
    /// `None` at the end.
    opened: Option<Opened>,
    decoder: LogDecoder,
    ready: VecDeque<LogLine>,
    what: String,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<LogLine>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(Ok(line));
            }
            let opened = self.opened.as_mut()?;
            let endpoint = opened.endpoint.clone();
            let step = match opened.next().await {
                Ok(Some(bytes)) => self.decoder.push(&bytes),
                Ok(None) => {
                    self.opened = None;
                    self.decoder.finish()
                }
                Err(error) => {
                    self.opened = None;
                    return Some(Err(error));
                }
            };
            match step {
                Ok(lines) => self.ready.extend(lines),
                Err(problem) => {
                    self.opened = None;
                    let problem = problem.to_owned();
                    return Some(Err(Error::Decode { what: self.what.clone(), endpoint, problem }));
                }
            }
        }
    }
}

/// Takes the engine's bytes, in whatever pieces they come, and gives lines.
#[doc(hidden)]
#[derive(Debug)]
pub struct LogDecoder {
    tty: bool,
    rest: BytesMut,
}

impl LogDecoder {
    /// For a service with a terminal, or without.
    #[must_use]
    pub fn new(tty: bool) -> Self {
        Self { tty, rest: BytesMut::new() }
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// What is wrong with it; nothing more can be read then.
    pub fn push(&mut self, bytes: &[u8]) -> std::result::Result<Vec<LogLine>, &'static str> {
        self.rest.extend_from_slice(bytes);
        let mut lines = Vec::new();
        loop {
            let next = if self.tty { self.raw_line()? } else { self.frame()? };
            match next {
                Some((stream, line)) => lines.push(line_of(stream, &line)),
                None => return Ok(lines),
            }
        }
    }

    /// Takes the end.
    ///
    /// # Errors
    /// If it came in the middle of a line.
    pub fn finish(&mut self) -> std::result::Result<Vec<LogLine>, &'static str> {
        let rest = self.rest.split();
        match (self.tty, rest.is_empty()) {
            (_, true) => Ok(Vec::new()),
            (true, false) => Ok(vec![line_of(LogStream::Stdout, &rest.freeze())]),
            (false, false) => Err("it ended in the middle of a line"),
        }
    }

    fn frame(&mut self) -> std::result::Result<Option<(LogStream, Bytes)>, &'static str> {
        let Some((head, _)) = self.rest.split_first_chunk::<8>() else { return Ok(None) };
        let [stream, p1, p2, p3, a, b, c, d] = *head;
        let stream = match (stream, [p1, p2, p3]) {
            (0 | 1, [0, 0, 0]) => LogStream::Stdout,
            (2, [0, 0, 0]) => LogStream::Stderr,
            (3, [0, 0, 0]) => return Err("the engine broke off with an error of its own; look into its log"),
            _ => return Err("it is not in frames"),
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > MAX_LINE {
            return Err("a line is longer than 4 MiB");
        }
        if self.rest.len() < 8 + length {
            return Ok(None);
        }
        let mut frame = self.rest.split_to(8 + length).freeze();
        Ok(Some((stream, frame.split_off(8))))
    }

    fn raw_line(&mut self) -> std::result::Result<Option<(LogStream, Bytes)>, &'static str> {
        match self.rest.iter().position(|byte| *byte == b'\n') {
            Some(at) => Ok(Some((LogStream::Stdout, self.rest.split_to(at + 1).freeze()))),
            None if self.rest.len() > MAX_LINE => Err("a line is longer than 4 MiB"),
            None => Ok(None),
        }
    }
}

/// `TIME DETAILS LINE`, where the details are `key=value` with commas between.
fn line_of(stream: LogStream, whole: &Bytes) -> LogLine {
    let mut line =
        LogLine { stream, time: String::new(), task_id: None, node_id: None, bytes: whole.clone() };
    let word = |bytes: &Bytes| -> Option<(String, Bytes)> {
        let end = bytes.iter().position(|byte| *byte == b' ')?;
        Some((std::str::from_utf8(&bytes[..end]).ok()?.to_owned(), bytes.slice(end + 1..)))
    };
    if let Some((time, rest)) = word(&line.bytes)
        && time.len() >= 20
        && time.as_bytes()[4] == b'-'
        && time.as_bytes()[10] == b'T'
    {
        line.time = time;
        line.bytes = rest;
    }
    if let Some((details, rest)) = word(&line.bytes)
        && details.contains("com.docker.swarm.")
    {
        for (key, value) in details.split(',').filter_map(|pair| pair.split_once('=')) {
            match key {
                "com.docker.swarm.task.id" => line.task_id = Some(value.into()),
                "com.docker.swarm.node.id" => line.node_id = Some(value.into()),
                _ => {}
            }
        }
        line.bytes = rest;
    }
    while line.bytes.last().is_some_and(|byte| b"\r\n".contains(byte)) {
        line.bytes.truncate(line.bytes.len() - 1);
    }
    line
}

/// The engine cuts lines at 16 KiB, but a plugin need not.
const MAX_LINE: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(stream: u8, text: &[u8]) -> Vec<u8> {
        let mut all = vec![stream, 0, 0, 0];
        all.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
        all.extend(text);
        all
    }

    const DETAILS: &str = "2026-11-25T22:00:00.000000000Z com.docker.swarm.node.id=n1,com.docker.swarm.service.id=s,com.docker.swarm.task.id=t1 ";

    #[test]
    fn frames_become_lines_of_tasks() {
        let mut bytes = frame(1, format!("{DETAILS}hello, world\n").as_bytes());
        bytes.extend(frame(2, b"no details here\n"));
        bytes.extend(frame(1, b""));
        let lines = LogDecoder::new(false).push(&bytes).unwrap();
        assert_eq!(lines.len(), 3);
        assert_eq!((lines[0].stream, lines[0].text().as_ref()), (LogStream::Stdout, "hello, world"));
        assert_eq!(
            (lines[0].task_id.as_ref().unwrap().as_str(), lines[0].node_id.as_ref().unwrap().as_str()),
            ("t1", "n1")
        );
        assert_eq!(lines[0].time, "2026-11-25T22:00:00.000000000Z");
        assert_eq!((lines[1].stream, lines[1].text().as_ref()), (LogStream::Stderr, "no details here"));
        assert_eq!(lines[2].text(), "");
    }

    #[test]
    fn a_terminal_has_no_frames() {
        let mut decoder = LogDecoder::new(true);
        let lines = decoder.push(format!("{DETAILS}one\r\n{DETAILS}tw").as_bytes()).unwrap();
        assert_eq!((lines.len(), lines[0].text().as_ref()), (1, "one"));
        assert_eq!(decoder.push(b"o\n").unwrap()[0].text(), "two");
        decoder.push(b"three").unwrap();
        assert_eq!(decoder.finish().unwrap()[0].text(), "three");
    }

    #[test]
    fn garbage_is_refused() {
        assert!(LogDecoder::new(false).push(b"<html>404</html>").is_err());
        assert!(LogDecoder::new(false).push(&[1, 0, 0, 0, 255, 255, 255, 255]).is_err());
        let mut half = LogDecoder::new(false);
        assert!(half.push(&frame(1, b"abc")[..9]).unwrap().is_empty());
        assert!(half.finish().is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn pieces_do_not_matter(texts in proptest::collection::vec("[a-z ]{0,20}", 0..6), cut in 1_usize..9) {
            let bytes: Vec<u8> = texts.iter().flat_map(|text| frame(2, text.as_bytes())).collect();
            let mut decoder = LogDecoder::new(false);
            let mut lines = Vec::new();
            for piece in bytes.chunks(cut) {
                lines.extend(decoder.push(piece).unwrap());
            }
            prop_assert!(decoder.finish().unwrap().is_empty());
            let read: Vec<String> = lines.iter().map(|line| line.text().into_owned()).collect();
            prop_assert_eq!(read, texts);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), tty: bool) {
            let mut decoder = LogDecoder::new(tty);
            let _ = decoder.push(&bytes);
            let _ = decoder.finish();
        }
    }
}
