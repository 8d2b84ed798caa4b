//! Answers are handed out where their callers run. From a thread outside of the runtime each may have to wake one of its threads, and what
//! was allocated there would be freed here, for which allocators have the two wait for each other.

use super::{Answer, Done, Step};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{mpsc, oneshot},
};

/// Clones hand out by the same task.
#[derive(Clone)]
pub(super) struct Answers(Option<mpsc::UnboundedSender<Batch>>);

enum Batch {
    Steps(Vec<Box<Step>>, Vec<Done>),
    Loads(Vec<(oneshot::Sender<Bytes>, Bytes)>),
}

type Bytes = Answer<Option<Vec<u8>>>;

impl Answers {
    /// By a task of the runtime that this is called in, if it has threads of its own: one that runs only inside `block_on` may stand still
    /// while callers in another one wait.
    pub(super) fn new() -> Self {
        if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
            return Self(None);
        }
        // Bounded by the callers that wait for what is in it.
        let (batches, mut due) = mpsc::unbounded_channel::<Batch>();
        tokio::spawn(async move {
            while let Some(batch) = due.recv().await {
                batch.hand_out();
            }
        });
        Self(Some(batches))
    }

    pub(super) fn steps(&self, steps: Vec<Box<Step>>, done: Vec<Done>) {
        self.give(Batch::Steps(steps, done));
    }

    pub(super) fn loads(&self, answers: Vec<(oneshot::Sender<Bytes>, Bytes)>) {
        self.give(Batch::Loads(answers));
    }

    /// At once where there is no such task or its runtime has ended: the callers may be in another one.
    fn give(&self, batch: Batch) {
        let left = match &self.0 {
            Some(batches) => batches.send(batch).err().map(|mpsc::error::SendError(batch)| batch),
            None => Some(batch),
        };
        if let Some(batch) = left {
            batch.hand_out();
        }
    }
}

impl Batch {
    fn hand_out(self) {
        match self {
            Self::Steps(steps, done) => steps.into_iter().zip(done).for_each(|(step, done)| step.give(done)),
            Self::Loads(answers) => {
                answers.into_iter().for_each(|(waiting, answer)| drop(waiting.send(answer)));
            }
        }
    }
}
