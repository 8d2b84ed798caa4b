//! The thread that reads: with WAL a reader waits for no writer, so loads have a connection of their own and go on while steps are written.

use super::{
    Answer, Answers,
    file::{read_into, retry},
};
use crate::id::StoreKey;
use rusqlite::Connection;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

pub(super) struct Load {
    pub(super) key: StoreKey,
    /// Where the record goes: allocated by who frees it.
    pub(super) room: Vec<u8>,
    pub(super) answer: oneshot::Sender<Answer<Option<Vec<u8>>>>,
}

/// Reads until nobody can ask any more.
pub(super) fn run(mut connection: Connection, mut queue: mpsc::Receiver<Load>, to: &Answers) {
    let mut loads = Vec::new();
    while queue.blocking_recv_many(&mut loads, TOGETHER) > 0 {
        loads.retain(|load| !load.answer.is_closed());
        // One look at the file for all; where it cannot be had, each read says why by itself.
        let together = connection.transaction().ok();
        let mut look = |load: &mut Load| read_into(together.as_deref()?, &load.key, &mut load.room).ok();
        let found = loads.iter_mut().map(&mut look).collect::<Vec<_>>();
        drop(together);
        let answers = loads.drain(..).zip(found).map(|(mut load, found)| {
            let found = match found {
                Some(found) => Ok(found),
                None => retry(Instant::now() + RETRY, || read_into(&connection, &load.key, &mut load.room)),
            };
            let Load { room, answer, .. } = load;
            (answer, found.map(|found| Ok(found.then_some(room))))
        });
        to.loads(answers.collect());
    }
}

/// A read is held up while another process opens the file for the first time or mends it, and by nothing else.
const RETRY: Duration = Duration::from_millis(500);
/// Loads in one look at the file. What is written meanwhile is not folded into the file until it ends.
const TOGETHER: usize = 64;
