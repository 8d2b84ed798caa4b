//! Watching user events. Their index is made from an event's id, so it is neither ordered nor to be compared: what is new is told by
//! looking for the last event that was seen.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use tokio::{sync::watch, time::Instant};

use super::WatchState;
use crate::{
    Client, Event, Result,
    backoff::{Backoff, Bucket},
    request::Request,
};

/// An endless stream of events: each that the agent sees from now on, once. It never ends, and yields no errors: [`state`](Self::state)
/// tells how it goes. An agent remembers 256 events; more than that between two polls, and events of an agent that restarts, are lost.
#[must_use = "a watch does nothing until it is polled"]
pub struct EventWatch {
    stream: Pin<Box<dyn Stream<Item = Event> + Send>>,
    state: watch::Receiver<WatchState>,
}

impl EventWatch {
    pub(crate) fn new(client: Client, base: Request) -> Self {
        let state = watch::Sender::new(WatchState::Starting);
        let receiver = state.subscribe();
        let engine = Engine {
            client,
            base,
            state,
            index: 0,
            seen: Seen::default(),
            ready: VecDeque::new(),
            bucket: Bucket::new(Duration::from_millis(100), 2),
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(2)),
            began: Instant::now(),
        };
        let stream = futures_util::stream::unfold(engine, |mut engine| async move {
            let event = engine.next().await;
            Some((event, engine))
        });
        Self { stream: Box::pin(stream), state: receiver }
    }

    /// The next event. Never `None`; an `Option` so that it reads like any stream.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| self.stream.as_mut().poll_next(context)).await
    }

    /// How the watch is doing now. Live from the first answer on: events after that are not missed.
    pub fn state(&self) -> WatchState {
        self.state.borrow().clone()
    }

    /// To be told when the state changes.
    pub fn subscribe_state(&self) -> watch::Receiver<WatchState> {
        self.state.clone()
    }
}

impl Stream for EventWatch {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.as_mut().poll_next(context)
    }
}

impl fmt::Debug for EventWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventWatch").field("state", &*self.state.borrow()).finish_non_exhaustive()
    }
}

struct Engine {
    client: Client,
    base: Request,
    state: watch::Sender<WatchState>,
    index: u64,
    seen: Seen,
    ready: VecDeque<Event>,
    bucket: Bucket,
    backoff: Backoff,
    began: Instant,
}

impl Engine {
    async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return event;
            }
            tokio::time::sleep(self.bucket.take(self.began.elapsed())).await;
            let request = match self.index {
                0 => self.base.clone().once(Duration::from_secs(10)),
                index => self.base.clone().blocking(index, Duration::from_secs(15)),
            };
            match self.ask(&request).await {
                Ok((events, index)) => {
                    self.backoff.reset();
                    self.index = index;
                    self.ready = self.seen.news(events).into();
                    self.state.send_if_modified(|state| {
                        !matches!(std::mem::replace(state, WatchState::Live), WatchState::Live)
                    });
                }
                Err(error) => {
                    self.index = 0;
                    let since = match &*self.state.borrow() {
                        WatchState::Failing { since, .. } => *since,
                        _ => std::time::Instant::now(),
                    };
                    self.state.send_replace(WatchState::Failing { error: Arc::new(error), since });
                    tokio::time::sleep(self.backoff.next(rand::random())).await;
                }
            }
        }
    }

    async fn ask(&self, request: &Request) -> Result<(Vec<Event>, u64)> {
        let answer = self.client.read::<Option<Vec<Event>>>(request.clone()).await?;
        Ok((answer.value.unwrap_or_default(), answer.meta.index.unwrap_or(0)))
    }
}

/// What was seen. Pure.
#[derive(Debug, Default)]
struct Seen {
    /// The ids of the last list, or `None` before the first: what happened before is not news.
    last: Option<Vec<String>>,
}

impl Seen {
    /// What of this list is new: what comes after the last one that was seen. When that one is not there any more, whatever was not
    /// in the last list.
    fn news(&mut self, events: Vec<Event>) -> Vec<Event> {
        let ids = events.iter().map(|event| event.id.clone()).collect();
        let Some(last) = self.last.replace(ids) else {
            return Vec::new();
        };
        let newest = last.last().and_then(|id| events.iter().rposition(|event| event.id == *id));
        let after = newest.map_or(0, |at| at + 1);
        events.into_iter().skip(after).filter(|event| !last.contains(&event.id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn events(ids: &[u32]) -> Vec<Event> {
        let json: Vec<_> = ids
            .iter()
            .map(|id| serde_json::json!({"ID": id.to_string(), "Name": "n", "Payload": null}))
            .collect();
        serde_json::from_value(json.into()).unwrap()
    }

    fn ids(events: &[Event]) -> Vec<&str> {
        events.iter().map(|event| event.id.as_str()).collect()
    }

    #[test]
    fn the_past_is_no_news_and_nothing_comes_twice() {
        let mut seen = Seen::default();
        assert!(seen.news(events(&[1, 2])).is_empty());
        assert_eq!(ids(&seen.news(events(&[1, 2, 3, 4]))), ["3", "4"]);
        assert!(seen.news(events(&[1, 2, 3, 4])).is_empty());
        // The buffer turned over.
        assert_eq!(ids(&seen.news(events(&[9, 10]))), ["9", "10"]);
        // The agent restarted.
        assert!(seen.news(Vec::new()).is_empty());
        assert_eq!(ids(&seen.news(events(&[11]))), ["11"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn each_event_in_a_sliding_buffer_comes_once(steps in proptest::collection::vec(0_u32..6, 1..40)) {
            let (mut seen, mut fired, mut got) = (Seen::default(), 0_u32, Vec::new());
            seen.news(Vec::new());
            for step in steps {
                fired += step;
                let buffer: Vec<u32> = (fired.saturating_sub(8)..fired).collect();
                got.extend(ids(&seen.news(events(&buffer))).into_iter().map(str::to_owned));
            }
            let wanted: Vec<_> = (0..fired).map(|id| id.to_string()).collect();
            prop_assert_eq!(got, wanted);
        }
    }
}
