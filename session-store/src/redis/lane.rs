//! What many tasks ask of one server at the same moment goes to it as one pipeline.
//!
//! A request by itself costs both ends a wake-up, a read and a write, which is far more than the work. Here a driver takes all that has
//! gathered while the batch before it was under way: alone a request is sent at once, and under load its share of those costs falls with the load.
//! This is the group commit of databases (DeWitt and others, 1984, "Implementation Techniques for Main Memory Database Systems").

use super::script::{self, Name, Wait, Write};
use redis::{
    Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{Notify, oneshot};

/// Commands in a row to one server. Ends when it is dropped and what was asked before is answered.
pub(super) struct Lane(Arc<Queue>);

/// What waits to be sent. Whoever asks holds a permit of the link's, so it is bounded.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    some: Notify,
}

#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    /// Drivers with nothing to do that were not woken either.
    idle: usize,
    /// Batches at the server.
    under_way: usize,
    ends: bool,
}

/// What can be asked for.
pub(super) enum Ask {
    /// A command, answered as it is.
    Command(Cmd),
    /// What is under a name. All in a batch are one command.
    Read(Name),
    /// The usual write. All in a batch are one call of a script, each compared and answered by itself: a call costs more than what it does.
    Write(Write),
}

struct Item {
    ask: Ask,
    answer: Answer,
}

type Answer = oneshot::Sender<Result<Value, RedisError>>;

impl Lane {
    /// Over a connection that tells by itself when an answer takes too long.
    pub(super) fn new(connection: &MultiplexedConnection) -> Self {
        let (queue, writes) = (Arc::new(Queue::default()), Arc::new(script::write_all()));
        for _ in 0..UNDER_WAY {
            let driver = Driver { connection: connection.clone(), writes: writes.clone() };
            tokio::spawn(driver.run(queue.clone()));
        }
        Self(queue)
    }

    /// The server's answer; an error that it answers is one. It is asked for at once, and no more where the future is dropped before it is sent.
    pub(super) fn ask(&self, ask: Ask) -> impl Future<Output = Result<Value, RedisError>> + Send + use<> {
        let (answer, answered) = oneshot::channel();
        if self.0.lock().push(Item { ask, answer }) {
            self.0.some.notify_one();
        }
        async { answered.await.unwrap_or_else(|_| Err(closed())) }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.0.lock().ends = true;
        self.0.some.notify_waiters();
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch; none when the lane has ended.
    async fn take(&self, batch: &mut Vec<Item>) -> bool {
        loop {
            let some = self.some.notified();
            {
                let mut waiting = self.lock();
                if waiting.is_due() {
                    let n = waiting.items.len().min(AT_ONCE);
                    batch.extend(waiting.items.drain(..n));
                    waiting.under_way += 1;
                    return true;
                }
                if waiting.ends {
                    return false;
                }
                waiting.idle += 1;
            }
            some.await;
        }
    }

    fn done(&self) {
        self.lock().under_way -= 1;
    }
}

impl Waiting {
    /// Whether a driver has to be woken for it.
    fn push(&mut self, item: Item) -> bool {
        self.items.push_back(item);
        let wakes = self.idle > 0 && self.is_due();
        self.idle -= usize::from(wakes);
        wakes
    }

    /// At once where nothing is under way; else what waits has to be worth a batch of its own, or is taken when one is answered.
    fn is_due(&self) -> bool {
        !self.items.is_empty() && self.items.len() >= self.under_way * WORTH
    }
}

/// How a command goes to the server.
pub(super) enum Via<'a> {
    /// With others.
    Lane(&'a Lane),
    /// By itself, and with a `WAIT` behind it where replicas have to confirm.
    Alone(&'a mut MultiplexedConnection, Option<Wait>),
}

impl Via<'_> {
    pub(super) fn wait(&self) -> Option<Wait> {
        match self {
            Self::Lane(_) => None,
            Self::Alone(_, wait) => *wait,
        }
    }

    pub(super) async fn ask(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        match self {
            Self::Lane(lane) => lane.ask(Ask::Command(command.clone())).await,
            Self::Alone(connection, _) => command.query_async(*connection).await,
        }
    }
}

struct Driver {
    connection: MultiplexedConnection,
    writes: Arc<script::WriteAll>,
}

impl Driver {
    async fn run(mut self, queue: Arc<Queue>) {
        let mut batch = Vec::new();
        while queue.take(&mut batch).await {
            let mut pipeline = Pipeline::with_capacity(batch.len());
            let (mut waiting, mut reads, mut readers) = (Vec::new(), Vec::new(), Vec::new());
            let (mut writes, mut writers) = (Vec::new(), Vec::new());
            // Who has given up is not asked for.
            for Item { ask, answer } in batch.drain(..).filter(|item| !item.answer.is_closed()) {
                match ask {
                    Ask::Command(command) => {
                        pipeline.add_command(command);
                        waiting.push(answer);
                    }
                    Ask::Read(name) => {
                        reads.push(name);
                        readers.push(answer);
                    }
                    Ask::Write(write) => {
                        writes.push(write);
                        writers.push(answer);
                    }
                }
            }
            match reads.as_slice() {
                [] => {}
                [alone] => {
                    pipeline.add_command(script::read(alone));
                    waiting.append(&mut readers);
                }
                several => {
                    pipeline.add_command(script::read_all(several));
                }
            }
            if !writes.is_empty() {
                pipeline.add_command(self.writes.call(&writes));
            }
            let count = pipeline.len();
            if count == 0 {
                queue.done();
                continue;
            }
            match self.connection.req_packed_commands(&pipeline, 0, count).await {
                Ok(answers) => {
                    let mut answers = answers.into_iter().map(Value::extract_error);
                    for (waiting, answer) in waiting.into_iter().zip(&mut answers) {
                        let _ = waiting.send(answer);
                    }
                    if !readers.is_empty()
                        && let Some(answer) = answers.next()
                    {
                        hand_out(answer, readers);
                    }
                    if let Some(answer) = answers.next() {
                        self.wrote(answer, &writes, writers).await;
                    }
                }
                Err(error) => waiting.into_iter().chain(readers).chain(writers).for_each(|waiting| {
                    let _ = waiting.send(Err(error.clone()));
                }),
            }
            queue.done();
        }
    }

    /// Hands out what came of each write.
    async fn wrote(&mut self, mut answer: Result<Value, RedisError>, writes: &[Write], writers: Vec<Answer>) {
        if answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)) {
            answer = match script::load(script::WRITE).query_async::<()>(&mut self.connection).await {
                Ok(()) => self.writes.call(writes).query_async(&mut self.connection).await,
                Err(error) => Err(error),
            };
        }
        hand_out(answer, writers);
    }
}

/// An answer for each, of the one to all.
fn hand_out(answer: Result<Value, RedisError>, waiting: Vec<Answer>) {
    match answer {
        Ok(Value::Array(answers)) => {
            for (waiting, answer) in waiting.into_iter().zip(answers) {
                let _ = waiting.send(Ok(answer));
            }
        }
        Ok(_) => {} // dropped, they tell their callers
        Err(error) => waiting.into_iter().for_each(|waiting| {
            let _ = waiting.send(Err(error.clone()));
        }),
    }
}

fn closed() -> RedisError {
    RedisError::from((ErrorKind::Io, "the connection was closed"))
}

/// Commands in a batch: it holds up those behind it for so long.
const AT_ONCE: usize = 32;
/// Batches at once, so that the next is on its way while one is answered.
const UNDER_WAY: usize = 4;
/// Commands that make one more batch worth its costs, for each that is under way.
const WORTH: usize = 8;
