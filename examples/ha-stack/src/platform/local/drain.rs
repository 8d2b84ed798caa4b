//! Replicas that will be removed get no new requests before: the drain of the gateway in this process.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use autoscaler::Instance;
use autoscaler::controller::{Drainer, ScaleError};
use balancer::proxy::Gateway;
use balancer::{Endpoint, EndpointId, Update};
use tokio::sync::Mutex;

use super::fleet::Fleet;
use crate::roles::admin::LoadSeen;

/// Drains replicas at the gateway, and takes drains back.
pub struct GatewayDrain {
    gateway: Gateway,
    fleet: Arc<Fleet>,
    told: Mutex<BTreeSet<String>>,
}

impl GatewayDrain {
    /// For the replicas of this fleet behind this gateway.
    pub fn new(gateway: Gateway, fleet: Arc<Fleet>) -> Self {
        Self { gateway, fleet, told: Mutex::default() }
    }
}

#[async_trait]
impl Drainer for GatewayDrain {
    async fn drain(&self, service: &str, instances: &[String]) -> Result<Vec<(String, u64)>, ScaleError> {
        let wanted: BTreeSet<String> = instances.iter().cloned().collect();
        let mut told = self.told.lock().await;
        for instance in wanted.difference(&told) {
            self.gateway.apply(Update::Drain(EndpointId::new(instance.as_str())));
        }
        let staying = self.fleet.staying().await;
        for (placed, address) in staying
            .iter()
            .filter(|(placed, _)| told.contains(&placed.instance) && !wanted.contains(&placed.instance))
        {
            // Data for a known endpoint ends its drain.
            let endpoint = Endpoint::new(placed.instance.as_str(), *address).host(placed.host.as_str());
            self.gateway.apply(Update::Add(endpoint));
        }
        *told = wanted;
        let seen = LoadSeen::of(&self.gateway).map_err(|error| {
            ScaleError::unavailable(service, "reading the gateway", error.into_boxed_dyn_error())
        })?;
        let drained = seen.replicas().into_iter().filter(|replica| told.contains(&replica.instance));
        Ok(drained.map(|replica| (replica.instance, replica.in_flight)).collect())
    }
}

/// The replicas that stay unless the number changes, as the scaler sees them.
pub async fn instances(fleet: &Fleet) -> Vec<Instance> {
    let staying = fleet.staying().await;
    let instance = |(placed, _): super::fleet::Staying| {
        Instance::new(placed.instance).at(placed.host, u64::from(placed.slot))
    };
    staying.into_iter().map(instance).collect()
}
