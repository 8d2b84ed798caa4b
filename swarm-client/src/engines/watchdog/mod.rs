//! The watchdog: what was on an engine that is lost is started elsewhere, by the same configuration, and when the engine is back its
//! copies there are removed.
//!
//! [`Roster`] decides, without I/O; [`Watchdog`] looks and acts, while its [`Lease`] says that it leads. A lease can't fence an
//! engine: a leader that was paused in the middle of a move may still finish it after another one has taken over. The next look
//! then finds two copies and removes one.

mod roster;
#[cfg(test)]
mod world;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

use super::error::PoolError;
use super::pool::{EnginePool, Located};
use super::view::{Engine, EngineId};

pub use roster::{Action, Decision, Roster, WatchdogPolicy};

/// Says whether this process leads. Others may do so by a lock in a registry; a single watchdog is [`Alone`].
pub trait Lease: Send + Sync {
    /// The term of this process' leadership: higher for each later leader; `None` while another one leads or nobody.
    fn term(&self) -> Option<u64>;
}

/// The only watchdog there is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Lease for Alone {
    fn term(&self) -> Option<u64> {
        Some(0)
    }
}

/// Where a roster is kept between watchdogs.
#[async_trait]
pub trait RosterStore: Send + Sync {
    /// What was saved last; `None` if nothing was.
    async fn load(&self) -> Result<Option<Roster>, StoreError>;
    /// Saves it, as the leader of this term.
    async fn save(&self, roster: &Roster, term: u64) -> Result<(), StoreError>;
}

/// Why a roster can't be loaded or saved.
pub type StoreError = Box<dyn std::error::Error + Send + Sync>;

/// A roster in memory: a watchdog that starts anew knows what it sees.
#[derive(Debug, Default)]
pub struct MemoryRoster(Mutex<Option<Roster>>);

#[async_trait]
impl RosterStore for MemoryRoster {
    async fn load(&self) -> Result<Option<Roster>, StoreError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn save(&self, roster: &Roster, _term: u64) -> Result<(), StoreError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(roster.clone());
        Ok(())
    }
}

/// Watches a pool.
///
/// ```no_run
/// # async fn run(pool: swarm_client::engines::EnginePool) {
/// use std::sync::Arc;
/// use swarm_client::engines::{Alone, MemoryRoster, Watchdog};
///
/// let mut watchdog = Watchdog::new(pool, Arc::new(Alone), Arc::new(MemoryRoster::default()));
/// loop {
///     let round = watchdog.round().await;
///     println!("{round}");
///     tokio::time::sleep(std::time::Duration::from_secs(1)).await;
/// }
/// # }
/// ```
pub struct Watchdog {
    pool: EnginePool,
    lease: Arc<dyn Lease>,
    store: Arc<dyn RosterStore>,
    policy: WatchdogPolicy,
    /// The roster of the term in which it was loaded.
    led: Option<(u64, Roster)>,
}

/// What a round came to.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Round {
    /// Whether this process led.
    pub led: bool,
    /// The engines as they were seen; empty where it did not lead.
    pub engines: Vec<Engine>,
    /// What was done.
    pub done: Vec<String>,
    /// What was held back or failed, a sentence each.
    pub held: Vec<String>,
    /// Names of engines that are lost.
    pub lost: Vec<String>,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.led {
            return f.write_str("not the leader");
        }
        let reached = self.engines.iter().filter(|engine| engine.reached).count();
        write!(f, "{reached} of {} engines answer", self.engines.len())?;
        self.done.iter().chain(&self.held).try_for_each(|line| write!(f, "; {line}"))
    }
}

impl Watchdog {
    /// A watchdog with the default policy.
    #[must_use]
    pub fn new(pool: EnginePool, lease: Arc<dyn Lease>, store: Arc<dyn RosterStore>) -> Self {
        Self { pool, lease, store, policy: WatchdogPolicy::default(), led: None }
    }

    /// With this policy.
    #[must_use]
    pub fn policy(mut self, policy: WatchdogPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// One look and what follows from it. Call it about once a second; a round that can't be played says so and changes nothing.
    pub async fn round(&mut self) -> Round {
        let Some(term) = self.lease.term() else {
            self.led = None;
            return Round::default();
        };
        let mut round = Round { led: true, ..Round::default() };
        let mut roster = match self.roster_of(term).await {
            Ok(roster) => roster,
            Err(error) => {
                round.held.push(format!("the roster can't be read, so nothing is done: {error}"));
                return round;
            }
        };
        let before = roster.clone();
        self.pool.look_also_at(roster.engines());
        round.engines = match self.pool.refresh().await {
            Ok(engines) => engines,
            Err(error) => {
                round.held.push(error.to_string());
                return round;
            }
        };
        let decision = roster.decide(&self.policy, &round.engines, now());
        round.held.extend(decision.held);
        round.lost = roster.lost(&self.policy).map(str::to_owned).collect();
        for action in decision.actions {
            if self.lease.term() != Some(term) {
                round.held.push("another one leads now; the rest is left to it".to_owned());
                break;
            }
            let learning = matches!(action, Action::Learn { .. });
            match self.act(&mut roster, &round.engines, &action).await {
                Ok(()) if learning => {}
                Ok(()) => {
                    tracing::warn!(%action, "done");
                    round.done.push(action.to_string());
                }
                Err(error) => {
                    tracing::warn!(%action, %error, "not done");
                    round.held.push(format!("{action}: {error}"));
                }
            }
        }
        if worth_saving(&before, &roster)
            && let Err(error) = self.store.save(&roster, term).await
        {
            // What is done is done, and found again by looking; the store is tried again in the next round.
            round.held.push(format!("the roster can't be saved: {error}"));
        }
        self.led = Some((term, roster));
        round
    }

    async fn roster_of(&mut self, term: u64) -> Result<Roster, StoreError> {
        if let Some((of, roster)) = self.led.take()
            && of == term
        {
            return Ok(roster);
        }
        let mut roster = self.store.load().await?.unwrap_or_default();
        roster.taken_over();
        Ok(roster)
    }

    async fn act(&self, roster: &mut Roster, engines: &[Engine], action: &Action) -> Result<(), PoolError> {
        let located = |engine: &EngineId, container: &str| {
            let engine = engines.iter().find(|there| there.id == *engine);
            let there = engine.and_then(|engine| {
                Some(Located::new(engine, engine.containers.iter().find(|there| there.id == *container)?))
            });
            there.ok_or_else(|| PoolError::NotFound {
                name: container.to_owned(),
                reached: engines.len(),
                unreached: 0,
            })
        };
        match action {
            Action::Learn { swarm_id, engine, container } => {
                let spec = self.pool.spec_of(&located(engine, container)?).await?;
                roster.learned(swarm_id, spec);
            }
            Action::Move { swarm_id, from, spec } => {
                match self.pool.run_away_from(spec.clone(), std::slice::from_ref(from)).await {
                    Ok(placed) => roster.moved(swarm_id, &placed.engine),
                    Err(error) => {
                        roster.failed(swarm_id, &self.policy, now());
                        return Err(error);
                    }
                }
            }
            Action::Start { engine, container, .. } => {
                self.pool.start_at(&located(engine, container)?).await?;
            }
            Action::Remove { engine, container, .. } => {
                self.pool.remove_at(&located(engine, container)?, None).await?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Watchdog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watchdog")
            .field("pool", &self.pool)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// Counted failures alone are not: whoever takes a roster over counts anew.
fn worth_saving(before: &Roster, after: &Roster) -> bool {
    let plain = |roster: &Roster| {
        let mut roster = roster.clone();
        roster.taken_over();
        roster
    };
    plain(before) != plain(after)
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
