//! Fewest requests in flight.

use serde::{Deserialize, Serialize};

use super::{Candidates, Choice, Choose};

/// Takes the endpoint with the fewest requests in flight per share; of equal ones, the one that has waited longest.
///
/// Walks all endpoints on each pick. It knows nothing of latency or failures: an endpoint that fails fast
/// draws traffic until it is ejected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeastPending {}

impl Choose for LeastPending {
    fn choose(&self, among: &Candidates<'_>) -> Option<Choice> {
        among.least_pending().map(Choice::of)
    }
}
