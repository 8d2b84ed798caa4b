//! The verbs that change something: run, scale, remove.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::super::error::PoolError;
use super::super::filter::Filter;
use super::super::requirements::Requirements;
use super::super::spec::ContainerSpec;
use super::super::view::{Container, Engine, EngineId};
use super::super::{labels, wire};
use super::{EnginePool, Located, Pending, lock};

/// A container that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Placed {
    /// The engine.
    pub engine: EngineId,
    /// The engine's name.
    pub host: String,
    /// The container's name.
    pub name: String,
    /// Its id on that engine.
    pub id: String,
    /// The id that is the same wherever it runs.
    pub swarm_id: String,
    /// Whether wishes were ignored, because no engine fulfils them all.
    pub relaxed: bool,
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.name)
    }
}

/// What a scaling did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Scaled {
    /// Replicas that were started.
    pub started: Vec<Placed>,
    /// Replicas that were removed, as `host/name`.
    pub removed: Vec<String>,
}

impl EnginePool {
    /// Chooses an engine, creates the container there and starts it. Images are not pulled: an engine that lacks the image refuses,
    /// and then those that have it are tried, once. Concurrent runs of this pool see each other's containers before they exist.
    ///
    /// # Errors
    /// [`PoolError::Unplaceable`] when no engine fits, [`PoolError::NameTaken`], and what the engine says. A container that
    /// was created and did not start is removed again.
    pub async fn run(&self, spec: ContainerSpec) -> Result<Placed, PoolError> {
        self.run_away_from(spec, &[]).await
    }

    /// The same, on none of these engines.
    ///
    /// # Errors
    /// As [`EnginePool::run`].
    pub async fn run_away_from(&self, spec: ContainerSpec, avoid: &[EngineId]) -> Result<Placed, PoolError> {
        let spec = match spec.swarm_id() {
            Some(_) => spec,
            None => spec.label(labels::SWARM_ID, format!("{:032x}", rand::random::<u128>())),
        };
        let mut wants = Requirements::of(&spec)?;
        self.recent().await?;
        match self.try_run(&spec, &wants, avoid).await {
            Err(PoolError::Engine(error)) if error.is_not_found() && !wants.names_an_engine() => {
                // The image is not on the chosen engine: on one that has it, then.
                wants.affinities.push(format!("image=={}", wants.image).parse()?);
                match self.try_run(&spec, &wants, avoid).await {
                    Err(PoolError::Unplaceable(_)) => Err(error.into()),
                    other => other,
                }
            }
            other => other,
        }
    }

    async fn try_run(
        &self,
        spec: &ContainerSpec,
        wants: &Requirements,
        avoid: &[EngineId],
    ) -> Result<Placed, PoolError> {
        let (reserved, engine, relaxed) = self.reserve(spec, wants, avoid)?;
        let site = self.site(&engine.id).ok_or_else(|| PoolError::NotFound {
            name: engine.name.clone(),
            reached: 0,
            unreached: 1,
        })?;
        let instance = format!("{}.{:08x}", spec.name(), rand::random::<u32>());
        let id = site.create(&spec.clone().start_as(&engine.name, &instance)).await?;
        if let Err(error) = site.start(&id).await {
            if let Err(left) = site.remove(&id).await {
                tracing::warn!(container = spec.name(), engine = %engine.id, error = %left, "a container that did not start is left");
            }
            return Err(error.into());
        }
        reserved.settle(Some(id.clone()));
        tracing::info!(container = spec.name(), host = %engine.name, relaxed, "started");
        Ok(Placed {
            engine: engine.id,
            host: engine.name,
            name: spec.name().to_owned(),
            id,
            swarm_id: spec.swarm_id().unwrap_or_default().to_owned(),
            relaxed,
        })
    }

    /// Chooses an engine and takes its room, in one step that no other run comes between.
    fn reserve(
        &self,
        spec: &ContainerSpec,
        wants: &Requirements,
        avoid: &[EngineId],
    ) -> Result<(Reserved, Engine, bool), PoolError> {
        let mut desk = lock(&self.inner.desk);
        let mut engines = desk.view();
        let taken = engines.iter().find(|engine| {
            // Another copy of itself, on an engine that is lost, is no other container.
            let other =
                |there: &&Container| there.swarm_id().is_none() || there.swarm_id() != spec.swarm_id();
            engine.containers.iter().filter(other).any(|there| there.name == spec.name())
        });
        if let Some(engine) = taken {
            return Err(PoolError::NameTaken { name: spec.name().to_owned(), engine: engine.name.clone() });
        }
        engines.retain(|engine| !avoid.contains(&engine.id));
        let choice = self.inner.scheduler.select(wants, &engines, self.next_seed())?;
        let (engine, relaxed) = (choice.engine.clone(), choice.relaxed);
        desk.tickets += 1;
        let ticket = desk.tickets;
        let pending = Pending { engine: engine.id.clone(), container: spec.as_pending(wants), settled: None };
        desk.pending.insert(ticket, pending);
        Ok((Reserved { pool: self.clone(), ticket, id: None }, engine, relaxed))
    }

    /// Has `count` replicas of a service run: containers of the label [`labels::SERVICE`], named `service.1`, `service.2`, …
    ///
    /// New ones are made like `like`, or like one that is there. Replicas on engines that do not answer count, as they may run,
    /// and none is removed on their account. Surplus ones go from the fullest engines first. Where `like` is given, replicas on engines
    /// that its conditions no longer allow are replaced: another one is started, and the next call removes them.
    ///
    /// # Errors
    /// When there is none to make them like; otherwise the first failure, after everything was tried.
    pub async fn scale(
        &self,
        service: &str,
        count: u32,
        like: Option<&ContainerSpec>,
    ) -> Result<Scaled, PoolError> {
        self.recent().await?;
        let wants = like.map(Requirements::of).transpose()?;
        let engines = lock(&self.inner.desk).view();
        let replicas = replicas(&engines, service, wants.as_ref());
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let placed = replicas.iter().filter(|replica| !replica.misplaced).count();
        if placed < count {
            return self.add(service, count - placed, &engines, &replicas, like).await;
        }
        let surplus = surplus(replicas, count);
        let removals = surplus.iter().map(|there| self.remove_at(there, None));
        let mut scaled = Scaled::default();
        let mut failed = None;
        for (there, removed) in surplus.iter().zip(join_all(removals).await) {
            match removed {
                Ok(()) => scaled.removed.push(there.to_string()),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(scaled), Err)
    }

    async fn add(
        &self,
        service: &str,
        missing: usize,
        engines: &[Engine],
        replicas: &[Replica],
        like: Option<&ContainerSpec>,
    ) -> Result<Scaled, PoolError> {
        let like = match (like, replicas.iter().find(|replica| replica.there.reached)) {
            (Some(like), _) => like.clone(),
            (None, Some(replica)) => self.spec_of(&replica.there).await?,
            (None, None) => {
                let problem =
                    "no replica answers that new ones could be made like; run the first one".to_owned();
                return Err(PoolError::Spec { name: service.to_owned(), problem });
            }
        };
        // Of those that ended too: a removal that was broken off leaves one.
        let all = engines.iter().flat_map(|engine| &engine.containers);
        let taken: BTreeSet<&str> = all.map(|there| there.name.as_str()).collect();
        let names = (1_u32..).map(|n| format!("{service}.{n}")).filter(|name| !taken.contains(name.as_str()));
        let runs = names.take(missing).map(|name| {
            let id = format!("{:032x}", rand::random::<u128>());
            self.run(like.clone().named(name).service(service).label(labels::SWARM_ID, id))
        });
        let mut scaled = Scaled::default();
        let mut failed = None;
        for run in join_all(runs).await {
            match run {
                Ok(placed) => scaled.started.push(placed),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(scaled), Err)
    }

    /// Stops a container (its own signal, then, after `grace`, the kill) and removes it.
    ///
    /// # Errors
    /// When it is not found or not unique, and what the engine says.
    pub async fn remove(&self, name: &str, grace: Option<Duration>) -> Result<(), PoolError> {
        let there = self.find(name).await?;
        self.remove_at(&there, grace).await
    }

    /// The same for one that was listed.
    ///
    /// # Errors
    /// What the engine says; that it is gone already is none.
    pub async fn remove_at(&self, there: &Located, grace: Option<Duration>) -> Result<(), PoolError> {
        let site = self.site_of(there)?;
        let stopped = match site.stop(&there.container.id, grace).await {
            Ok(()) => site.remove(&there.container.id).await,
            Err(error) => Err(error),
        };
        match stopped {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => {
                let mut desk = lock(&self.inner.desk);
                for engine in desk.engines.iter_mut().filter(|engine| engine.id == there.engine) {
                    engine.containers.retain(|container| container.id != there.container.id);
                }
                desk.pending.retain(|_, pending| pending.container.id != there.container.id);
                drop(desk);
                tracing::info!(container = %there, "removed");
                Ok(())
            }
        }
    }

    /// Starts a container that is there and does not run.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn start_at(&self, there: &Located) -> Result<(), PoolError> {
        Ok(self.site_of(there)?.start(&there.container.id).await?)
    }
}

/// A replica, counted once wherever copies of it are.
struct Replica {
    there: Located,
    load: usize,
    /// Whether it answers on an engine where it would not be placed any more.
    misplaced: bool,
}

/// The replicas of a service, the reachable copy of each where there are several.
fn replicas(engines: &[Engine], service: &str, wants: Option<&Requirements>) -> Vec<Replica> {
    let mut found: BTreeMap<String, Replica> = BTreeMap::new();
    for engine in engines {
        let refuses = |filter: Filter| wants.is_some_and(|wants| filter.check(wants, engine, false).is_err());
        let misplaced = engine.reached && (refuses(Filter::Constraint) || refuses(Filter::Whitelist));
        for container in engine.holding().filter(|there| wire::service(there) == Some(service)) {
            let key = container.swarm_id().unwrap_or(&container.id).to_owned();
            if engine.reached || !found.contains_key(&key) {
                let (there, load) = (Located::new(engine, container), engine.holding().count());
                found.insert(key, Replica { there, load, misplaced });
            }
        }
    }
    found.into_values().collect()
}

/// Which to remove so that `count` of those that answer are left: misplaced ones, then those on the fullest engines, the highest
/// number first.
fn surplus(replicas: Vec<Replica>, count: usize) -> Vec<Located> {
    let is_there = |replica: &Replica| replica.there.reached && !replica.there.container.id.is_empty();
    let mut left: Vec<Replica> = replicas.into_iter().filter(is_there).collect();
    let mut out = Vec::new();
    while left.len() > count {
        let number = |name: &str| name.rsplit('.').next().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
        let first = left.iter().enumerate().max_by_key(|(_, replica)| {
            let same = left.iter().filter(|other| other.there.engine == replica.there.engine).count();
            (replica.misplaced, same, replica.load, number(&replica.there.container.name))
        });
        let Some((at, _)) = first else { break };
        out.push(left.swap_remove(at).there);
    }
    out
}

/// The room taken on an engine. Dropped, it is given back as soon as a look can tell what came of it.
struct Reserved {
    pool: EnginePool,
    ticket: u64,
    id: Option<String>,
}

impl Reserved {
    fn settle(mut self, id: Option<String>) {
        self.id = id;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut desk = lock(&self.pool.inner.desk);
        if let Some(pending) = desk.pending.get_mut(&self.ticket) {
            pending.settled = Some(Instant::now());
            if let Some(id) = self.id.take() {
                pending.container.id = id;
                pending.container.state = super::super::ContainerState::Running;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{container, engine};
    use super::*;

    fn replica(name: &str, id: &str) -> Container {
        let mut there = container(name);
        there.labels =
            [(labels::SERVICE.to_owned(), "web".to_owned()), (labels::SWARM_ID.to_owned(), id.to_owned())]
                .into();
        there
    }

    #[test]
    fn a_replica_with_a_copy_on_a_lost_engine_counts_once_and_the_reachable_one_is_meant() {
        let (mut dead, mut live) = (engine("h1"), engine("h2"));
        dead.reached = false;
        dead.containers = vec![replica("web.1", "a"), replica("web.2", "b")];
        live.containers = vec![replica("web.1", "a"), container("other")];
        let found = replicas(&[live, dead], "web", None);
        let hosts: Vec<&str> = found.iter().map(|r| r.there.host.as_str()).collect();
        assert_eq!(hosts, ["h2", "h1"]);
    }

    #[test]
    fn the_fullest_engine_gives_first_and_none_goes_on_account_of_a_lost_one() {
        let (mut one, mut two, mut lost) = (engine("h1"), engine("h2"), engine("h3"));
        one.containers = vec![replica("web.1", "a"), replica("web.4", "d")];
        two.containers = vec![replica("web.2", "b")];
        lost.containers = vec![replica("web.3", "c")];
        lost.reached = false;
        let engines = [one, two, lost];
        let removed = |count| {
            let surplus = surplus(replicas(&engines, "web", None), count);
            surplus.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(removed(3).is_empty(), "three answer, and three are wanted");
        assert_eq!(removed(2), ["h1/web.4"]);
        assert_eq!(removed(0).len(), 3);
    }

    #[test]
    fn a_replica_where_it_may_no_longer_be_goes_first() {
        let (mut one, mut two) = (engine("h1"), engine("h2"));
        one.containers = vec![replica("web.1", "a"), replica("web.4", "d")];
        two.containers = vec![replica("web.2", "b")];
        let mut asks = super::super::super::testing::wants("web");
        asks.constraints = vec!["node!=h2".parse().unwrap()];
        let found = replicas(&[one, two], "web", Some(&asks));
        assert_eq!(found.iter().filter(|replica| replica.misplaced).count(), 1);
        assert_eq!(surplus(found, 2)[0].to_string(), "h2/web.2");
    }
}
