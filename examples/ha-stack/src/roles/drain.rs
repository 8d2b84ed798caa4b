//! Drain-aware scale-in: the scaler asks every gateway to keep new requests from the replicas that will go.
//!
//! A gateway's drain lapses by itself when nobody repeats it, so that a scaler that dies in the middle leaves nothing
//! behind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use autoscaler::controller::{Drainer, ScaleError};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use balancer::proxy::Gateway;
use balancer::{Endpoint, EndpointId, Update};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::admin::LoadSeen;
use super::coordination::{Coordination, Peer};

/// What is asked of a gateway.
#[derive(Debug, Serialize, Deserialize)]
struct Ask {
    /// These get no new requests, and all others do.
    instances: BTreeSet<String>,
}

/// What a gateway answers: requests in flight on each that it knows.
type InFlight = BTreeMap<String, u64>;

/// The replicas that a gateway was asked to drain.
struct Board {
    gateway: Gateway,
    told: Mutex<BTreeSet<String>>,
    asked: AtomicU64,
}

/// `POST /drain` of a gateway's admin address.
pub fn routes(gateway: Gateway) -> Router {
    let board = Board { gateway, told: Mutex::default(), asked: AtomicU64::new(0) };
    Router::new().route("/drain", post(asked)).with_state(Arc::new(board))
}

async fn asked(
    State(board): State<Arc<Board>>,
    headers: HeaderMap,
    Json(ask): Json<Ask>,
) -> Result<Json<InFlight>, (StatusCode, String)> {
    // A page in a browser can't set this header on a request to another origin without asking first.
    if !headers.contains_key(HEADER) {
        return Err((StatusCode::FORBIDDEN, format!("the header {HEADER} is missing")));
    }
    if ask.instances.len() > MOST {
        let why =
            format!("{} instances are asked for; at most {MOST} are drained at once", ask.instances.len());
        return Err((StatusCode::BAD_REQUEST, why));
    }
    let number = board.asked.fetch_add(1, Ordering::SeqCst) + 1;
    let in_flight = board.drain(ask.instances).await.map_err(refused)?;
    let lapsing = Arc::clone(&board);
    tokio::spawn(async move {
        tokio::time::sleep(LAPSES_AFTER).await;
        if lapsing.asked.load(Ordering::SeqCst) == number && lapsing.drain(BTreeSet::new()).await.is_err() {
            tracing::warn!("a drain that nobody repeats could not be taken back");
        }
    });
    Ok(Json(in_flight))
}

fn refused(error: anyhow::Error) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
}

impl Board {
    async fn drain(&self, wanted: BTreeSet<String>) -> Result<InFlight> {
        let mut told = self.told.lock().await;
        for instance in wanted.difference(&told) {
            tracing::info!(%instance, "drained, to be removed");
            self.gateway.apply(Update::Drain(EndpointId::new(instance.as_str())));
        }
        let seen = LoadSeen::of(&self.gateway)?.replicas();
        for replica in seen.iter().filter(|r| told.contains(&r.instance) && !wanted.contains(&r.instance)) {
            if let Ok(address) = replica.address.parse::<SocketAddr>() {
                tracing::info!(instance = %replica.instance, "no longer drained");
                // Data for a known endpoint ends its drain.
                let endpoint = Endpoint::new(replica.instance.as_str(), address).host(replica.host.as_str());
                self.gateway.apply(Update::Add(endpoint));
            }
        }
        *told = wanted;
        let drained = seen.into_iter().filter(|replica| told.contains(&replica.instance));
        Ok(drained.map(|replica| (replica.instance, replica.in_flight)).collect())
    }
}

/// All gateways that are known.
pub struct GatewayDrains {
    /// By what they are found.
    pub by: Coordination,
    /// With a deadline below that of the controller's calls.
    pub http: reqwest::Client,
}

#[async_trait]
impl Drainer for GatewayDrains {
    async fn drain(&self, service: &str, instances: &[String]) -> Result<Vec<(String, u64)>, ScaleError> {
        let drained = self.ask_all(instances).await;
        drained.map_err(|error| {
            ScaleError::unavailable(service, "draining at every gateway", error.into_boxed_dyn_error())
        })
    }
}

impl GatewayDrains {
    async fn ask_all(&self, instances: &[String]) -> Result<Vec<(String, u64)>> {
        let gateways = self.by.peers().await?;
        // Where there is none there is nothing to take back.
        ensure!(gateways.iter().any(|gateway| gateway.up) || instances.is_empty(), "no gateway is known");
        let ask = Ask { instances: instances.iter().cloned().collect() };
        let ask = &ask;
        let asked = gateways.iter().map(|Peer { host, admin: address, up, .. }| async move {
            let post = self.http.post(format!("http://{address}/drain")).header(HEADER, "1").json(&ask);
            let answer = match post.send().await {
                // Perhaps only the word of its machine is lost: asked, but not needed.
                Err(_) if !up => return Ok(InFlight::new()),
                sent => sent.with_context(|| format!("the gateway on {host} does not answer"))?,
            };
            let status = answer.status();
            ensure!(status.is_success(), "the gateway on {host} answers {status}");
            answer.json::<InFlight>().await.with_context(|| format!("the gateway on {host} answers nonsense"))
        });
        let mut sum: InFlight = InFlight::new();
        for answer in futures_util::future::join_all(asked).await {
            for (instance, in_flight) in answer? {
                *sum.entry(instance).or_default() += in_flight;
            }
        }
        Ok(sum.into_iter().collect())
    }
}

const HEADER: &str = "x-ha-stack";
/// More than a scaler removes at once.
const MOST: usize = 256;
/// Many ticks of a scaler, and time for a new leader.
const LAPSES_AFTER: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway() -> Gateway {
        let gateway = super::super::gateway::build("/healthz", Duration::from_secs(1), 7).unwrap();
        for (id, port) in [("web.1.a", 1), ("web.2.b", 2)] {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            gateway.apply(Update::Add(Endpoint::new(id, address).host("h1")));
        }
        gateway
    }

    fn board(gateway: &Gateway) -> Board {
        Board { gateway: gateway.clone(), told: Mutex::default(), asked: AtomicU64::new(0) }
    }

    fn draining(gateway: &Gateway) -> Vec<String> {
        let seen = LoadSeen::of(gateway).unwrap().replicas();
        seen.into_iter().filter(|r| r.state.starts_with("draining")).map(|r| r.instance).collect()
    }

    #[tokio::test]
    async fn a_drain_is_the_whole_list_and_is_taken_back_by_the_next() {
        let gateway = gateway();
        let board = board(&gateway);
        let ask = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<String>>();
        let answer = board.drain(ask(&["web.2.b", "web.9.gone"])).await.unwrap();
        assert_eq!(
            answer,
            InFlight::from([("web.2.b".to_owned(), 0)]),
            "of one that is not there nothing is said"
        );
        assert_eq!(draining(&gateway), ["web.2.b"]);
        board.drain(ask(&["web.1.a"])).await.unwrap();
        assert_eq!(draining(&gateway), ["web.1.a"]);
        board.drain(ask(&[])).await.unwrap();
        assert_eq!(draining(&gateway), [""; 0]);
    }
}
