//! One change of a session at a time within this process.
//!
//! Compare-and-set alone is right but slow on a hot session: of n requests at once each round lets one through. Waiting in line costs a round
//! trip each instead, and whose turn it is may start from what the one before wrote. Between processes compare-and-set still decides.

use crate::{id::StoreKey, record::Record};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// Who stands in line for a session, while somebody has the turn.
type Line = VecDeque<oneshot::Sender<Turn>>;

#[derive(Clone, Default)]
pub(super) struct Turns {
    shards: Arc<[Mutex<HashMap<StoreKey, Line>>; SHARDS]>,
}

/// The turn. When it is dropped it passes to the next in line, wherever it is: one who gave up has it dropped unseen.
pub(super) struct Turn {
    turns: Turns,
    key: StoreKey,
    /// What the one before wrote, to start from.
    pub(super) hint: Option<Box<Record>>,
}

impl Turns {
    /// The turn, if nobody has it.
    pub(super) fn try_take(
        &self,
        key: &StoreKey,
    ) -> Result<Turn, impl Future<Output = Option<Turn>> + use<>> {
        let mut shard = self.shard(key);
        if let Some(line) = shard.get_mut(key) {
            let (passed, next) = oneshot::channel();
            line.push_back(passed);
            return Err(async { next.await.ok() });
        }
        shard.insert(*key, Line::new());
        Ok(Turn { turns: self.clone(), key: *key, hint: None })
    }

    fn shard(&self, key: &StoreKey) -> MutexGuard<'_, HashMap<StoreKey, Line>> {
        let number = usize::from(key.as_bytes()[0]) % SHARDS;
        self.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Whether somebody stands in line behind it. Who comes later starts from what he saw himself.
    pub(super) fn is_awaited(&self) -> bool {
        self.turns.shard(&self.key).get(&self.key).is_some_and(|line| !line.is_empty())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut shard = self.turns.shard(&self.key);
            let next = shard.get_mut(&self.key).and_then(VecDeque::pop_front);
            if next.is_none() {
                shard.remove(&self.key);
            }
            next
        };
        if let Some(next) = next {
            // Outside the lock: where nobody waits any more, this one comes back, is dropped here, and passes on.
            let turn = Self { turns: self.turns.clone(), key: self.key, hint: self.hint.take() };
            drop(next.send(turn));
        }
    }
}

/// So that one lock is not everybody's.
const SHARDS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SessionId;

    fn take(turns: &Turns, key: &StoreKey) -> Turn {
        turns.try_take(key).unwrap_or_else(|_| panic!("somebody has the turn"))
    }

    fn all_gone(turns: &Turns) -> bool {
        turns.shards.iter().all(|shard| shard.lock().unwrap().is_empty())
    }

    #[tokio::test]
    async fn turns_are_one_at_a_time_and_leave_nothing_behind() {
        let (turns, key) = (Turns::default(), SessionId::random().key());
        let mut first = take(&turns, &key);
        let record = Record::new(Default::default(), None, 1);
        first.hint = Some(Box::new(record.clone()));
        let Err(second) = turns.try_take(&key) else { panic!("two turns at once") };
        let Err(third) = turns.try_take(&key) else { panic!("two turns at once") };
        let Err(fourth) = turns.try_take(&key) else { panic!("two turns at once") };
        drop(take(&turns, &SessionId::random().key()));
        drop(second); // gave up while it waited
        drop(first);
        drop(third); // gave up after the turn had come to it, unseen
        let last = fourth.await.unwrap();
        assert_eq!(last.hint, Some(Box::new(record)), "what was written was not passed on");
        assert!(!all_gone(&turns));
        drop(last);
        assert!(all_gone(&turns), "a line without anyone is kept");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn everybody_gets_a_turn_though_some_give_up() {
        let (turns, key) = (Turns::default(), SessionId::random().key());
        let inside = Arc::new(Mutex::new(()));
        let tasks = (0..200_u32).map(|number| {
            let (turns, inside) = (turns.clone(), inside.clone());
            tokio::spawn(async move {
                let turn = match turns.try_take(&key) {
                    Ok(turn) => Some(turn),
                    Err(wait) if number % 3 == 0 => {
                        tokio::time::timeout(std::time::Duration::from_micros(50), wait).await.ok().flatten()
                    }
                    Err(wait) => Some(wait.await.unwrap()),
                };
                if let Some(_turn) = turn {
                    let _alone = inside.try_lock().expect("two turns at once");
                    std::thread::yield_now();
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert!(all_gone(&turns), "a line without anyone is kept");
    }
}
