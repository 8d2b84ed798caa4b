//! Near before far: the balancer's own host, then its zone, then everybody.

use serde::{Deserialize, Serialize};

use crate::config::share;
use crate::endpoint::Endpoint;
use crate::error::ConfigError;

/// Where the balancer is, and when it prefers what is near.
///
/// Endpoints form tiers: those on the same host, those in the same zone, all. The nearest tier is drawn from, with
/// whatever policy, as long as enough of its endpoints are usable and the one that the policy chose has no more than
/// [`overload`](Self::overload) times its fair share of this balancer's requests in flight. So an idle service is
/// answered from nearby, and one endpoint near a busy balancer is never flooded while others idle.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Locality {
    /// The machine that the balancer runs on; compared with [`Endpoint::host`].
    pub host: Option<String>,
    /// The zone that it is in; compared with [`Endpoint::zone`].
    pub zone: Option<String>,
    /// The least share of a tier's endpoints that must be usable for the tier to be preferred. 0.7: Envoy leaves a
    /// tier for the next one below 1 / 1.4.
    pub min_usable: f64,
    /// The most requests in flight on a near endpoint, as a multiple of its fair share; 1 or more.
    pub overload: f32,
}

impl Default for Locality {
    fn default() -> Self {
        Self { host: None, zone: None, min_usable: 0.7, overload: 2.0 }
    }
}

impl Locality {
    /// Sets the machine that the balancer runs on.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Sets the zone that it is in.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Whether an endpoint belongs to a tier: 0 is the own host, 1 the own zone.
    pub(crate) fn is_in(&self, tier: u8, endpoint: &Endpoint) -> bool {
        let same = |own: &Option<String>, its: &Option<String>| own.is_some() && own == its;
        match tier {
            0 => same(&self.host, &endpoint.host),
            // What is on the own host is in the own zone, said or not.
            _ => same(&self.zone, &endpoint.zone) || (self.zone.is_some() && self.is_in(0, endpoint)),
        }
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        share("locality.min_usable", self.min_usable)?;
        if !(self.overload >= 1.0 && self.overload.is_finite()) {
            return Err(ConfigError::invalid("locality.overload", self.overload, "1 or more"));
        }
        Ok(())
    }
}
