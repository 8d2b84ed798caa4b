//! Which host gets the next replica, and which replica goes first: pure functions.

use std::collections::BTreeMap;

/// A replica as far as placement is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The task's name.
    pub instance: String,
    /// 1-based position among the replicas.
    pub slot: u32,
    /// The host that it runs on.
    pub host: String,
}

/// The host with the fewest replicas, the first such in the given order; `None` without hosts.
pub fn host_for_next(hosts: &[String], placed: &[Placed]) -> Option<String> {
    hosts.iter().min_by_key(|host| count(placed, host)).cloned()
}

/// The lowest slot that no replica has.
pub fn free_slot(placed: &[Placed]) -> u32 {
    let mut slot = 1;
    while placed.iter().any(|p| p.slot == slot) {
        slot += 1;
    }
    slot
}

/// The replicas to remove so that `keep` are left: from the most crowded host first, there the highest slot.
pub fn victims(placed: &[Placed], keep: usize) -> Vec<String> {
    let mut left = placed.to_vec();
    let mut victims = Vec::new();
    while left.len() > keep {
        let crowd: BTreeMap<String, usize> =
            left.iter().map(|p| (p.host.clone(), count(&left, &p.host))).collect();
        let crowded = |p: &Placed| (crowd.get(&p.host).copied().unwrap_or(0), p.slot);
        let Some(at) = (0..left.len()).max_by_key(|i| left.get(*i).map(crowded)) else { break };
        victims.push(left.swap_remove(at).instance);
    }
    victims
}

fn count(placed: &[Placed], host: &str) -> usize {
    placed.iter().filter(|p| p.host == host).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(slot: u32, host: &str) -> Placed {
        Placed { instance: format!("web.{slot}"), slot, host: host.into() }
    }

    #[test]
    fn replicas_spread_over_hosts() {
        let hosts: Vec<String> = ["h1", "h2", "h3"].map(String::from).into();
        let mut all = Vec::new();
        for expected in ["h1", "h2", "h3", "h1"] {
            let host = host_for_next(&hosts, &all).unwrap();
            assert_eq!(host, expected);
            all.push(placed(free_slot(&all), &host));
        }
        assert_eq!(all.iter().map(|p| p.slot).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(host_for_next(&[], &all), None);
    }

    #[test]
    fn the_most_crowded_host_gives_first() {
        let all = [placed(1, "h1"), placed(2, "h2"), placed(3, "h1"), placed(4, "h1")];
        assert_eq!(victims(&all, 2), ["web.4", "web.3"]);
        assert_eq!(victims(&all, 9), Vec::<String>::new());
        assert_eq!(victims(&all, 0).len(), 4);
    }

    #[test]
    fn a_freed_slot_is_used_again() {
        assert_eq!(free_slot(&[placed(1, "h1"), placed(3, "h1")]), 2);
    }
}
