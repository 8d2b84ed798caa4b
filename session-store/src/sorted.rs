//! A small map by name. Sessions have a handful of values and are copied on every request: one sorted list that copies share until one of them is
//! changed costs less than a tree.

use std::sync::Arc;

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Sorted<V>(Arc<Vec<(String, V)>>);

impl<V: Clone> Sorted<V> {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&V> {
        let place = self.place(name).ok()?;
        self.0.get(place).map(|(_, value)| value)
    }

    pub(crate) fn insert(&mut self, name: String, value: V) {
        let place = self.place(&name);
        let list = Arc::make_mut(&mut self.0);
        match place {
            Ok(place) => {
                if let Some((_, old)) = list.get_mut(place) {
                    *old = value;
                }
            }
            Err(place) => list.insert(place, (name, value)),
        }
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<V> {
        let place = self.place(name).ok()?;
        Some(Arc::make_mut(&mut self.0).remove(place).1)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Names come sorted where they were written by [`iter`](Self::iter), so most often the end is the place.
    fn place(&self, name: &str) -> Result<usize, usize> {
        match self.0.last() {
            Some((last, _)) if last.as_str() < name => Err(self.0.len()),
            _ => self.0.binary_search_by(|(other, _)| other.as_str().cmp(name)),
        }
    }
}

impl<V> Default for Sorted<V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_is_a_map(changes in prop::collection::vec(("[a-e]{0,2}", prop::option::of(0..9)), 0..40)) {
            let (mut map, mut model) = (Sorted::default(), BTreeMap::new());
            for (name, value) in changes {
                let before = map.clone();
                match value {
                    Some(value) => {
                        map.insert(name.clone(), value);
                        model.insert(name.clone(), value);
                    }
                    None => prop_assert_eq!(map.remove(&name), model.remove(&name)),
                }
                prop_assert_eq!(map.get(&name), model.get(&name));
                prop_assert!(before.get(&name) == map.get(&name) || before != map, "a copy was changed with it");
            }
            prop_assert!(map.iter().eq(model.iter().map(|(name, value)| (name.as_str(), value))));
            prop_assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
        }
    }
}
