//! The demo: one story, told on every platform, with real requests, and a verdict at its end.

use std::time::Duration;

pub mod faults;
pub mod scaling;
pub mod story;
pub mod verdict;
pub mod visitor;

pub use story::Story;
pub use verdict::Verdict;

/// How the story is told. Sizes that a two-core laptop can bear beside everything else.
#[derive(Clone, Debug)]
pub struct Pace {
    /// Users who view the page during the power-offs.
    pub visitors: usize,
    /// How often a user views the page.
    pub every: Duration,
    /// How long a user waits for an answer.
    pub patience: Duration,
    /// Requests in flight at once when the load rises.
    pub surge: usize,
    /// How long one request of the surge keeps a replica busy, in milliseconds.
    pub work_ms: u64,
    /// How long the stack may take for each change before the story gives up on it.
    pub deadline: Duration,
    /// Seconds within which a site with one replica must be back.
    pub outage_promise: f64,
    /// Seconds within which added capacity must be in use.
    pub scale_out_promise: f64,
    /// How long the number of replicas may take to fall back after the load.
    pub calm_deadline: Duration,
    /// Whether power-offs are part of the story.
    pub faults: bool,
    /// Whether the idle site's way to zero and back is part of the story.
    pub zero: bool,
    /// What stands between users and replicas when it is not our gateways.
    pub front: Option<&'static str>,
}

impl Pace {
    /// What so many users do.
    pub fn habits(&self, visitors: usize) -> visitor::Habits {
        visitor::Habits { visitors, every: self.every, patience: self.patience, posts: None }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            visitors: 8,
            every: Duration::from_millis(100),
            patience: Duration::from_secs(30),
            surge: 45,
            work_ms: 100,
            deadline: Duration::from_secs(60),
            outage_promise: 10.0,
            scale_out_promise: 15.0,
            calm_deadline: Duration::from_secs(120),
            faults: true,
            zero: false,
            front: None,
        }
    }
}
