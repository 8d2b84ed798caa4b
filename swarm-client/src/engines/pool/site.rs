//! One engine of the pool: how it is asked, and what is remembered of it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::super::spec::ContainerSpec;
use super::super::view::{Engine, EngineId};
use super::super::wire;
use crate::client::Client;
use crate::client_builder::ClientBuilder;
use crate::error::{Error, Result};
use crate::request::{Request, Target};

/// An engine by its address.
pub(super) struct Site {
    pub(super) addr: String,
    reach: Reach,
    known: Mutex<Known>,
}

/// How the engines of a pool are reached.
#[derive(Clone)]
pub(super) struct Reach {
    /// For a connection; an answer may take longer.
    pub(super) limit: Duration,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<crate::tls::Tls>,
}

impl Reach {
    fn builder(&self, addr: &str) -> ClientBuilder {
        let builder =
            Client::builder().connect_timeout(self.limit).request_timeout(self.limit * ANSWER_FACTOR);
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return builder.tls(tls.clone()).endpoint(format!("https://{addr}"));
        }
        builder.endpoint(format!("tcp://{addr}"))
    }
}

#[derive(Default)]
struct Known {
    client: Option<Client>,
    /// Inspections by container id: what they tell of a configuration does not change.
    inspected: HashMap<String, Value>,
    last: Option<Engine>,
    failures: u32,
}

impl Site {
    pub(super) fn new(addr: String, reach: Reach) -> Self {
        Self { addr, reach, known: Mutex::default() }
    }

    /// Looks at the engine. One that does not answer is shown as it was, not reached.
    pub(super) async fn look(&self) -> Engine {
        let limit = self.reach.limit * ANSWER_FACTOR;
        let answer = tokio::time::timeout(limit, self.ask()).await;
        let error = match answer {
            Ok(Ok(mut engine)) => {
                let mut known = self.known();
                // One good answer after a bad one does not make an engine as good as new at once.
                known.failures = known.failures.saturating_sub(1).min(super::super::view::RETRY - 1);
                engine.failures = known.failures;
                known.last = Some(engine.clone());
                return engine;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {limit:?}"),
        };
        tracing::debug!(engine = %self.addr, %error, "the engine was not reached");
        let mut known = self.known();
        known.failures = known.failures.saturating_add(1);
        let mut engine = known.last.clone().unwrap_or_else(|| wire::engine(&Value::Null, &self.addr));
        (engine.reached, engine.failures) = (false, known.failures);
        engine
    }

    async fn ask(&self) -> Result<Engine> {
        let client = self.client().await?;
        let one = |request: Request| request.target(Target::OneEngine);
        let info = client.call::<Value>(one(Request::get("read the engine", &["info"])));
        let list = Request::get("list containers", &["containers", "json"]).query("all", "1");
        let images = client.call::<Value>(one(Request::get("list images", &["images", "json"])));
        let (info, list, images) = futures_util::try_join!(info, client.call::<Value>(one(list)), images)?;
        let mut engine = wire::engine(&info, &self.addr);
        engine.containers = wire::containers(&list);
        engine.images = wire::images(&images);
        let ids: Vec<String> = engine.containers.iter().map(|there| there.id.clone()).collect();
        self.known().inspected.retain(|id, _| ids.contains(id));
        for container in &mut engine.containers {
            // One that vanishes in between is as good as its line in the list.
            if let Some(inspected) = self.inspected(&client, &container.id).await? {
                wire::complete(container, &inspected);
            }
        }
        Ok(engine)
    }

    /// What is remembered of a container's inspection, or what the engine says now; `None` where it has no such container.
    async fn inspected(&self, client: &Client, id: &str) -> Result<Option<Value>> {
        if let Some(known) = self.known().inspected.get(id) {
            return Ok(Some(known.clone()));
        }
        match self.inspect_with(client, id).await {
            Ok(value) => {
                self.known().inspected.insert(id.to_owned(), value.clone());
                Ok(Some(value))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn inspect(&self, id: &str) -> Result<Value> {
        self.inspect_with(&self.client().await?, id).await
    }

    async fn inspect_with(&self, client: &Client, id: &str) -> Result<Value> {
        let request = Request::get(format!("inspect container {id}"), &["containers", id, "json"]);
        client.call(request.target(Target::OneEngine)).await
    }

    /// Creates a container. Gives its id.
    pub(super) async fn create(&self, spec: &ContainerSpec) -> Result<String> {
        let what = format!("create container {:?}", spec.name());
        let request = Request::post(&what, &["containers", "create"]).query("name", spec.name());
        let request = request.json(spec.body())?.target(Target::OneEngine).at_least(CREATE_LIMIT);
        let created: Value = self.client().await?.call(request).await?;
        created["Id"].as_str().map(str::to_owned).ok_or_else(|| Error::Invalid {
            what,
            problem: format!(
                "the engine at {} answered without an id; look whether it is a Docker Engine",
                self.addr
            ),
        })
    }

    pub(super) async fn start(&self, id: &str) -> Result<()> {
        self.unit(
            Request::post(format!("start container {id}"), &["containers", id, "start"]).repeatable(true),
            CREATE_LIMIT,
        )
        .await
    }

    /// Stops a container: its own signal first, the kill after `grace`, or after its own stop timeout where that is `None`.
    pub(super) async fn stop(&self, id: &str, grace: Option<Duration>) -> Result<()> {
        let mut request =
            Request::post(format!("stop container {id}"), &["containers", id, "stop"]).repeatable(true);
        if let Some(grace) = grace {
            request = request.query("t", &grace.as_secs().to_string());
        }
        self.unit(request, grace.unwrap_or(STOP_LIMIT) + CREATE_LIMIT).await
    }

    /// Removes a container, running or not.
    pub(super) async fn remove(&self, id: &str) -> Result<()> {
        let request = Request::delete(format!("remove container {id}"), &["containers", id]);
        self.unit(request.query("force", "1").repeatable(true), CREATE_LIMIT).await
    }

    /// The engine's client for what is not the pool's: logs and events.
    pub(super) async fn bollard(&self) -> Result<bollard::Docker> {
        self.client().await?.bollard()
    }

    pub(super) fn last(&self) -> Option<Engine> {
        self.known().last.clone()
    }

    /// True if this is the engine of that id, as far as it was ever seen.
    pub(super) fn is(&self, id: &EngineId) -> bool {
        self.last().is_some_and(|last| last.id == *id)
    }

    /// A call without an answer to read. That it was so already (304) is a success.
    async fn unit(&self, request: Request, at_least: Duration) -> Result<()> {
        let request = request.target(Target::OneEngine).at_least(at_least);
        match self.client().await?.call_unit(request).await {
            Err(Error::Engine { status: 304, .. }) => Ok(()),
            other => other,
        }
    }

    async fn client(&self) -> Result<Client> {
        if let Some(client) = self.known().client.clone() {
            return Ok(client);
        }
        let client = self.reach.builder(&self.addr).connect().await?;
        self.known().client = Some(client.clone());
        Ok(client)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An engine answers later than its host takes the connection.
const ANSWER_FACTOR: u32 = 3;
/// An engine on a busy machine takes seconds for a creation or a start.
const CREATE_LIMIT: Duration = Duration::from_secs(30);
/// A container's own stop timeout is not known here; the usual ones are shorter.
const STOP_LIMIT: Duration = Duration::from_secs(60);
