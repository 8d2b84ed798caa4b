//! Fewest requests in flight.

use serde::{Deserialize, Serialize};

use super::{Candidates, Choice, Choose, pressure, turn};

/// Takes the endpoint with the fewest requests in flight per weight; of equal ones, the one chosen longest ago.
///
/// Walks all endpoints on each pick. It knows nothing of latency or failures: an endpoint that fails fast
/// draws traffic until it is ejected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeastPending {}

impl Choose for LeastPending {
    fn choose(&self, among: &Candidates<'_>) -> Option<Choice> {
        let eligible = among.ready.iter().enumerate().filter(|(_, slot)| !among.excluded(slot));
        let best = eligible
            .min_by(|(_, a), (_, b)| pressure(a).total_cmp(&pressure(b)).then_with(|| turn(a).cmp(&turn(b))));
        best.map(|(index, _)| Choice { index, against: None })
    }
}
