//! The scheduler: which engine runs a container. Pure; the same input gives the same choice.

use super::error::{LeftOut, Unplaceable};
use super::filter::Filter;
use super::requirements::Requirements;
use super::strategy::Strategy;
use super::view::Engine;

/// A strategy, and the filters that engines must pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduler {
    strategy: Strategy,
    filters: Vec<Filter>,
}

/// An engine that was chosen.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Choice<'a> {
    /// The best engine.
    pub engine: &'a Engine,
    /// Whether wishes were ignored, because no engine fulfils them all.
    pub relaxed: bool,
}

impl Scheduler {
    /// With this strategy and every filter.
    #[must_use]
    pub fn new(strategy: Strategy) -> Self {
        Self { strategy, filters: Filter::ALL.to_vec() }
    }

    /// With these filters only, in their usual order. [`Filter::Health`] can't be left out: what does not answer runs nothing.
    #[must_use]
    pub fn filters(mut self, filters: &[Filter]) -> Self {
        let used = |filter: &Filter| *filter == Filter::Health || filters.contains(filter);
        self.filters = Filter::ALL.into_iter().filter(used).collect();
        self
    }

    /// The strategy.
    #[must_use]
    pub fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// The filters in use, in their order.
    #[must_use]
    pub fn used_filters(&self) -> &[Filter] {
        &self.filters
    }

    /// Chooses an engine. First every wish counts like a condition; if no engine is left then, none of them counts. `seed` matters
    /// to [`Strategy::Random`] alone.
    ///
    /// # Errors
    /// When no engine is left without the wishes either, with what each one failed.
    pub fn select<'a>(
        &self,
        wants: &Requirements,
        engines: &'a [Engine],
        seed: u64,
    ) -> Result<Choice<'a>, Unplaceable> {
        for relaxed in [false, true] {
            let passed = engines.iter().filter(|engine| self.objection(wants, engine, !relaxed).is_none());
            if let Some(engine) = self.strategy.rank(wants, passed.collect(), seed).first() {
                return Ok(Choice { engine, relaxed });
            }
        }
        let because = engines.iter().map(|engine| {
            let objection = self.objection(wants, engine, false);
            let (filter, reason) = objection.map_or_else(
                || (None, "no room: processors or memory are reserved".to_owned()),
                |(filter, reason)| (Some(filter), reason),
            );
            LeftOut { engine: engine.name.clone(), filter, reason }
        });
        Err(Unplaceable { container: wants.name.clone(), because: because.collect() })
    }

    /// The first filter that an engine fails, and why.
    fn objection(&self, wants: &Requirements, engine: &Engine, soft: bool) -> Option<(Filter, String)> {
        let failed = |filter: &Filter| Some((*filter, filter.check(wants, engine, soft).err()?));
        self.filters.iter().find_map(failed)
    }
}

impl Default for Scheduler {
    fn default() -> Self {
        Self::new(Strategy::default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};
    use proptest::strategy::Strategy as Generator;

    use super::super::testing::{container, engine, wants};
    use super::super::{Container, ContainerState, HostPort};
    use super::*;

    #[test]
    fn a_pool_of_none_and_one_without_a_fit_say_so() {
        let scheduler = Scheduler::default();
        let error = scheduler.select(&wants("web"), &[], 0).unwrap_err().to_string();
        assert!(error.contains("\"web\"") && error.contains("the pool has none"), "{error}");
        let mut asks = wants("web");
        asks.constraints = vec!["zone==a".parse().unwrap()];
        let mut dead = engine("h2");
        dead.reached = false;
        let error = scheduler.select(&asks, &[engine("h1"), dead], 0).unwrap_err().to_string();
        assert!(error.contains("h1 (constraint: zone==a), h2 (health: it does not answer)"), "{error}");
    }

    #[test]
    fn wishes_count_all_or_nothing() {
        let mut asks = wants("web");
        asks.constraints = vec!["node==~h1".parse().unwrap()];
        let engines = [engine("h1"), engine("h2")];
        let choice = Scheduler::default().select(&asks, &engines, 0).unwrap();
        assert_eq!((choice.engine.name.as_str(), choice.relaxed), ("h1", false));
        asks.affinities = vec!["container==~absent".parse().unwrap()];
        let mut full = engines.clone();
        full[0].containers = vec![container("a")];
        let choice = Scheduler::default().select(&asks, &full, 0).unwrap();
        assert_eq!((choice.engine.name.as_str(), choice.relaxed), ("h2", true));
    }

    #[test]
    fn health_is_always_asked() {
        let mut dead = engine("h1");
        dead.reached = false;
        let scheduler = Scheduler::default().filters(&[Filter::Port]);
        assert_eq!(scheduler.used_filters(), [Filter::Health, Filter::Port]);
        assert!(scheduler.select(&wants("c"), &[dead], 0).is_err());
    }

    fn engines() -> impl Generator<Value = Vec<Engine>> {
        let there = (0_u16..4, 0_u64..700, 0_usize..4, any::<bool>(), "[ab]{0,1}");
        let there = there.prop_map(|(port, memory, state, host_network, tier)| Container {
            name: format!("c{port}"),
            memory,
            host_network,
            state: [
                ContainerState::Pending,
                ContainerState::Created,
                ContainerState::Running,
                ContainerState::Stopped,
            ][state],
            ports: vec![HostPort { ip: None, port, protocol: "tcp".into() }],
            labels: [("tier".to_owned(), tier)].into(),
            ..Container::default()
        });
        let one = (
            any::<bool>(),
            0_u32..5,
            "[ab]?",
            prop::option::of(0..4_i32),
            prop::collection::vec(there, 0..4),
        );
        let one = one.prop_map(|(reached, failures, zone, slots, containers)| {
            let mut engine = engine("h");
            engine.memory = 1000;
            engine.reached = reached;
            engine.failures = failures;
            engine.containers = containers;
            engine.labels.insert("zone".into(), zone);
            if let Some(slots) = slots {
                engine.labels.insert("containerslots".into(), slots.to_string());
            }
            engine
        });
        prop::collection::vec(one, 0..6).prop_map(|mut engines| {
            for (at, engine) in engines.iter_mut().enumerate() {
                engine.name = format!("h{at}");
            }
            engines
        })
    }

    fn asks() -> impl Generator<Value = Requirements> {
        let expr = prop::sample::select(vec![
            "zone==a",
            "zone!=a",
            "zone==~b",
            "node!=h1",
            "node==~h2",
            "node==/[13]/",
            "zone!=~*",
        ]);
        let affinity =
            prop::sample::select(vec!["tier==a", "tier!=b", "container==~c1", "container!=c2", "tier==~b"]);
        let list = prop::option::of(prop::sample::select(vec!["node==h1|h2", "node==h0"]));
        (
            prop::collection::vec(expr, 0..3),
            prop::collection::vec(affinity, 0..3),
            list,
            prop::option::of(0_u16..4),
            0_u64..1200,
            any::<bool>(),
        )
            .prop_map(|(constraints, affinities, list, port, memory, host_network)| {
                let mut asks = wants("x");
                asks.constraints = constraints.iter().map(|e| e.parse().unwrap()).collect();
                asks.affinities = affinities.iter().map(|e| e.parse().unwrap()).collect();
                asks.whitelists = list.iter().map(|e| e.parse().unwrap()).collect();
                asks.ports = port
                    .map(|port| HostPort { ip: None, port, protocol: "tcp".into() })
                    .into_iter()
                    .collect();
                (asks.memory, asks.host_network) = (memory, host_network);
                asks
            })
    }

    proptest! {
        #[test]
        fn a_chosen_engine_passes_every_hard_filter_and_the_same_input_gives_the_same_choice(
            engines in engines(), asks in asks(), seed in any::<u64>(), strategy in 0_usize..3,
        ) {
            let scheduler = Scheduler::new([Strategy::Spread, Strategy::Binpack, Strategy::Random][strategy]);
            match scheduler.select(&asks, &engines, seed) {
                Ok(choice) => {
                    for filter in Filter::ALL {
                        prop_assert_eq!(filter.check(&asks, choice.engine, !choice.relaxed), Ok(()));
                    }
                    let free = choice.engine.memory * 105 / 100;
                    prop_assert!(asks.memory == 0 || choice.engine.reserved_memory() + asks.memory <= free);
                    if choice.relaxed {
                        // Some wish fails on each engine that would do.
                        for engine in &engines {
                            let fits = Filter::ALL.iter().all(|f| f.check(&asks, engine, true).is_ok());
                            let room = asks.memory == 0 || engine.reserved_memory() + asks.memory <= engine.memory * 105 / 100;
                            prop_assert!(!(fits && room));
                        }
                    }
                    let again = scheduler.select(&asks, &engines, seed).unwrap();
                    prop_assert_eq!(&again.engine.name, &choice.engine.name);
                    if strategy != 2 {
                        // Nor does it depend on the order in which the engines are listed.
                        let mut turned = engines.clone();
                        turned.reverse();
                        prop_assert_eq!(&scheduler.select(&asks, &turned, seed).unwrap().engine.name, &choice.engine.name);
                    }
                }
                Err(error) => {
                    prop_assert_eq!(error.because.len(), engines.len());
                    for engine in &engines {
                        let fits = Filter::ALL.iter().all(|f| f.check(&asks, engine, false).is_ok());
                        let room = asks.memory == 0 || engine.reserved_memory() + asks.memory <= engine.memory * 105 / 100;
                        prop_assert!(!(fits && room), "{} would do", engine.name);
                    }
                }
            }
        }
    }
}
