//! One atomic step: decide from what was seen or read, write if it is still there, and start again from what is there instead.

use super::{
    RedisStore,
    failure::CallError,
    lane::Via,
    script::{Before, Rows, Wait, Wrote, rows},
    turns::Turn,
};
use crate::{
    error::StoreError,
    id::StoreKey,
    lifetime::{UnixMillis, unix_now},
    op::{Applied, Gone, Op, Outcome},
    record::{Head, Record},
    rule::apply_op,
    store::Durability,
};
use redis::aio::MultiplexedConnection;
use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

/// What a step starts from.
#[derive(Clone)]
enum Start {
    /// Nothing is known: it has to be read.
    Unread,
    /// Seen earlier, by this process. Enough to write on, for the script compares, but not to answer from without a write.
    Seen(Record),
    /// Read just now.
    Fresh(Option<Record>),
}

enum Tried {
    Done(Box<Done>),
    Again(Box<Start>),
}

struct Done {
    applied: Applied,
    /// What is under the key now, where it was written: who is next may start from it.
    wrote: Option<Record>,
}

/// What to do about a step, decided from what was seen or read.
enum Plan {
    Read,
    Answer(Box<Done>),
    Write(Box<Writing>),
}

struct Writing {
    done: Box<Done>,
    rows: Rows,
    head: Head,
    now: UnixMillis,
    /// No write of this step was sent before whose answer never came.
    is_sure: bool,
}

// What these futures hold across an await is kept small: `async_trait` boxes them, and what is larger than a kilobyte costs an allocator a lock.
impl RedisStore {
    /// A step, in its turn among those of this process.
    pub(super) async fn apply_seen(
        &self,
        key: &StoreKey,
        seen: Option<&Record>,
        op: &Op,
        durability: Durability,
    ) -> Result<Applied, StoreError> {
        let begin = Instant::now();
        let _permit = self.link.admit("write")?;
        let mut turn = match self.turns.try_take(key) {
            Ok(turn) => turn,
            Err(wait) => Box::pin(self.wait_in_line(wait)).await?,
        };
        let (wait, unsure) = (super::wait(durability), Unsure::default());
        let quick = if wait.is_some() {
            None
        } else {
            self.link.ready(self.deadline.saturating_sub(begin.elapsed()))
        };
        let mut start = None;
        // The usual case by itself, as in `load`.
        if let Some(ready) = quick
            && let Some(plan) = self.plan_from_known(&mut turn, seen, key, op, &unsure)
        {
            match self.carry_out(Via::Lane(ready.lane()), key, plan, &unsure).await {
                Ok(Tried::Done(done)) => return Ok(turn.pass(*done)),
                Ok(Tried::Again(newer)) => start = Some(newer),
                Err(CallError::Store(error)) => return Err(error),
                Err(CallError::Redis(failure)) => {
                    self.link.failed(&ready, "write", failure)?;
                    start = Some(Box::new(Start::Unread));
                }
            }
        }
        let start = start.unwrap_or_else(|| Box::new(known_start(&mut turn, seen).unwrap_or(Start::Unread)));
        let left = self.deadline.saturating_sub(begin.elapsed());
        let work = |connection| self.repeat(connection, key, op, Start::clone(&start), wait, &unsure);
        let slow = Box::pin(self.link.admitted("write", left, wait.map(|wait| wait.timeout), work));
        Ok(turn.pass(*slow.await?))
    }

    async fn wait_in_line(&self, turn: impl Future<Output = Option<Turn>>) -> Result<Turn, StoreError> {
        let reason = "earlier changes of this session were not finished";
        let waited = tokio::time::timeout(self.deadline, turn).await.ok().flatten();
        waited.ok_or_else(|| self.link.timeout("write", self.deadline, reason))
    }

    /// Attempts until nobody was faster. Repeated from the start after a failure: the commit's id makes that safe.
    async fn repeat(
        &self,
        mut connection: MultiplexedConnection,
        key: &StoreKey,
        op: &Op,
        mut start: Start,
        wait: Option<Wait>,
        unsure: &Unsure,
    ) -> Result<Box<Done>, CallError> {
        loop {
            if let Start::Unread = start {
                start = Start::Fresh(self.read(&mut connection, key).await?);
            }
            let plan = self.plan(key, op, start, unsure);
            match self.carry_out(Via::Alone(&mut connection, wait), key, plan, unsure).await? {
                Tried::Done(done) => return Ok(done),
                Tried::Again(newer) => start = *newer,
            }
        }
    }

    /// One compare-and-set, where the plan is one.
    async fn carry_out(
        &self,
        via: Via<'_>,
        key: &StoreKey,
        plan: Result<Plan, StoreError>,
        unsure: &Unsure,
    ) -> Result<Tried, CallError> {
        match plan? {
            Plan::Read => Ok(Tried::Again(Box::new(Start::Unread))),
            Plan::Answer(done) => {
                if done.applied.outcome != Outcome::Gone(Gone::Absent) {
                    Box::pin(super::script::confirm(via)).await?;
                }
                Ok(Tried::Done(done))
            }
            Plan::Write(mut writing) => {
                let Writing { head, now, rows, .. } = &mut *writing;
                let wrote = self.scripts.compare_and_set(via, key, *head, *now, rows).await?;
                self.settle(key, writing, wrote, unsure)
            }
        }
    }

    /// What to do from what the one before wrote or the caller saw; nothing where neither is known.
    fn plan_from_known(
        &self,
        turn: &mut Turn,
        seen: Option<&Record>,
        key: &StoreKey,
        op: &Op,
        unsure: &Unsure,
    ) -> Option<Result<Plan, StoreError>> {
        Some(self.plan(key, op, known_start(turn, seen)?, unsure))
    }

    fn plan(&self, key: &StoreKey, op: &Op, start: Start, unsure: &Unsure) -> Result<Plan, StoreError> {
        let now = unix_now();
        let (before, is_fresh) = match start {
            Start::Unread => return Ok(Plan::Read),
            Start::Seen(record) => (Some(record), false),
            Start::Fresh(record) => (record, true),
        };
        if let Some(record) = before.as_ref().filter(|_| is_fresh) {
            unsure.check(record, op).map_err(|reason| self.link.timeout("write", self.deadline, reason))?;
        }
        let (was, base) = match &before {
            Some(record) => (Before::new(record), record.version),
            None => (Before::default(), 0),
        };
        let step = apply_op(before, op, now);
        let rows = rows(&self.seal, key, &step, &was, now);
        if !is_fresh && !rows.as_ref().is_ok_and(|rows| !rows.is_empty()) {
            // An answer without a write is not checked by the script, so it has to come from the store as it is now.
            return Ok(Plan::Read);
        }
        let rows = rows?;
        if rows.is_empty() {
            return Ok(Plan::Answer(Box::new(Done { applied: step.applied, wrote: None })));
        }
        let is_sure = unsure.sent_on(base);
        Ok(Plan::Write(Box::new(Writing {
            done: Box::new(Done { applied: step.applied, wrote: step.write }),
            rows,
            head: was.head,
            now,
            is_sure,
        })))
    }

    fn settle(
        &self,
        key: &StoreKey,
        writing: Box<Writing>,
        wrote: Wrote,
        unsure: &Unsure,
    ) -> Result<Tried, CallError> {
        let Writing { mut done, rows, is_sure, .. } = *writing;
        match wrote {
            Wrote::Done => {
                let Done { applied, wrote } = &mut *done;
                let place = applied.moved_to.unwrap_or(*key);
                for (record, key) in [(wrote, key), (&mut applied.record, &place)] {
                    if let Some(record) = record {
                        record.head =
                            rows.iter().find(|row| row.key == *key).map(|row| row.head).unwrap_or_default();
                    }
                }
                Ok(Tried::Done(done))
            }
            Wrote::Collision => {
                let applied = Applied { outcome: Outcome::Collision, record: None, moved_to: None };
                *done = Done { applied, wrote: None };
                Ok(Tried::Done(done))
            }
            Wrote::Newer(bytes) => {
                if is_sure {
                    unsure.forget();
                }
                let newer = bytes.as_deref().map(|bytes| self.seal.decode(key, bytes));
                Ok(Tried::Again(Box::new(Start::Fresh(newer.transpose()?))))
            }
        }
    }
}

impl Turn {
    /// Leaves what was written to who is next, if somebody waits.
    fn pass(&mut self, Done { applied, wrote }: Done) -> Applied {
        self.hint = wrote.filter(|_| self.is_awaited()).map(Box::new);
        applied
    }
}

/// From what the one before wrote, or what the caller saw.
fn known_start(turn: &mut Turn, seen: Option<&Record>) -> Option<Start> {
    let record = turn.hint.take().map(|record| *record).or_else(|| seen.cloned());
    record.filter(|record| record.head.0.is_some()).map(Start::Seen)
}

/// The version that a commit was sent on whose answer never came.
#[derive(Default)]
struct Unsure(AtomicU64);

impl Unsure {
    /// A write is about to be sent. Whether the ones before were answered.
    fn sent_on(&self, base: u64) -> bool {
        self.0.compare_exchange(0, base.saturating_add(1), Relaxed, Relaxed).is_ok()
    }

    fn forget(&self) {
        self.0.store(0, Relaxed);
    }

    /// An unanswered commit is found by its id in what is stored now, unless it is forgotten there: then to send it again might count it twice.
    fn check(&self, record: &Record, op: &Op) -> Result<(), &'static str> {
        let Some(base) = self.0.load(Relaxed).checked_sub(1) else { return Ok(()) };
        match op {
            Op::Commit { id: Some(id), .. } if !record.can_tell(*id, base) => Err(
                "its answer was lost, and the session has changed too often since to tell whether it was made",
            ),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CommitId, Patch};

    /// What is larger than a kilobyte costs an allocator a lock, for each call.
    #[test]
    fn a_call_fits_into_a_kilobyte() {
        let store = RedisStore::open("redis://127.0.0.1:1").unwrap();
        let (key, op) = (crate::SessionId::random().key(), Op::Touch);
        let step = store.apply_seen(&key, None, &op, Durability::Primary);
        assert!(size_of_val(&step) + size_of::<Op>() <= 1000, "{} + {}", size_of_val(&step), size_of::<Op>());
    }

    /// What came of a commit whose answer was lost is told by its id, or not at all: it is never made a second time on a guess.
    #[test]
    fn a_lost_answer_is_found_or_told() {
        let add =
            |id| Op::Commit { base: None, patch: Patch::new().add("n", 1), mode: Default::default(), id };
        let mine = add(Some(CommitId::random()));
        let fresh = Record::new(Default::default(), None, 1);
        let start = apply_op(Some(fresh), &add(Some(CommitId::random())), 1).write.unwrap();
        let unsure = Unsure::default();
        assert!(unsure.check(&start, &mine).is_ok() && unsure.sent_on(start.version));
        assert!(!unsure.sent_on(7), "the first one counts");
        let (mut with, mut without) = (apply_op(Some(start.clone()), &mine, 1).write.unwrap(), start);
        for others in 1..40_u64 {
            let other = add(Some(CommitId::random()));
            with = apply_op(Some(with), &other, 1).write.unwrap();
            without = apply_op(Some(without), &other, 1).write.unwrap();
            assert_eq!(unsure.check(&without, &mine).is_ok(), others <= 8, "{others}");
            let twice = apply_op(Some(with.clone()), &mine, 1).write.is_some();
            assert!(!twice || unsure.check(&with, &mine).is_err(), "{others}");
        }
        unsure.forget();
        assert!(unsure.check(&without, &mine).is_ok());
    }
}
