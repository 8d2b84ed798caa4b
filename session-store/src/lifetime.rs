//! How long a session lives: idle and absolute, both at once (OWASP ASVS 5.0, 7.3.1 and 7.3.2). Pure functions of a given wall clock.

use std::time::Duration;

/// Milliseconds since the Unix epoch: the clock that hosts share. Their skew shortens or lengthens lifetimes by as much.
pub type UnixMillis = u64;

/// Idle and absolute lifetime of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// A session that nobody used for this long has ended.
    pub idle: Duration,
    /// A session ends this long after log-in, used or not.
    pub absolute: Duration,
}

impl Lifetime {
    /// When a session created and last used at these times ends.
    #[must_use]
    pub fn deadline(&self, created_at: UnixMillis, touched_at: UnixMillis) -> UnixMillis {
        let idle = touched_at.saturating_add(millis(self.idle));
        idle.min(created_at.saturating_add(millis(self.absolute)))
    }

    /// Whether enough of the idle time is used up (a tenth) that it is worth a write to renew it.
    #[must_use]
    pub fn touch_is_due(&self, touched_at: UnixMillis, now: UnixMillis) -> bool {
        now.saturating_sub(touched_at) > millis(self.idle) / TOUCH_SHARE
    }
}

impl Default for Lifetime {
    /// 3000 s idle, 24 h absolute (the bound of NIST SP 800-63B for its second level).
    fn default() -> Self {
        Self { idle: Duration::from_secs(3000), absolute: Duration::from_secs(24 * 3600) }
    }
}

/// A duration in whole milliseconds; what does not fit is the largest number.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The wall clock now. Only stores and layers call it; the rules take `now`.
#[must_use]
pub fn unix_now() -> UnixMillis {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, millis)
}

/// A touch is written when more than 1/10 of the idle time has passed, so that a read-only request is mostly one read.
const TOUCH_SHARE: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_of_both_deadlines_counts() {
        let life = Lifetime { idle: Duration::from_secs(10), absolute: Duration::from_secs(60) };
        assert_eq!(life.deadline(0, 0), 10_000);
        assert_eq!(life.deadline(0, 55_000), 60_000);
        assert_eq!(life.deadline(u64::MAX, u64::MAX), u64::MAX);
        assert!(!life.touch_is_due(5_000, 6_000));
        assert!(life.touch_is_due(5_000, 6_001));
        assert!(!life.touch_is_due(5_000, 0), "a clock that went back is no reason to write");
    }
}
