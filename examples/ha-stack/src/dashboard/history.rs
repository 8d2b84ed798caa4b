//! The curves of the last minutes, made of what was seen each second. Pure: the time is an argument.

use std::collections::{BTreeMap, VecDeque};

use super::view::{Sample, View, Work};

/// The samples, and the counters of the last look from which rates are made.
#[derive(Debug, Default)]
pub struct History {
    samples: VecDeque<Sample>,
    before: Option<Counters>,
}

/// Counters at one moment. They only grow, until their owner starts anew.
#[derive(Debug, Default)]
struct Counters {
    at: f64,
    errors: BTreeMap<String, u64>,
    replicas: BTreeMap<String, (u64, u64)>,
}

impl History {
    /// Takes in what was seen at `at`, in seconds since 1970; `None` when the look failed, which leaves a gap in the
    /// curves. Returns the new point and what each replica has done since the last look.
    pub fn observe(&mut self, at: f64, view: Option<&View>) -> (Sample, Vec<Work>) {
        let mut work = Vec::new();
        let mut sample = Sample { at, ..Sample::default() };
        if let Some(view) = view {
            let counters = Counters::of(at, view);
            sample = counters.sample(at, view, self.before.as_ref());
            work = counters.work(self.before.as_ref());
            self.before = Some(counters);
        }
        if self.samples.len() >= KEPT {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        (sample, work)
    }

    /// The points, oldest first.
    pub fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter()
    }
}

impl Counters {
    fn of(at: f64, view: &View) -> Self {
        let answering = view.gateways.iter().filter(|gateway| gateway.error.is_none());
        let replicas = view.replicas.iter();
        Self {
            at,
            errors: answering.map(|gateway| (gateway.name.clone(), gateway.errors_total)).collect(),
            replicas: replicas.map(|r| (r.instance.clone(), (r.requests, r.failures))).collect(),
        }
    }

    fn sample(&self, at: f64, view: &View, before: Option<&Self>) -> Sample {
        let wanted = view.wanted;
        let usable = Some(view.usable());
        let answering: Vec<_> = view.gateways.iter().filter(|g| g.error.is_none()).collect();
        if answering.is_empty() {
            // Nobody answered: that is not the same as no load.
            return Sample { at, wanted, usable, ..Sample::default() };
        }
        let worst = |of: &dyn Fn(&crate::platform::GatewayStatus) -> Option<f64>| {
            answering.iter().filter_map(|gateway| of(gateway)).reduce(f64::max)
        };
        Sample {
            at,
            rate: Some(answering.iter().map(|gateway| gateway.rate).sum()),
            in_flight: Some(answering.iter().map(|gateway| gateway.in_flight).sum()),
            waiting: Some(answering.iter().map(|gateway| gateway.waiting).sum()),
            p50_ms: worst(&|gateway| gateway.p50_ms),
            // The status says 0 where nothing was answered lately; the median tells the two apart.
            p95_ms: worst(&|gateway| gateway.p50_ms.map(|_| gateway.p95_ms)),
            p99_ms: worst(&|gateway| gateway.p99_ms),
            errors: before.map(|before| {
                let grown = self
                    .errors
                    .iter()
                    .map(|(name, now)| before.errors.get(name).map_or(0, |then| grown(*then, *now)));
                grown.sum::<u64>() as f64 / self.since(before)
            }),
            wanted,
            usable,
        }
    }

    fn work(&self, before: Option<&Self>) -> Vec<Work> {
        let Some(before) = before else { return Vec::new() };
        let seconds = self.since(before);
        let known = self.replicas.iter().filter_map(|(instance, (requests, failures))| {
            let (requests_then, failures_then) = before.replicas.get(instance)?;
            Some(Work {
                instance: instance.clone(),
                rate: grown(*requests_then, *requests) as f64 / seconds,
                failures: grown(*failures_then, *failures) as f64 / seconds,
            })
        });
        known.collect()
    }

    fn since(&self, before: &Self) -> f64 {
        (self.at - before.at).max(0.001)
    }
}

/// How much a counter has grown; one that is lower than before has begun anew at 0.
fn grown(then: u64, now: u64) -> u64 {
    if now >= then { now - then } else { now }
}

/// A quarter of an hour, a point a second.
const KEPT: usize = 900;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::{GatewayStatus, Replica};

    fn gateway(name: &str, in_flight: u64, errors_total: u64) -> GatewayStatus {
        GatewayStatus { name: name.into(), in_flight, errors_total, rate: 5.0, ..GatewayStatus::default() }
    }

    fn silent(name: &str) -> GatewayStatus {
        GatewayStatus { name: name.into(), error: Some("no answer".into()), ..GatewayStatus::default() }
    }

    #[test]
    fn what_nobody_says_is_a_gap_and_not_zero() {
        let mut history = History::default();
        let all_silent = View { gateways: vec![silent("h1")], wanted: Some(2), ..View::default() };
        let (sample, _) = history.observe(1.0, Some(&all_silent));
        assert_eq!((sample.rate, sample.in_flight, sample.errors), (None, None, None));
        assert_eq!(sample.wanted, Some(2));
        let (sample, _) = history.observe(2.0, None);
        assert_eq!(sample, Sample { at: 2.0, ..Sample::default() });
    }

    #[test]
    fn gateways_add_up_and_errors_are_counted_from_look_to_look() {
        let mut history = History::default();
        let view =
            |a, b| View { gateways: vec![gateway("h1", 3, a), gateway("h2", 4, b)], ..View::default() };
        let (first, _) = history.observe(10.0, Some(&view(7, 0)));
        assert_eq!((first.in_flight, first.rate, first.errors), (Some(7), Some(10.0), None));
        let (second, _) = history.observe(12.0, Some(&view(11, 0)));
        assert_eq!(second.errors, Some(2.0));
        // h1 was restarted: its counter is at 1, so 1 was added and not 10 taken away.
        let (third, _) = history.observe(13.0, Some(&view(1, 1)));
        assert_eq!(third.errors, Some(2.0));
    }

    #[test]
    fn a_replica_that_is_new_has_no_rate_yet() {
        let replica =
            |instance: &str, requests| Replica { instance: instance.into(), requests, ..Replica::default() };
        let mut history = History::default();
        let view = |replicas| View { replicas, ..View::default() };
        history.observe(1.0, Some(&view(vec![replica("a", 10)])));
        let (_, work) = history.observe(2.0, Some(&view(vec![replica("a", 14), replica("b", 99)])));
        assert_eq!(work, [Work { instance: "a".into(), rate: 4.0, failures: 0.0 }]);
    }

    #[test]
    fn only_a_quarter_of_an_hour_is_kept() {
        let mut history = History::default();
        for second in 0..1000 {
            history.observe(f64::from(second), None);
        }
        assert_eq!(history.samples().count(), KEPT);
        assert_eq!(history.samples().next().map(|sample| sample.at), Some(100.0));
    }
}
