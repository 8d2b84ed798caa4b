//! Hours in which a service has other bounds.

use serde::{Deserialize, Serialize};

use super::cron::Cron;

/// Other bounds from one moment to another, again and again (KEDA's `cron` trigger, Nomad's `schedule`). The window is
/// open when its next end comes before its next start. Windows that overlap all count: the highest minimum, the lowest
/// maximum; the maximum wins. With a rule for [`Zero`](super::Zero) an open window with a minimum counts as activity: it
/// wakes an idle service without any reading, and keeps it from going idle before it closes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleWindow {
    /// When it opens.
    pub start: Cron,
    /// When it closes.
    pub end: Cron,
    /// The offset of the local time that `start` and `end` mean from UTC, in minutes, east positive. There is no
    /// daylight saving time in it.
    #[serde(default)]
    pub utc_offset_minutes: i32,
    /// At least so many while it is open, if that is more than the policy's minimum.
    #[serde(default)]
    pub min: Option<u32>,
    /// At most so many while it is open, if that is less than the policy's maximum.
    #[serde(default)]
    pub max: Option<u32>,
}

impl ScheduleWindow {
    /// Whether it is open. `now` is Unix time.
    pub(crate) fn is_open(&self, now: std::time::Duration) -> bool {
        let offset = i64::from(self.utc_offset_minutes);
        let minute = i64::try_from(now.as_secs() / 60).unwrap_or(i64::MAX).saturating_add(offset);
        match (self.start.next_after(minute), self.end.next_after(minute)) {
            (Some(start), Some(end)) => end <= start,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Thursday 1 January 1970 is day 0.
    fn at(day: u64, hour: u64, minute: u64) -> Duration {
        Duration::from_secs(((day * 24 + hour) * 60 + minute) * 60)
    }

    fn window(start: &str, end: &str, offset: i32) -> ScheduleWindow {
        let cron = |text: &str| text.parse::<Cron>().unwrap();
        ScheduleWindow {
            start: cron(start),
            end: cron(end),
            utc_offset_minutes: offset,
            min: Some(5),
            max: None,
        }
    }

    #[test]
    fn a_window_is_open_from_its_start_to_its_end() {
        let office = window("0 8 * * mon-fri", "30 18 * * 1-5", 0);
        assert!(!office.is_open(at(0, 7, 59)), "Thursday before eight");
        assert!(office.is_open(at(0, 8, 0)));
        assert!(office.is_open(at(0, 18, 29)));
        assert!(!office.is_open(at(0, 18, 30)));
        assert!(!office.is_open(at(2, 12, 0)), "Saturday");
        assert!(office.is_open(at(4, 12, 0)), "Monday");
    }

    #[test]
    fn a_window_may_lie_over_midnight_and_in_another_zone() {
        let night = window("0 22 * * *", "0 6 * * *", 0);
        assert!(night.is_open(at(3, 23, 0)) && night.is_open(at(4, 5, 59)));
        assert!(!night.is_open(at(4, 6, 0)));
        let there = window("0 8 * * *", "0 18 * * *", 120);
        assert!(there.is_open(at(0, 6, 0)) && !there.is_open(at(0, 16, 0)));
        // Before the epoch, by the offset.
        assert!(window("0 20 * * *", "0 23 * * *", -180).is_open(at(0, 0, 30)));
    }
}
