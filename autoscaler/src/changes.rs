//! The changes of a count that rate limits look at, bounded in number.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One observed change, or several neighbours as one.
///
/// Within a fold the count is not known for each moment any more, only its range. Each direction then takes the end of
/// the range that allows less, so that no limit is exceeded, however many changes there were.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Change {
    /// When; of a fold, the latest moment of it.
    #[serde(with = "crate::millis")]
    pub(crate) at: Duration,
    /// By how much the count rose from the beginning to the end.
    added: u32,
    /// By how much it fell.
    removed: u32,
    /// How far below what it was at the beginning the count was within the fold.
    #[serde(default, skip_serializing_if = "is_zero")]
    below: u32,
    /// How far above.
    #[serde(default, skip_serializing_if = "is_zero")]
    above: u32,
}

impl Change {
    pub(crate) fn new(at: Duration, from: u32, to: u32) -> Self {
        Self { at, added: to.saturating_sub(from), removed: from.saturating_sub(to), below: 0, above: 0 }
    }

    fn net(&self) -> i64 {
        i64::from(self.added) - i64::from(self.removed)
    }

    /// This one and the next as one.
    fn and(self, next: Self) -> Self {
        let net = self.net() + next.net();
        let below = i64::from(self.below).max(i64::from(next.below) - self.net());
        let above = i64::from(self.above).max(i64::from(next.above) + self.net());
        Self {
            at: self.at.max(next.at),
            added: count(net),
            removed: count(-net),
            below: count(below),
            above: count(above),
        }
    }
}

/// The lowest and the highest that the count may have been when the period that ends now began; without folds one and the
/// same number. The changes are in the order of their times.
pub(crate) fn start(changes: &[Change], now: Duration, period: Duration, current: u32) -> (u32, u32) {
    let recent = || changes.iter().filter(|change| now.saturating_sub(change.at) < period);
    let start = recent().fold(i64::from(current), |count, change| count.saturating_sub(change.net()));
    // Only the first of them can have begun before the period did.
    let (below, above) =
        recent().next().map_or((0, 0), |first| (i64::from(first.below), i64::from(first.above)));
    (count(start.saturating_sub(below)), count(start.saturating_add(above)))
}

/// Folds neighbours while there are too many: those that together span the shortest time, so that none grows for ever.
pub(crate) fn fold(changes: &mut Vec<Change>) {
    while changes.len() > 2 * MAX_CHANGES {
        // Never our own; halved at once, so that its size costs little.
        let pairs = changes.chunks(2).filter_map(|pair| pair.iter().copied().reduce(Change::and));
        *changes = pairs.collect();
    }
    while changes.len() > MAX_CHANGES {
        // What a fold of the second and the third would span, for each three in a row.
        let spans = changes.windows(3).map(|three| match three {
            [before, _, last] => last.at.saturating_sub(before.at),
            _ => Duration::MAX,
        });
        let Some((before, _)) = spans.enumerate().min_by_key(|&(_, span)| span) else { return };
        let index = before + 1;
        let next = changes.remove(index + 1);
        if let Some(change) = changes.get_mut(index) {
            *change = change.and(next);
        }
    }
}

/// A count; what is beyond the numbers of a count is the last of them.
fn count(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// One per decision over the longest period of a calm policy.
const MAX_CHANGES: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A history of counts: from when on, and how many.
    fn history() -> impl Strategy<Value = Vec<(u64, u32)>> {
        prop::collection::vec((1..20u64, 0..50u32), 1..400).prop_map(|steps| {
            let mut now = 1_000;
            let later = steps.into_iter().map(|(after, count)| {
                now += after;
                (now, count)
            });
            std::iter::once((0, 25)).chain(later).collect()
        })
    }

    fn changes(history: &[(u64, u32)], fold_each: bool) -> Vec<Change> {
        let mut changes = Vec::new();
        for pair in history.windows(2) {
            if pair[0].1 != pair[1].1 {
                changes.push(Change::new(at(pair[1].0), pair[0].1, pair[1].1));
            }
            if fold_each {
                fold(&mut changes);
            }
        }
        fold(&mut changes);
        changes
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_start_of_a_period_lies_within_its_range(
            history in history(), period in 1..2_000u64, fold_each in any::<bool>(),
        ) {
            let changes = changes(&history, fold_each);
            prop_assert!(changes.len() <= MAX_CHANGES);
            let &(now, current) = history.last().unwrap();
            let truly = history.iter().rev().find(|(time, _)| now - time >= period);
            let truly = truly.map_or(history[0].1, |&(_, count)| count);
            let (low, high) = start(&changes, at(now), at(period), current);
            prop_assert!(low <= truly && truly <= high, "{low} <= {truly} <= {high}");
            if history.len() <= MAX_CHANGES {
                prop_assert_eq!((low, high), (truly, truly), "nothing was folded");
            }
        }
    }

    #[test]
    fn folds_stay_short_and_age() {
        // A change a second for an hour, and a period of 320 s: its start is known within some changes.
        let history: Vec<(u64, u32)> =
            (0..3_600).map(|second| (second, u32::try_from(second).unwrap())).collect();
        let mut kept = Vec::new();
        for pair in history.windows(2) {
            kept.push(Change::new(at(pair[1].0), pair[0].1, pair[1].1));
            kept.retain(|change: &Change| at(pair[1].0) - change.at < at(320));
            fold(&mut kept);
        }
        let (low, high) = start(&kept, at(3_599), at(320), 3_599);
        assert!(low <= 3_279 && 3_279 <= high && high - low <= 20, "{low} to {high}");
    }
}
