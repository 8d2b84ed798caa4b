//! Many services: a task for each, few passes at once.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::handle::PolicyHandle;
use super::run::Controller;

/// Runs a [`Controller`] for each of many services, each in a task of its own with its own, varied ticks; at most so many
/// passes run at once. One that hangs in its deadlines holds up nobody else's ticks as long as permits are left.
#[derive(Debug)]
pub struct Fleet {
    permits: Arc<Semaphore>,
    running: HashMap<String, Running>,
}

#[derive(Debug)]
struct Running {
    handle: PolicyHandle,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// A service has a controller already: two on one service would be two opinions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("service {service} has a controller already; stop that one first")]
pub struct AlreadyRunning {
    /// The service.
    pub service: String,
}

impl Fleet {
    /// No service yet; at most `passes` at once (at least one).
    pub fn new(passes: usize) -> Self {
        let passes = passes.clamp(1, Semaphore::MAX_PERMITS);
        Self { permits: Arc::new(Semaphore::new(passes)), running: HashMap::new() }
    }

    /// Starts a controller.
    ///
    /// # Errors
    /// When its service has one already; the new one is dropped.
    pub fn start(&mut self, controller: Controller) -> Result<PolicyHandle, AlreadyRunning> {
        let service = controller.service().to_owned();
        if self.running.contains_key(&service) {
            return Err(AlreadyRunning { service });
        }
        let (handle, stop) = (controller.policy_handle(), CancellationToken::new());
        let task = tokio::spawn(controller.permits(Arc::clone(&self.permits)).run(stop.clone()));
        self.running.insert(service, Running { handle: handle.clone(), stop, task });
        Ok(handle)
    }

    /// The handle of a service's controller.
    pub fn get(&self, service: &str) -> Option<&PolicyHandle> {
        self.running.get(service).map(|running| &running.handle)
    }

    /// The services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.running.keys().map(String::as_str)
    }

    /// Stops a service's controller and waits until it has given its lease back. The service stays as it is.
    pub async fn stop(&mut self, service: &str) {
        if let Some(running) = self.running.remove(service) {
            running.stop.cancel();
            // A controller does not panic, and nobody else aborts it.
            let _ = running.task.await;
        }
    }

    /// Stops all controllers.
    pub async fn shutdown(mut self) {
        for running in self.running.values() {
            running.stop.cancel();
        }
        for (_, running) in self.running.drain() {
            let _ = running.task.await;
        }
    }
}

impl Drop for Fleet {
    /// Tells all controllers to stop, without waiting for them.
    fn drop(&mut self) {
        for running in self.running.values() {
            running.stop.cancel();
        }
    }
}
