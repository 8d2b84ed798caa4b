//! One stream of events of all engines.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::site::Site;
use super::{EnginePool, lock};
use crate::backoff::Backoff;

/// What happened in the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolEvent {
    /// The engine's events are heard from now on. What happened before may have been missed: list.
    Connected {
        /// Its address.
        engine: String,
    },
    /// The engine's events are no longer heard.
    Disconnected {
        /// Its address.
        engine: String,
        /// Why.
        why: String,
    },
    /// Something happened to a container.
    Container {
        /// The engine's address.
        engine: String,
        /// `start`, `die`, `destroy`, …
        action: String,
        /// The container's name.
        name: String,
        /// Its id.
        id: String,
    },
}

impl fmt::Display for PoolEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { engine } => write!(f, "{engine} connected"),
            Self::Disconnected { engine, why } => write!(f, "{engine} disconnected: {why}"),
            Self::Container { engine, action, name, .. } => write!(f, "{engine}/{name} {action}"),
        }
    }
}

/// The stream; it does not end by itself. Dropping it ends the listening.
#[derive(Debug)]
pub struct PoolEvents {
    events: mpsc::Receiver<PoolEvent>,
    task: JoinHandle<()>,
}

impl Stream for PoolEvents {
    type Item = PoolEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PoolEvent>> {
        self.events.poll_recv(cx)
    }
}

impl Drop for PoolEvents {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl EnginePool {
    /// Events of the containers of all engines, those included that are discovered later. Engines are connected to again, with
    /// growing pauses, and each connection is an event: who needs the whole picture lists then.
    #[must_use]
    pub fn events(&self) -> PoolEvents {
        let (tell, events) = mpsc::channel(BUFFER);
        let task = tokio::spawn(listen_to_all(self.clone(), tell));
        PoolEvents { events, task }
    }
}

async fn listen_to_all(pool: EnginePool, tell: mpsc::Sender<PoolEvent>) {
    let mut listeners: BTreeMap<String, Listener> = BTreeMap::new();
    loop {
        // One that can't be asked for its list changes nothing.
        let _ = pool.recent().await;
        let sites = lock(&pool.inner.sites).clone();
        listeners.retain(|addr, _| sites.contains_key(addr));
        for (addr, site) in sites {
            let listen = || Listener(tokio::spawn(listen(site, tell.clone())));
            listeners.entry(addr).or_insert_with(listen);
        }
        tokio::time::sleep(RELIST).await;
    }
}

/// Ends with its owner.
struct Listener(JoinHandle<()>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn listen(site: Arc<Site>, tell: mpsc::Sender<PoolEvent>) {
    let mut attempt = 0;
    loop {
        let why = match listen_once(&site, &tell).await {
            Heard::Nobody => return,
            Heard::Refused(why) => why,
            Heard::Ended(why) => {
                attempt = 0;
                if tell
                    .send(PoolEvent::Disconnected { engine: site.addr.clone(), why: why.clone() })
                    .await
                    .is_err()
                {
                    return;
                }
                why
            }
        };
        tracing::debug!(engine = %site.addr, %why, "not listening");
        tokio::time::sleep(BACKOFF.wait(attempt, rand::random())).await;
        attempt = attempt.saturating_add(1);
    }
}

enum Heard {
    /// Nobody listens to us any more.
    Nobody,
    /// The engine could not be listened to.
    Refused(String),
    /// It was listened to, and is no longer.
    Ended(String),
}

async fn listen_once(site: &Site, tell: &mpsc::Sender<PoolEvent>) -> Heard {
    let engine = match site.bollard().await {
        Ok(engine) => engine,
        Err(error) => return Heard::Refused(error.to_string()),
    };
    // The subscription has no answer of its own before the first event; that the engine answers at all must do.
    match tokio::time::timeout(ANSWER, engine.ping()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Heard::Refused(error.to_string()),
        Err(_) => return Heard::Refused("no answer".to_owned()),
    }
    let filters = std::collections::HashMap::from([("type".to_owned(), vec!["container".to_owned()])]);
    let options = bollard::query_parameters::EventsOptionsBuilder::new().filters(&filters).build();
    let mut events = std::pin::pin!(engine.events(Some(options)));
    if tell.send(PoolEvent::Connected { engine: site.addr.clone() }).await.is_err() {
        return Heard::Nobody;
    }
    loop {
        // A dead machine sends no farewell: ask now and then whether it is there.
        let event = match tokio::time::timeout(SILENCE, events.next()).await {
            Err(_) => match tokio::time::timeout(ANSWER, engine.ping()).await {
                Ok(Ok(_)) => continue,
                _ => return Heard::Ended("the engine does not answer".to_owned()),
            },
            Ok(None) => return Heard::Ended("the engine ended the stream".to_owned()),
            Ok(Some(Err(error))) => return Heard::Ended(error.to_string()),
            Ok(Some(Ok(event))) => event,
        };
        let actor = event.actor.unwrap_or_default();
        let name = actor.attributes.unwrap_or_default().remove("name").unwrap_or_default();
        let event = PoolEvent::Container {
            engine: site.addr.clone(),
            action: event.action.unwrap_or_default(),
            name,
            id: actor.id.unwrap_or_default(),
        };
        if tell.send(event).await.is_err() {
            return Heard::Nobody;
        }
    }
}

/// A reader that is slower than that slows the listeners down.
const BUFFER: usize = 1024;
const RELIST: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(3);
const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(15) };
