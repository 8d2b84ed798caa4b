//! Engines and containers for tests.

use super::requirements::Requirements;
use super::view::{Container, Engine, EngineId};

pub(super) fn engine(name: &str) -> Engine {
    Engine {
        id: EngineId::new(&format!("id-{name}"), &format!("{name}:2375")),
        name: name.to_owned(),
        reached: true,
        failures: 0,
        labels: std::collections::BTreeMap::new(),
        nano_cpus: 2_000_000_000,
        memory: 1 << 30,
        containers: Vec::new(),
        images: Vec::new(),
    }
}

pub(super) fn container(name: &str) -> Container {
    Container { id: format!("id-{name}"), name: name.to_owned(), ..Container::default() }
}

pub(super) fn wants(name: &str) -> Requirements {
    Requirements { name: name.to_owned(), image: "image".to_owned(), ..Requirements::default() }
}
