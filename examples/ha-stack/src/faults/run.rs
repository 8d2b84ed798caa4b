//! One fault after the other, each under the same steady load, each on a stack that is whole.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use lab::Lab;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use super::catalog::{AFTER_ELECTION, Fault, Promise, address_moves};
use super::redundancy::{Lost, Watched};
use super::report::{Report, Row};
use super::strike::World;
use crate::demo::visitor::{Crowd, Habits};
use crate::platform::Platform;
use crate::progress::Progress;

/// How the faults are played.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// What the users do: 300 requests a second, one in twenty a POST.
    pub habits: Habits,
    /// Whether each fault lasts only as long as it must.
    pub short: bool,
}

impl Default for Plan {
    fn default() -> Self {
        let habits = Habits {
            visitors: 60,
            every: Duration::from_millis(200),
            // Longer than a request may wait at a gateway.
            patience: Duration::from_secs(25),
            posts: Some(20),
        };
        Self { habits, short: false }
    }
}

impl Plan {
    /// Load before the strike.
    fn warm(&self) -> Duration {
        Duration::from_secs(if self.short { 1 } else { 2 })
    }

    /// Load after the fault was taken back.
    fn settle(&self) -> Duration {
        Duration::from_secs(if self.short { 2 } else { 3 })
    }
}

/// Plays faults in turn.
pub struct Suite<'a> {
    /// What they are done to.
    pub world: World<'a>,
    /// How.
    pub plan: Plan,
    /// Where progress goes.
    pub progress: &'a Progress,
}

impl Suite<'_> {
    /// Plays each of `faults` once.
    ///
    /// # Errors
    /// When the stack does not come back after a fault: what followed would say nothing.
    pub async fn each(&self, faults: &[Fault], report: &mut Report) -> Result<()> {
        for fault in faults {
            report.faults.push(self.one(*fault).await?);
        }
        Ok(())
    }

    /// Draws faults until the time is up. The same seed draws the same faults.
    ///
    /// # Errors
    /// As [`Suite::each`].
    pub async fn random(&self, seed: u64, lasts: Duration, report: &mut Report) -> Result<()> {
        let mut rng = StdRng::seed_from_u64(seed);
        let began = Instant::now();
        while began.elapsed() < lasts {
            let Some(fault) = Fault::ALL.choose(&mut rng) else { break };
            // From nothing to a good pause: what has just settled is hit as well.
            let pause = Duration::from_millis(rng.random_range(0..5000));
            tokio::time::sleep(pause).await;
            report.faults.push(self.one(*fault).await?);
        }
        Ok(())
    }

    async fn one(&self, fault: Fault) -> Result<Row> {
        self.progress.heading(format!("{} ({} s)", fault.name(), fault.lasts(self.plan.short).as_secs()));
        self.whole(fault).await?;
        match self.world.prepare(fault).await {
            Ok(false) => {}
            Ok(true) => self.whole(fault).await?,
            Err(error) => {
                let tidied = self.world.tidy(fault).await;
                self.progress.line(format!("left out: {error:#}"));
                tidied?;
                return Ok(Row::skipped(fault.name(), format!("{error:#}")));
            }
        }
        let crowd = Crowd::gather(&self.world.platform.site(), self.plan.habits).await?;
        tokio::time::sleep(self.plan.warm()).await;

        // Where it is not known, the stricter promise holds.
        let holder = self.world.lab.address_holder().await.ok().flatten();
        let began = Instant::now();
        let struck = match self.world.strike(fault).await {
            Ok(struck) => struck,
            Err(error) => {
                drop(crowd.disperse().await);
                self.world.tidy(fault).await?;
                self.progress.line(format!("left out: {error:#}"));
                return Ok(Row::skipped(fault.name(), format!("{error:#}")));
            }
        };
        self.progress.line(format!("struck: {}", struck.victim));
        let mut row = Row { name: fault.name().into(), victim: struck.victim.clone(), ..Row::default() };
        let mut watched = Watched::default();
        let (lost, wanted) = (struck.lost.clone(), struck.wanted as usize);
        let election = struck.led_swarm.then(|| self.successor(began, &lost, leader));
        let held = holder.is_some_and(|host| lost.hosts.contains(&host));
        let move_of_address = held.then(|| self.successor(began, &lost, holder_of_address));
        let until = began + fault.lasts(self.plan.short);
        self.watch(&mut watched, began, until, wanted, &lost).await;
        while !watched.is_whole() && began.elapsed() < fault.patience(self.plan.short) {
            self.watch(&mut watched, began, Instant::now() + LOOK, wanted, &lost).await;
        }
        row.swarm_leader_seconds = election.and_then(ended);
        row.address_seconds = move_of_address.and_then(ended);
        row.redundancy_seconds = watched.seconds();
        row.said = watched.said();
        if let Some(seconds) = row.redundancy_seconds {
            self.progress.line(format!("whole after {seconds:.1} s"));
        }
        if let Some(seconds) = row.swarm_leader_seconds {
            self.progress.line(format!("the Swarm had a leader again after {seconds:.1} s"));
        }
        if let Some(seconds) = row.address_seconds {
            self.progress.line(format!("the users' address was on another host after {seconds:.1} s"));
        }

        // The users go on while the fault is taken back: that must cost them nothing either.
        let undone = tokio::time::timeout(UNDO, self.world.undo(struck)).await;
        let settled = Instant::now() + self.plan.settle();
        self.watch(&mut Watched::default(), began, settled, wanted, &Lost::default()).await;
        let struck_until = Instant::now();
        let ledger = crowd.disperse().await.with_context(|| format!("the users of {}", fault.name()))?;
        undone.with_context(|| format!("{} was not taken back within {UNDO:?}", fault.name()))??;
        self.world.tidy(fault).await?;

        row.requests = ledger.requests;
        row.failed_gets = ledger.failures();
        row.failed_posts = ledger.failed_posts.values().sum();
        row.lost_sessions = ledger.lost_sessions;
        row.lost_views = ledger.lost_views;
        row.doubled_views = ledger.doubled_views;
        let gap = ledger.longest_gap(began, struck_until).as_millis();
        row.longest_gap_ms = u64::try_from(gap).unwrap_or(u64::MAX);
        for (method, failed) in [("GET", &ledger.failed), ("POST", &ledger.failed_posts)] {
            for (kind, count) in failed {
                row.failed_by_kind.insert(format!("{method}: {kind}"), *count);
            }
        }
        let may_fail = match fault.promise() {
            // Whichever fault takes the host of the users' address takes their connections along.
            Promise::None if !held => 0,
            // Each user has one connection.
            Promise::None | Promise::OnePerConnection => self.plan.habits.visitors as u64,
        };
        let promised = fault.redundancy(self.plan.short);
        let after_election = row.swarm_leader_seconds.map_or(0.0, |elected| elected + AFTER_ELECTION);
        row.judge(may_fail, promised.map(|within| within.max(after_election)));
        if held {
            row.judge_address(address_moves(self.plan.short));
        }
        self.progress.line(format!(
            "{} requests; failed: {} GETs, {} POSTs; nobody served for {:.1} s at most",
            row.requests,
            row.failed_gets,
            row.failed_posts,
            row.longest_gap_ms as f64 / 1000.0
        ));
        for broken in &row.broken {
            self.progress.line(format!("BROKEN: {broken}"));
        }
        Ok(row)
    }

    async fn watch(&self, watched: &mut Watched, began: Instant, until: Instant, wanted: usize, lost: &Lost) {
        while Instant::now() < until {
            let since = began.elapsed();
            let views = self.world.platform.gateway_views().await.unwrap_or_default();
            watched.look(since, &views, wanted, lost);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Seconds from the strike until `who` names a host that is not lost. Ends with what it gives.
    fn successor<F>(&self, began: Instant, lost: &Lost, who: fn(Lab) -> F) -> JoinSet<f64>
    where
        F: Future<Output = Option<String>> + Send + 'static,
    {
        let (lab, lost) = (self.world.lab.clone(), lost.clone());
        let mut asking = JoinSet::new();
        asking.spawn(async move {
            loop {
                if who(lab.clone()).await.is_some_and(|host| !lost.hosts.contains(&host)) {
                    return began.elapsed().as_secs_f64();
                }
                tokio::time::sleep(2 * LOOK).await;
            }
        });
        asking
    }

    /// Waits until everything that the next fault may hit is well: lab, gateways and replicas.
    async fn whole(&self, fault: Fault) -> Result<()> {
        let step = self.progress.step("waiting until everything is well");
        let wanted = self.world.replicas as usize;
        let mut why = String::new();
        let mut well_since: Option<Instant> = None;
        // Swarm moves nothing by itself after a host came back: what a person would do then is done here.
        let (mut crowded_since, mut spread_out) = (None::<Instant>, false);
        let all = wanted.min(self.world.lab.hosts().len());
        while step.elapsed() < WHOLE {
            let hosts = if spread_out { wanted.min(2) } else { all };
            match self.wrong(wanted, hosts).await {
                Some(Wrong::Crowded(why)) if !spread_out => {
                    well_since = None;
                    step.detail(&why);
                    if crowded_since.get_or_insert_with(Instant::now).elapsed() >= CROWDED {
                        spread_out = true;
                        match self.world.platform.rebalance(REBALANCE).await {
                            Ok(moved) => self.progress.line(format!("spread out again: {moved}")),
                            Err(error) => self.progress.line(format!("not spread out: {error:#}")),
                        }
                    }
                }
                None => {
                    let since = *well_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= STEADY {
                        step.done("well");
                        return Ok(());
                    }
                }
                Some(Wrong::Crowded(wrong) | Wrong::Else(wrong)) => {
                    (well_since, crowded_since) = (None, None);
                    step.detail(&wrong);
                    why = wrong;
                }
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        bail!("before {} not everything was well within {} s: {why}", fault.name(), WHOLE.as_secs())
    }

    /// What keeps it from being well with `wanted` replicas on `hosts` hosts.
    async fn wrong(&self, wanted: usize, hosts: usize) -> Option<Wrong> {
        let other = |why: String| Some(Wrong::Else(why));
        let status = match self.world.lab.status().await {
            Ok(status) => status,
            Err(error) => return other(error.to_string()),
        };
        if !status.is_healthy() {
            let bad = status.hosts.iter().flat_map(|host| {
                let parts = [&host.engine, &host.swarm, &host.consul, &host.redis];
                parts.into_iter().filter(|part| !part.ok).map(|part| format!("{}: {}", host.name, part.is))
            });
            return other(bad.collect::<Vec<_>>().join("; "));
        }
        let views = match self.world.platform.gateway_views().await {
            Ok(views) => views,
            Err(error) => return other(format!("{error:#}")),
        };
        if views.len() < self.world.lab.hosts().len() {
            return other(format!("{} gateways answer", views.len()));
        }
        match self.world.lab.address_holder().await {
            Ok(Some(_)) => {}
            Ok(None) => return other("no host holds the users' address".into()),
            Err(error) => return other(error.to_string()),
        }
        let mut crowded = None;
        for view in &views {
            let used = crate::platform::hosts(view).len();
            let usable = crate::platform::usable(view).count();
            let why = format!("a gateway uses {usable} replicas on {used} hosts");
            if usable != wanted {
                return other(why);
            }
            if used < hosts {
                crowded = Some(Wrong::Crowded(why));
            }
        }
        crowded
    }
}

/// Who leads the Swarm, as the managers that are left say.
async fn leader(lab: Lab) -> Option<String> {
    lab.leaders().await.ok()?.swarm
}

async fn holder_of_address(lab: Lab) -> Option<String> {
    lab.address_holder().await.ok()?
}

/// What a task that was to come to its end by now has found.
fn ended(mut asking: JoinSet<f64>) -> Option<f64> {
    asking.try_join_next()?.ok()
}

/// Why a stack is not well.
enum Wrong {
    /// All is there, and on too few hosts.
    Crowded(String),
    Else(String),
}

const LOOK: Duration = Duration::from_millis(100);
/// A manager that was off for long may take a minute to be a full member again.
const UNDO: Duration = Duration::from_secs(150);
const WHOLE: Duration = Duration::from_secs(150);
/// How long replicas are on too few hosts before they are moved: one may be on its way.
const CROWDED: Duration = Duration::from_secs(2);
/// For the moves of a rebalance.
const REBALANCE: Duration = Duration::from_secs(60);
/// Everything must be well for this long.
const STEADY: Duration = Duration::from_secs(1);
