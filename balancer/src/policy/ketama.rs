//! Consistent hashing by ring.

use serde::{Deserialize, Serialize};

use super::maglev::valid_overload;
use super::places::Map;
use super::{Candidates, Choice, Choose, Plan};
use crate::endpoint::EndpointId;
use crate::error::ConfigError;
use crate::hash::{self, hash};

/// Takes the endpoint whose point on a ring follows the key's (Karger and others 1997; 160 points per unit of weight as
/// in ketama and nginx). Requests without a key are spread by drawing one.
///
/// When an endpoint goes only its own keys move. A pick costs a binary search, and shares are less even than
/// [`Maglev`](super::Maglev)'s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Ketama {
    /// Points of an endpoint with weight 1.
    pub points: u32,
    /// The most requests in flight on one endpoint, as a multiple of its fair share; see
    /// [`Maglev::overload`](super::Maglev::overload). What is beyond goes to the next endpoint on the ring.
    pub overload: Option<f32>,
}

impl Default for Ketama {
    fn default() -> Self {
        Self { points: 160, overload: Some(1.5) }
    }
}

impl Ketama {
    /// Sets the points of an endpoint with weight 1.
    #[must_use]
    pub fn points(mut self, points: u32) -> Self {
        self.points = points;
        self
    }

    /// Sets the bound on load, or takes it away.
    #[must_use]
    pub fn overload(mut self, factor: Option<f32>) -> Self {
        self.overload = factor;
        self
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if !(1..=1000).contains(&self.points) {
            return Err(ConfigError::invalid("policy.points", self.points, "from 1 to 1000"));
        }
        valid_overload(self.overload)
    }

    pub(super) fn ring(&self, members: &[(EndpointId, u32)]) -> Map {
        let wanted: u64 = members.iter().map(|(_, weight)| u64::from(self.points) * u64::from(*weight)).sum();
        // Beyond that points cost memory and cache for nothing.
        let scale = (MOST_POINTS as f64 / wanted.max(1) as f64).min(1.0);
        let mut ring = Vec::new();
        for (member, (id, weight)) in members.iter().enumerate() {
            let points = (f64::from(self.points) * f64::from(*weight) * scale).ceil().max(1.0) as u64;
            let own = hash(id.as_str());
            ring.extend((0..points).map(|n| ((hash::again(own, n) >> 32) as u32, member as u32)));
        }
        ring.sort_unstable();
        ring.dedup_by_key(|(point, _)| *point);
        Map::Ring(ring)
    }
}

impl Choose for Ketama {
    fn choose(&self, among: &Candidates<'_>) -> Option<Choice> {
        let Plan::Places(places) = &among.group.plan else { return None };
        places.choose(among, self.overload)
    }
}

const MOST_POINTS: u64 = 1 << 20;
