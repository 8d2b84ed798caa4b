//! The rate limits of a direction, applied to the changes that were observed.

use std::time::Duration;

use crate::policy::{Compat, Direction, RateLimit, Select};
use crate::state::State;
use crate::vote;

/// How far a direction may be gone now, and the rule that says so.
pub(crate) struct Limit {
    pub(crate) count: u32,
    pub(crate) rule: String,
    /// The count at the start of the rule's period.
    pub(crate) start: Option<u32>,
    /// The direction is closed altogether.
    pub(crate) closed: bool,
}

/// The highest count allowed; never below the present one. `None` without a limit.
pub(crate) fn up(
    direction: &Direction,
    state: &State,
    now: Duration,
    current: u32,
    compat: Compat,
) -> Option<Limit> {
    let allowed = |limit: &RateLimit, (lowest, _)| (limit.highest(lowest, compat).max(current), lowest);
    pick(direction, state, now, current, "adding instances is disabled", '+', allowed)
}

/// The lowest count allowed; never above the present one. `None` without a limit.
pub(crate) fn down(
    direction: &Direction,
    state: &State,
    now: Duration,
    current: u32,
    compat: Compat,
) -> Option<Limit> {
    let allowed = |limit: &RateLimit, (_, highest)| (limit.lowest(highest, compat).min(current), highest);
    pick(direction, state, now, current, "removing instances is disabled", '-', allowed)
}

fn pick(
    direction: &Direction,
    state: &State,
    now: Duration,
    current: u32,
    disabled: &str,
    sign: char,
    allowed: impl Fn(&RateLimit, (u32, u32)) -> (u32, u32),
) -> Option<Limit> {
    if direction.select == Select::Disabled {
        return Some(Limit { count: current, rule: disabled.to_owned(), start: None, closed: true });
    }
    let options = direction.limits.iter().map(|limit| {
        let (count, start) = allowed(limit, state.start_of_period(now, limit.period(), current));
        (count, start, limit)
    });
    // The distance from the present count is how permissive a limit is, in either direction.
    let distance = |&(count, ..): &(u32, u32, &RateLimit)| count.abs_diff(current);
    let picked = match direction.select {
        Select::Min => options.min_by_key(distance),
        Select::Max | Select::Disabled => options.max_by_key(distance),
    };
    picked.map(|(count, start, limit)| Limit {
        count,
        rule: phrase(limit, sign),
        start: Some(start),
        closed: false,
    })
}

fn phrase(limit: &RateLimit, sign: char) -> String {
    let period = match limit.period() {
        MINUTE => "a minute".to_owned(),
        period => format!("every {}", vote::seconds(period)),
    };
    match *limit {
        RateLimit::Count { n, .. } => format!("{sign}{n} {period}"),
        RateLimit::Percent { p, .. } => format!("{sign}{p} % {period}"),
    }
}

const MINUTE: Duration = Duration::from_secs(60);
