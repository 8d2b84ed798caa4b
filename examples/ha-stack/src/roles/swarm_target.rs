//! The scaler's target: the replicas of a Swarm service, written together with the writer's term.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use autoscaler::controller::{ScaleError, ScaleTarget, TargetStatus, Term, Written, now};
use autoscaler::{Decision, Hold, Instance};
use swarm_client::model::UpdateState;
use swarm_client::{ModifyError, Service, TaskEndpoint};

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
        let tasks = self.swarm.services().endpoints(&self.service).await;
        let tasks = tasks.map_err(|e| self.failed("listing the tasks", e))?;
        let wanted = service.replicas().ok_or_else(|| ScaleError::Refused {
            service: self.service.clone(),
            tried: "reading its replicas".into(),
            why: "it is not a replicated service".into(),
        })?;
        Ok(TargetStatus {
            wanted: u32::try_from(wanted).unwrap_or(u32::MAX),
            ready: u32::try_from(tasks.len()).unwrap_or(u32::MAX),
            update_in_progress: is_updating(&service),
            hold: hold(&service),
            last_term: term(&service),
            instances: tasks.iter().filter_map(|task| instance(service.name(), task)).collect(),
            ..TargetStatus::default()
        })
    }

    async fn write(&self, replicas: u32, by: Term, because: &Decision) -> Result<Written, ScaleError> {
        let services = self.swarm.services();
        let written = services.try_modify(&self.service, |service, spec| {
            check(service, by, because.current, now())?;
            spec.labels.insert(labels::TERM.into(), by.to_string());
            if spec.set_replicas(replicas.into()) { Ok(()) } else { Err(Refusal::NotReplicated) }
        });
        match written.await {
            Ok(_) => Ok(Written::default()),
            Err(ModifyError::Refused(Refusal::Fenced(other))) => {
                Err(ScaleError::Fenced { service: self.service.clone(), term: by, by: other })
            }
            Err(ModifyError::Refused(refusal @ Refusal::Moved(_))) => {
                Err(ScaleError::Conflict { service: self.service.clone(), why: refusal.to_string() })
            }
            Err(ModifyError::Refused(refusal)) => Err(ScaleError::Refused {
                service: self.service.clone(),
                tried: format!("scaling to {replicas}"),
                why: refusal.to_string(),
            }),
            Err(ModifyError::Swarm(error)) => Err(self.failed(&format!("scaling to {replicas}"), error)),
            Err(error) => Err(ScaleError::unavailable(
                &self.service,
                format!("scaling to {replicas}"),
                error.to_string(),
            )),
        }
    }
}

/// Why a write must not happen, found inside the same compare-and-set.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Fenced(Term),
    Moved(Option<u64>),
    Held,
    Updating,
    NotReplicated,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fenced(_) => "a later leader has written",
            Self::Moved(Some(now)) => return write!(f, "it has {now} replicas by now"),
            Self::Moved(None) => "its replicas are not known",
            Self::Held => "a person has scaled it meanwhile",
            Self::Updating => "an update has begun meanwhile",
            Self::NotReplicated => "it is not a replicated service",
        })
    }
}

impl std::error::Error for Refusal {}

/// Whether a decision made at `current` replicas may still be written.
fn check(service: &Service, by: Term, current: u32, now: Duration) -> Result<(), Refusal> {
    match term(service) {
        Some(other) if other > by => return Err(Refusal::Fenced(other)),
        _ => {}
    }
    if hold(service).is_some_and(|hold| hold.is_active(now)) {
        return Err(Refusal::Held);
    }
    if is_updating(service) {
        return Err(Refusal::Updating);
    }
    let found = service.replicas();
    if found == Some(current.into()) { Ok(()) } else { Err(Refusal::Moved(found)) }
}

/// A task as the gateways know it; `None` for one without a slot, which a scale does not remove.
fn instance(service: &str, task: &TaskEndpoint) -> Option<Instance> {
    let slot = task.slot?;
    // As the registrar names it.
    let name = format!("{service}.{slot}.{}", task.task_id);
    Some(Instance::new(name).at(task.node_id.to_string(), slot))
}

fn term(service: &Service) -> Option<Term> {
    service.label(labels::TERM)?.parse().ok().map(Term)
}

/// The hold that a person's scale has set, whether it has ended or not.
pub fn hold(service: &Service) -> Option<Hold> {
    let until = service.label(labels::HOLD_UNTIL)?.parse().ok()?;
    Some(Hold::until(Duration::from_secs(until), "scaled by hand"))
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
    fn a_lower_term_never_writes() {
        let led = service(json!({"ha-stack.term": "7"}), None);
        let at = Duration::from_secs(100);
        assert_eq!(check(&led, Term(6), 2, at), Err(Refusal::Fenced(Term(7))));
        assert_eq!(check(&led, Term(7), 2, at), Ok(()));
        assert_eq!(check(&led, Term(8), 2, at), Ok(()));
    }

    #[test]
    fn a_person_and_an_update_are_respected() {
        let held = service(json!({"ha-stack.hold-until": "200"}), None);
        assert_eq!(check(&held, Term(1), 2, Duration::from_secs(199)), Err(Refusal::Held));
        assert_eq!(check(&held, Term(1), 2, Duration::from_secs(200)), Ok(()));
        let updating = service(json!({}), Some("updating"));
        assert_eq!(check(&updating, Term(1), 2, Duration::ZERO), Err(Refusal::Updating));
        assert_eq!(check(&service(json!({}), Some("completed")), Term(1), 2, Duration::ZERO), Ok(()));
    }

    #[test]
    fn a_decision_about_another_number_is_a_conflict() {
        let two = service(json!({}), None);
        assert_eq!(check(&two, Term(1), 3, Duration::ZERO), Err(Refusal::Moved(Some(2))));
    }
}
