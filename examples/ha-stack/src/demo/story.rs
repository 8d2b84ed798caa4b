//! The story in its order, and the helpers that its chapters share.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};

use super::verdict::{Promises, Verdict};
use super::visitor::{Ledger, Miss, Visitor};
use super::{Pace, faults, scaling};
use crate::platform::{Platform, Replica, StackSpec, hosts, usable};
use crate::progress::Progress;

/// The story under way.
pub struct Story<'a> {
    pub(super) platform: &'a dyn Platform,
    pub(super) spec: &'a StackSpec,
    pub(super) pace: &'a Pace,
    pub(super) progress: &'a Progress,
    pub(super) verdict: Verdict,
    /// The user who stays logged in from the beginning to the end.
    pub(super) hero: Visitor,
    /// Views that the hero saw acknowledged, and requests of unknown outcome.
    pub(super) hero_views: u64,
    pub(super) hero_unknown: u64,
    hero_lost: bool,
}

impl<'a> Story<'a> {
    /// Tells the whole story on a started platform.
    ///
    /// # Errors
    /// When not even a client can be built. What the stack does not do is in the verdict as a broken promise.
    pub async fn tell(
        platform: &'a dyn Platform,
        spec: &'a StackSpec,
        pace: &'a Pace,
        progress: &'a Progress,
    ) -> Result<Verdict> {
        let hero = Visitor::new("ada", platform.site(), pace.patience)?;
        let verdict = Verdict { platform: platform.name().into(), ..Verdict::default() };
        let mut story = Self {
            platform,
            spec,
            pace,
            progress,
            verdict,
            hero,
            hero_views: 0,
            hero_unknown: 0,
            hero_lost: false,
        };
        if let Err(error) = story.chapters().await {
            // Nothing after a step that was not reached would mean anything.
            story.verdict.broken.push(format!("the story ended early: {error:#}"));
        }
        Ok(story.close().await)
    }

    async fn chapters(&mut self) -> Result<()> {
        self.wait_for("2 replicas on different hosts", |s| usable(s).count() == 2 && hosts(s).len() == 2)
            .await?;
        self.log_in().await?;
        scaling::by_hand(self).await?;
        faults::two_replicas(self).await?;
        faults::one_replica(self).await?;
        scaling::by_load(self).await?;
        if self.pace.zero {
            scaling::to_zero(self).await?;
        }
        Ok(())
    }

    async fn log_in(&mut self) -> Result<()> {
        self.progress.heading("A user logs in and views the page");
        self.hero.log_in().await?;
        self.progress.line(format!("{} is logged in through {}", "ada", self.platform.site()));
        self.verdict.requests += 1;
        let page = self.hero.page().await;
        let page = page.map_err(|miss| anyhow!("the page could not be viewed: {miss:?}"))?;
        self.hero_views += 1;
        for shown in ["ada", "id=views", "id=instance", "id=host"] {
            ensure!(page.contains(shown), "the page does not show {shown:?}");
        }
        self.progress.line("the page shows the user, the count, and which instance and host answered");
        let seen = self.views(2).await?;
        self.progress.line(format!("successive views came from {}", join(&seen)));
        Ok(())
    }

    /// The hero views the page until `instances` of them have answered; returns their names.
    pub(super) async fn views(&mut self, instances: usize) -> Result<BTreeSet<String>> {
        let mut seen = BTreeSet::new();
        for _ in 0..VIEWS_AT_MOST {
            let Some(view) = self.hero_view().await else {
                ensure!(!self.hero_lost, "ada was logged out");
                continue;
            };
            if self.hero_views <= 5 {
                let line = format!(
                    "view {} of {}: answered by {} on {}",
                    view.views, "ada", view.instance, view.host
                );
                self.progress.line(line);
            }
            seen.insert(view.instance);
            if seen.len() >= instances {
                return Ok(seen);
            }
        }
        bail!(
            "{VIEWS_AT_MOST} views came from {} instances only, {}, where {instances} were wanted",
            seen.len(),
            join(&seen)
        )
    }

    /// One view of the hero's, with everything that may be wrong about it noted.
    pub(super) async fn hero_view(&mut self) -> Option<super::visitor::View> {
        if self.hero_lost {
            return None;
        }
        self.verdict.requests += 1;
        match self.hero.view().await {
            Ok(view) => {
                self.hero_views += 1;
                let (least, most) = (self.hero_views, self.hero_views + self.hero_unknown);
                if !(least..=most).contains(&view.views) {
                    let line = format!("view {} was counted as {}", self.hero_views, view.views);
                    self.verdict.broken.push(line);
                    // From here on the site's own count goes on, so that one fault is told once.
                    self.verdict.lost_views += least.saturating_sub(view.views);
                    self.verdict.doubled_views += view.views.saturating_sub(most);
                    self.hero_views = view.views;
                }
                Some(view)
            }
            Err(Miss::LoggedOut) => {
                self.verdict.lost_sessions += 1;
                self.hero_lost = true;
                None
            }
            Err(Miss::Failed(kind)) => {
                self.hero_unknown += 1;
                self.verdict.failed_requests += 1;
                *self.verdict.failed_by_kind.entry(kind).or_default() += 1;
                None
            }
        }
    }

    /// Waits until the stack's status is as wanted; returns how long that took.
    pub(super) async fn wait_for(&self, what: &str, is: impl Fn(&[Replica]) -> bool) -> Result<Duration> {
        let step = self.progress.step(format!("waiting for {what}"));
        let mut last = Err(anyhow!("the gateway was never asked"));
        while step.elapsed() < self.pace.deadline {
            last = self.platform.replicas().await;
            if let Ok(replicas) = &last {
                if is(replicas) {
                    let took = step.elapsed();
                    step.done(usable_line(replicas));
                    return Ok(took);
                }
                step.detail(usable_line(replicas));
            }
            tokio::time::sleep(POLL).await;
        }
        let saw = match last {
            Ok(replicas) => usable_line(&replicas),
            Err(error) => format!("{error:#}"),
        };
        bail!("{what}: not reached within {} s; last seen: {saw}", self.pace.deadline.as_secs())
    }

    /// Waits for the same number of replicas in use as wanted.
    pub(super) async fn wait_for_replicas(&self, count: usize) -> Result<Duration> {
        self.wait_for(&format!("{count} replicas in use"), |s| usable(s).count() == count).await
    }

    /// Adds what a crowd lived through to the verdict.
    pub(super) fn add(&mut self, ledger: &Ledger) {
        self.count(ledger.requests, &ledger.failed);
        self.verdict.lost_sessions += ledger.lost_sessions;
        self.verdict.lost_views += ledger.lost_views;
        self.verdict.doubled_views += ledger.doubled_views;
    }

    /// Adds requests, and those of them that failed, by kind.
    pub(super) fn count(&mut self, requests: u64, failed: &BTreeMap<String, u64>) {
        self.verdict.requests += requests;
        for (kind, count) in failed {
            self.verdict.failed_requests += count;
            *self.verdict.failed_by_kind.entry(kind.clone()).or_default() += count;
        }
    }

    async fn close(mut self) -> Verdict {
        self.progress.heading("The verdict");
        // Who never got in can't be logged out.
        let was_in = self.hero_views + self.hero_unknown > 0;
        if was_in && self.hero_view().await.is_some() {
            let line = format!("ada is still logged in; {} views acknowledged and counted", self.hero_views);
            self.progress.line(line);
        }
        match self.platform.decisions().await {
            Ok(decisions) => {
                let (up, down) =
                    (decisions.iter().any(|d| d.from < d.to), decisions.iter().any(|d| d.from > d.to));
                if self.verdict.scale_out_seconds.is_some() && !(up && down) {
                    self.verdict
                        .broken
                        .push("the scaler's journal lacks its decision to add or to remove".into());
                }
                // What was held, and why, stays in the journal.
                let changes = decisions.into_iter().filter(|d| d.from != d.to);
                self.verdict.decisions = changes.map(|d| d.sentence).collect();
            }
            Err(error) => {
                self.verdict.broken.push(format!("the scaler's decisions can't be read: {error:#}"));
            }
        }
        self.verdict.judge(Promises {
            outage: self.pace.outage_promise,
            scale_out: self.pace.scale_out_promise,
            floor: self.spec.min,
            front: self.pace.front,
        });
        self.verdict
    }
}

/// The instances that take traffic.
pub(super) fn instances(replicas: &[Replica]) -> BTreeSet<String> {
    usable(replicas).map(|r| r.instance.clone()).collect()
}

pub(super) fn join(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Waits, with a deadline, until `seconds` have a value; polls in small steps.
pub(super) async fn timed(
    since: Instant,
    deadline: Duration,
    mut is: impl AsyncFnMut() -> bool,
) -> Option<f64> {
    while since.elapsed() < deadline {
        if is().await {
            return Some(since.elapsed().as_secs_f64());
        }
        tokio::time::sleep(FINE_POLL).await;
    }
    None
}

fn usable_line(replicas: &[Replica]) -> String {
    let usable: Vec<String> = usable(replicas).map(|r| format!("{} on {}", r.instance, r.host)).collect();
    let others: Vec<String> =
        replicas.iter().filter(|r| !r.usable).map(|r| format!("{} {}", r.instance, r.state)).collect();
    let mut line = if usable.is_empty() { "no replica in use".into() } else { usable.join(", ") };
    if !others.is_empty() {
        line.push_str(&format!(" (not in use: {})", others.join(", ")));
    }
    line
}

const VIEWS_AT_MOST: usize = 200;
const POLL: Duration = Duration::from_millis(200);
const FINE_POLL: Duration = Duration::from_millis(50);
