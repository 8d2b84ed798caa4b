//! What can be picked, and how the set of it changes.

use std::borrow::Borrow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// The identity of an endpoint: the task, not its address.
///
/// A task that comes back under the same id keeps its counters and its health, whatever its address or
/// weight is by then. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointId(Arc<str>);

impl EndpointId {
    /// An id; any text, unique inside a pool.
    pub fn new(id: impl AsRef<str>) -> Self {
        Self(id.as_ref().into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl Borrow<str> for EndpointId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for EndpointId {
    fn from(id: &str) -> Self {
        Self::new(id)
    }
}

impl From<String> for EndpointId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

impl Serialize for EndpointId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// One instance of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// Who it is.
    pub id: EndpointId,
    /// Where it listens.
    pub addr: SocketAddr,
    /// Its share relative to the others, 1 to [`Endpoint::MAX_WEIGHT`].
    pub weight: u32,
    /// The machine that it runs on, when known.
    pub host: Option<String>,
    /// The zone (data centre, room, rack) that it is in, when known.
    pub zone: Option<String>,
}

impl Endpoint {
    /// The greatest weight; greater ones are taken as this one, and 0 as 1.
    pub const MAX_WEIGHT: u32 = 256;

    /// An endpoint with weight 1 on an unknown machine.
    pub fn new(id: impl Into<EndpointId>, addr: SocketAddr) -> Self {
        Self { id: id.into(), addr, weight: 1, host: None, zone: None }
    }

    /// Sets the share relative to the others; clamped to 1..=[`Endpoint::MAX_WEIGHT`].
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = weight.clamp(1, Self::MAX_WEIGHT);
        self
    }

    /// Sets the machine that it runs on.
    #[must_use]
    pub fn host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    /// Sets the zone that it is in.
    #[must_use]
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }
}

/// A change of the set, as a discovery feed tells it.
///
/// An endpoint that leaves is always drained: it is never picked anew, what it is working on goes on, and
/// its counters are forgotten once it is idle.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Update {
    /// The full set. Who is not in it leaves; who was told to drain stays draining although it is in it.
    Reset(Vec<Endpoint>),
    /// One more endpoint, or new data for a known one. Ends a drain of it.
    Add(Endpoint),
    /// This one is gone.
    Remove(EndpointId),
    /// No new picks for this one; it stays listed until it is removed, or absent from a reset.
    Drain(EndpointId),
}

impl Update {
    /// The full set.
    pub fn reset(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        Self::Reset(endpoints.into_iter().collect())
    }
}
