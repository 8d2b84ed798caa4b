//! A placement block is never taken away from a service, since that ends the managers' engines. Pure.
//!
//! When only a service's placement changes, the managers look whether each task's node satisfies the new one, and before swarmkit
//! eb52e39 (25 July 2026) they did so without asking whether there is one: a service whose block was left out, with a task that
//! has one and is the same else, is a nil pointer (swarmkit, `orchestrator.nodeMatches`; moby/swarmkit#2947, moby/moby#37883). The
//! engine of the leader ends, ends again at each start, and so does each next leader's. Seen with Docker 20.10.24.
//!
//! An empty block means the same as none and does no harm. So:
//! - a new service gets one, as from docker's own command line;
//! - a write that changes what tasks run or where does not leave it out;
//! - before a service without one gets its first, an empty one is written: otherwise Swarm's own way back, after a failed update
//!   or at a person's `docker service rollback`, would lead to the spec without.
//!
//! A change of replicas or labels alone leaves all of that as it is.

use crate::model::{Placement, Service, ServiceSpec};

/// For a new service.
pub(crate) fn fill(spec: &mut ServiceSpec) {
    spec.task_template.placement.get_or_insert_default();
}

/// For an update.
pub(crate) fn keep(present: &ServiceSpec, next: &mut ServiceSpec) {
    if next.task_template == present.task_template {
        return;
    }
    fill(next);
    if present.task_template.placement.is_none() {
        // An empty block alone is no change, and the way back from it would be without.
        let mut filled = present.clone();
        fill(&mut filled);
        if next.task_template == filled.task_template {
            next.task_template.placement = None;
        }
    }
}

/// What has to be written before `next` may be.
pub(crate) fn before(service: &Service, next: &ServiceSpec) -> Option<ServiceSpec> {
    let placed = |spec: &ServiceSpec| {
        spec.task_template.placement.as_ref().is_some_and(|placement| *placement != Placement::default())
    };
    if service.spec.task_template.placement.is_some() || !placed(next) {
        return None;
    }
    let mut spec = service.spec.clone();
    fill(&mut spec);
    Some(spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn service(spec: &ServiceSpec) -> Service {
        serde_json::from_value(json!({"ID": "s", "Spec": spec})).unwrap()
    }

    /// Image, constraint (or an empty block, or none), replicas.
    fn spec(image: u8, placement: u8, replicas: u64) -> ServiceSpec {
        let mut spec = ServiceSpec::builder("web", format!("web:{image}")).replicas(replicas).build();
        spec.task_template.placement = match placement {
            0 => None,
            1 => Some(Placement::default()),
            other => Some(Placement { constraints: vec![format!("a=={other}")], ..Placement::default() }),
        };
        spec
    }

    #[test]
    fn a_scale_leaves_a_service_without_a_block_as_it_is() {
        let (present, mut next) = (spec(1, 0, 1), spec(1, 0, 2));
        keep(&present, &mut next);
        assert_eq!(next, spec(1, 0, 2));
        assert_eq!(before(&service(&present), &next), None);
    }

    proptest! {
        /// Whatever is written, with tasks left of any spec since: Swarm's present spec and the one that it would go back to have
        /// a block, or no task of the same else has one.
        #[test]
        fn no_writes_and_no_way_back_meet_the_fault(
            start in (0_u8..2, 0_u8..4), writes in prop::collection::vec((0_u8..2, 0_u8..4, 1_u64..3, any::<bool>()), 1..8)
        ) {
            let mut present = service(&spec(start.0, start.1, 1));
            let mut tasks = vec![present.spec.task_template.clone()];
            let fatal = |service: &ServiceSpec, tasks: &[crate::model::TaskSpec]| {
                let same_else = |task: &crate::model::TaskSpec| {
                    let placement = task.placement.clone();
                    crate::model::TaskSpec { placement, ..service.task_template.clone() } == *task
                };
                service.task_template.placement.is_none()
                    && tasks.iter().any(|task| task.placement.is_some() && same_else(task))
            };
            for (image, placement, replicas, way_back) in writes {
                loop {
                    let mut next = spec(image, placement, replicas);
                    let first = before(&present, &next);
                    keep(&present.spec, &mut next);
                    let done = first.is_none();
                    let written = first.unwrap_or(next);
                    prop_assert!(!fatal(&written, &tasks), "{written:?}");
                    tasks.push(written.task_template.clone());
                    present.previous_spec = Some(std::mem::replace(&mut present.spec, written));
                    if done {
                        break;
                    }
                }
                if way_back && let Some(previous) = present.previous_spec.clone() {
                    prop_assert!(!fatal(&previous, &tasks), "back to {previous:?}");
                    present.previous_spec = Some(std::mem::replace(&mut present.spec, previous));
                }
            }
        }
    }
}
