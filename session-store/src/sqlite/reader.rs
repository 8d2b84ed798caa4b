//! The thread that reads: with WAL a reader waits for no writer, so loads have a connection of their own and go on while steps are written.

use super::{
    Answer,
    file::{read, retry},
};
use crate::id::StoreKey;
use rusqlite::Connection;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

pub(super) struct Load {
    pub(super) key: StoreKey,
    pub(super) answer: oneshot::Sender<Answer<Option<Vec<u8>>>>,
}

/// Reads until nobody can ask any more.
pub(super) fn run(mut connection: Connection, mut queue: mpsc::Receiver<Load>) {
    let mut loads = Vec::new();
    while queue.blocking_recv_many(&mut loads, TOGETHER) > 0 {
        loads.retain(|load| !load.answer.is_closed());
        // One look at the file for all; where it cannot be had, each read says why by itself.
        let together = connection.transaction().ok();
        let answers = loads.iter().map(|load| Some(read(together.as_deref()?, &load.key)));
        let answers = answers.collect::<Vec<_>>();
        drop(together);
        for (load, answer) in loads.drain(..).zip(answers) {
            let answer = match answer {
                Some(Ok(bytes)) => Ok(bytes),
                _ => retry(Instant::now() + RETRY, || read(&connection, &load.key)),
            };
            let _ = load.answer.send(answer.map(Ok));
        }
    }
}

/// A read is held up while another process opens the file for the first time or mends it, and by nothing else.
const RETRY: Duration = Duration::from_millis(500);
/// Loads in one look at the file. What is written meanwhile is not folded into the file until it ends.
const TOGETHER: usize = 64;
