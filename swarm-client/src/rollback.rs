//! What a rollback goes back to.
//!
//! Swarm remembers one spec, the one before the last update, and each update overwrites it: after a mere scale its own rollback
//! would undo the scale. So a change that is no rollout (of replicas or labels alone) takes along, in a label, the spec that it
//! makes Swarm forget. A rollback then finds the last spec that was rolled out and differs from the present one, and keeps the
//! present replicas. Where neither Swarm nor the label knows one (another client wrote meanwhile), the tasks of the past that the
//! swarm still remembers tell what they ran.

use std::fmt;

use crate::model::{Service, ServiceSpec, Task};

/// The label in which a change of replicas or labels keeps the spec that it makes Swarm forget.
pub const ROLLBACK_LABEL: &str = "swarm-client.rollback";

/// Where the spec that a rollback goes back to was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RollbackSource {
    /// Swarm's own memory of the spec before the last update.
    PreviousSpec,
    /// The label [`ROLLBACK_LABEL`].
    Label,
    /// A task of the past: what it ran is known, but not how the service was published then.
    TaskHistory,
}

impl fmt::Display for RollbackSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PreviousSpec => "Swarm's previous spec",
            Self::Label => "the spec kept in a label",
            Self::TaskHistory => "a task of the past",
        })
    }
}

/// True if the two differ in what tasks run or how they are reached: in more than replicas, labels, the count of forced updates,
/// the rules for updates, and the exclusion of single nodes, which is how a drain moves tasks.
pub(crate) fn is_rollout(from: &ServiceSpec, to: &ServiceSpec) -> bool {
    bare(from) != bare(to)
}

fn bare(spec: &ServiceSpec) -> ServiceSpec {
    let mut spec = spec.clone();
    spec.labels.clear();
    spec.task_template.force_update = None;
    spec.update_config = None;
    spec.rollback_config = None;
    if let Some(placement) = spec.task_template.placement.as_mut() {
        placement.constraints.retain(|constraint| !crate::placement::excludes_a_node(constraint));
        if *placement == crate::model::Placement::default() {
            spec.task_template.placement = None;
        }
    }
    if let Some(mode) = spec.mode.replicated.as_mut() {
        mode.replicas = None;
    }
    spec
}

/// Before a write: keeps in `next` what the write makes Swarm forget.
pub(crate) fn carry(service: &Service, next: &mut ServiceSpec) {
    if is_rollout(&service.spec, next) {
        // Swarm remembers the present spec from now on, which is what a rollback wants.
        next.labels.remove(ROLLBACK_LABEL);
        return;
    }
    if next.labels.contains_key(ROLLBACK_LABEL) {
        return;
    }
    let Some(previous) = service.previous_spec.as_ref().filter(|p| is_rollout(&service.spec, p)) else {
        return;
    };
    let mut previous = previous.clone();
    previous.labels.remove(ROLLBACK_LABEL);
    if let Ok(text) = serde_json::to_string(&previous)
        && text.len() <= MAX_LABEL
    {
        next.labels.insert(ROLLBACK_LABEL.to_owned(), text);
    }
}

/// The last spec that was rolled out and differs from the present one.
pub(crate) fn target(service: &Service, tasks: &[Task]) -> Option<(ServiceSpec, RollbackSource)> {
    let differs = |spec: &ServiceSpec| is_rollout(&service.spec, spec);
    if let Some(previous) = service.previous_spec.clone().filter(differs) {
        return Some((previous, RollbackSource::PreviousSpec));
    }
    let kept = service.label(ROLLBACK_LABEL).and_then(|text| serde_json::from_str::<ServiceSpec>(text).ok());
    if let Some(kept) = kept.filter(|kept| kept.name == service.spec.name && differs(kept)) {
        return Some((kept, RollbackSource::Label));
    }
    let of_task = |task: &Task| ServiceSpec { task_template: (*task.spec).clone(), ..service.spec.clone() };
    let mut past: Vec<&Task> = tasks.iter().filter(|task| task.service_id == service.id).collect();
    past.sort_by_key(|task| std::cmp::Reverse(created(task)));
    past.into_iter().map(of_task).find(differs).map(|spec| (spec, RollbackSource::TaskHistory))
}

/// The target with what stays as it is now: replicas, the count of forced updates, and the labels that are named.
pub(crate) fn restore(present: &ServiceSpec, mut target: ServiceSpec, keep: &[String]) -> ServiceSpec {
    if let Some(replicas) = present.replicas() {
        let _ = target.set_replicas(replicas);
    }
    target.task_template.force_update = present.task_template.force_update;
    let kept = |key: &String| key.starts_with(OWN_LABELS) || keep.contains(key);
    target.labels.retain(|key, _| !kept(key));
    let labels = present.labels.iter().filter(|(key, _)| kept(key) && *key != ROLLBACK_LABEL);
    target.labels.extend(labels.map(|(key, value)| (key.clone(), value.clone())));
    target
}

fn created(task: &Task) -> &str {
    // RFC 3339 in UTC: the order of texts is the order of times.
    task.rest.get("CreatedAt").and_then(|at| at.as_str()).unwrap_or_default()
}

/// The labels that this crate writes.
pub(crate) const OWN_LABELS: &str = "swarm-client.";
/// A spec takes some kilobytes. One far larger is not worth carrying with each write.
const MAX_LABEL: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(image: &str, replicas: u64, term: &str) -> ServiceSpec {
        ServiceSpec::builder("web", image).replicas(replicas).label("term", term).build()
    }

    fn service(present: &ServiceSpec, previous: Option<&ServiceSpec>) -> Service {
        let mut value = json!({"ID": "s", "Version": {"Index": 1}, "Spec": present});
        if let Some(previous) = previous {
            value["PreviousSpec"] = json!(previous);
        }
        serde_json::from_value(value).unwrap()
    }

    /// What the managers do with a write.
    fn write(service: &mut Service, mut next: ServiceSpec) {
        carry(service, &mut next);
        service.previous_spec = Some(std::mem::replace(&mut service.spec, next));
    }

    #[test]
    fn a_rollback_passes_over_scales_and_terms() {
        let mut web = service(&spec("web:1", 2, "1"), None);
        assert_eq!(target(&web, &[]), None);
        write(&mut web, spec("web:2", 2, "1"));
        assert_eq!(web.label(ROLLBACK_LABEL), None);
        for (replicas, term) in [(3, "1"), (4, "2"), (7, "3")] {
            let mut next = web.spec.clone();
            let _ = next.set_replicas(replicas);
            next.labels.insert("term".into(), term.into());
            write(&mut web, next);
        }
        let (found, source) = target(&web, &[]).unwrap();
        assert_eq!(source, RollbackSource::Label);
        let restored = restore(&web.spec, found, &["term".into()]);
        assert_eq!(restored, spec("web:1", 7, "3"));
        // Rolled back, the way forward is remembered in turn, and the label is gone.
        write(&mut web, restored);
        assert_eq!(web.label(ROLLBACK_LABEL), None);
        let (found, source) = target(&web, &[]).unwrap();
        assert_eq!(
            (source, found.task_template.container_spec.unwrap().image),
            (RollbackSource::PreviousSpec, "web:2".into())
        );
    }

    #[test]
    fn tasks_of_the_past_tell_what_they_ran() {
        let present = spec("web:2", 2, "1");
        let web = service(&present, Some(&spec("web:2", 3, "1")));
        let task = |id: &str, created: &str, image: &str| -> Task {
            let template = spec(image, 1, "").task_template;
            serde_json::from_value(
                json!({"ID": id, "ServiceID": "s", "Spec": template, "CreatedAt": created}),
            )
            .unwrap()
        };
        let tasks = [
            task("a", "2026-01-01T00:00:00Z", "web:0"),
            task("b", "2026-01-02T00:00:00Z", "web:1"),
            task("c", "2026-01-03T00:00:00Z", "web:2"),
        ];
        let (found, source) = target(&web, &tasks).unwrap();
        assert_eq!(
            (source, found.task_template.container_spec.unwrap().image),
            (RollbackSource::TaskHistory, "web:1".into())
        );
        assert_eq!(target(&web, &tasks[2..]), None);
    }

    #[test]
    fn a_forced_update_is_no_rollout_to_go_back_from() {
        let (mut a, b) = (spec("web:1", 1, "1"), spec("web:1", 1, "1"));
        a.task_template.force_update = Some(3);
        assert!(!is_rollout(&a, &b));
    }
}
