//! Reading one object by its exact name, and changing it without losing what others changed.
//!
//! The engine takes an update only with the version that was read before it. Here a refused update is read, changed and sent
//! anew, with jitter and a bound, so that callers see a conflict only when the bound is spent. The managers themselves move a
//! service's version during a rollout, so conflicts come without any second user too.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tracing::debug;

use crate::backoff::Backoff;
use crate::client::Client;
use crate::error::{Error, ModifyError, Result};
use crate::model::{Node, NodeSpec, Service, ServiceSpec, Swarm, SwarmSpec};
use crate::placement_guard;
use crate::request::Request;
use crate::rollback;

/// What a change did.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Modified<S> {
    /// The spec as it stands after the change.
    pub spec: S,
    /// False if the change left the spec as it was, and so nothing was written.
    pub written: bool,
    /// How often it was read and tried.
    pub attempts: u32,
}

/// An object that can be read by name and whose spec can be replaced.
pub(crate) trait Object: DeserializeOwned {
    type Spec: Clone + PartialEq + Serialize;
    const KIND: &'static str;

    /// True if this is its full id or its exact name. The engine takes a part of an id too, which must not hit by accident.
    fn is_called(&self, name: &str) -> bool;
    fn spec(&self) -> &Self::Spec;
    /// Turns what must not be written into what means the same.
    fn keep(&self, _next: &mut Self::Spec) {}
    /// Takes along what a write of `next` would lose.
    fn carry(&self, _next: &mut Self::Spec) {}
    /// What has to be written before `next` may be.
    fn before(&self, _next: &Self::Spec) -> Option<Self::Spec> {
        None
    }
    fn read(name: &str) -> Request;
    fn replace(&self, what: String, spec: &Self::Spec) -> Result<Request>;
}

impl Object for Service {
    type Spec = ServiceSpec;
    const KIND: &'static str = "service";

    fn is_called(&self, name: &str) -> bool {
        self.id.as_str() == name || self.spec.name == name
    }

    fn spec(&self) -> &ServiceSpec {
        &self.spec
    }

    fn keep(&self, next: &mut ServiceSpec) {
        placement_guard::keep(&self.spec, next);
    }

    fn carry(&self, next: &mut ServiceSpec) {
        rollback::carry(self, next);
    }

    fn before(&self, next: &ServiceSpec) -> Option<ServiceSpec> {
        placement_guard::before(self, next)
    }

    fn read(name: &str) -> Request {
        Request::get(format!("read service {name:?}"), &["services", name])
    }

    fn replace(&self, what: String, spec: &ServiceSpec) -> Result<Request> {
        Request::post(what, &["services", self.id.as_str(), "update"])
            .query("version", &self.version.index.to_string())
            // Keeps the credentials with which the image was pulled so far.
            .query("registryAuthFrom", "spec")
            .json(spec)
    }
}

impl Object for Node {
    type Spec = NodeSpec;
    const KIND: &'static str = "node";

    fn is_called(&self, name: &str) -> bool {
        self.id.as_str() == name || self.hostname() == name
    }

    fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    fn read(name: &str) -> Request {
        Request::get(format!("read node {name:?}"), &["nodes", name])
    }

    fn replace(&self, what: String, spec: &NodeSpec) -> Result<Request> {
        Request::post(what, &["nodes", self.id.as_str(), "update"])
            .query("version", &self.version.index.to_string())
            .json(spec)
    }
}

impl Object for Swarm {
    type Spec = SwarmSpec;
    const KIND: &'static str = "swarm";

    fn is_called(&self, _: &str) -> bool {
        true
    }

    fn spec(&self) -> &SwarmSpec {
        &self.spec
    }

    fn read(_: &str) -> Request {
        Request::get("read the swarm", &["swarm"])
    }

    fn replace(&self, what: String, spec: &SwarmSpec) -> Result<Request> {
        Request::post(what, &["swarm", "update"]).query("version", &self.version.index.to_string()).json(spec)
    }
}

/// Reads the object with exactly this name or full id.
pub(crate) async fn get<T: Object>(client: &Client, name: &str) -> Result<T> {
    let not_found = || Error::NotFound { kind: T::KIND, name: name.to_owned() };
    if name.is_empty() && T::KIND != Swarm::KIND {
        // An empty name would ask for the list instead.
        return Err(not_found());
    }
    let object: T = client.call(T::read(name)).await?;
    if object.is_called(name) { Ok(object) } else { Err(not_found()) }
}

/// The same, with `None` for what does not exist. A failed read is an error, never `None`.
pub(crate) async fn get_opt<T: Object>(client: &Client, name: &str) -> Result<Option<T>> {
    match get(client, name).await {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// How a change is written.
#[derive(Debug, Clone, Default)]
pub(crate) struct How {
    /// Applying the change twice is the same as once, so that a write with an unknown outcome may be sent to the next manager.
    repeatable: bool,
    /// More for the write's query. With some, it is written although the spec stays as it is.
    query: Vec<(&'static str, &'static str)>,
    headers: Vec<(&'static str, String)>,
}

impl How {
    pub(crate) const fn repeatable(repeatable: bool) -> Self {
        Self { repeatable, query: Vec::new(), headers: Vec::new() }
    }

    pub(crate) fn query(mut self, key: &'static str, value: &'static str) -> Self {
        self.query.push((key, value));
        self
    }

    pub(crate) fn header(mut self, key: &'static str, value: String) -> Self {
        self.headers.push((key, value));
        self
    }
}

/// Reads, changes and writes until no other writer came between.
pub(crate) async fn modify<T: Object, E>(
    client: &Client,
    name: &str,
    how: How,
    mut change: impl FnMut(&T, &mut T::Spec) -> Result<(), E>,
) -> Result<Modified<T::Spec>, ModifyError<E>> {
    let what = format!("update {} {name:?}", T::KIND);
    let deadline = Instant::now() + DEADLINE;
    let mut attempts = 0;
    loop {
        let object: T = get(client, name).await?;
        let mut spec = object.spec().clone();
        change(&object, &mut spec).map_err(ModifyError::Refused)?;
        object.keep(&mut spec);
        attempts += 1;
        if spec == *object.spec() && how.query.is_empty() {
            return Ok(Modified { spec, written: false, attempts });
        }
        let first = object.before(&spec);
        let request = if let Some(first) = &first {
            // Doing it twice is doing it once. The change itself follows on a fresh read.
            object.replace(what.clone(), first)?.repeatable(true)
        } else {
            object.carry(&mut spec);
            let mut request = object.replace(what.clone(), &spec)?.repeatable(how.repeatable);
            for (key, value) in &how.query {
                request = request.query(key, value);
            }
            for (key, value) in &how.headers {
                request = request.header(key, value.clone());
            }
            request
        };
        match client.call_unit(request).await {
            Ok(()) if first.is_some() => {}
            Ok(()) => return Ok(Modified { spec, written: true, attempts }),
            Err(error) if error.is_conflict() => {
                let wait = BACKOFF.wait(attempts - 1, rand::random());
                if attempts > client.conflict_retries() || Instant::now() + wait >= deadline {
                    return Err(Error::Contended { what, attempts }.into());
                }
                debug!(what, attempts, "another writer came between, reading again");
                tokio::time::sleep(wait).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// For changes that never refuse.
pub(crate) fn never_refused<T>(result: Result<T, ModifyError<std::convert::Infallible>>) -> Result<T> {
    result.map_err(|error| match error {
        ModifyError::Refused(never) => match never {},
        ModifyError::Swarm(error) => error,
    })
}

/// A write takes some milliseconds; with the cap, a dozen writers at once still get through.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(10), cap: Duration::from_millis(500) };
const DEADLINE: Duration = Duration::from_secs(30);
