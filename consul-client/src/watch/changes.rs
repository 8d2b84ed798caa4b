//! Snapshots as changes.

use std::collections::BTreeMap;

use super::{Snapshot, Watch, WatchState};
use crate::{HealthCheck, KvPair, Node, ServiceEntry, ServiceTags};

/// What tells one item of a list from the others.
pub trait Identity {
    /// What is the same in two snapshots for the same thing.
    type Id: Ord + Clone + Send + std::fmt::Debug;

    /// This item's.
    fn identity(&self) -> Self::Id;
}

/// Node and service id: ids are unique per agent.
impl Identity for ServiceEntry {
    type Id = (String, String);

    fn identity(&self) -> Self::Id {
        (self.node.node.clone(), self.service.id.clone())
    }
}

/// Node and service id: ids are unique per agent.
impl Identity for crate::CatalogService {
    type Id = (String, String);

    fn identity(&self) -> Self::Id {
        (self.node.clone(), self.service_id.clone())
    }
}

/// Node and check id: ids are unique per agent.
impl Identity for HealthCheck {
    type Id = (String, String);

    fn identity(&self) -> Self::Id {
        (self.node.clone(), self.check_id.clone())
    }
}

/// The key.
impl Identity for KvPair {
    type Id = String;

    fn identity(&self) -> Self::Id {
        self.key.clone()
    }
}

/// The name.
impl Identity for Node {
    type Id = String;

    fn identity(&self) -> Self::Id {
        self.node.clone()
    }
}

/// The name.
impl Identity for ServiceTags {
    type Id = String;

    fn identity(&self) -> Self::Id {
        self.name.clone()
    }
}

/// Kind and name.
impl Identity for crate::ConfigEntry {
    type Id = (String, String);

    fn identity(&self) -> Self::Id {
        (self.kind.clone(), self.name.clone())
    }
}

/// What became of an item between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<T> {
    /// It was not there before.
    Added(T),
    /// It is another than before.
    Changed {
        /// As it was.
        old: T,
        /// As it is.
        new: T,
    },
    /// It is not there any more; this is how it last was.
    Removed(T),
}

/// A [`Watch`] as changes: see [`Watch::changes`].
#[derive(Debug)]
#[must_use = "a watch does nothing until it is polled"]
pub struct Changes<T: Identity> {
    watch: Watch<T>,
    known: Known<T>,
}

impl<T: Identity + Clone + PartialEq> Changes<T> {
    pub(super) fn new(watch: Watch<T>) -> Self {
        Self { watch, known: Known::default() }
    }

    /// What the next snapshot changed; at first, everything is [`Added`](Change::Added). Removals come first, so that what moved is not
    /// there twice. Never `None` and cancel-safe, like [`Watch::next`]. Empty when the first snapshot is, or when only the order changed.
    pub async fn next(&mut self) -> Option<Vec<Change<T>>> {
        let snapshot = self.watch.next().await?;
        Some(self.known.update(&snapshot))
    }

    /// How the watch is doing now.
    pub fn state(&self) -> WatchState {
        self.watch.state()
    }

    /// To be told when the state changes.
    pub fn subscribe_state(&self) -> tokio::sync::watch::Receiver<WatchState> {
        self.watch.subscribe_state()
    }
}

#[derive(Debug)]
struct Known<T: Identity> {
    items: BTreeMap<T::Id, T>,
}

impl<T: Identity> Default for Known<T> {
    fn default() -> Self {
        Self { items: BTreeMap::new() }
    }
}

impl<T: Identity + Clone + PartialEq> Known<T> {
    fn update(&mut self, snapshot: &Snapshot<T>) -> Vec<Change<T>> {
        let mut old = std::mem::take(&mut self.items);
        let mut later = Vec::new();
        for new in &snapshot.items {
            let id = new.identity();
            match old.remove(&id) {
                Some(old) if old != *new => later.push(Change::Changed { old, new: new.clone() }),
                Some(_) => {}
                // The same thing twice in one answer counts once.
                None if self.items.contains_key(&id) => continue,
                None => later.push(Change::Added(new.clone())),
            }
            self.items.insert(id, new.clone());
        }
        old.into_values().map(Change::Removed).chain(later).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Item(u8, u8);

    impl Identity for Item {
        type Id = u8;

        fn identity(&self) -> u8 {
            self.0
        }
    }

    fn snapshot(items: Vec<Item>) -> Snapshot<Item> {
        Snapshot { items, index: 1, last_contact: None }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn applying_the_changes_gives_the_snapshot(
            steps in proptest::collection::vec(proptest::collection::btree_map(0_u8..6, 0_u8..3, 0..6), 1..12),
        ) {
            let (mut known, mut mirror) = (Known::default(), BTreeMap::new());
            for step in steps {
                let items: Vec<_> = step.iter().map(|(id, content)| Item(*id, *content)).collect();
                let mut additions = false;
                for change in known.update(&snapshot(items)) {
                    match change {
                        Change::Added(Item(id, content)) => {
                            additions = true;
                            prop_assert_eq!(mirror.insert(id, content), None);
                        }
                        Change::Changed { old, new } => {
                            additions = true;
                            prop_assert_ne!(&old, &new);
                            prop_assert_eq!(mirror.insert(new.0, new.1), Some(old.1));
                        }
                        Change::Removed(Item(id, content)) => {
                            prop_assert!(!additions, "removals come first");
                            prop_assert_eq!(mirror.remove(&id), Some(content));
                        }
                    }
                }
                prop_assert_eq!(&mirror, &step);
            }
        }
    }

    #[test]
    fn the_same_thing_twice_counts_once() {
        let mut known = Known::default();
        assert_eq!(known.update(&snapshot(vec![Item(1, 1), Item(1, 2)])), [Change::Added(Item(1, 1))]);
        assert_eq!(known.update(&snapshot(vec![])), [Change::Removed(Item(1, 1))]);
    }
}
