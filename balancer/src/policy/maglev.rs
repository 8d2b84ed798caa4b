//! Consistent hashing by table.

use serde::{Deserialize, Serialize};

use super::places::Map;
use super::{Candidates, Choice, Choose, Plan};
use crate::endpoint::EndpointId;
use crate::error::ConfigError;
use crate::hash::{self, hash};

/// Looks the key up in a table that each endpoint filled by its own permutation, in turn and by weight (Eisenbud and
/// others, NSDI 2016; weights as in katran). Requests without a key are spread by drawing one.
///
/// Tables are made of the endpoints' ids, so that a task that moves keeps its keys, and gateways that share nothing
/// agree. Who is out, full, or beyond [`overload`](Self::overload) has its keys go elsewhere, and back afterwards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Maglev {
    /// The length of the table: a prime, best a hundred times the number of endpoints or more. 65537 as in Envoy.
    pub table_size: u32,
    /// The most requests in flight on one endpoint, as a multiple of its fair share; `None` is no bound. Low values
    /// spread hot keys, high ones keep them in place; HAProxy advises 1.25 to 2.
    pub overload: Option<f32>,
}

impl Default for Maglev {
    fn default() -> Self {
        Self { table_size: 65_537, overload: Some(1.5) }
    }
}

impl Maglev {
    /// Sets the length of the table.
    #[must_use]
    pub fn table_size(mut self, size: u32) -> Self {
        self.table_size = size;
        self
    }

    /// Sets the bound on load, or takes it away.
    #[must_use]
    pub fn overload(mut self, factor: Option<f32>) -> Self {
        self.overload = factor;
        self
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if !is_prime(self.table_size) || self.table_size < 101 || self.table_size > 10_000_019 {
            let rule = "a prime from 101 to 10000019";
            return Err(ConfigError::invalid("policy.table_size", self.table_size, rule));
        }
        valid_overload(self.overload)
    }

    pub(super) fn table(&self, members: &[(EndpointId, u32)]) -> Map {
        Map::Table(table(self.table_size, members))
    }
}

impl Choose for Maglev {
    fn choose(&self, among: &Candidates<'_>) -> Option<Choice> {
        let Plan::Places(places) = &among.group.plan else { return None };
        places.choose(among, self.overload)
    }
}

pub(super) fn valid_overload(factor: Option<f32>) -> Result<(), ConfigError> {
    match factor {
        Some(factor) if !(factor > 1.0 && factor.is_finite()) => {
            Err(ConfigError::invalid("policy.overload", factor, "above 1, or none"))
        }
        _ => Ok(()),
    }
}

struct Filler {
    at: u64,
    skip: u64,
    weight: u64,
    saved: u64,
}

fn table(size: u32, members: &[(EndpointId, u32)]) -> Vec<u32> {
    if members.is_empty() {
        return Vec::new();
    }
    let size = u64::from(size);
    let mut fillers: Vec<_> = members
        .iter()
        .map(|(id, weight)| {
            let (first, second) = (hash(id.as_str()), hash::again(hash(id.as_str()), 1));
            Filler { at: first % size, skip: second % (size - 1) + 1, weight: u64::from(*weight), saved: 0 }
        })
        .collect();
    let heaviest = fillers.iter().map(|filler| filler.weight).max().unwrap_or(1).max(1);
    let mut table = vec![u32::MAX; size as usize];
    let mut left = size;
    while left > 0 {
        for (member, filler) in fillers.iter_mut().enumerate() {
            filler.saved += filler.weight.max(1);
            if filler.saved < heaviest {
                continue;
            }
            filler.saved -= heaviest;
            // The permutation visits every place, so that a free one is found.
            while let Some(place) = table.get_mut(filler.at as usize) {
                filler.at = (filler.at + filler.skip) % size;
                if *place == u32::MAX {
                    *place = member as u32;
                    left -= 1;
                    break;
                }
            }
            if left == 0 {
                break;
            }
        }
    }
    table
}

fn is_prime(n: u32) -> bool {
    n >= 2
        && (2..)
            .take_while(|d: &u32| u64::from(*d) * u64::from(*d) <= u64::from(n))
            .all(|d| !n.is_multiple_of(d))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(weights: &[u32]) -> Vec<(EndpointId, u32)> {
        weights
            .iter()
            .enumerate()
            .map(|(n, weight)| (EndpointId::from(format!("web.{n}")), *weight))
            .collect()
    }

    fn shares(table: &[u32], n: usize) -> Vec<f64> {
        let count = |n| table.iter().filter(|member| **member == n as u32).count() as f64;
        (0..n).map(|n| count(n) / table.len() as f64).collect()
    }

    #[test]
    fn shares_follow_weights() {
        let shares = shares(&table(65_537, &members(&[5, 1, 1, 3])), 4);
        for (share, ideal) in shares.iter().zip([0.5, 0.1, 0.1, 0.3]) {
            assert!((share / ideal - 1.0).abs() < 0.01, "{shares:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Removing one of n moves the keys of that one, and of the others no more than a few per cent.
        #[test]
        fn little_moves(n in 3usize..40, gone in 0usize..40) {
            let all = members(&vec![1; n]);
            let gone = gone % n;
            let mut fewer = all.clone();
            fewer.remove(gone);
            let (before, after) = (table(10_007, &all), table(10_007, &fewer));
            let name = |members: &[(EndpointId, u32)], at: u32| members[at as usize].0.clone();
            let mut moved = 0usize;
            for (old, new) in before.iter().zip(&after) {
                let (old, new) = (name(&all, *old), name(&fewer, *new));
                moved += usize::from(old != all[gone].0 && old != new);
            }
            // Beyond the paper's few per cent only where a place changes hands more than once.
            prop_assert!(moved as f64 <= 0.2 * before.len() as f64, "{} of {} moved for nothing", moved, before.len());
        }
    }

    #[test]
    fn lengths_that_are_no_prime_are_refused() {
        assert!(Maglev::default().validate().is_ok());
        let error = Maglev::default().table_size(65_536).validate().unwrap_err().to_string();
        assert!(error.starts_with("config policy.table_size = 65536"), "{error}");
        assert!(Maglev::default().overload(Some(1.0)).validate().is_err());
    }
}
