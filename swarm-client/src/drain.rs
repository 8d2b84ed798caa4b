//! Taking a node out of service without taking capacity from the services on it.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::drain_marks::{mark, marked, unmark};
use crate::error::{Error, ModifyError, Result};
use crate::hold;
use crate::model::{Availability, Mode, Node, Service, ServiceId, ServiceSpec, Task, TaskState};
use crate::nodes::Nodes;

/// How a node is drained.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DrainOptions {
    /// For all of it. The default is 10 minutes.
    pub deadline: Duration,
    /// How long replacements must have run before the old tasks are given up. The default is 1 second: a task with a health check
    /// runs only once it is healthy.
    pub stable_for: Duration,
}

impl Default for DrainOptions {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(600), stable_for: Duration::from_secs(1) }
    }
}

impl DrainOptions {
    /// For all of it.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long replacements must have run before the old tasks are given up.
    #[must_use]
    pub fn stable_for(mut self, time: Duration) -> Self {
        self.stable_for = time;
        self
    }
}

/// What a drain did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Drained {
    /// The services whose tasks were replaced elsewhere first.
    pub moved: Vec<String>,
    /// The services whose tasks there were just stopped: those with one task on each node, and jobs.
    pub stopped: Vec<String>,
}

impl Nodes {
    /// Drains a node without taking capacity: it takes no new tasks; each replicated service on it starts replacements elsewhere and
    /// only then stops its tasks there; then the node is set to drain, and the call returns when no task runs on it any more. No
    /// task on another node is touched. Meanwhile the services carry a [`Hold`](crate::Hold), which a scaler obeys.
    ///
    /// If replacements do not come up, all is taken back, the node's availability too. Repeating it goes on where it stopped, also
    /// after the process died.
    ///
    /// # Errors
    /// [`Error::Step`] with the reason if a service finds no room elsewhere; [`Error::is_held`] if something else moves a
    /// service's tasks; [`Error::Deadline`].
    pub async fn drain(&self, name: impl AsRef<str>, options: &DrainOptions) -> Result<Drained> {
        let node = self.get(name.as_ref()).await?;
        let end = End { start: Instant::now(), limit: options.deadline };
        let before = node.availability();
        self.pause_unless_drained(&node).await?;
        let result = self.move_away(&node, options, end).await;
        let drained = match result {
            Ok(drained) => drained,
            Err(error) => {
                warn!(node = node.hostname(), %error, "the drain is taken back");
                let back = Box::pin(self.take_back(&node)).await;
                let set = self.set_availability(node.id.as_str(), before).await;
                if let Some(also) = back.err().or(set.err()) {
                    warn!(node = node.hostname(), error = %also, "it could not be taken back whole; drain it again");
                }
                return Err(error);
            }
        };
        self.set_availability(node.id.as_str(), Availability::Drain).await?;
        let empty = self.wait_empty(&node, end).await;
        // The node is drained, so nothing comes back to it without the marks.
        Box::pin(self.take_back(&node)).await?;
        empty?;
        info!(node = node.hostname(), moved = drained.moved.len(), "drained");
        Ok(drained)
    }

    async fn pause_unless_drained(&self, node: &Node) -> Result<()> {
        if node.availability() != Availability::Drain {
            self.pause(node.id.as_str()).await?;
        }
        Ok(())
    }

    async fn move_away(&self, node: &Node, options: &DrainOptions, end: End) -> Result<Drained> {
        let (on_it, services) =
            futures_util::future::try_join(self.tasks_on(node), self.client.services().list()).await?;
        let ids: BTreeSet<&ServiceId> = on_it.iter().map(|task| &task.service_id).collect();
        let mut drained = Drained::default();
        let mut moving = Vec::new();
        for service in services.iter().filter(|service| ids.contains(&service.id)) {
            if matches!(service.spec.mode.kind(), Mode::Replicated { .. }) {
                moving.push(service);
            } else {
                drained.stopped.push(service.name().to_owned());
            }
        }
        // All at once, for the sake of the deadline; each service keeps its own rules for how many at a time.
        for service in &moving {
            self.mark_service(service, node, options).await?;
        }
        for service in &moving {
            let rollout = self.client.services().rollout(service.id.as_str()).stable_for(options.stable_for);
            let outcome = rollout.wait(end.left()).await?;
            if !outcome.is_success() {
                let what =
                    format!("drain node {:?}: move service {:?} elsewhere", node.hostname(), service.name());
                return Err(Error::Step { what, outcome: Box::new(outcome) });
            }
            drained.moved.push(service.name().to_owned());
        }
        Ok(drained)
    }

    async fn mark_service(&self, service: &Service, node: &Node, options: &DrainOptions) -> Result<()> {
        let now = hold::now();
        let services = self.client.services();
        let marking =
            services.try_modify(service.id.as_str(), |service: &Service, spec: &mut ServiceSpec| {
                match service.hold(now) {
                    Some(held) if marked(spec).as_ref() != Some(&node.id) => Err(held.error(service.name())),
                    _ => {
                        // What an earlier drain of this node left is taken back first.
                        unmark(spec, node);
                        mark(spec, node, now, options.deadline);
                        Ok(())
                    }
                }
            });
        match marking.await {
            Ok(_) => Ok(()),
            Err(ModifyError::Refused(error) | ModifyError::Swarm(error)) => Err(error),
        }
    }

    async fn take_back(&self, node: &Node) -> Result<()> {
        let services = self.client.services();
        for service in services.list().await? {
            if marked(&service.spec).as_ref() == Some(&node.id) {
                let result = services.modify(service.id.as_str(), |spec| {
                    unmark(spec, node);
                });
                match result.await {
                    Err(error) if !error.is_not_found() => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    async fn wait_empty(&self, node: &Node, end: End) -> Result<()> {
        loop {
            let last = match self.client.tasks().list_for_node(&node.id).await {
                Ok(tasks) => {
                    let running = tasks.iter().filter(|task| runs(task)).count();
                    // A dead node's tasks say that they run for a day.
                    if running == 0 || self.get(node.id.as_str()).await.is_ok_and(|node| node.is_down()) {
                        return Ok(());
                    }
                    format!("{running} tasks still run there")
                }
                Err(error) if error.is_retryable() => error.to_string(),
                Err(error) => return Err(error),
            };
            if end.left().is_zero() {
                let what = format!("drain node {:?}", node.hostname());
                return Err(Error::Deadline { what, after: end.limit, last });
            }
            sleep(POLL_EVERY.min(end.left())).await;
        }
    }

    async fn tasks_on(&self, node: &Node) -> Result<Vec<Task>> {
        let mut tasks = self.client.tasks().list_for_node(&node.id).await?;
        tasks.retain(Task::is_wanted);
        Ok(tasks)
    }
}

fn runs(task: &Task) -> bool {
    matches!(
        task.status.state,
        TaskState::Running | TaskState::Starting | TaskState::Preparing | TaskState::Ready
    )
}

#[derive(Clone, Copy)]
struct End {
    start: Instant,
    limit: Duration,
}

impl End {
    fn left(self) -> Duration {
        self.limit.saturating_sub(self.start.elapsed())
    }
}

const POLL_EVERY: Duration = Duration::from_millis(250);
