//! What is shown at one moment.

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
