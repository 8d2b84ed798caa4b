//! The scaler: reads how busy the gateways are, decides, and writes the number of replicas to Swarm.
//!
//! Any number of scalers may run; the one that holds a lock in Consul acts. Its term, the lock's fence, goes into each
//! write, so that one that was paused and wakes up can't write over its successor.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use autoscaler::Reading;
use autoscaler::controller::{Controller, Held, Lease, LeaseError, SignalSource, Term, now};
use clap::Args;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::admin::LoadSeen;
use super::journal::ConsulJournal;
use super::labels;
use super::swarm_target::SwarmTarget;
use crate::cli::SpecArgs;
use crate::load;
use crate::platform::IN_FLIGHT;
use crate::settings::Backends;

/// Flags of `scaler`.
#[derive(Args, Clone, Debug)]
pub struct ScalerArgs {
    /// The Swarm service to scale
    #[arg(long, default_value = "web")]
    service: String,
    #[command(flatten)]
    spec: SpecArgs,
    /// Most replicas to remove within a minute, in percent of those there
    #[arg(long, default_value_t = 50, value_name = "PERCENT")]
    down_percent: u32,
    /// How often to decide
    #[arg(long, default_value_t = 1, value_name = "SECONDS")]
    tick: u64,
}

/// Scales until told to stop.
///
/// # Errors
/// When a setting is wrong, or Swarm can't be reached. Consul may come later.
pub async fn run(args: ScalerArgs, backends: &Backends) -> Result<ExitCode> {
    ensure!((1..=60).contains(&args.tick), "--tick is {}; it must be 1 to 60", args.tick);
    ensure!(
        (1..=100).contains(&args.down_percent),
        "--down-percent is {}; it must be 1 to 100",
        args.down_percent
    );
    let mut spec = args.spec.spec()?;
    spec.down_percent_a_minute = args.down_percent;
    let consul = backends.consul()?;
    let swarm = backends.swarm().await?;
    let controller = Controller::new(
        &args.service,
        spec.policy(),
        Arc::new(Gateways { consul: consul.clone(), http: load::client(Duration::from_secs(2))? }),
        Arc::new(SwarmTarget::new(swarm, &args.service)),
        Arc::new(ConsulLease {
            consul: consul.clone(),
            key: lock_key(&args.service),
            held: Mutex::default(),
        }),
        Arc::new(ConsulJournal::new(consul, &args.service)),
    )
    .context("the scaling policy was refused")?
    .tick(Duration::from_secs(args.tick));

    let stop = CancellationToken::new();
    let signal = crate::cli::shutdown_signal()?;
    let told = stop.clone();
    tokio::spawn(async move {
        signal.await;
        told.cancel();
    });
    controller.run(stop).await;
    Ok(ExitCode::SUCCESS)
}

fn lock_key(service: &str) -> String {
    format!("ha-stack/scaler/{service}/leader")
}

/// Requests in flight, summed over all gateways that Consul lists.
struct Gateways {
    consul: consul_client::Client,
    http: reqwest::Client,
}

impl Gateways {
    async fn in_flight(&self) -> Result<Option<f64>> {
        let gateways = self.consul.health().service(labels::GATEWAYS).passing().list().await?.value;
        let asked = gateways.iter().map(|gateway| async move {
            let port = gateway.service.meta.get(labels::META_ADMIN_PORT);
            let port = port.with_context(|| format!("{} does not say its admin port", gateway.service.id))?;
            LoadSeen::fetch(&self.http, &format!("{}:{port}", gateway.address())).await
        });
        let mut sum = 0;
        for seen in futures_util::future::join_all(asked).await {
            // One silent gateway makes the sum unknown, not smaller.
            sum += seen?.in_flight;
        }
        Ok((!gateways.is_empty()).then_some(sum as f64))
    }
}

#[async_trait]
impl SignalSource for Gateways {
    async fn read(&self, _service: &str) -> Vec<(String, Reading)> {
        let reading = match self.in_flight().await {
            Ok(Some(sum)) => Reading::value(sum, now()),
            Ok(None) => Reading::NoData,
            Err(error) => Reading::error(format!("{error:#}")),
        };
        vec![(IN_FLIGHT.into(), reading)]
    }
}

/// Leadership by a lock in Consul; the term is the lock's fence.
struct ConsulLease {
    consul: consul_client::Client,
    key: String,
    held: Mutex<Option<CancellationToken>>,
}

#[async_trait]
impl Lease for ConsulLease {
    async fn acquire(&self) -> Result<Held, LeaseError> {
        let lock = self.consul.lock(&self.key).ttl(LOCK_TTL).lock_delay(LOCK_DELAY).acquire().await;
        let lock =
            lock.map_err(|e| LeaseError::unavailable(format!("acquiring the Consul lock {}", self.key), e))?;
        let held = Held { term: Term(lock.fence().0), lost: CancellationToken::new() };
        let release = CancellationToken::new();
        *self.held.lock().await = Some(release.clone());
        let lost = held.lost.clone();
        tokio::spawn(async move {
            tokio::select! {
                why = lock.lost() => {
                    tracing::warn!(%why, "no longer the leader");
                    lost.cancel();
                }
                () = release.cancelled() => {
                    lost.cancel();
                    if let Err(error) = lock.release().await {
                        tracing::warn!(%error, "the leader's lock was not released; it ends with its session");
                    }
                }
            }
        });
        Ok(held)
    }

    async fn release(&self, _held: &Held) {
        if let Some(release) = self.held.lock().await.take() {
            release.cancel();
        }
    }
}

/// The shortest that Consul offers. A leader whose host is lost is gone sooner, by Consul's own failure detection.
const LOCK_TTL: Duration = Duration::from_secs(10);
/// Two leaders at once are harmless, for the older one's term is refused: no need for the default of 15 s.
const LOCK_DELAY: Duration = Duration::from_secs(1);
