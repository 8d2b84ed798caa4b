//! What a policy chooses from, and what may be asked of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::prequal::Reports;
use crate::group::Group;
use crate::lease::PickRequest;
use crate::limits::Limits;
use crate::rng::Draw;
use crate::slot::Slot;
use crate::slow_start::SlowStart;

/// One tier, one request, one moment.
pub(crate) struct Candidates<'a> {
    pub(crate) group: &'a Group,
    pub(crate) request: &'a PickRequest<'a>,
    pub(crate) limits: &'a Limits,
    pub(crate) slow_start: Option<&'a SlowStart>,
    pub(crate) reports: &'a Reports,
    pub(crate) draw: &'a Draw,
    /// Where round robin is.
    pub(crate) cursor: &'a AtomicU64,
    /// Picks so far.
    pub(crate) picks: u64,
    /// Requests in flight on all endpoints.
    pub(crate) in_flight: u64,
    pub(crate) now: Duration,
}

impl<'a> Candidates<'a> {
    pub(crate) fn len(&self) -> usize {
        self.group.ready.len()
    }

    pub(crate) fn get(&self, index: usize) -> Option<&'a Arc<Slot>> {
        self.group.ready.get(index)
    }

    /// Whether any endpoint may be closed to this request.
    fn may_block(&self) -> bool {
        !self.request.exclude.is_empty() || self.limits.is_any()
    }

    /// Whether a slot may take the request: neither excluded nor full.
    pub(crate) fn is_open(&self, slot: &Slot) -> bool {
        !self.may_block() || !(self.is_excluded(slot) || self.limits.is_full(slot, self.request.priority))
    }

    pub(crate) fn is_excluded(&self, slot: &Slot) -> bool {
        self.request.exclude.iter().any(|id| id == slot.id())
    }

    /// Weight and ramp together, relative to the greatest: above 0, at most 1.
    pub(crate) fn share(&self, slot: &Slot) -> f32 {
        self.group.share(slot, self.slow_start, self.now)
    }

    pub(crate) fn ramp(&self, slot: &Slot) -> f32 {
        self.group.ramp(slot, self.slow_start, self.now)
    }

    /// Lets a slot through as often as its share says.
    pub(crate) fn admits(&self, slot: &Slot) -> bool {
        self.lets(self.share(slot))
    }

    /// Lets a slot through as often as its ramp says.
    pub(crate) fn admits_ramp(&self, slot: &Slot) -> bool {
        self.lets(self.ramp(slot))
    }

    fn lets(&self, share: f32) -> bool {
        share >= 1.0 || self.draw.unit() < f64::from(share)
    }

    /// In flight per share, counting the request to come.
    pub(crate) fn pressure(&self, slot: &Slot) -> f32 {
        (slot.stats.pending() + 1) as f32 / self.share(slot)
    }

    /// How long it has not been chosen, in picks and by share: who waits longest goes first when nothing else tells
    /// two apart.
    pub(crate) fn waited(&self, slot: &Slot) -> f32 {
        self.picks.saturating_sub(slot.stats.turn.load(Ordering::Relaxed)) as f32 * self.share(slot)
    }

    /// Whether one more request leaves a slot within `factor` times its fair share of all that is in flight.
    ///
    /// HAProxy's form of bounded load (Mirrokni, Thorup, Zadimoghaddam 2016): with a factor above 1 there is always one
    /// that fits.
    pub(crate) fn fits(&self, slot: &Slot, factor: f32) -> bool {
        let all = ((self.in_flight + 1) as f64 * f64::from(factor)).ceil();
        let part = f64::from(slot.endpoint.weight) / self.group.weight.max(1) as f64;
        slot.stats.pending() < (all * part).ceil().max(1.0) as u64
    }

    /// One that is open, drawn evenly; another one than `other`.
    pub(crate) fn draw_open(&self, other: Option<usize>) -> Option<usize> {
        let fits =
            |index: usize| other != Some(index) && self.get(index).is_some_and(|slot| self.is_open(slot));
        for _ in 0..TRIES {
            let index = self.draw.below(self.len());
            if fits(index) {
                return Some(index);
            }
        }
        let open = (0..self.len()).filter(|index| fits(*index)).count();
        let nth = self.draw.below(open);
        (0..self.len()).filter(|index| fits(*index)).nth(nth)
    }

    /// Two different ones that are open, drawn evenly; one when there is only one.
    pub(crate) fn draw_two(&self) -> Option<(usize, Option<usize>)> {
        if self.may_block() {
            let first = self.draw_open(None)?;
            return Some((first, self.draw_open(Some(first))));
        }
        match self.len() {
            0 => None,
            1 => Some((0, None)),
            n => {
                let (a, b) = self.draw.two_below(n, n - 1);
                Some((a, Some(if b >= a { b + 1 } else { b })))
            }
        }
    }

    /// Of all that are open the one with the least in flight per share.
    pub(crate) fn least_pending(&self) -> Option<usize> {
        let open = self.group.ready.iter().enumerate().filter(|(_, slot)| self.is_open(slot));
        let best = open.min_by(|(_, a), (_, b)| {
            let less = self.pressure(a).total_cmp(&self.pressure(b));
            less.then_with(|| self.waited(b).total_cmp(&self.waited(a)))
        });
        best.map(|(index, _)| index)
    }
}

/// Blind draws before the open ones are counted.
const TRIES: usize = 8;
