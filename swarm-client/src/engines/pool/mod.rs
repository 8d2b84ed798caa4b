//! The pool: real engines under the scheduler.
//!
//! Containers are created and read as JSON, so that a container that is started elsewhere keeps each field of its configuration;
//! logs and events go through bollard.

mod events;
mod find;
mod run;
mod site;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use self::site::{Reach, Site};
use super::discovery::Discovery;
use super::error::DiscoveryError;
use super::scheduler::Scheduler;
use super::view::{Container, Engine, EngineId};
use super::wire;

pub use events::{PoolEvent, PoolEvents};
pub use find::{Located, LogChunk, LogOptions};
pub use run::{Placed, Scaled};

/// A pool of engines; cheap to clone.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use swarm_client::engines::{ContainerSpec, EnginePool, Scheduler, StaticNodes, Strategy};
///
/// let engines = StaticNodes::new("198.18.0.[11:13]:2375")?;
/// let pool = EnginePool::new(Arc::new(engines), Scheduler::new(Strategy::Spread));
/// let web = ContainerSpec::new("web.1", "web:1").publish(80, None).service("web").reschedule();
/// let placed = pool.run(web).await?;
/// println!("{placed}"); // "h2/web.1"
/// pool.scale("web", 3, None).await?;
/// for there in pool.list().await? {
///     println!("{there} {}", there.container.state);
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct EnginePool {
    inner: Arc<Inner>,
}

struct Inner {
    discovery: Arc<dyn Discovery>,
    scheduler: Scheduler,
    reach: Reach,
    sites: Mutex<BTreeMap<String, Arc<Site>>>,
    desk: Mutex<Desk>,
    /// Addresses to look at although they may not be listed any more.
    also: Mutex<Vec<String>>,
    seed: AtomicU64,
}

/// What placements are made on.
#[derive(Default)]
struct Desk {
    engines: Vec<Engine>,
    looked: Option<Instant>,
    pending: BTreeMap<u64, Pending>,
    tickets: u64,
}

/// A container for which an engine was chosen, until a look at the engine can have seen it.
struct Pending {
    engine: EngineId,
    container: Container,
    settled: Option<Instant>,
}

impl Desk {
    /// The engines, with the containers that are on their way.
    fn view(&self) -> Vec<Engine> {
        let mut engines = self.engines.clone();
        for pending in self.pending.values() {
            if let Some(engine) = engines.iter_mut().find(|engine| engine.id == pending.engine)
                && !engine.containers.iter().any(|there| there.name == pending.container.name)
            {
                engine.containers.push(pending.container.clone());
            }
        }
        engines
    }

    /// Takes over a look that began at `began`, unless a later one is here. What was settled before it began is in it.
    fn take(&mut self, engines: Vec<Engine>, began: Instant) {
        if self.looked.is_some_and(|looked| looked > began) {
            return;
        }
        self.engines = engines;
        self.looked = Some(began);
        self.pending.retain(|_, pending| pending.settled.is_none_or(|settled| settled >= began));
    }
}

impl EnginePool {
    /// A pool of the engines that `discovery` lists. Nothing is asked yet.
    #[must_use]
    pub fn new(discovery: Arc<dyn Discovery>, scheduler: Scheduler) -> Self {
        Self::with_limit(discovery, scheduler, LOOK_LIMIT)
    }

    /// The same, where an engine to which no connection comes about within `limit` (1 s in [`EnginePool::new`]), or that takes three
    /// times as long for its answer, counts as not reached.
    #[must_use]
    pub fn with_limit(discovery: Arc<dyn Discovery>, scheduler: Scheduler, limit: Duration) -> Self {
        let reach = Reach {
            limit: limit.max(Duration::from_millis(1)),
            #[cfg(feature = "tls")]
            tls: None,
        };
        Self::reached_by(discovery, scheduler, reach)
    }

    fn reached_by(discovery: Arc<dyn Discovery>, scheduler: Scheduler, reach: Reach) -> Self {
        let inner = Inner {
            discovery,
            scheduler,
            reach,
            sites: Mutex::default(),
            desk: Mutex::default(),
            also: Mutex::default(),
            seed: AtomicU64::new(rand::random()),
        };
        Self { inner: Arc::new(inner) }
    }

    /// A pool of the same engines with another scheduler, which knows nothing of what this one has under way.
    #[must_use]
    pub fn with_scheduler(&self, scheduler: Scheduler) -> Self {
        Self::reached_by(Arc::clone(&self.inner.discovery), scheduler, self.inner.reach.clone())
    }

    /// A pool of the same engines, reached by TLS with these certificates; it knows nothing of what this one has under way.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_tls(&self, tls: crate::tls::Tls) -> Self {
        let reach = Reach { tls: Some(tls), ..self.inner.reach.clone() };
        Self::reached_by(Arc::clone(&self.inner.discovery), self.inner.scheduler.clone(), reach)
    }

    /// The scheduler.
    #[must_use]
    pub fn scheduler(&self) -> &Scheduler {
        &self.inner.scheduler
    }

    /// Looks at every engine, all at once. One that does not answer is in the list as it was seen last, not reached.
    ///
    /// # Errors
    /// When the engines are not known and never were.
    pub async fn refresh(&self) -> Result<Vec<Engine>, DiscoveryError> {
        let began = Instant::now();
        let sites = match self.inner.discovery.engines().await {
            Ok(mut listed) => {
                listed.extend(lock(&self.inner.also).iter().cloned());
                self.keep(listed)
            }
            Err(error) => {
                let known: Vec<Arc<Site>> = lock(&self.inner.sites).values().cloned().collect();
                if known.is_empty() {
                    return Err(error);
                }
                tracing::warn!(%error, engines = known.len(), "going on with the engines that are known");
                known
            }
        };
        let mut engines: Vec<Engine> = Vec::new();
        for engine in join_all(sites.iter().map(|site| site.look())).await {
            match engines
                .iter()
                .find(|known| known.reached && engine.reached && wire::same_machine(known, &engine))
            {
                Some(known) => {
                    tracing::warn!(engine = %engine.id, same = %known.id, "two addresses lead to one engine; the first is used");
                }
                None => engines.push(engine),
            }
        }
        let mut desk = lock(&self.inner.desk);
        desk.take(engines, began);
        Ok(desk.view())
    }

    /// Looks at these engines too from now on, instead of those of the last call: ones that may run something although they are
    /// no longer listed, such as an engine that is lost.
    pub fn look_also_at<'a>(&self, engines: impl IntoIterator<Item = &'a EngineId>) {
        let addrs = engines.into_iter().map(|id| id.addr().to_owned()).filter(|addr| !addr.is_empty());
        *lock(&self.inner.also) = addrs.collect();
    }

    /// The engines as they were seen within the last second, looked at anew if need be.
    async fn recent(&self) -> Result<(), DiscoveryError> {
        let looked = lock(&self.inner.desk).looked;
        if looked.is_none_or(|looked| looked.elapsed() > MAX_AGE) {
            self.refresh().await?;
        }
        Ok(())
    }

    fn keep(&self, mut listed: Vec<String>) -> Vec<Arc<Site>> {
        listed.sort();
        listed.dedup();
        let mut sites = lock(&self.inner.sites);
        sites.retain(|addr, _| listed.contains(addr));
        for addr in listed {
            let reach = self.inner.reach.clone();
            sites.entry(addr.clone()).or_insert_with(|| Arc::new(Site::new(addr, reach)));
        }
        sites.values().cloned().collect()
    }

    fn site(&self, id: &EngineId) -> Option<Arc<Site>> {
        let sites = lock(&self.inner.sites);
        sites.get(id.addr()).cloned().or_else(|| sites.values().find(|site| site.is(id)).cloned())
    }

    fn next_seed(&self) -> u64 {
        self.inner.seed.fetch_add(1, Ordering::Relaxed)
    }
}

impl fmt::Debug for EnginePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnginePool")
            .field("discovery", &self.inner.discovery)
            .field("scheduler", &self.inner.scheduler)
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An engine that answered within the second is as good as one that is asked again.
const MAX_AGE: Duration = Duration::from_secs(1);
/// A host that has power takes a connection in milliseconds, however busy it is.
const LOOK_LIMIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::super::testing::{container, engine};
    use super::*;

    #[test]
    fn a_pending_container_is_seen_until_a_look_must_have_seen_it() {
        let mut desk = Desk::default();
        let (before, after) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        desk.take(vec![engine("h1")], before);
        let pending = Pending { engine: engine("h1").id, container: container("web.1"), settled: None };
        desk.pending.insert(1, pending);
        assert_eq!(desk.view()[0].containers.len(), 1);
        desk.take(vec![engine("h1")], after);
        assert_eq!(desk.view()[0].containers.len(), 1, "it is still on its way");
        desk.pending.get_mut(&1).unwrap().settled = Some(after);
        // A look that began earlier may have missed it, and is not taken over a later one either.
        desk.take(vec![], before);
        assert_eq!(desk.view()[0].containers.len(), 1);
        desk.take(vec![engine("h1")], after + Duration::from_secs(1));
        assert!(desk.view()[0].containers.is_empty() && desk.pending.is_empty());
    }
}
