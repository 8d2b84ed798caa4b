//! By what endpoints say of their own load.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::p2c::of_two;
use super::{Candidates, Choice, Choose};
use crate::config::{at_most_a_day, share};
use crate::endpoint::EndpointId;
use crate::error::ConfigError;

/// Probing for load (Wydrowski and others, NSDI 2024): keeps a few reports of requests in flight and latency that
/// endpoints made of themselves, and takes the fastest one of those that are not hot.
///
/// Ask for reports from [`Pool::load_probes`](crate::Pool::load_probes) and tell them by
/// [`Pool::load_report`](crate::Pool::load_report). A report is *hot* whose requests in flight are above the quantile
/// [`hot`](Self::hot) of all reports; among cold ones the lowest latency wins, among only hot ones the fewest in flight.
/// Reports are good for a while and a few uses. Without two of them it draws as
/// [`P2cLeastPending`](super::P2cLeastPending) does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Prequal {
    /// How long a report is good.
    pub max_age: Duration,
    /// For how many picks a report is good.
    pub uses: u32,
    /// The quantile of requests in flight above which an endpoint is hot, 0 to 1. 0.84 as in the paper.
    pub hot: f64,
    /// Reports to ask for per request.
    pub probes_per_request: f64,
}

impl Default for Prequal {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(1), uses: 2, hot: 0.84, probes_per_request: 3.0 }
    }
}

impl Prequal {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        share("policy.hot", self.hot)?;
        if self.uses == 0 {
            return Err(ConfigError::invalid("policy.uses", 0, "1 or more"));
        }
        if !(0.0..=10.0).contains(&self.probes_per_request) {
            let rule = "from 0 to 10";
            return Err(ConfigError::invalid("policy.probes_per_request", self.probes_per_request, rule));
        }
        at_most_a_day("policy.max_age", self.max_age)
    }

    fn of_reports(&self, among: &Candidates<'_>) -> Option<Choice> {
        let mut reports = among.reports.lock();
        reports
            .retain(|report| among.now.saturating_sub(report.at) <= self.max_age && report.uses < self.uses);
        let mut in_flight = [0u32; MOST];
        let mut usable = [None; MOST];
        let mut n = 0;
        for (at, report) in reports.iter().enumerate() {
            let Ok(index) = among.group.ready.binary_search_by(|slot| slot.id().cmp(&report.id)) else {
                continue;
            };
            let slot = among.get(index)?;
            if among.is_open(slot)
                && among.admits(slot)
                && let (Some(load), Some(place)) = (in_flight.get_mut(n), usable.get_mut(n))
            {
                (*load, *place) = (report.in_flight, Some((at, index)));
                n += 1;
            }
        }
        if n < 2 {
            return None;
        }
        let loads = in_flight.get_mut(..n)?;
        loads.sort_unstable();
        let bound = *loads.get(((n - 1) as f64 * self.hot) as usize)?;
        let best = usable.iter().flatten().filter_map(|(at, index)| Some((reports.get(*at)?, *at, *index)));
        let best = best.min_by(|(a, ..), (b, ..)| match (a.in_flight > bound, b.in_flight > bound) {
            (false, false) => a.latency.cmp(&b.latency).then(a.in_flight.cmp(&b.in_flight)),
            (true, true) => a.in_flight.cmp(&b.in_flight),
            (a, b) => a.cmp(&b),
        });
        let (_, at, index) = best?;
        let report = reports.get_mut(at)?;
        report.uses += 1;
        // It will have one more by then.
        report.in_flight += 1;
        Some(Choice::of(index))
    }
}

impl Choose for Prequal {
    fn choose(&self, among: &Candidates<'_>) -> Option<Choice> {
        self.of_reports(among).or_else(|| {
            of_two(among, |a, b| {
                let (a_has, b_has) = (a.stats.pending(), b.stats.pending());
                if a_has == b_has { among.waited(a) >= among.waited(b) } else { a_has < b_has }
            })
        })
    }
}

/// The last reports.
#[derive(Debug, Default)]
pub(crate) struct Reports(Mutex<Vec<Report>>);

#[derive(Debug)]
pub(crate) struct Report {
    id: EndpointId,
    in_flight: u32,
    latency: Duration,
    at: Duration,
    uses: u32,
}

impl Reports {
    /// Takes a report in; it replaces an older one of the same endpoint, or else the oldest.
    pub(crate) fn tell(&self, id: &EndpointId, in_flight: u32, latency: Duration, at: Duration) {
        let mut reports = self.lock();
        reports.retain(|report| report.id != *id);
        if reports.len() >= MOST {
            reports.remove(0);
        }
        reports.push(Report { id: id.clone(), in_flight, latency, at, uses: 0 });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Report>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reports kept. 16 as in the paper.
const MOST: usize = 16;
