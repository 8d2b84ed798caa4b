//! [`Query`]: a read of a list, once or for ever.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
};

use serde::de::DeserializeOwned;

use crate::{
    Client, Consistency, Response, Result, Watch,
    request::{Raw, Request},
    watch::Source,
};

pub(crate) type Decode<T> = fn(&Request, &Raw) -> Result<Response<Vec<T>>>;

/// A read of a list: `.await` it (or [`list`](Self::list)) for the present state, or [`watch`](Self::watch) it for ever.
///
/// ```no_run
/// # async fn run(consul: consul_client::Client) -> consul_client::Result<()> {
/// let nodes = consul.catalog().nodes().near("_agent").await?.value;     // the nearest first
/// let mut ailing = consul.health().state(consul_client::Status::Critical).watch();
/// # Ok(())
/// # }
/// ```
#[must_use = "a query does nothing until it is awaited or watched"]
pub struct Query<T> {
    client: Client,
    /// An error for a name that cannot be asked for; kept until the query runs.
    request: Result<Request>,
    decode: Decode<T>,
    consistency: Option<Consistency>,
    /// How fresh a watch is when nobody says.
    watched: Consistency,
}

impl<T> Query<T> {
    pub(crate) fn decoded_by(client: Client, request: Result<Request>, decode: Decode<T>) -> Self {
        Self { client, request, decode, consistency: None, watched: Consistency::Stale }
    }

    pub(crate) fn watched_from(mut self, consistency: Consistency) -> Self {
        self.watched = consistency;
        self
    }

    /// Only what matches an expression of Consul's filter language, such as `Service.Port == 80`.
    pub fn filter(self, expression: impl fmt::Display) -> Self {
        self.with(|request| request.param("filter", expression))
    }

    /// The nearest to this node first, by network coordinates; `_agent` is the agent's own node. For lists of nodes and instances.
    pub fn near(self, node: impl fmt::Display) -> Self {
        self.with(|request| request.param("near", node))
    }

    /// How fresh. Unless set, the client's own setting; and without that, a read asks the leader and a watch any server (it goes on
    /// through an election; watches of keys ask the leader).
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.consistency = Some(consistency);
        self
    }

    /// The present state. The same as `.await`.
    ///
    /// # Errors
    /// As any read. An empty list is what Consul answers for an unknown name, and before 1.12 also for one that the token may not see.
    pub async fn list(&self) -> Result<Response<Vec<T>>> {
        let request = match (&self.request, self.consistency) {
            (Ok(request), Some(consistency)) => request.clone().consistency(consistency),
            (Ok(request), None) => request.clone(),
            (Err(error), _) => return Err(error.again()),
        };
        (self.decode)(&request, &self.client.call(&request).await?)
    }

    pub(crate) fn with(mut self, change: impl FnOnce(Request) -> Request) -> Self {
        self.request = self.request.map(change);
        self
    }

    #[cfg(test)]
    pub(crate) fn target(&self) -> Result<String> {
        self.request.as_ref().map(Request::target).map_err(crate::Error::again)
    }
}

impl<T: DeserializeOwned> Query<T> {
    /// A query whose answer is a JSON list of `T`.
    pub(crate) fn new(client: Client, request: Result<Request>) -> Self {
        Self::decoded_by(client, request, |request, raw| {
            // Go writes an empty list as `null`.
            Ok(request.decode::<Option<Vec<T>>>(raw)?.map(Option::unwrap_or_default))
        })
    }
}

impl<T: Clone + PartialEq + Send + Sync + 'static> Query<T> {
    /// The state now and after each change, for ever. See [`Watch`].
    pub fn watch(self) -> Watch<T> {
        let consistency = self.consistency.or(self.client.consistency()).unwrap_or(self.watched);
        Watch::new(self.client, Source { base: self.request, consistency, decode: self.decode })
    }
}

impl<T: Send + Sync + 'static> IntoFuture for Query<T> {
    type Output = Result<Response<Vec<T>>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.list().await })
    }
}

impl<T> Clone for Query<T> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            request: self.request.as_ref().map(Request::clone).map_err(crate::Error::again),
            decode: self.decode,
            consistency: self.consistency,
            watched: self.watched,
        }
    }
}

impl<T> fmt::Debug for Query<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query")
            .field("request", &self.request)
            .field("consistency", &self.consistency)
            .finish_non_exhaustive()
    }
}
