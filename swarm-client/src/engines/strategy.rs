//! How the engines that pass every filter are ranked.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::requirements::Requirements;
use super::view::Engine;

/// Where a container goes if several engines may take it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// To the engine with the most room: the loss of one costs least.
    #[default]
    Spread,
    /// To the fullest engine that has room: other engines stay free for large containers.
    Binpack,
    /// To any.
    Random,
}

impl Strategy {
    /// The engines with room, the best first. Those without are left out.
    ///
    /// The weight of an engine is the sum of what its processors and its memory would be used to, in percent of what it has and 5 %
    /// more, and its health, which counts against an ailing engine. Ties go to the one with fewer containers, then by name,
    /// so that the same input gives the same choice.
    pub(super) fn rank<'a>(
        self,
        wants: &Requirements,
        engines: Vec<&'a Engine>,
        seed: u64,
    ) -> Vec<&'a Engine> {
        let factor = match self {
            Self::Spread => -10,
            Self::Binpack => 10,
            Self::Random => 0,
        };
        let weighed = engines.into_iter().filter_map(|engine| Some((weight(wants, engine, factor)?, engine)));
        let mut weighed: Vec<(i64, &Engine)> = weighed.collect();
        weighed.sort_by(|(a, one), (b, other)| {
            let count = |engine: &Engine| engine.holding().count();
            a.cmp(b)
                .then(count(one).cmp(&count(other)))
                .then(one.name.cmp(&other.name))
                .then(one.id.cmp(&other.id))
        });
        let mut ranked: Vec<&Engine> = weighed.into_iter().map(|(_, engine)| engine).collect();
        match self {
            Self::Spread => {}
            Self::Binpack => ranked.reverse(),
            Self::Random => shuffle(&mut ranked, seed),
        }
        ranked
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spread => "spread",
            Self::Binpack => "binpack",
            Self::Random => "random",
        })
    }
}

impl FromStr for Strategy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "spread" => Ok(Self::Spread),
            "binpack" | "binpacking" => Ok(Self::Binpack),
            "random" => Ok(Self::Random),
            _ => Err("the strategies are spread, binpack and random".to_owned()),
        }
    }
}

/// `None` where the engine has not the room.
fn weight(wants: &Requirements, engine: &Engine, factor: i64) -> Option<i64> {
    let cpu = score(engine.reserved_nano_cpus(), wants.nano_cpus, engine.nano_cpus)?;
    let memory = score(engine.reserved_memory(), wants.memory, engine.memory)?;
    Some(cpu + memory + factor * i64::from(engine.health()))
}

/// What would be used, in percent of what there is; 100 where nothing is asked for.
fn score(used: u64, asked: u64, has: u64) -> Option<i64> {
    if asked == 0 {
        return Some(100);
    }
    let total = u128::from(has) * u128::from(100 + OVERCOMMIT_PERCENT) / 100;
    let used = u128::from(used) + u128::from(asked);
    let percent = (used * 100).checked_div(total)?;
    // Compared before it is rounded: 100.9 % would pass as 100.
    (used <= total).then(|| i64::try_from(percent).unwrap_or(i64::MAX))
}

/// Fisher and Yates', with the seed's own numbers (splitmix64).
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for last in (1..items.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let number = u128::from(z ^ (z >> 31));
        let below = u128::try_from(last + 1).unwrap_or(1);
        items.swap(last, usize::try_from((number * below) >> 64).unwrap_or(0));
    }
}

/// Engines are given a little more than they have: what is reserved is seldom used at once.
pub(super) const OVERCOMMIT_PERCENT: u64 = 5;

#[cfg(test)]
mod tests {
    use super::super::testing::{container, engine, wants};
    use super::*;

    fn names(strategy: Strategy, wants: &Requirements, engines: &[Engine], seed: u64) -> Vec<String> {
        strategy.rank(wants, engines.iter().collect(), seed).iter().map(|e| e.name.clone()).collect()
    }

    #[test]
    fn spread_and_binpack_are_each_others_reverse() {
        let mut engines = [engine("h1"), engine("h2"), engine("h3")];
        engines[0].containers = vec![container("a"), container("b")];
        engines[1].containers = vec![container("c")];
        assert_eq!(names(Strategy::Spread, &wants("x"), &engines, 0), ["h3", "h2", "h1"]);
        assert_eq!(names(Strategy::Binpack, &wants("x"), &engines, 0), ["h1", "h2", "h3"]);
    }

    #[test]
    fn reservations_weigh_more_than_the_number_of_containers() {
        let mut engines = [engine("h1"), engine("h2")];
        let mut large = container("a");
        large.memory = engines[0].memory / 2;
        engines[0].containers = vec![large];
        engines[1].containers = vec![container("b"), container("c")];
        let mut asks = wants("x");
        asks.memory = engines[0].memory / 4;
        assert_eq!(names(Strategy::Spread, &asks, &engines, 0), ["h2", "h1"]);
    }

    #[test]
    fn an_engine_may_be_filled_to_five_percent_more_than_it_has() {
        let mut h1 = engine("h1");
        h1.memory = 1000;
        let mut asks = wants("x");
        for (memory, fits) in [(1000, true), (1050, true), (1051, false), (u64::MAX, false)] {
            asks.memory = memory;
            assert_eq!(!names(Strategy::Spread, &asks, &[h1.clone()], 0).is_empty(), fits, "{memory}");
        }
        h1.memory = 0;
        asks.memory = 1;
        assert!(names(Strategy::Spread, &asks, &[h1], 0).is_empty());
    }

    #[test]
    fn an_ailing_engine_comes_last_in_a_spread() {
        let mut engines = [engine("h1"), engine("h2")];
        engines[0].failures = 1;
        engines[1].containers = vec![container("a"); 5];
        assert_eq!(names(Strategy::Spread, &wants("x"), &engines, 0), ["h2", "h1"]);
    }

    #[test]
    fn random_depends_on_the_seed_alone_and_reaches_each_engine() {
        let engines = [engine("h1"), engine("h2"), engine("h3")];
        let first = |seed| names(Strategy::Random, &wants("x"), &engines, seed)[0].clone();
        let seen: std::collections::BTreeSet<String> = (0..40).map(first).collect();
        assert_eq!(seen.len(), 3);
        assert_eq!(first(7), first(7));
    }
}
