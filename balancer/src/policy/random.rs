//! At random.

use serde::{Deserialize, Serialize};

use super::{Candidates, Choice, Choose, Plan};

/// Draws an endpoint by weight, whatever it is doing.
///
/// What most policies are measured against: without any state it is never far from even, and never even.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Random {}

impl Choose for Random {
    fn choose(&self, among: &Candidates<'_>) -> Option<Choice> {
        let Plan::Sums(sums) = &among.group.plan else { return None };
        let total = *sums.last()?;
        for _ in 0..TRIES {
            let index = if among.group.is_even() {
                among.draw.below(sums.len())
            } else {
                let drawn = among.draw.below(total as usize) as u64;
                sums.partition_point(|sum| *sum <= drawn)
            };
            if among.get(index).is_some_and(|slot| among.is_open(slot) && among.admits_ramp(slot)) {
                return Some(Choice::of(index));
            }
        }
        among.draw_open(None).map(Choice::of)
    }
}

/// Draws before whoever is open will do.
const TRIES: usize = 16;
