//! Which instances the orchestrator will remove when it is told a lower count.

use std::collections::HashMap;

use crate::observation::{Instance, Phase};

/// The instances that Docker Swarm is expected to remove when `current` becomes `count`: fewer than that many if not
/// all instances are listed, for those that are not (they don't run yet) go first.
///
/// SwarmKit's replicated orchestrator keeps, of the tasks sorted by running first and then by the lower slot, the first
/// copy on each node, then the second, and so on; what is left over is removed. It does not look at load, and its sort is
/// not declared stable: look afterwards who left.
pub fn victims(instances: &[Instance], current: u32, count: u32) -> Vec<String> {
    let surplus = usize::try_from(current.saturating_sub(count)).unwrap_or(usize::MAX);
    let mut order: Vec<&Instance> =
        instances.iter().filter(|i| matches!(i.phase, Phase::Pending | Phase::Running)).collect();
    order.sort_by_key(|instance| (instance.phase != Phase::Running, instance.slot, instance.id.as_str()));
    let mut copies: HashMap<&str, usize> = HashMap::new();
    // One without a node is in nobody's way, and goes first.
    let mut ranked: Vec<(usize, usize, &Instance)> = order
        .into_iter()
        .enumerate()
        .map(|(place, instance)| {
            let rank = instance.node.as_deref().map_or(usize::MAX, |node| {
                let copies = copies.entry(node).or_insert(0);
                *copies += 1;
                *copies
            });
            (rank, place, instance)
        })
        .collect();
    ranked.sort_by_key(|&(rank, place, _)| (rank, place));
    let current = usize::try_from(current).unwrap_or(usize::MAX);
    let absent = current.saturating_sub(ranked.len());
    let goes = surplus.saturating_sub(absent).min(current);
    ranked.iter().rev().take(goes).map(|(_, _, instance)| instance.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(tasks: &[(&str, u64)]) -> Vec<Instance> {
        tasks.iter().map(|&(node, slot)| Instance::new(format!("web.{slot}")).at(node, slot)).collect()
    }

    #[test]
    fn the_most_crowded_node_gives_first_and_then_the_high_slot() {
        let tasks = fleet(&[("h1", 1), ("h2", 2), ("h1", 3), ("h1", 4), ("h3", 5)]);
        assert_eq!(victims(&tasks, 5, 4), ["web.4"], "the third on h1");
        assert_eq!(victims(&tasks, 5, 2), ["web.4", "web.3", "web.5"]);
        assert_eq!(victims(&tasks, 5, 5), [""; 0]);
        assert_eq!(victims(&tasks, 6, 5), [""; 0], "the sixth, which is not listed, goes");
        assert_eq!(victims(&tasks, 6, 4), ["web.4"]);
    }

    #[test]
    fn what_does_not_run_goes_before_what_does() {
        let mut tasks = fleet(&[("h1", 1), ("h2", 2)]);
        tasks[0].phase = Phase::Pending;
        assert_eq!(victims(&tasks, 2, 1), ["web.1"]);
        tasks.push(Instance::new("web.9"));
        assert_eq!(victims(&tasks, 3, 2), ["web.9"], "it has no node yet");
        tasks[1].phase = Phase::Stopping;
        assert_eq!(victims(&tasks, 2, 0), ["web.9", "web.1"], "what is leaving is no victim");
        assert_eq!(victims(&tasks, 3, 1), ["web.9"], "nor does it count as there");
    }
}
