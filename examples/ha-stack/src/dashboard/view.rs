//! What is shown at one moment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::timeline::{Entry, Outage};
use super::verdict::Verdict;
use crate::platform::{Backend, Decided, GatewayStatus, Happening, Host, Replica};

/// The stack at one moment, as far as its source can see it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// `local`, `swarm`, ...
    pub platform: String,
    /// The service that users see.
    pub service: String,
    /// Who looks: `this program`, or a gateway.
    pub seen_from: String,
    /// Where users reach the site.
    pub site: Option<String>,
    /// Replicas wanted; `None` where that can't be seen.
    pub wanted: Option<u32>,
    /// Requests in flight that a replica should have, on average.
    pub target: Option<f64>,
    /// Why the scaler keeps off, where it does.
    pub hold: Option<String>,
    /// The machines.
    pub hosts: Vec<Host>,
    /// Replicas as one gateway sees them.
    pub replicas: Vec<Replica>,
    /// The services that gateways route by labels, all gateways together; none where one service gets everything.
    #[serde(default)]
    pub services: Vec<ServiceSeen>,
    /// Requests to the gateways that no route covered.
    #[serde(default)]
    pub unrouted_total: u64,
    /// All gateways.
    pub gateways: Vec<GatewayStatus>,
    /// What the stack stands on.
    pub backends: Vec<Backend>,
    /// The scaler's decisions, oldest first.
    pub decisions: Vec<Decided>,
    /// What that gateway saw happen, oldest first.
    #[serde(skip)]
    pub events: Vec<Happening>,
}

impl View {
    /// How many replicas take traffic.
    pub fn usable(&self) -> usize {
        crate::platform::usable(&self.replicas).count()
    }
}

/// One of several services behind a gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceSeen {
    /// Its name.
    pub service: String,
    /// Its rules; none for the one that gets what no other does.
    pub rules: Vec<String>,
    /// Requests a second.
    pub rate: f64,
    /// Requests under way, waiting ones included.
    pub in_flight: u64,
    /// Requests that wait for a replica.
    pub waiting: u64,
    /// 95th percentile of the latency in milliseconds, at the gateway where it is worst.
    pub p95_ms: Option<f64>,
    /// Requests since the start.
    pub requests_total: u64,
    /// Answers of 500 and above since the start.
    pub errors_total: u64,
    /// Replicas that the gateway knows.
    pub replicas: usize,
    /// Those of them that take traffic.
    pub usable: usize,
}

impl ServiceSeen {
    /// Adds what another gateway sees of the same service; rules and replicas stay.
    fn add(&mut self, other: &Self) {
        self.rate += other.rate;
        self.in_flight += other.in_flight;
        self.waiting += other.waiting;
        self.p95_ms = self.p95_ms.into_iter().chain(other.p95_ms).reduce(f64::max);
        self.requests_total += other.requests_total;
        self.errors_total += other.errors_total;
    }

    /// The services of all gateways: figures of those that answered, rules and replicas as `own` sees them where it does.
    pub fn together(own: &[Self], answered: impl Iterator<Item = Vec<Self>>) -> Vec<Self> {
        let mut all: BTreeMap<String, Self> = BTreeMap::new();
        for seen in answered.flatten() {
            match all.get_mut(&seen.service) {
                Some(known) => known.add(&seen),
                None => drop(all.insert(seen.service.clone(), seen)),
            }
        }
        for own in own {
            let known = all.entry(own.service.clone()).or_insert_with(|| own.clone());
            known.rules.clone_from(&own.rules);
            (known.replicas, known.usable) = (own.replicas, own.usable);
        }
        all.into_values().collect()
    }
}

/// One point of the curves. What could not be read is `None`, never zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Seconds since 1970.
    pub at: f64,
    /// Requests a second, all gateways together.
    pub rate: Option<f64>,
    /// Requests under way, all gateways together.
    pub in_flight: Option<u64>,
    /// Those of them that wait for a replica.
    pub waiting: Option<u64>,
    /// Median latency in milliseconds, at the gateway where it is worst.
    pub p50_ms: Option<f64>,
    /// 95th percentile, likewise.
    pub p95_ms: Option<f64>,
    /// 99th percentile, likewise.
    pub p99_ms: Option<f64>,
    /// Answers of 500 and above a second, all gateways together.
    pub errors: Option<f64>,
    /// Replicas wanted.
    pub wanted: Option<u32>,
    /// Replicas that take traffic.
    pub usable: Option<usize>,
}

/// What a replica has done since the moment before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// Which.
    pub instance: String,
    /// Requests a second.
    pub rate: f64,
    /// Failed ones a second.
    pub failures: f64,
}

/// What one look brought, with everything that is derived from the looks before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// How it is, in one sentence.
    pub verdict: Verdict,
    /// The newest view that could be had.
    pub view: View,
    /// Why the newest look failed, if it did; the view is then an older one.
    pub error: Option<String>,
    /// The newest point of the curves.
    pub sample: Sample,
    /// What each replica does.
    pub work: Vec<Work>,
    /// Faults, recoveries and changes, oldest first.
    pub timeline: Vec<Entry>,
    /// When hosts were away.
    pub outages: Vec<Outage>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateways_add_up_and_the_own_view_of_replicas_counts() {
        let seen = |in_flight, p95_ms, usable| ServiceSeen {
            service: "shop".into(),
            in_flight,
            p95_ms,
            usable,
            ..ServiceSeen::default()
        };
        let own = [seen(1, Some(5.0), 2)];
        let all =
            ServiceSeen::together(&own, [vec![seen(1, Some(5.0), 2)], vec![seen(3, None, 1)]].into_iter());
        assert_eq!(all, [seen(4, Some(5.0), 2)]);
        let nobody = ServiceSeen::together(&own, std::iter::empty());
        assert_eq!(nobody, own);
    }
}
