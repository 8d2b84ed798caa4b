//! Why a pick went where it went.

use std::fmt;

use serde::Serialize;

use crate::endpoint::EndpointId;
use crate::error::PickError;
use crate::state::{Reason, State};

/// One pick, with everybody who was in question.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Explanation {
    /// The name of the policy.
    pub policy: &'static str,
    /// The endpoint that was picked.
    pub picked: Option<EndpointId>,
    /// Every endpoint of the pool, sorted by id.
    pub candidates: Vec<Candidate>,
    /// The refusal as a sentence, when nobody was picked.
    pub refusal: Option<String>,
}

/// One endpoint in an [`Explanation`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Candidate {
    /// Who.
    pub id: EndpointId,
    /// What became of it.
    pub verdict: Verdict,
    /// Requests that it was working on before the pick.
    pub in_flight: u64,
    /// Its latency estimate.
    pub latency_ms: Option<f64>,
}

/// What became of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// Picked by the policy.
    Picked,
    /// Picked because a pause was over and a request had to try it.
    PickedAsTrial,
    /// Picked because the request belongs there.
    PickedByAffinity,
    /// Compared with the winner, and lost.
    Lost,
    /// Usable, but not drawn.
    NotDrawn,
    /// Excluded by the request.
    Excluded,
    /// Usable, with as many requests in flight as it may have.
    Full,
    /// Usable, but farther away than the tier that was drawn from.
    Farther,
    /// Not usable.
    Unusable {
        /// Its state.
        state: State,
        /// Why it is in it.
        reason: Reason,
    },
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.picked, &self.refusal) {
            (Some(id), _) => write!(f, "{id} picked by {}", self.policy)?,
            (None, Some(refusal)) => f.write_str(refusal)?,
            (None, None) => f.write_str("nobody picked")?,
        }
        for candidate in &self.candidates {
            write!(f, "; {} {}", candidate.id, candidate.verdict)?;
            if !matches!(candidate.verdict, Verdict::Unusable { .. }) {
                write!(f, " ({} in flight", candidate.in_flight)?;
                if let Some(latency) = candidate.latency_ms {
                    write!(f, ", {latency:.1} ms")?;
                }
                f.write_str(")")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Picked => f.write_str("picked"),
            Self::PickedAsTrial => f.write_str("picked as a trial"),
            Self::PickedByAffinity => f.write_str("picked by affinity"),
            Self::Full => f.write_str("at its limit"),
            Self::Farther => f.write_str("farther away"),
            Self::Lost => f.write_str("compared and lost"),
            Self::NotDrawn => f.write_str("not drawn"),
            Self::Excluded => f.write_str("excluded by the request"),
            Self::Unusable { state, reason } => write!(f, "{state}: {reason}"),
        }
    }
}

impl Explanation {
    pub(crate) fn refused(mut self, error: &PickError) -> Self {
        self.refusal = Some(error.to_string());
        self
    }
}
