//! One change of a session at a time within this process.
//!
//! Compare-and-set alone is right but slow on a hot session: of n requests at once each round lets one through. Waiting in line costs a round
//! trip each instead, and whose turn it is may start from what the one before wrote. Between processes compare-and-set still decides.

use crate::{id::StoreKey, record::Record};
use std::{
    collections::HashMap,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::OwnedMutexGuard;

/// What the one before wrote, to start from.
type Hint = Option<Record>;

type Lines = HashMap<StoreKey, Arc<tokio::sync::Mutex<Hint>>>;

#[derive(Default)]
pub(super) struct Turns {
    lines: Mutex<Lines>,
}

/// A place in line; forgotten with the last one who stands there.
struct Place<'a> {
    turns: &'a Turns,
    key: StoreKey,
}

/// The turn itself. Fields are dropped in order: the guard holds a handle that must be gone before the place looks.
pub(super) struct Turn<'a> {
    hint: OwnedMutexGuard<Hint>,
    _place: Place<'a>,
}

impl Turns {
    /// Waits, in order of arrival. The caller sets the deadline.
    pub(super) async fn take(&self, key: &StoreKey) -> Turn<'_> {
        // Made first, dropped last, also when this future is dropped while it waits.
        let place = Place { turns: self, key: *key };
        let lock = self.lines().entry(*key).or_default().clone();
        Turn { hint: lock.lock_owned().await, _place: place }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut lines = self.turns.lines();
        // Handles are cloned under this lock only: if the map's is the last one, nobody is waiting.
        if lines.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            lines.remove(&self.key);
        }
    }
}

impl Deref for Turn<'_> {
    type Target = Hint;

    fn deref(&self) -> &Hint {
        &self.hint
    }
}

impl DerefMut for Turn<'_> {
    fn deref_mut(&mut self) -> &mut Hint {
        &mut self.hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SessionId;
    use std::time::Duration;

    #[tokio::test]
    async fn turns_are_one_at_a_time_and_leave_nothing_behind() {
        let (turns, key) = (Turns::default(), SessionId::random().key());
        let mut first = turns.take(&key).await;
        let record = Record::new(Default::default(), None, 1);
        *first = Some(record.clone());
        let waiting = turns.take(&key);
        tokio::pin!(waiting);
        assert!(
            tokio::time::timeout(Duration::from_millis(10), &mut waiting).await.is_err(),
            "two turns at once"
        );
        let other = SessionId::random().key();
        drop(turns.take(&other).await);
        drop(first);
        assert_eq!(*waiting.await, Some(record));
        {
            let _held = turns.take(&key).await;
            let given_up = tokio::time::timeout(Duration::from_millis(10), turns.take(&key)).await;
            assert!(given_up.is_err());
        }
        assert!(turns.lines().is_empty(), "a line without anyone is kept");
    }
}
