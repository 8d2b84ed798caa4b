//! The waiting room: where requests are while no endpoint is usable.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::lease::Priority;

/// A bounded room: who matters more goes first, of equal ones who came first. A visitor keeps its place while it is woken in vain.
#[derive(Debug)]
pub(crate) struct Room {
    limit: usize,
    inside: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    /// Those that matter more first, then those that came first.
    sleepers: BTreeMap<(Reverse<Priority>, u64), oneshot::Sender<()>>,
}

/// A place in the room, given up on drop.
#[derive(Debug)]
pub(crate) struct Place {
    room: Arc<Room>,
    number: (Reverse<Priority>, u64),
}

impl Room {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, inside: AtomicUsize::new(0), queue: Mutex::default() }
    }

    /// A place, unless the room is full.
    pub(crate) fn enter(self: &Arc<Self>, priority: Priority) -> Option<Place> {
        let add = |inside: usize| (inside < self.limit).then_some(inside + 1);
        self.inside.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).ok()?;
        let mut queue = self.queue();
        queue.next += 1;
        Some(Place { room: Arc::clone(self), number: (Reverse(priority), queue.next) })
    }

    /// How many are inside.
    pub(crate) fn inside(&self) -> usize {
        self.inside.load(Ordering::Acquire)
    }

    /// Wakes up to `most` sleepers, those who came first first.
    pub(crate) fn wake(&self, most: usize) {
        if self.inside() == 0 {
            return;
        }
        let mut queue = self.queue();
        let mut woken = 0;
        while woken < most {
            let Some((_, sleeper)) = queue.sleepers.pop_first() else { return };
            // One that is gone leaves its turn to the next.
            woken += usize::from(sleeper.send(()).is_ok());
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Lies down. Do it before the last look at the pool: a wake-up in between is then not missed.
    pub(crate) fn sleep(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.room.queue().sleepers.insert(self.number, sender);
        receiver
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.queue().sleepers.remove(&self.number);
        self.room.inside.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_come_first_served_and_bounded() {
        let room = Arc::new(Room::new(2));
        let normal = Priority::Normal;
        let (a, b) = (room.enter(normal).unwrap(), room.enter(normal).unwrap());
        assert!(room.enter(Priority::High).is_none());
        let (mut second, mut first) = (b.sleep(), a.sleep());
        room.wake(1);
        assert!(first.try_recv().is_ok());
        assert!(second.try_recv().is_err());
        // Woken in vain, it lies down again and is still the first.
        let mut again = a.sleep();
        room.wake(1);
        assert!(again.try_recv().is_ok());
        drop((a, b));
        assert_eq!(room.inside(), 0);
        let (low, high) = (room.enter(Priority::Low).unwrap(), room.enter(Priority::High).unwrap());
        let (mut late, mut soon) = (low.sleep(), high.sleep());
        room.wake(1);
        assert!(soon.try_recv().is_ok() && late.try_recv().is_err(), "who matters more goes first");
        assert!(second.try_recv().is_err());
    }
}
