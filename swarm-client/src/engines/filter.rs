//! The filters that an engine must pass: pure, one question each. They run in the order of [`Filter::ALL`].

use std::fmt;

use super::expr::Expr;
use super::requirements::Requirements;
use super::view::Engine;

/// A question to an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Filter {
    /// It answers, and has not failed three times in a row.
    Health,
    /// The ports of the host that the container asks for are free.
    Port,
    /// Its label `containerslots`, where that is a number, is larger than the number of its containers.
    Slots,
    /// It has every container that this one depends on.
    Dependency,
    /// The images and containers that are there are as the container's affinities say.
    Affinity,
    /// Its name, id and labels are as the container's constraints say.
    Constraint,
    /// It is on every whitelist.
    Whitelist,
}

impl Filter {
    /// Every filter, in the classic manager's order.
    pub const ALL: [Self; 7] = [
        Self::Health,
        Self::Port,
        Self::Slots,
        Self::Dependency,
        Self::Affinity,
        Self::Constraint,
        Self::Whitelist,
    ];

    /// Whether the engine passes. With `soft`, wishes are conditions too; without, they are ignored.
    ///
    /// # Errors
    /// The reason in words, where it does not.
    pub fn check(self, wants: &Requirements, engine: &Engine, soft: bool) -> Result<(), String> {
        match self {
            Self::Health => health(engine),
            Self::Port => port(wants, engine),
            Self::Slots => slots(engine),
            Self::Dependency => dependency(wants, engine),
            Self::Affinity => all(&wants.affinities, soft, |expr| affinity(expr, engine)),
            Self::Constraint => all(&wants.constraints, soft, |expr| constraint(expr, engine)),
            Self::Whitelist => match wants.whitelists.iter().find(|list| !list.allows(&engine.name)) {
                Some(list) => Err(format!("{list}")),
                None => Ok(()),
            },
        }
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Health => "health",
            Self::Port => "port",
            Self::Slots => "containerslots",
            Self::Dependency => "dependency",
            Self::Affinity => "affinity",
            Self::Constraint => "constraint",
            Self::Whitelist => "whitelist",
        })
    }
}

fn health(engine: &Engine) -> Result<(), String> {
    match (engine.reached, engine.health()) {
        (false, _) => Err("it does not answer".to_owned()),
        (true, 0) => Err(format!("it failed {} times in a row", engine.failures)),
        _ => Ok(()),
    }
}

/// In the host's own network ports are compared with those of containers that live there too; otherwise with published ones.
fn port(wants: &Requirements, engine: &Engine) -> Result<(), String> {
    for container in engine.holding().filter(|there| there.host_network == wants.host_network) {
        for asked in &wants.ports {
            if let Some(taken) = container.ports.iter().find(|there| there.collides(asked)) {
                return Err(format!("{taken} is taken by {}", container.name));
            }
        }
    }
    Ok(())
}

fn slots(engine: &Engine) -> Result<(), String> {
    let limit = engine.labels.get("containerslots").and_then(|text| text.trim().parse::<i64>().ok());
    let count = engine.holding().count();
    match limit {
        Some(limit) if i64::try_from(count).unwrap_or(i64::MAX) >= limit => {
            Err(format!("{count} containers on {limit} slots"))
        }
        _ => Ok(()),
    }
}

fn dependency(wants: &Requirements, engine: &Engine) -> Result<(), String> {
    let is_there = |target: &String| {
        engine
            .containers
            .iter()
            .any(|there| there.name == *target || (!there.id.is_empty() && there.id == *target))
    };
    match wants.dependencies.iter().find(|target| !is_there(target)) {
        Some(missing) => Err(format!("{missing} is not there")),
        None => Ok(()),
    }
}

fn all(exprs: &[Expr], soft: bool, holds: impl Fn(&Expr) -> bool) -> Result<(), String> {
    let mut counted = exprs.iter().filter(|expr| soft || !expr.is_soft());
    match counted.find(|expr| !holds(expr)) {
        Some(failed) => Err(failed.to_string()),
        None => Ok(()),
    }
}

/// `container` looks at ids and names, `image` at ids, tags and repositories, and every other key at that label of each container.
fn affinity(expr: &Expr, engine: &Engine) -> bool {
    match expr.key() {
        "container" => {
            let ids = engine.containers.iter().map(|there| there.id.as_str()).filter(|id| !id.is_empty());
            expr.matches(ids.chain(engine.containers.iter().map(|there| there.name.as_str())))
        }
        "image" => expr.matches(engine.images.iter().flat_map(super::view::Image::names)),
        label => expr.matches(
            engine.containers.iter().map(|there| there.labels.get(label).map_or("", String::as_str)),
        ),
    }
}

/// `node` looks at the engine's own id and its name, every other key at its label, which is empty where there is none.
fn constraint(expr: &Expr, engine: &Engine) -> bool {
    match expr.key() {
        "node" => expr.matches([engine.id.own_id(), engine.name.as_str()]),
        label => expr.matches([engine.labels.get(label).map_or("", String::as_str)]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{container, engine, wants};
    use super::*;

    fn passes(filter: Filter, wants: &Requirements, engine: &Engine) -> bool {
        filter.check(wants, engine, true).is_ok()
    }

    #[test]
    fn health_needs_an_answer_and_fewer_than_three_failures() {
        let mut h1 = engine("h1");
        assert_eq!(h1.health(), 100);
        h1.failures = 2;
        assert_eq!(h1.health(), 34);
        assert!(passes(Filter::Health, &wants("c"), &h1));
        h1.failures = 3;
        assert!(!passes(Filter::Health, &wants("c"), &h1));
        h1.failures = 0;
        h1.reached = false;
        assert!(!passes(Filter::Health, &wants("c"), &h1));
    }

    #[test]
    fn a_pending_container_holds_its_port_and_a_stopped_one_does_not() {
        let mut h1 = engine("h1");
        let port = super::super::view::HostPort { ip: None, port: 80, protocol: "tcp".into() };
        let mut asks = wants("c");
        asks.ports = vec![port.clone()];
        let mut there = container("x");
        there.ports = vec![port];
        for (state, free) in [
            (super::super::ContainerState::Pending, false),
            (super::super::ContainerState::Running, false),
            (super::super::ContainerState::Stopped, true),
        ] {
            there.state = state;
            h1.containers = vec![there.clone()];
            assert_eq!(passes(Filter::Port, &asks, &h1), free, "{state}");
        }
        // A host's network and a bridge are compared among themselves.
        there.state = super::super::ContainerState::Running;
        there.host_network = true;
        h1.containers = vec![there];
        assert!(passes(Filter::Port, &asks, &h1));
    }

    #[test]
    fn slots_that_are_no_number_are_no_limit() {
        let mut h1 = engine("h1");
        h1.containers = vec![container("a"), container("b")];
        for (label, free) in [("3", true), ("2", false), ("0", false), ("-1", false), ("many", true)] {
            h1.labels.insert("containerslots".into(), label.into());
            assert_eq!(passes(Filter::Slots, &wants("c"), &h1), free, "{label}");
        }
    }

    #[test]
    fn constraints_see_unlabelled_engines_as_empty() {
        let mut h1 = engine("h1");
        h1.labels.insert("storage".into(), "ssd".into());
        for (text, holds) in [
            ("node==h*", true),
            ("node==id-h1", true),
            ("storage==ssd", true),
            ("storage!=ssd", false),
            ("zone!=a", true),
            ("zone==*", true),
            ("zone==a", false),
        ] {
            let mut asks = wants("c");
            asks.constraints = vec![text.parse().unwrap()];
            assert_eq!(passes(Filter::Constraint, &asks, &h1), holds, "{text}");
        }
    }

    #[test]
    fn affinities_look_at_containers_images_and_labels() {
        let mut h1 = engine("h1");
        let mut asks = wants("c");
        let mut holds = |text: &str, h1: &Engine| {
            asks.affinities = vec![text.parse().unwrap()];
            passes(Filter::Affinity, &asks, h1)
        };
        assert!(!holds("tier==*", &h1) && holds("tier!=*", &h1), "no containers, nothing to match");
        let mut front = container("front");
        front.labels.insert("tier".into(), "edge".into());
        h1.containers = vec![front];
        h1.images = vec![super::super::Image { id: "sha256:9".into(), tags: vec!["redis:7".into()] }];
        for (text, yes) in [
            ("container==front", true),
            ("container!=front", false),
            ("image==redis", true),
            ("image==redis:8", false),
            ("tier==edge", true),
            ("tier!=/e.ge/", false),
        ] {
            assert_eq!(holds(text, &h1), yes, "{text}");
        }
    }

    #[test]
    fn a_wish_counts_only_while_wishes_count() {
        let h1 = engine("h1");
        let mut asks = wants("c");
        asks.constraints = vec!["node==~h2".parse().unwrap()];
        assert!(Filter::Constraint.check(&asks, &h1, true).is_err());
        assert!(Filter::Constraint.check(&asks, &h1, false).is_ok());
    }

    #[test]
    fn what_a_container_depends_on_must_be_there() {
        let mut h1 = engine("h1");
        let mut asks = wants("c");
        asks.dependencies = vec!["db".into(), "cache".into()];
        h1.containers = vec![container("db")];
        let error = Filter::Dependency.check(&asks, &h1, true).unwrap_err();
        assert!(error.contains("cache"), "{error}");
        h1.containers.push(container("cache"));
        assert!(passes(Filter::Dependency, &asks, &h1));
    }
}
