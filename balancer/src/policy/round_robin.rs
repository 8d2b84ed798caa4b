//! In turn, by weight.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::{Candidates, Choice, Choose, Plan};
use crate::slot::Slot;

/// Takes the endpoints in turn, each as often as its weight says, spread evenly (5:1:1 gives `aabacaa`).
///
/// The order of nginx's smooth weighted round robin, computed once per snapshot; a pick is one atomic add. An
/// endpoint that ramps has some of its turns skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RoundRobin {}

impl Choose for RoundRobin {
    fn choose(&self, among: &Candidates<'_>) -> Option<Choice> {
        let Plan::Order(order) = &among.group.plan else { return None };
        let n = order.len() as u64;
        if n == 0 {
            return None;
        }
        for _ in 0..n {
            let turn = among.cursor.fetch_add(1, Ordering::Relaxed) % n;
            let index = order.get(turn as usize).map(|index| *index as usize)?;
            let slot = among.get(index)?;
            if among.is_open(slot) && among.admits_ramp(slot) {
                return Some(Choice::of(index));
            }
        }
        // Others moved the cursor meanwhile, or luck had it: whoever is open will do.
        among.draw_open(None).map(Choice::of)
    }
}

/// The longest schedule; with greater sums of weights shares are rounded to it.
const LONGEST: u64 = 4096;

/// The indices of `ready` in the order of smooth weighted round robin.
pub(super) fn schedule(ready: &[Arc<Slot>]) -> Vec<u32> {
    let gcd = ready.iter().fold(0, |gcd, slot| greatest_common_divisor(gcd, slot.endpoint.weight));
    let weights = ready.iter().map(|slot| i64::from(slot.endpoint.weight / gcd.max(1)));
    let mut weights: Vec<i64> = weights.collect();
    let sum: i64 = weights.iter().sum();
    let longest = LONGEST.max(ready.len() as u64) as i64;
    if weights.iter().all(|weight| *weight == 1) {
        return (0..ready.len() as u32).collect();
    }
    // Building costs the product of length and endpoints: long schedules are for small sets.
    if sum > longest || sum.saturating_mul(ready.len() as i64) > 4_000_000 {
        let most = (longest.min(4_000_000 / ready.len().max(1) as i64)).max(ready.len() as i64);
        for weight in &mut weights {
            *weight = (*weight * most / sum).max(1);
        }
    }
    let total: i64 = weights.iter().sum();
    let mut current = vec![0i64; weights.len()];
    let mut order = Vec::with_capacity(total.max(0) as usize);
    for _ in 0..total {
        let mut best: Option<(usize, i64)> = None;
        for (index, (value, weight)) in current.iter_mut().zip(&weights).enumerate() {
            *value += weight;
            if best.is_none_or(|(_, most)| *value > most) {
                best = Some((index, *value));
            }
        }
        let Some((index, _)) = best else { break };
        if let Some(value) = current.get_mut(index) {
            *value -= total;
        }
        order.push(index as u32);
    }
    order
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}
