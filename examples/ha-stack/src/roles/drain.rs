//! Drain-aware scale-in: the scaler asks every gateway to keep new requests from the replicas that will go.
//!
//! A gateway's drain lapses by itself when nobody repeats it, so that a scaler that dies in the middle leaves nothing
//! behind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use autoscaler::controller::{Drainer, ScaleError};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use balancer::{Endpoint, EndpointId, Update};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::admin::LoadSeen;
use super::coordination::{Coordination, Peer};
use super::services::Services;

/// What is asked of a gateway.
#[derive(Debug, Serialize, Deserialize)]
struct Ask {
    /// Of which service; of the gateway's own one without a name.
    #[serde(default)]
    service: Option<String>,
    /// These get no new requests, and all others of the service do.
    instances: BTreeSet<String>,
}

/// What a gateway answers: requests in flight on each that it knows.
type InFlight = BTreeMap<String, u64>;

/// The replicas that a gateway was asked to drain, by service: each has a scaler of its own.
struct Boards {
    services: Services,
    /// Whose a drain without a service is.
    default: String,
    all: Lock<BTreeMap<String, Arc<Board>>>,
}

/// The replicas of one service that a gateway was asked to drain.
struct Board {
    services: Services,
    service: String,
    told: Mutex<BTreeSet<String>>,
    asked: AtomicU64,
}

/// `POST /drain` of a gateway's admin address.
pub fn routes(services: Services, default: String) -> Router {
    let boards = Boards { services, default, all: Lock::default() };
    Router::new().route("/drain", post(asked)).with_state(Arc::new(boards))
}

impl Boards {
    /// `None` for a service that is not served here: nobody sends anything to its replicas.
    fn of(&self, service: Option<String>) -> Option<Arc<Board>> {
        let service = service.unwrap_or_else(|| self.default.clone());
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known, _| self.services.gateway(known).is_some());
        self.services.gateway(&service)?;
        let board = all.entry(service).or_insert_with_key(|service| {
            Arc::new(Board {
                services: self.services.clone(),
                service: service.clone(),
                told: Mutex::default(),
                asked: AtomicU64::new(0),
            })
        });
        Some(Arc::clone(board))
    }
}

async fn asked(
    State(boards): State<Arc<Boards>>,
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
    let Some(board) = boards.of(ask.service) else { return Ok(Json(InFlight::new())) };
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
        // It may have gone meanwhile.
        let Some(gateway) = self.services.gateway(&self.service) else { return Ok(InFlight::new()) };
        for instance in wanted.difference(&told) {
            tracing::info!(%instance, "drained, to be removed");
            gateway.apply(Update::Drain(EndpointId::new(instance.as_str())));
        }
        let seen = LoadSeen::of(&gateway)?.replicas();
        for replica in seen.iter().filter(|r| told.contains(&r.instance) && !wanted.contains(&r.instance)) {
            if let Ok(address) = replica.address.parse::<SocketAddr>() {
                tracing::info!(instance = %replica.instance, "no longer drained");
                // Data for a known endpoint ends its drain.
                let endpoint = Endpoint::new(replica.instance.as_str(), address).host(replica.host.as_str());
                gateway.apply(Update::Add(endpoint));
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
        let drained = self.ask_all(service, instances).await;
        drained.map_err(|error| {
            ScaleError::unavailable(service, "draining at every gateway", error.into_boxed_dyn_error())
        })
    }
}

impl GatewayDrains {
    async fn ask_all(&self, service: &str, instances: &[String]) -> Result<Vec<(String, u64)>> {
        let gateways = self.by.peers().await?;
        // Where there is none there is nothing to take back.
        ensure!(gateways.iter().any(|gateway| gateway.up) || instances.is_empty(), "no gateway is known");
        let ask = Ask { service: Some(service.to_owned()), instances: instances.iter().cloned().collect() };
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

    fn services() -> Services {
        let config = super::super::gateway::config("/healthz", Duration::from_secs(1));
        let services = Services::new(config, Some("web"), None).unwrap();
        let labels = BTreeMap::from([("balancer.host".to_owned(), "shop.example".to_owned())]);
        services.set("shop", &labels).unwrap();
        for (service, id, port) in [("web", "web.1.a", 1), ("web", "web.2.b", 2), ("shop", "shop.1.c", 3)] {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            services.apply(service, Update::Add(Endpoint::new(id, address).host("h1")));
        }
        services
    }

    fn boards(services: &Services) -> Boards {
        Boards { services: services.clone(), default: "web".into(), all: Lock::default() }
    }

    fn draining(services: &Services) -> Vec<String> {
        let seen = LoadSeen::of_all(services).unwrap().replicas();
        seen.into_iter().filter(|r| r.state.starts_with("draining")).map(|r| r.instance).collect()
    }

    fn ask(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[tokio::test]
    async fn a_drain_is_the_whole_list_and_is_taken_back_by_the_next() {
        let services = services();
        let board = boards(&services).of(None).unwrap();
        let answer = board.drain(ask(&["web.2.b", "web.9.gone"])).await.unwrap();
        assert_eq!(
            answer,
            InFlight::from([("web.2.b".to_owned(), 0)]),
            "of one that is not there nothing is said"
        );
        assert_eq!(draining(&services), ["web.2.b"]);
        board.drain(ask(&["web.1.a"])).await.unwrap();
        assert_eq!(draining(&services), ["web.1.a"]);
        board.drain(ask(&[])).await.unwrap();
        assert_eq!(draining(&services), [""; 0]);
    }

    #[tokio::test]
    async fn each_service_has_a_list_of_its_own() {
        let services = services();
        let boards = boards(&services);
        let (web, shop) = (boards.of(Some("web".into())).unwrap(), boards.of(Some("shop".into())).unwrap());
        web.drain(ask(&["web.2.b"])).await.unwrap();
        shop.drain(ask(&["shop.1.c"])).await.unwrap();
        assert_eq!(draining(&services), ["shop.1.c", "web.2.b"]);
        shop.drain(ask(&[])).await.unwrap();
        assert_eq!(draining(&services), ["web.2.b"], "the other scaler's drain is not touched");
        assert!(boards.of(Some("nobody".into())).is_none());
        services.remove("shop");
        assert_eq!(shop.drain(ask(&["shop.1.c"])).await.unwrap(), InFlight::new());
    }
}
