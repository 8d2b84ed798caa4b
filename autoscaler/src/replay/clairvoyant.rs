//! The cheapest plan of one that knows the whole load beforehand: what costs are measured against.

use super::plant::PlantModel;
use super::trace::Trace;

/// Instance-seconds of the cheapest plan under which, in every second, as many instances serve as the load needs at the
/// target (and no fewer than the minimum), starting times paid. It is the exact minimum.
///
/// The instances are looked at one by one: the k-th is needed while the load asks for k or more. Between two such times it
/// is kept, or stopped and started anew, which costs the start; the cheaper of the two. What is needed at the beginning
/// is there.
pub(super) fn cost(plant: &PlantModel, trace: &Trace) -> u64 {
    plan(trace.seconds(), plant.start_seconds, |second| plant.needed(trace.load(second)))
}

/// The same without headroom: as many instances as can just do the load.
pub(super) fn bare_cost(plant: &PlantModel, trace: &Trace) -> u64 {
    let bare = PlantModel { target: plant.capacity, ..plant.clone() };
    cost(&bare, trace)
}

fn plan(seconds: usize, start: usize, needed: impl Fn(usize) -> u32) -> u64 {
    // For each layer the second after its last need.
    let mut last: Vec<Option<usize>> = Vec::new();
    let mut sum = 0u64;
    for second in 0..seconds {
        let needed = needed(second) as usize;
        if last.len() < needed {
            last.resize(needed, None);
        }
        sum += needed as u64;
        for layer in last.iter_mut().take(needed) {
            let free = match *layer {
                Some(end) => second - end,
                None => second,
            };
            sum += free.min(start) as u64;
            *layer = Some(second + 1);
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_paid_and_a_short_gap_is_kept() {
        let count = |needs: &[u32], start| plan(needs.len(), start, |second| needs[second]);
        assert_eq!(count(&[1, 1, 1], 2), 3);
        assert_eq!(count(&[1, 1, 2, 2], 2), 6 + 2, "the second is started two seconds before");
        assert_eq!(count(&[2, 1, 2], 5), 5 + 1, "kept over a gap of one second");
        assert_eq!(count(&[2, 1, 1, 1, 1, 2], 2), 8 + 2, "stopped and started again");
        assert_eq!(count(&[1, 2], 9), 3 + 1, "it can't start before the beginning");
    }

    #[test]
    fn no_plan_of_a_brute_force_search_is_cheaper() {
        // Every plan of one extra instance over a need of on and off.
        let needs = [1, 2, 2, 1, 1, 1, 2, 1, 1, 2];
        for start in 0..4 {
            let mut best = u64::MAX;
            for kept in 0u32..1 << needs.len() {
                let on = |second: usize| kept >> second & 1 == 1;
                // Paid from `start` before it serves: it serves where it was kept for `start` seconds, or from the
                // beginning on.
                let serves = |second: usize| (second.saturating_sub(start)..=second).all(on);
                let fits = (0..needs.len()).all(|second| needs[second] < 2 || serves(second));
                if fits {
                    best = best.min(u64::from(kept.count_ones()) + needs.len() as u64);
                }
            }
            assert_eq!(plan(needs.len(), start, |second| needs[second]), best, "start {start}");
        }
    }
}
