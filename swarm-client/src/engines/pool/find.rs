//! The verbs that look: list, find, inspect, logs.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde_json::Value;

use super::super::error::PoolError;
use super::super::spec::ContainerSpec;
use super::super::view::{Container, Engine, EngineId};
use super::site::Site;
use super::{EnginePool, lock};
use crate::error::Error;

/// A container and where it is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Located {
    /// The engine.
    pub engine: EngineId,
    /// The engine's name.
    pub host: String,
    /// Whether the engine answered.
    pub reached: bool,
    /// The container.
    pub container: Container,
}

impl Located {
    pub(in super::super) fn new(engine: &Engine, container: &Container) -> Self {
        Self {
            engine: engine.id.clone(),
            host: engine.name.clone(),
            reached: engine.reached,
            container: container.clone(),
        }
    }

    /// Whether it goes by this name: `host/name`, `name`, its swarm id, or the beginning of its id.
    fn goes_by(&self, name: &str) -> bool {
        let there = &self.container;
        let by_id = name.len() >= 4 && there.id.starts_with(name);
        there.name == name || self.to_string() == name || there.swarm_id() == Some(name) || by_id
    }
}

impl fmt::Display for Located {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.container.name)
    }
}

/// Which part of a container's output is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Whether to go on as the container writes.
    pub follow: bool,
    /// How many of the last lines; all where it is `None`.
    pub tail: Option<u32>,
}

/// A piece of a container's output.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogChunk {
    /// Whether it was written to standard error.
    pub stderr: bool,
    /// What was written.
    pub bytes: Bytes,
}

impl EnginePool {
    /// Every container of every engine, by host and name. Those of an engine that does not answer are listed as they were seen last,
    /// not reached.
    ///
    /// # Errors
    /// When the engines are not known.
    pub async fn list(&self) -> Result<Vec<Located>, PoolError> {
        let engines = self.refresh().await?;
        let all = engines
            .iter()
            .flat_map(|engine| engine.containers.iter().map(|there| Located::new(engine, there)));
        let mut all: Vec<Located> = all.collect();
        all.sort_by(|a, b| (&a.host, &a.container.name).cmp(&(&b.host, &b.container.name)));
        Ok(all)
    }

    /// The container that goes by this name: `host/name`, a name or swarm id that is unique among the engines that answer, or the
    /// first four or more digits of its id.
    ///
    /// # Errors
    /// [`PoolError::NotFound`], [`PoolError::Ambiguous`].
    pub async fn find(&self, name: &str) -> Result<Located, PoolError> {
        let all = self.list().await?;
        let mut found: Vec<Located> = all.into_iter().filter(|there| there.goes_by(name)).collect();
        if found.len() > 1 && found.iter().any(|there| there.reached) {
            found.retain(|there| there.reached);
        }
        match (found.pop(), found.as_slice()) {
            (Some(one), []) => Ok(one),
            (Some(one), _) => {
                let found = found.iter().chain([&one]).map(ToString::to_string).collect();
                Err(PoolError::Ambiguous { name: name.to_owned(), found })
            }
            (None, _) => {
                let desk = lock(&self.inner.desk);
                let reached = desk.engines.iter().filter(|engine| engine.reached).count();
                let unreached = desk.engines.len() - reached;
                Err(PoolError::NotFound { name: name.to_owned(), reached, unreached })
            }
        }
    }

    /// What the engine says of a container: `GET /containers/ID/json`.
    ///
    /// # Errors
    /// When it is not found or not unique, and what the engine says.
    pub async fn inspect(&self, name: &str) -> Result<Value, PoolError> {
        let there = self.find(name).await?;
        Ok(self.site_of(&there)?.inspect(&there.container.id).await?)
    }

    /// The configuration that creates the same container elsewhere.
    ///
    /// # Errors
    /// What the engine says.
    pub async fn spec_of(&self, there: &Located) -> Result<ContainerSpec, PoolError> {
        let inspected = self.site_of(there)?.inspect(&there.container.id).await?;
        ContainerSpec::from_inspect(&inspected)
    }

    /// A container's output.
    ///
    /// # Errors
    /// When it is not found or not unique; in the stream, what the engine says.
    pub async fn logs(
        &self,
        name: &str,
        options: LogOptions,
    ) -> Result<impl Stream<Item = Result<LogChunk, PoolError>> + use<>, PoolError> {
        let there = self.find(name).await?;
        let engine = self.site_of(&there)?.bollard().await?;
        let wanted = bollard::query_parameters::LogsOptionsBuilder::new()
            .stdout(true)
            .stderr(true)
            .follow(options.follow);
        let tail = options.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
        let chunks = engine.logs(&there.container.id, Some(wanted.tail(&tail).build()));
        let what = format!("logs of {there}");
        Ok(chunks.map(move |chunk| match chunk {
            Ok(chunk) => {
                let stderr = matches!(chunk, bollard::container::LogOutput::StdErr { .. });
                Ok(LogChunk { stderr, bytes: chunk.into_bytes() })
            }
            Err(error) => {
                Err(PoolError::Engine(Error::Invalid { what: what.clone(), problem: error.to_string() }))
            }
        }))
    }

    pub(super) fn site_of(&self, there: &Located) -> Result<Arc<Site>, PoolError> {
        self.site(&there.engine).ok_or_else(|| PoolError::NotFound {
            name: there.to_string(),
            reached: 0,
            unreached: 1,
        })
    }
}
