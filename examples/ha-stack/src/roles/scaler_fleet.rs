//! A scaler of several services at once: each that has the label `ha-stack.scale`, by its own labels or its own file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use autoscaler::Policy;
use autoscaler::controller::{Fleet, Mode};
use swarm_client::Service;
use tokio_util::sync::CancellationToken;

use super::labels;
use super::scaler::{Maker, UNSEEN};
use super::scaler_policy::{self, LOOK_EVERY, SCALE, Wish};

/// Scales them all until told to stop. A service that gets the label is scaled within seconds, one that loses it or says
/// `off` is left alone, and one whose policy makes no sense goes on with the one before.
pub(super) async fn run(
    swarm: swarm_client::Client,
    maker: Maker,
    flags: &Policy,
    files: Option<&Path>,
    stop: CancellationToken,
) {
    let mut scaled = Scaled { maker, fleet: Fleet::new(PASSES), cpu: BTreeMap::new(), told: BTreeMap::new() };
    while !stop.is_cancelled() {
        // What can't be read changes nothing; the controllers themselves say that Swarm is away.
        if let Ok(found) = swarm.services().list_labelled(SCALE).await {
            scaled.follow(&wishes(&found, flags, files)).await;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => {}
        }
    }
    scaled.fleet.shutdown().await;
}

/// What each service asks for, or why that makes no sense.
type Wishes = BTreeMap<String, Result<Wish, String>>;

fn wishes(services: &[Service], flags: &Policy, files: Option<&Path>) -> Wishes {
    let wish = |service: &Service| -> Result<Wish> {
        let Some(path) = files.and_then(|folder| file_of(folder, service.name())) else {
            return scaler_policy::of_service(service, flags, UNSEEN);
        };
        // A file says by what, the label whether at all.
        if service.label(SCALE) == Some("off") {
            return Ok(Wish::Off);
        }
        let policy = scaler_policy::from_file(&path)?;
        let served = scaler_policy::is_served(service.label(labels::CHECK), &policy);
        Ok(Wish::Scale(Box::new(if served { scaler_policy::careful(policy, UNSEEN) } else { policy })))
    };
    let named = services.iter().map(|service| (service.name().to_owned(), wish(service)));
    named.map(|(name, wish)| (name, wish.map_err(|error| format!("{error:#}")))).collect()
}

/// The file of a service, if it has one. A service's name can't lead out of the folder: it has no slash.
fn file_of(folder: &Path, service: &str) -> Option<std::path::PathBuf> {
    let path = folder.join(format!("{service}.toml"));
    path.is_file().then_some(path)
}

struct Scaled {
    maker: Maker,
    fleet: Fleet,
    cpu: BTreeMap<String, Arc<AtomicBool>>,
    /// What was said last about each service, so that it is said once.
    told: BTreeMap<String, String>,
}

impl Scaled {
    async fn follow(&mut self, wishes: &Wishes) {
        let running: BTreeSet<String> = self.fleet.services().map(str::to_owned).collect();
        let goes_on = |service: &String| matches!(wishes.get(service), Some(Ok(Wish::Scale(_)) | Err(_)));
        for gone in running.iter().filter(|service| !goes_on(service)) {
            tracing::info!(service = %gone, "no longer scaled");
            self.fleet.stop(gone).await;
            self.maker.figures().remove(gone);
            self.cpu.remove(gone);
        }
        for (service, wish) in wishes {
            let done = match wish {
                Ok(Wish::Off) => Ok(()),
                Ok(Wish::Scale(policy)) => self.scale(service, policy),
                Err(error) => Err(anyhow::anyhow!("{error}")),
            };
            match done {
                Ok(()) => drop(self.told.remove(service)),
                Err(error) => {
                    let error = format!("{error:#}");
                    if self.told.get(service) != Some(&error) {
                        tracing::warn!(%service, %error, "left aside; what was before goes on");
                        self.told.insert(service.clone(), error);
                    }
                }
            }
        }
    }

    fn scale(&mut self, service: &str, policy: &Policy) -> Result<()> {
        if let Some(handle) = self.fleet.get(service) {
            if let Some(cpu) = self.cpu.get(service) {
                cpu.store(scaler_policy::wants_cpu(policy), Ordering::Relaxed);
            }
            handle.set_mode(if self.maker.is_shadow() { Mode::Shadow } else { Mode::Active });
            return handle.set(policy.clone()).context("the policy was refused");
        }
        let (controller, cpu) = self.maker.controller(service, policy.clone())?;
        self.fleet.start(controller)?;
        tracing::info!(%service, "scaled from now on");
        self.cpu.insert(service.to_owned(), cpu);
        Ok(())
    }
}

/// Each pass asks a manager and the gateways a few times; more at once would only queue there.
const PASSES: usize = 8;

#[cfg(test)]
mod tests {
    use autoscaler::{SignalPolicy, Target};
    use serde_json::json;

    use super::*;

    fn service(name: &str, labels: serde_json::Value) -> Service {
        let spec = json!({"Name": name, "Labels": labels, "Mode": {"Replicated": {"Replicas": 2}}});
        serde_json::from_value(json!({"ID": name, "Version": {"Index": 1}, "Spec": spec})).unwrap()
    }

    #[test]
    fn each_service_has_a_policy_of_its_own_and_a_file_comes_first() {
        let flags = Policy::balanced("in_flight", 10.0).bounds(2, 6);
        let folder = tempfile::tempdir().unwrap();
        let text = "min = 3\nmax = 9\n[[signals]]\nname = \"rate\"\ntarget = { average_per_instance = 70 }\n";
        std::fs::write(folder.path().join("shop.toml"), text).unwrap();
        std::fs::write(folder.path().join("bad.toml"), "min = 5\nmax = 4\n").unwrap();
        let services = [
            service(
                "web",
                json!({"ha-stack.scale": "kpa", "ha-stack.scale.max": "20", "ha-stack.check": "/"}),
            ),
            service(
                "jobs",
                json!({"ha-stack.scale": "hpa", "ha-stack.scale.cpu": "70", "ha-stack.scale.min": "1"}),
            ),
            service("shop", json!({"ha-stack.scale": "hpa"})),
            service("bad", json!({"ha-stack.scale": "hpa"})),
            service("quiet", json!({"ha-stack.scale": "off"})),
        ];
        let wishes = wishes(&services, &flags, Some(folder.path()));
        let policy = |name: &str| match &wishes[name] {
            Ok(Wish::Scale(policy)) => policy.clone(),
            other => panic!("{name}: {other:?}"),
        };
        let web = policy("web");
        assert_eq!((web.max, web.signals[0].window.as_secs()), (20, 60));
        assert!(web.drain.is_some(), "its gateways are asked first");
        let jobs = policy("jobs");
        assert_eq!(jobs.signals, [SignalPolicy::new("cpu", Target::Utilization(70))]);
        assert_eq!((jobs.min, jobs.drain), (1, None), "no gateway serves it");
        assert_eq!((policy("shop").min, policy("shop").max), (3, 9));
        assert!(wishes["bad"].as_ref().unwrap_err().contains("line 1: min is 5"), "{:?}", wishes["bad"]);
        assert_eq!(wishes["quiet"], Ok(Wish::Off));
    }
}
