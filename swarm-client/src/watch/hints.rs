//! Hints that it is time to look: the engine's events, of which only the coming is used.
//!
//! What an event says is not looked at. So an unknown type, half a line or plain garbage can do no harm, and a lost one costs no
//! more than the time until the next look.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::client::Client;
use crate::request::Request;

/// Hints, until dropped.
#[derive(Debug)]
pub(crate) struct Hints {
    bell: Arc<Notify>,
    ear: JoinHandle<()>,
}

impl Hints {
    pub(crate) fn listen(client: Client, types: &'static [&'static str]) -> Self {
        let bell = Arc::new(Notify::new());
        let ear = tokio::spawn(listen(client, types, Arc::clone(&bell)));
        Self { bell, ear }
    }

    /// Waits for the next; several since the last wait are one.
    pub(crate) async fn next(&self) {
        self.bell.notified().await;
    }
}

impl Drop for Hints {
    fn drop(&mut self) {
        self.ear.abort();
    }
}

async fn listen(client: Client, types: &'static [&'static str], bell: Arc<Notify>) {
    let mut filters: Vec<(&str, &str)> = types.iter().map(|kind| ("type", *kind)).collect();
    // Not each run of a health check, which is an event of its container.
    filters.extend(CHANGES.iter().map(|change| ("event", *change)));
    loop {
        match client.open(Request::get("listen to events", &["events"]).filters(&filters)).await {
            Ok(mut events) => {
                // What happened before it listened is a change too.
                bell.notify_one();
                // A connection can die silently, so one that says nothing for long is made anew.
                while let Ok(Ok(Some(_))) = timeout(SILENCE, events.next()).await {
                    bell.notify_one();
                }
            }
            Err(error) => debug!(%error, "no events, so the watch only polls"),
        }
        sleep(AGAIN).await;
    }
}

/// What can change a service, a node, a task, a secret or a config.
const CHANGES: [&str; 8] = [
    "create",
    "update",
    "remove",
    "start",
    "die",
    "destroy",
    "health_status: healthy",
    "health_status: unhealthy",
];
const SILENCE: Duration = Duration::from_secs(120);
const AGAIN: Duration = Duration::from_secs(1);
