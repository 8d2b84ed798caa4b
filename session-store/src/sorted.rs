//! A small map by name. Sessions have a handful of values and are copied on every request: one sorted list that copies share until one of them is
//! changed costs less than a tree.

use std::sync::Arc;

type List<V> = Vec<(Arc<str>, V)>;

/// `None` where there is nothing: an empty one costs no allocation.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Sorted<V>(Option<Arc<List<V>>>);

impl<V: Clone> Sorted<V> {
    /// Of names with values; those that come sorted are taken as they are.
    pub(crate) fn from_list(list: List<V>) -> Self {
        if list.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Self(Some(list).filter(|list| !list.is_empty()).map(Arc::new));
        }
        let mut all = Self::default();
        list.into_iter().for_each(|(name, value)| all.insert(name, value));
        all
    }

    pub(crate) fn len(&self) -> usize {
        self.list().len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&V> {
        let place = self.place(name).ok()?;
        self.list().get(place).map(|(_, value)| value)
    }

    pub(crate) fn insert(&mut self, name: Arc<str>, value: V) {
        let place = self.place(&name);
        let list = Arc::make_mut(self.0.get_or_insert_default());
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
        let list = self.0.as_mut()?;
        if list.len() == 1 {
            return self.0.take()?.first().map(|(_, value)| value.clone());
        }
        Some(Arc::make_mut(list).remove(place).1)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &V)> {
        self.list().iter().map(|(name, value)| (name, value))
    }

    fn list(&self) -> &[(Arc<str>, V)] {
        self.0.as_ref().map_or(&[], |list| list)
    }

    /// Names come sorted where they were written by [`iter`](Self::iter), so most often the end is the place.
    fn place(&self, name: &str) -> Result<usize, usize> {
        let list = self.list();
        match list.last() {
            Some((last, _)) if **last < *name => Err(list.len()),
            _ => list.binary_search_by(|(other, _)| (**other).cmp(name)),
        }
    }
}

impl<V> Default for Sorted<V> {
    fn default() -> Self {
        Self(None)
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
                        map.insert(name.as_str().into(), value);
                        model.insert(name.clone(), value);
                    }
                    None => prop_assert_eq!(map.remove(&name), model.remove(&name)),
                }
                prop_assert_eq!(map.get(&name), model.get(&name));
                prop_assert!(before.get(&name) == map.get(&name) || before != map, "a copy was changed with it");
            }
            let both = || model.iter().map(|(name, value)| (Arc::<str>::from(name.as_str()), *value));
            prop_assert!(map.iter().map(|(name, value)| (name.clone(), *value)).eq(both()));
            let backwards = both().collect::<Vec<_>>().into_iter().rev().collect();
            prop_assert!(Sorted::from_list(both().collect()) == map && Sorted::from_list(backwards) == map);
            prop_assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
        }
    }
}
