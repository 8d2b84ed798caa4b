//! A moment as whole milliseconds, because states are written often and read by machines.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(crate::series::millis(*value))
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_millis)
}

/// The same moment without what a state does not keep of it.
pub(crate) fn whole(at: Duration) -> Duration {
    Duration::from_millis(crate::series::millis(at))
}
