//! Where keys belong: what the two hashing policies share.
//!
//! Places are computed of all members of a tier, usable or not, so that an ejection moves the keys of one endpoint only
//! and costs no computation; they are computed anew when members come, go or change their weight.

use std::sync::Arc;

use super::{Candidates, Choice, Plan};
use crate::endpoint::EndpointId;
use crate::hash::{self, hash};
use crate::slot::Slot;

/// A table or ring of member indices, and where those members are among the usable ones.
#[derive(Debug)]
pub(crate) struct Places {
    members: Arc<Members>,
    /// By member: its index among the usable ones.
    index: Vec<Option<u32>>,
}

#[derive(Debug)]
struct Members {
    weights: Vec<(EndpointId, u32)>,
    map: Map,
}

/// From a hash to a member.
#[derive(Debug)]
pub(super) enum Map {
    /// Maglev: the member at the hash modulo the length.
    Table(Vec<u32>),
    /// Ketama: points and their members, sorted by point.
    Ring(Vec<(u32, u32)>),
}

impl Places {
    pub(super) fn new(
        members: &[Arc<Slot>],
        ready: &[Arc<Slot>],
        old: Option<&Plan>,
        map: impl FnOnce(&[(EndpointId, u32)]) -> Map,
    ) -> Self {
        let mut positions = ready.iter().enumerate().peekable();
        // Both are sorted by id.
        let index = members.iter().map(|member| {
            let (at, _) = positions.next_if(|(_, slot)| slot.id() == member.id())?;
            Some(at as u32)
        });
        let index = index.collect();
        if let Some(Plan::Places(old)) = old {
            let same = old.members.weights.len() == members.len()
                && old
                    .members
                    .weights
                    .iter()
                    .zip(members)
                    .all(|((id, weight), slot)| id == slot.id() && *weight == slot.endpoint.weight);
            if same {
                return Self { members: Arc::clone(&old.members), index };
            }
        }
        let weights: Vec<_> = members.iter().map(|slot| (slot.id().clone(), slot.endpoint.weight)).collect();
        let map = map(&weights);
        Self { members: Arc::new(Members { weights, map }), index }
    }

    /// Where the key of the request belongs, or near it.
    pub(super) fn choose(&self, among: &Candidates<'_>, overload: Option<f32>) -> Option<Choice> {
        let key = among.request.key.unwrap_or_else(|| among.draw.next());
        // Who ramps gets some of its keys back, and more and more of them; a key does not change its mind.
        let ramped = |slot: &Slot| {
            let ramp = among.ramp(slot);
            ramp >= 1.0 || hash::unit(hash::again(key, hash(slot.id().as_str()))) < ramp
        };
        let takes = |member: u32| {
            let index = self.index.get(member as usize).copied().flatten()? as usize;
            let slot = among.get(index)?;
            let fits = overload.is_none_or(|factor| among.fits(slot, factor));
            (among.is_open(slot) && fits && ramped(slot)).then_some(Choice::of(index))
        };
        let found = match &self.members.map {
            Map::Table(table) => {
                let at = |n| {
                    let hash = if n == 0 { key } else { hash::again(key, n) };
                    table.get((hash % table.len().max(1) as u64) as usize).copied()
                };
                (0..TRIES).find_map(|n| takes(at(n)?))
            }
            Map::Ring(ring) => {
                let start = ring.partition_point(|(point, _)| *point < (key >> 32) as u32);
                let after = ring.iter().skip(start).chain(ring.iter().take(start));
                let mut last = u32::MAX;
                let mut tries = 0;
                after.map(|(_, member)| *member).take(POINTS).find_map(|member| {
                    // The next point of the same endpoint, or one more endpoint that is tried.
                    if member == last || tries >= TRIES {
                        return None;
                    }
                    last = member;
                    tries += 1;
                    takes(member)
                })
            }
        };
        // Far too many are out or full: whoever has least to do.
        found.or_else(|| among.least_pending().map(Choice::of))
    }
}

/// Places looked at before whoever has least to do will do.
const TRIES: u64 = 32;
/// Points of the ring looked at.
const POINTS: usize = 4096;
