//! The scaler's target: the replicas of a Swarm service, written together with the writer's term.

use std::time::Duration;

use async_trait::async_trait;
use autoscaler::controller::{ScaleError, ScaleTarget, TargetStatus, Term, Written, now};
use autoscaler::{Decision, Hold, Instance};
use swarm_client::model::UpdateState;
use swarm_client::{ModifyError, Node, Service, Task};

use super::fence::{self, Found, Refusal};
use super::labels;

/// The replicas of one Swarm service.
pub struct SwarmTarget {
    swarm: swarm_client::Client,
    service: String,
}

impl SwarmTarget {
    /// The replicas of this service.
    pub fn new(swarm: swarm_client::Client, service: &str) -> Self {
        Self { swarm, service: service.into() }
    }

    fn failed(&self, tried: &str, error: swarm_client::Error) -> ScaleError {
        if error.is_not_found() {
            ScaleError::NotFound { service: self.service.clone() }
        } else if error.is_conflict() {
            ScaleError::Conflict { service: self.service.clone(), why: error.to_string() }
        } else {
            ScaleError::unavailable(&self.service, tried, error)
        }
    }
}

#[async_trait]
impl ScaleTarget for SwarmTarget {
    async fn read(&self) -> Result<TargetStatus, ScaleError> {
        let service =
            self.swarm.services().get(&self.service).await.map_err(|e| self.failed("reading", e))?;
        let (services, nodes) = (self.swarm.services(), self.swarm.nodes());
        let listed = tokio::try_join!(services.tasks(&self.service), nodes.list());
        let (tasks, nodes) = listed.map_err(|e| self.failed("listing the tasks", e))?;
        let tasks: Vec<&Task> = running(&tasks, &nodes).collect();
        let wanted = service.replicas().ok_or_else(|| ScaleError::Refused {
            service: self.service.clone(),
            tried: "reading its replicas".into(),
            why: "it is not a replicated service".into(),
        })?;
        Ok(TargetStatus {
            wanted: u32::try_from(wanted).unwrap_or(u32::MAX),
            ready: u32::try_from(tasks.len()).unwrap_or(u32::MAX),
            update_in_progress: is_updating(&service),
            hold: hold(&service, now()),
            last_term: term(&service),
            instances: tasks.iter().filter_map(|task| instance(service.name(), task)).collect(),
            ..TargetStatus::default()
        })
    }

    async fn write(&self, replicas: u32, by: Term, because: &Decision) -> Result<Written, ScaleError> {
        let services = self.swarm.services();
        let written = services.try_modify(&self.service, |service, spec| {
            let now = now();
            found(service, now).allows(by, because.current, now)?;
            spec.labels.insert(labels::TERM.into(), by.to_string());
            if spec.set_replicas(replicas.into()) { Ok(()) } else { Err(Refusal::NotReplicated) }
        });
        match written.await {
            Ok(_) => Ok(Written::default()),
            Err(ModifyError::Refused(refusal)) => Err(refusal.scale_error(&self.service, replicas, by)),
            Err(ModifyError::Swarm(error)) => Err(self.failed(&format!("scaling to {replicas}"), error)),
            Err(error) => Err(ScaleError::unavailable(
                &self.service,
                format!("scaling to {replicas}"),
                error.to_string(),
            )),
        }
    }
}

fn found(service: &Service, now: Duration) -> Found {
    Found {
        term: term(service),
        hold: scaled_by_hand(service),
        counted: service.hold(now),
        updating: is_updating(service),
        replicas: service.replicas(),
    }
}

/// The tasks that run, are meant to, and are on a node that is not down, whether they publish a port or not.
fn running<'a>(tasks: &'a [Task], nodes: &[Node]) -> impl Iterator<Item = &'a Task> {
    tasks.iter().filter(|task| task.is_running()).filter(|task| {
        let node = nodes.iter().find(|node| task.node_id.as_ref() == Some(node.id()));
        node.is_some_and(|node| !node.is_down())
    })
}

/// A task as the gateways know it; `None` for one without a slot, which a scale does not remove.
fn instance(service: &str, task: &Task) -> Option<Instance> {
    let (slot, node) = (task.slot?, task.node_id.as_ref()?);
    Some(Instance::new(super::registrar::instance(service, task)).at(node.to_string(), slot))
}

fn term(service: &Service) -> Option<Term> {
    service.label(labels::TERM)?.parse().ok().map(Term)
}

/// Who keeps the scaler off at `now` (since 1970): a person's scale, or a drain or rebalance, whichever ends last.
pub fn hold(service: &Service, now: Duration) -> Option<Hold> {
    let counted = service.hold(now).map(|hold| Hold::until(hold.until, hold.by));
    let holds = scaled_by_hand(service).into_iter().chain(counted);
    holds.filter(|hold| hold.is_active(now)).max_by_key(|hold| hold.until)
}

/// The hold that a person's scale has set, whether it has ended or not.
fn scaled_by_hand(service: &Service) -> Option<Hold> {
    let until = service.label(labels::HOLD_UNTIL)?.parse().ok()?;
    Some(fence::hold_until(until))
}

fn is_updating(service: &Service) -> bool {
    let state = service.update_status.as_ref().and_then(|status| status.state.as_ref());
    matches!(state, Some(UpdateState::Updating | UpdateState::RollbackStarted))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(labels: serde_json::Value, state: Option<&str>) -> Service {
        let spec = json!({"Name": "web", "Labels": labels, "Mode": {"Replicated": {"Replicas": 2}}});
        let mut value = json!({"ID": "s1", "Version": {"Index": 1}, "Spec": spec});
        if let Some(state) = state {
            value["UpdateStatus"] = json!({"State": state});
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_task_without_a_port_counts_too_and_one_on_a_lost_host_does_not() {
        let node = |id: &str, state: &str| -> Node {
            serde_json::from_value(json!({"ID": id, "Status": {"State": state}})).unwrap()
        };
        let task = |id: &str, node: &str, desired: &str| -> Task {
            serde_json::from_value(
                json!({"ID": id, "ServiceID": "s1", "Slot": 1, "NodeID": node, "DesiredState": desired,
                "Status": {"State": "running"}}),
            )
            .unwrap()
        };
        let nodes = [node("n1", "ready"), node("n2", "down")];
        let tasks = [task("a", "n1", "running"), task("b", "n2", "running"), task("c", "n1", "shutdown")];
        let found: Vec<String> =
            running(&tasks, &nodes).filter_map(|task| instance("web", task)).map(|i| i.id).collect();
        assert_eq!(found, ["web.1.a"]);
    }

    #[test]
    fn a_service_shows_who_wrote_it_who_holds_it_and_that_it_is_updated() {
        let labels = json!({"ha-stack.term": "7", "ha-stack.hold-until": "200"});
        let found = found(&service(labels, Some("updating")), Duration::from_secs(100));
        assert_eq!((found.term, found.replicas, found.updating), (Some(Term(7)), Some(2), true));
        assert!(found.hold.is_some_and(|hold| hold.is_active(Duration::from_secs(199))));
        assert!(!super::found(&service(json!({}), Some("completed")), Duration::ZERO).updating);
    }

    #[test]
    fn a_drain_under_way_is_not_written_into() {
        let drained = service(json!({"swarm-client.hold": "200 drain of h1"}), Some("updating"));
        let at = Duration::from_secs;
        let refused = found(&drained, at(199)).allows(Term(1), 2, at(199)).unwrap_err();
        assert_eq!(refused, Refusal::Counted { by: "drain of h1".into(), until: at(200) });
        let told = refused.scale_error("web", 3, Term(1)).to_string();
        assert!(told.contains("it is held by drain of h1 until 200 s after 1970"), "{told}");
        let drained = service(json!({"swarm-client.hold": "200 drain of h1"}), None);
        assert_eq!(found(&drained, at(200)).allows(Term(1), 2, at(200)), Ok(()));
    }

    #[test]
    fn the_hold_that_ends_last_is_shown() {
        let labels = json!({"swarm-client.hold": "200 drain of h1", "ha-stack.hold-until": "150"});
        let both = service(labels, None);
        let shown = |now| hold(&both, Duration::from_secs(now));
        assert_eq!(shown(100), Some(Hold::until(Duration::from_secs(200), "drain of h1")));
        assert_eq!(shown(200), None);
        let labels = json!({"swarm-client.hold": "200 drain of h1", "ha-stack.hold-until": "300"});
        let person = hold(&service(labels, None), Duration::from_secs(100));
        assert_eq!(person, Some(fence::hold_until(300)));
    }
}
