//! Spreading tasks again after a node came back: a plan first, then its steps.
//!
//! Swarm moves nothing by itself. But it puts a new task on the node with the fewest tasks of its service, and takes a surplus one
//! off the node with the most (swarmkit, `orchestrator/replicated`: it removes the n-th copies on a node first). So a service that
//! grows by the number of tasks to move, and shrinks again when they run, is spread evenly, and nothing else is restarted.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures_util::future::try_join3;
use tracing::info;

use crate::client::Client;
use crate::error::{Error, ModifyError, Result};
use crate::hold::{self, Hold};
use crate::model::{Node, NodeId, Service, ServiceId, Task};
use crate::outcome::Outcome;
use crate::placement::may_run;

/// What a rebalance would do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RebalancePlan {
    /// The services whose tasks are spread unevenly; empty if there is nothing to do.
    pub moves: Vec<Move>,
}

/// What a rebalance would do to one service.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Move {
    /// The service.
    pub service_id: ServiceId,
    /// The service's name.
    pub service: String,
    /// Its replicas, before and after.
    pub replicas: u64,
    /// How many tasks move.
    pub tasks: u64,
    /// The tasks on each node now, by host name.
    pub now: BTreeMap<String, u64>,
    /// The tasks on each node then.
    pub then: BTreeMap<String, u64>,
}

impl fmt::Display for RebalancePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.moves.is_empty() {
            return f.write_str("nothing to move");
        }
        for (index, step) in self.moves.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{}: move {} of {} tasks", step.service, step.tasks, step.replicas)?;
            for (node, count) in &step.then {
                write!(f, ", {node} {} -> {count}", step.now.get(node).copied().unwrap_or(0))?;
            }
        }
        Ok(())
    }
}

impl RebalancePlan {
    /// Works it out: each replicated service is to be spread evenly over the nodes that may run it, with the fewest moves. Services
    /// that are not settled (a task is missing or stopping) or held are left alone.
    #[must_use]
    pub fn of(services: &[Service], tasks: &[Task], nodes: &[Node], now: Duration) -> Self {
        let mut moves: Vec<Move> =
            services.iter().filter(|s| s.hold(now).is_none()).filter_map(|s| plan(s, tasks, nodes)).collect();
        moves.sort_by(|a, b| a.service.cmp(&b.service));
        Self { moves }
    }
}

impl Client {
    /// What a rebalance would do now. Look at it, then [apply](Self::apply_rebalance) it.
    ///
    /// # Errors
    /// If services, tasks or nodes cannot be read.
    pub async fn plan_rebalance(&self) -> Result<RebalancePlan> {
        let (services, tasks, nodes) = (self.services(), self.tasks(), self.nodes());
        let (services, tasks, nodes) = try_join3(services.list(), tasks.list(), nodes.list()).await?;
        Ok(RebalancePlan::of(&services, &tasks, &nodes, hold::now()))
    }

    /// Does what was planned, service by service: more replicas, wait until they run, the replicas as before. A service that has
    /// other replicas by now, or a hold, is an error. `deadline` is for each service.
    ///
    /// # Errors
    /// [`Error::Step`] if the new tasks do not come up: the replicas are as before then; [`Error::is_held`].
    pub async fn apply_rebalance(&self, plan: &RebalancePlan, deadline: Duration) -> Result<()> {
        for step in &plan.moves {
            self.apply_move(step, deadline).await?;
        }
        Ok(())
    }

    async fn apply_move(&self, step: &Move, deadline: Duration) -> Result<()> {
        let what = || format!("rebalance service {:?}", step.service);
        let length = deadline.saturating_mul(2);
        let wider = step.replicas.saturating_add(step.tasks);
        self.resize(step, step.replicas, wider, Some(length)).await?;
        let rollout = || self.services().rollout(step.service_id.as_str()).stable_for(STABLE_FOR);
        let grown = rollout().wait(deadline).await;
        // Whatever came of it, the replicas go back.
        self.resize(step, wider, step.replicas, None).await?;
        let ended = |outcome: Outcome| {
            if outcome.is_success() {
                Ok(())
            } else {
                Err(Error::Step { what: what(), outcome: Box::new(outcome) })
            }
        };
        ended(grown?)?;
        ended(rollout().wait(deadline).await?)?;
        info!(service = step.service, tasks = step.tasks, "rebalanced");
        Ok(())
    }

    async fn resize(&self, step: &Move, from: u64, to: u64, hold: Option<Duration>) -> Result<()> {
        let now = hold::now();
        let services = self.services();
        let resizing = services.try_modify(step.service_id.as_str(), |service, spec| {
            let invalid = |problem: String| Error::Invalid {
                what: format!("rebalance service {:?}", step.service),
                problem,
            };
            if let (Some(_), Some(held)) = (hold, service.hold(now)) {
                return Err(held.error(service.name()));
            }
            if spec.replicas() != Some(from) {
                return Err(invalid(format!("it has not {from} replicas any more; plan anew")));
            }
            match hold {
                Some(length) => spec.set_hold(&Hold::new("rebalance", now, length)),
                None => spec.release_hold(),
            }
            if spec.set_replicas(to) {
                Ok(())
            } else {
                Err(invalid("it is not replicated; plan anew".to_owned()))
            }
        });
        match resizing.await {
            Ok(_) => Ok(()),
            Err(ModifyError::Refused(error) | ModifyError::Swarm(error)) => Err(error),
        }
    }
}

fn plan(service: &Service, tasks: &[Task], nodes: &[Node]) -> Option<Move> {
    let replicas = service.replicas().filter(|replicas| *replicas > 0)?;
    let mut counts: BTreeMap<&NodeId, u64> =
        nodes.iter().filter(|node| may_run(&service.spec, node)).map(|node| (&node.id, 0)).collect();
    let mut running = 0;
    for task in tasks.iter().filter(|task| task.service_id == service.id && task.is_wanted()) {
        // One that is on its way, or on a node that may not run it, is Swarm's work in progress.
        let count = task.node_id.as_ref().filter(|_| task.is_running()).and_then(|id| counts.get_mut(id))?;
        *count += 1;
        running += 1;
    }
    if running != replicas {
        return None;
    }
    let limit = service.spec.task_template.placement.as_ref().and_then(|p| p.max_replicas).filter(|n| *n > 0);
    let (each, over) = (replicas / counts.len() as u64, replicas % counts.len() as u64);
    // The nodes that have most keep one more: that moves least.
    let mut order: Vec<(&NodeId, u64)> = counts.into_iter().collect();
    order.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let name = |id: &NodeId| {
        nodes
            .iter()
            .find(|node| node.id == *id)
            .map_or_else(|| id.to_string(), |node| node.hostname().to_owned())
    };
    let (mut now, mut then, mut moving) = (BTreeMap::new(), BTreeMap::new(), 0);
    for (index, (id, count)) in order.into_iter().enumerate() {
        let target = each + u64::from((index as u64) < over);
        if limit.is_some_and(|limit| target > limit) {
            return None;
        }
        moving += count.saturating_sub(target);
        *now.entry(name(id)).or_default() += count;
        *then.entry(name(id)).or_default() += target;
    }
    (moving > 0).then(|| Move {
        service_id: service.id.clone(),
        service: service.name().to_owned(),
        replicas,
        tasks: moving,
        now,
        then,
    })
}

/// A task with a health check runs only once it is healthy, so a moment suffices.
const STABLE_FOR: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn world(counts: &[u64]) -> (Vec<Task>, Vec<Node>) {
        let mut tasks = Vec::new();
        let mut nodes = Vec::new();
        for (index, count) in counts.iter().enumerate() {
            nodes.push(serde_json::from_value(json!({"ID": format!("n{index}"), "Description": {"Hostname": format!("h{index}")}, "Status": {"State": "ready"}})).unwrap());
            for copy in 0..*count {
                tasks.push(serde_json::from_value(json!({"ID": format!("t{index}-{copy}"), "ServiceID": "s", "Slot": tasks.len() + 1, "NodeID": format!("n{index}"),
                    "DesiredState": "running", "Status": {"State": "running"}})).unwrap());
            }
        }
        (tasks, nodes)
    }

    fn web(replicas: u64) -> Service {
        let spec = crate::model::ServiceSpec::builder("web", "web:1").replicas(replicas).build();
        serde_json::from_value(json!({"ID": "s", "Spec": spec})).unwrap()
    }

    /// What Swarm does with more replicas and then fewer.
    fn swarm(mut counts: Vec<u64>, tasks: u64) -> Vec<u64> {
        for _ in 0..tasks {
            let least = (0..counts.len()).min_by_key(|node| counts[*node]).unwrap();
            counts[least] += 1;
        }
        for _ in 0..tasks {
            let most = (0..counts.len()).max_by_key(|node| counts[*node]).unwrap();
            counts[most] -= 1;
        }
        counts
    }

    #[test]
    fn the_fewest_moves_are_planned() {
        let moves = |counts: &[u64]| {
            let (tasks, nodes) = world(counts);
            let plan = RebalancePlan::of(&[web(counts.iter().sum())], &tasks, &nodes, Duration::ZERO);
            plan.moves.first().map_or(0, |step| step.tasks)
        };
        for (counts, expected) in [
            (vec![2, 2, 0], 1),
            (vec![3, 3, 0], 2),
            (vec![1, 1, 1], 0),
            (vec![2, 1, 1], 0),
            (vec![4, 0, 0], 2),
            (vec![1, 0, 0], 0),
        ] {
            assert_eq!(moves(&counts), expected, "{counts:?}");
        }
        let (tasks, nodes) = world(&[2, 2, 0]);
        let plan = RebalancePlan::of(&[web(4)], &tasks, &nodes, Duration::ZERO);
        assert_eq!(plan.to_string(), "web: move 1 of 4 tasks, h0 2 -> 2, h1 2 -> 1, h2 0 -> 1");
        assert_eq!(RebalancePlan::default().to_string(), "nothing to move");
    }

    #[test]
    fn what_is_not_settled_or_held_is_left_alone() {
        let (mut tasks, nodes) = world(&[4, 0, 0]);
        assert!(RebalancePlan::of(&[web(5)], &tasks, &nodes, Duration::ZERO).moves.is_empty());
        let mut held = web(4);
        held.spec.set_hold(&Hold::new("x", Duration::ZERO, Duration::from_secs(5)));
        assert!(RebalancePlan::of(&[held], &tasks, &nodes, Duration::ZERO).moves.is_empty());
        tasks[0].status.state = crate::model::TaskState::Starting;
        assert!(RebalancePlan::of(&[web(4)], &tasks, &nodes, Duration::ZERO).moves.is_empty());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(128))]

        /// By Swarm's own rules the plan ends in an even spread, and there is nothing to move after it.
        #[test]
        fn a_plan_ends_even(counts in proptest::collection::vec(0_u64..7, 1..6)) {
            let total: u64 = counts.iter().sum();
            let (tasks, nodes) = world(&counts);
            let plan = RebalancePlan::of(&[web(total)], &tasks, &nodes, Duration::ZERO);
            let after = swarm(counts.clone(), plan.moves.first().map_or(0, |step| step.tasks));
            proptest::prop_assert!(after.iter().max().unwrap() - after.iter().min().unwrap() <= 1, "{counts:?} -> {after:?}");
            proptest::prop_assert_eq!(after.iter().sum::<u64>(), total);
            let (tasks, nodes) = world(&after);
            proptest::prop_assert!(RebalancePlan::of(&[web(total)], &tasks, &nodes, Duration::ZERO).moves.is_empty());
        }
    }
}
