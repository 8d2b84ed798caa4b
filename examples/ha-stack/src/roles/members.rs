//! Who serves, as an endless stream of updates: Consul's word, and where that fails the instances' own.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use balancer::Update;
use consul_client::{ServiceEntry, Watch};
use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use super::discovery::{Feed, Question};
use crate::load;

/// The members of a service.
pub struct Members {
    service: String,
    watch: Watch<ServiceEntry>,
    feed: Feed,
    asker: Asker,
    ticks: Interval,
    asking: Option<Asking>,
    tags: Vec<Vec<String>>,
}

/// What changed.
#[derive(Debug, Default)]
pub struct Change {
    /// For the pool.
    pub updates: Vec<Update>,
    /// The tags of each registered instance, where they are others than before. Those of one whose agent is lost count too.
    pub tags: Option<Vec<Vec<String>>>,
}

type Asking = JoinHandle<Vec<(String, bool)>>;

impl Members {
    /// Those of this service. Instances whose registration does not name the path of their check are asked at `probe`, or,
    /// without one, whether they accept a connection.
    ///
    /// # Errors
    /// When the HTTP client can't be built.
    pub fn new(consul: &consul_client::Client, service: &str, probe: Option<&str>) -> Result<Self> {
        let mut ticks = interval(ASK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            service: service.to_owned(),
            watch: consul.health().service(service).watch(),
            feed: Feed::default(),
            asker: Asker { http: load::client(ASK_LIMIT)?, probe: probe.map(str::to_owned) },
            ticks,
            asking: None,
            tags: Vec::new(),
        })
    }

    /// What changed; never ends by itself. Consul's outage changes nothing: the last good set stays. Cancel-safe.
    pub async fn next(&mut self) -> Change {
        loop {
            let mut tags = None;
            let updates = tokio::select! {
                snapshot = self.watch.next() => {
                    let Some(snapshot) = snapshot else { return std::future::pending().await };
                    let said: Vec<_> = snapshot.items.iter().map(|entry| entry.service.tags.clone()).collect();
                    if said != self.tags {
                        self.tags.clone_from(&said);
                        tags = Some(said);
                    }
                    let updates = self.feed.updates(&snapshot.items);
                    tracing::debug!(service = %self.service, instances = snapshot.items.len(), "consul's health");
                    updates
                }
                answers = finished(&mut self.asking), if self.asking.is_some() => {
                    self.asking = None;
                    let answers = answers.into_iter();
                    answers.filter_map(|(id, serves)| self.feed.answered(&id, serves)).collect()
                }
                _ = self.ticks.tick(), if self.asking.is_none() && self.feed.doubts() => {
                    let questions = self.feed.questions();
                    self.asking = Some(tokio::spawn(self.asker.clone().ask(questions)));
                    continue;
                }
            };
            if !updates.is_empty() || tags.is_some() {
                tracing::info!(service = %self.service, updates = updates.len(), doubts = self.feed.doubts(), "members");
                return Change { updates, tags };
            }
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        if let Some(asking) = self.asking.take() {
            asking.abort();
        }
    }
}

async fn finished(asking: &mut Option<Asking>) -> Vec<(String, bool)> {
    match asking {
        Some(asking) => asking.await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

#[derive(Clone)]
struct Asker {
    http: reqwest::Client,
    probe: Option<String>,
}

impl Asker {
    async fn ask(self, questions: Vec<Question>) -> Vec<(String, bool)> {
        let asked = questions.into_iter().map(|question| {
            let path = question.check.or_else(|| self.probe.clone());
            let http = self.http.clone();
            async move {
                let serves = match path {
                    Some(path) => ready(&http, question.address, &path).await,
                    None => timeout(ASK_LIMIT, TcpStream::connect(question.address))
                        .await
                        .is_ok_and(|open| open.is_ok()),
                };
                (question.id, serves)
            }
        });
        join_all(asked).await
    }
}

async fn ready(http: &reqwest::Client, address: SocketAddr, path: &str) -> bool {
    let answer = http.get(format!("http://{address}{path}")).send().await;
    answer.is_ok_and(|answer| answer.status().is_success())
}

const ASK_EVERY: Duration = Duration::from_secs(1);
const ASK_LIMIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use consul_client::testing::FakeConsul;
    use consul_client::{Check, ServiceRegistration, Status};
    use tokio::net::TcpListener;

    use super::*;

    async fn soon(members: &mut Members) -> Vec<Update> {
        timeout(Duration::from_secs(30), members.next()).await.expect("updates in time").updates
    }

    #[tokio::test]
    async fn a_dead_agent_costs_no_replica_that_answers_and_keeps_none_that_does_not() {
        let consul = FakeConsul::start().await;
        let site = || async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let app = Router::new().route("/healthz", get(|| async { "ready" }));
            (address, tokio::spawn(async move { axum::serve(listener, app).await }))
        };
        let (mut sites, client) = (Vec::new(), consul.client());
        for id in ["web-1", "web-2"] {
            let (address, task) = site().await;
            let check = Check::ttl(Duration::from_secs(600)).initial_status(Status::Passing);
            let web =
                ServiceRegistration::new("web", id).address("127.0.0.1").port(address.port()).check(check);
            client.agent().register(&web).await.unwrap();
            sites.push(task);
        }
        let mut members = Members::new(&client, "web", Some("/healthz")).unwrap();
        assert_eq!(soon(&mut members).await.len(), 2);
        consul.set_agent(false);
        assert!(client.health().service("web").passing().list().await.unwrap().value.is_empty());
        let quiet = timeout(Duration::from_secs(5), members.next()).await;
        assert!(quiet.is_err(), "both answer, so both stay: {quiet:?}");
        // The host was not gone, but one replica is now, and nobody there can tell Consul.
        let gone = sites.remove(1);
        gone.abort();
        let _ = gone.await;
        let updates = soon(&mut members).await;
        assert!(matches!(&updates[..], [Update::Remove(id)] if id.as_str() == "web-2"), "{updates:?}");
        consul.set_agent(true);
        let updates = soon(&mut members).await;
        assert!(
            matches!(&updates[..], [Update::Add(back)] if back.id.as_str() == "web-2"),
            "Consul's word counts again: {updates:?}"
        );
    }
}
