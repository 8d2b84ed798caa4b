//! The states of an endpoint and what put it there.

use std::fmt;

use serde::Serialize;

/// Where an endpoint stands.
///
/// `Warming -> Ramping -> Ready <-> Ejected` (back through `Trial`, or by probe); any of them `-> Draining -> gone`.
/// `Ramping` is left out without [`Config::slow_start`](crate::Config::slow_start).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// Waits for its first passed probe.
    Warming,
    /// Picked, with a share that still grows.
    Ramping,
    /// Picked.
    Ready,
    /// Its pause is over: one request at a time tries it.
    Trial,
    /// Not picked.
    Ejected,
    /// Never picked anew; what it has goes on.
    Draining,
}

impl State {
    /// Whether requests are spread over it: ready or ramping.
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Ready | Self::Ramping)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warming => "warming",
            Self::Ramping => "ramping",
            Self::Ready => "ready",
            Self::Trial => "trial",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
        })
    }
}

/// Why an endpoint is in its [`State`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// It is new.
    New,
    /// It recovered.
    Recovered,
    /// It failed, but too few others are usable.
    Needed,
    /// This many connections in a row could not be made.
    ConnectFailures(u32),
    /// This many probes in a row failed.
    ProbesFailed(u32),
    /// It answered a probe that it takes no new requests.
    NotReady,
    /// It answered probes in a row with this status, which is neither a pass nor 503.
    ProbeStatus(u16),
    /// This many requests in a row broke off or were not answered in time.
    Broken(u32),
    /// This many answers in a row were server errors.
    ServerErrors(u32),
    /// This many of a hundred answers were good, clearly fewer than those of the others.
    SuccessRate(u8),
    /// It was told to drain.
    DrainRequested,
    /// It left the set.
    Absent,
}

impl Reason {
    /// Whether nothing can be reached there: attempts in flight on it are better made elsewhere.
    pub fn is_unreachable(self) -> bool {
        matches!(self, Self::ConnectFailures(_) | Self::ProbesFailed(_))
    }

    /// Whether it is about answers, and not about their absence.
    pub(crate) fn is_answered(self) -> bool {
        matches!(self, Self::ServerErrors(_) | Self::SuccessRate(_))
    }

    /// Whether it answers, but badly: subject to the ejection cap.
    pub fn is_failing(self) -> bool {
        matches!(self, Self::Broken(_) | Self::ServerErrors(_) | Self::SuccessRate(_))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("new"),
            Self::Recovered => f.write_str("recovered"),
            Self::Needed => f.write_str("too few others are usable"),
            Self::ConnectFailures(n) => write!(f, "{n} failed connections in a row"),
            Self::ProbesFailed(n) => write!(f, "{n} failed probes in a row"),
            Self::NotReady => f.write_str("it answered a probe that it is not ready"),
            Self::ProbeStatus(status) => write!(f, "it answered probes with status {status}"),
            Self::Broken(n) => write!(f, "{n} requests in a row broke off or got no answer in time"),
            Self::ServerErrors(n) => write!(f, "{n} server errors in a row"),
            Self::SuccessRate(percent) => {
                write!(f, "only {percent} % of its answers were good, clearly fewer than elsewhere")
            }
            Self::DrainRequested => f.write_str("told to drain"),
            Self::Absent => f.write_str("left the set"),
        }
    }
}
