//! Streams of changes, a local store fed by them, and waiting for a condition.
//!
//! The engine has no stream of tasks, and its events of services and nodes may be lost without a word. So everything is watched in
//! one way: the list is read, compared with the one before, and the difference handed on. Events only say that it is time to look;
//! a timer does so too. What has not changed is not even decoded (an object's version tells), so a look at thousands of tasks costs
//! little.
//!
//! ```no_run
//! # async fn run(swarm: swarm_client::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use futures_util::StreamExt;
//! use swarm_client::Task;
//! use swarm_client::watch::{WatchConfig, WatchEvent, watcher};
//!
//! let mut tasks = watcher::<Task>(&swarm, WatchConfig::default());
//! while let Some(event) = tasks.next().await {
//!     match event {
//!         Ok(WatchEvent::Init(all)) => println!("{} tasks", all.len()),
//!         Ok(WatchEvent::Apply(task)) => println!("{} is {}", task.id, task.state()),
//!         Ok(WatchEvent::Delete(task)) => println!("{} is gone", task.id),
//!         Err(error) => eprintln!("{error}"), // the stream goes on
//!     }
//! }
//! # Ok(()) }
//! ```

mod hints;
mod kind;
mod known;
mod pace;
mod quick;
mod store;
mod stream;
mod wait;

use std::sync::Arc;
use std::time::Duration;

pub use kind::Watched;
#[doc(hidden)]
pub use known::Known;
pub use store::{Closed, Store, Writer, reflector, store};
pub use stream::{Watcher, watcher};
pub use wait::await_condition;

/// A change.
#[derive(Debug, Clone, PartialEq)]
pub enum WatchEvent<K> {
    /// All there is, once, at the start.
    Init(Vec<Arc<K>>),
    /// One is new or has changed.
    Apply(Arc<K>),
    /// One is gone; as it was seen last.
    Delete(Arc<K>),
}

/// How a watch looks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WatchConfig {
    /// How often to look without any hint. The default is 500 milliseconds for tasks, of which the engine gives no events, and 10
    /// seconds for all else. However short, looking takes at most half of the time: the tasks of a large swarm are megabytes, which
    /// the manager has to write out each time, so watch those of a `service` where they suffice, or look less often.
    pub poll_every: Option<Duration>,
    /// For tasks: only those of the service with this name or id.
    pub service: Option<String>,
    /// For tasks: only those given to the node with this id.
    pub node: Option<String>,
}

impl WatchConfig {
    /// How often to look without any hint.
    #[must_use]
    pub fn poll_every(mut self, time: Duration) -> Self {
        self.poll_every = Some(time);
        self
    }

    /// For tasks: only those of the service with this name or id.
    #[must_use]
    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.service = Some(name.into());
        self
    }

    /// For tasks: only those given to the node with this id.
    #[must_use]
    pub fn node(mut self, id: impl Into<String>) -> Self {
        self.node = Some(id.into());
        self
    }
}
