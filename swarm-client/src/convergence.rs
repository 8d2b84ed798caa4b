//! Whether a service has become what it is wanted to be: a pure state machine, fed with observations.
//!
//! The rule is the one of docker's own command line (`docker service create` without `--detach`), with its holes closed: a
//! rollback is not a success, tasks that end on purpose end the wait, and what is missing is said. A task counts if it was
//! made from the present spec, runs, is meant to, and is on a node that is not down; one per slot (or node, for a global
//! service). When all are there they must stay, the very same ones, for the stable time.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use crate::model::{
    Mode, Node, NodeId, RestartCondition, Service, ServiceSpec, Task, TaskId, TaskState, UpdateState,
};
use crate::outcome::{Diagnosis, Outcome};
use crate::pending::PendingReason;
use crate::rollback;

/// What was seen at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) service: &'a Service,
    /// The tasks of its present spec.
    pub(crate) tasks: &'a [Task],
    pub(crate) nodes: &'a [Node],
}

/// The state machine. Times are since any fixed moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Convergence {
    stable_for: Option<Duration>,
    /// Since when these very tasks have been all that is wanted.
    since: Option<(Duration, BTreeSet<TaskId>)>,
    /// After how long of nothing but tasks without a node the wait is over.
    unschedulable_after: Option<Duration>,
    /// Since when there has been nothing else.
    stuck: Option<Duration>,
    /// The spec that was seen first: the one that is waited for.
    spec: Option<ServiceSpec>,
    diagnosis: Diagnosis,
}

impl Convergence {
    pub(crate) fn new(stable_for: Option<Duration>, unschedulable_after: Option<Duration>) -> Self {
        Self { stable_for, unschedulable_after, ..Self::default() }
    }

    pub(crate) fn diagnosis(&self) -> &Diagnosis {
        &self.diagnosis
    }

    /// Takes in what was seen at `now`; some outcome ends the wait.
    pub(crate) fn step(&mut self, seen: Seen<'_>, now: Duration) -> Option<Outcome> {
        let status = seen.service.update_status.as_ref();
        let message =
            || status.and_then(|s| s.message.clone()).unwrap_or_else(|| "no reason was given".to_owned());
        let state = status.and_then(|s| s.state.as_ref());
        match state {
            Some(UpdateState::Paused) => return Some(Outcome::Paused { message: message() }),
            Some(UpdateState::RollbackPaused) => return Some(Outcome::RollbackPaused { message: message() }),
            Some(UpdateState::RollbackCompleted) => return Some(Outcome::RolledBack { message: message() }),
            _ => {}
        }
        if state != Some(&UpdateState::RollbackStarted) {
            let spec = self.spec.get_or_insert_with(|| seen.service.spec.clone());
            if rollback::is_rollout(spec, &seen.service.spec) {
                return Some(Outcome::Superseded);
            }
        }
        let rolling_back = state == Some(&UpdateState::RollbackStarted);
        let count = Count::of(seen);
        self.diagnosis = count.diagnosis(seen.tasks);
        self.diagnosis.rolling_back = rolling_back;
        if let Some(completed) = count.completed {
            return Some(Outcome::TasksCompleted { completed });
        }
        if !count.all_there() {
            self.since = None;
            return self.unschedulable(&count, seen, now);
        }
        self.stuck = None;
        let since = match self.since.take() {
            Some((since, tasks)) if tasks == count.running => since,
            _ => now,
        };
        let running = count.running.len() as u64;
        self.since = Some((since, count.running));
        if now.saturating_sub(since) < self.stable_time(seen.service) {
            self.diagnosis.settling = true;
            return None;
        }
        Some(if rolling_back {
            Outcome::RolledBack { message: message() }
        } else {
            Outcome::Converged { running }
        })
    }

    /// An end if nothing but tasks without a node has been missing for long enough. Not at once: a node may just come back, and an
    /// old task may still hold what a new one needs.
    fn unschedulable(&mut self, count: &Count, seen: Seen<'_>, now: Duration) -> Option<Outcome> {
        let waits = |task: &Task| {
            task.status.state == TaskState::Pending
                && task.error().is_some_and(|error| !PendingReason::parse(error).is_empty())
        };
        let mut on_the_way = seen
            .tasks
            .iter()
            .filter(|task| task.is_wanted() && task.status.state.rank().is_some_and(|rank| rank < RUNNING));
        let nowhere = seen.service.spec.mode.kind() == Mode::Global && count.wanted.is_none();
        let first = on_the_way.next();
        let stuck = nowhere || (first.is_some_and(waits) && on_the_way.all(waits));
        if !stuck {
            self.stuck = None;
            return None;
        }
        let since = *self.stuck.get_or_insert(now);
        let over = self.unschedulable_after.is_some_and(|after| now.saturating_sub(since) >= after);
        over.then(|| Outcome::Unschedulable { diagnosis: self.diagnosis.clone() })
    }

    fn stable_time(&self, service: &Service) -> Duration {
        let monitor = || service.spec.update_config.as_ref()?.monitor.map(crate::model::Nanos::to_duration);
        self.stable_for.or_else(monitor).unwrap_or(DEFAULT_MONITOR)
    }
}

/// The tasks that count.
struct Count {
    wanted: Option<u64>,
    running: BTreeSet<TaskId>,
    /// Present if all tasks have ended as they should.
    completed: Option<u64>,
}

impl Count {
    fn of(seen: Seen<'_>) -> Self {
        let dead: HashSet<&NodeId> = seen.nodes.iter().filter(|n| n.is_down()).map(|n| &n.id).collect();
        let alive = |task: &&Task| task.node_id.as_ref().is_none_or(|node| !dead.contains(node));
        let none = Self { wanted: None, running: BTreeSet::new(), completed: None };
        match seen.service.spec.mode.kind() {
            Mode::Replicated { replicas } => {
                let slots = best_by(seen.tasks.iter().filter(alive), |task| task.slot);
                let ended = slots.values().filter(|t| t.status.state == TaskState::Complete).count() as u64;
                let running = ids(&slots);
                let all_ended =
                    ended > 0 && ended + running.len() as u64 >= replicas && ends_by_itself(seen.service);
                Self { wanted: Some(replicas), running, completed: all_ended.then_some(ended) }
            }
            Mode::Global => {
                let nodes = best_by(seen.tasks.iter().filter(alive), |task| task.node_id.clone());
                let wanted = nodes.values().filter(|task| task.is_wanted()).count() as u64;
                Self { wanted: Some(wanted).filter(|n| *n > 0), running: ids(&nodes), completed: None }
            }
            Mode::ReplicatedJob { completions } => {
                let ended = job_tasks(seen).filter(|t| t.status.state == TaskState::Complete).count() as u64;
                Self {
                    wanted: Some(completions),
                    completed: (ended >= completions).then_some(ended),
                    // Tasks of a job are not there to stay, so they never make it converge.
                    ..none
                }
            }
            Mode::GlobalJob => {
                let tasks: Vec<&Task> = job_tasks(seen).filter(alive).collect();
                let ended = tasks.iter().filter(|t| t.status.state == TaskState::Complete).count();
                let nodes: HashSet<Option<&NodeId>> = tasks.iter().map(|t| t.node_id.as_ref()).collect();
                let all = !nodes.is_empty() && ended >= nodes.len();
                Self {
                    wanted: Some(nodes.len() as u64).filter(|n| *n > 0),
                    completed: all.then_some(ended as u64),
                    ..none
                }
            }
            Mode::Unknown => none,
        }
    }

    fn all_there(&self) -> bool {
        self.wanted == Some(self.running.len() as u64)
    }

    fn diagnosis(&self, tasks: &[Task]) -> Diagnosis {
        let mut diagnosis =
            Diagnosis { running: self.running.len() as u64, wanted: self.wanted, ..Diagnosis::default() };
        for task in tasks {
            if task.is_wanted() && task.status.state.rank().is_some_and(|rank| rank < RUNNING) {
                *diagnosis.on_the_way.entry(task.status.state.to_string()).or_default() += 1;
            }
            let Some(error) = task.error() else { continue };
            let reasons = PendingReason::parse(error);
            if reasons.is_empty() {
                if !diagnosis.errors.iter().any(|e| e == error) && diagnosis.errors.len() < MAX_ERRORS {
                    diagnosis.errors.push(error.to_owned());
                }
            } else if task.is_wanted() {
                for reason in reasons {
                    if !diagnosis.pending.contains(&reason) {
                        diagnosis.pending.push(reason);
                    }
                }
            }
        }
        diagnosis
    }
}

/// The task that speaks for each slot: the one that is wanted least far, then the one that got least far, as docker's own
/// command line has it.
fn best_by<'a, K: Ord>(
    tasks: impl Iterator<Item = &'a Task>,
    key: impl Fn(&Task) -> Option<K>,
) -> BTreeMap<K, &'a Task> {
    let mut best = BTreeMap::<K, &Task>::new();
    for task in tasks {
        let Some(key) = key(task) else { continue };
        best.entry(key)
            .and_modify(|old| {
                if order(task) < order(old) {
                    *old = task;
                }
            })
            .or_insert(task);
    }
    best
}

fn order(task: &Task) -> (u8, u8, &TaskId) {
    let rank = |state: &TaskState| state.rank().unwrap_or(u8::MAX);
    (rank(&task.desired_state), rank(&task.status.state), &task.id)
}

fn ids<K>(tasks: &BTreeMap<K, &Task>) -> BTreeSet<TaskId> {
    tasks.values().filter(|task| task.is_running()).map(|task| task.id.clone()).collect()
}

/// True if Swarm does not replace a task that ended well.
fn ends_by_itself(service: &Service) -> bool {
    let policy = service.spec.task_template.restart_policy.as_ref();
    matches!(
        policy.and_then(|p| p.condition.as_ref()),
        Some(RestartCondition::None | RestartCondition::OnFailure)
    )
}

/// The tasks of a job's present run.
fn job_tasks(seen: Seen<'_>) -> impl Iterator<Item = &Task> {
    let index =
        |value: &serde_json::Value| value.get("Index").and_then(serde_json::Value::as_u64).unwrap_or(0);
    let run = seen.service.rest.get("JobStatus").and_then(|s| s.get("JobIteration")).map_or(0, index);
    seen.tasks.iter().filter(move |task| task.rest.get("JobIteration").map_or(0, index) == run)
}

/// The place of the state `running` among the states.
const RUNNING: u8 = 9;
/// The engine's default for a spec without an update block.
const DEFAULT_MONITOR: Duration = Duration::from_secs(5);
const MAX_ERRORS: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(mode: Value, state: Option<&str>, condition: &str) -> Service {
        let mut value = json!({"ID": "s", "Spec": {"Name": "web", "Mode": mode,
            "TaskTemplate": {"RestartPolicy": {"Condition": condition}}, "UpdateConfig": {"Monitor": 2_000_000_000}},
            "JobStatus": {"JobIteration": {"Index": 4}}});
        if let Some(state) = state {
            value["UpdateStatus"] = json!({"State": state, "Message": "because"});
        }
        serde_json::from_value(value).unwrap()
    }

    fn replicas(n: u64) -> Value {
        json!({"Replicated": {"Replicas": n}})
    }

    /// Tasks written as `slot state desired node`, with ids by their place.
    fn tasks(list: &[&str]) -> Vec<Task> {
        let task = |(i, text): (usize, &&str)| {
            let mut words = text.split(' ');
            let mut next = || words.next().unwrap();
            let (slot, state, desired, node) = (next().parse::<u64>().unwrap(), next(), next(), next());
            let mut value = json!({"ID": format!("t{i}"), "DesiredState": desired, "Status": {"State": state},
                                   "JobIteration": {"Index": 4}});
            if slot > 0 {
                value["Slot"] = json!(slot);
            }
            if node != "-" {
                value["NodeID"] = json!(node);
            }
            serde_json::from_value(value).unwrap()
        };
        list.iter().enumerate().map(task).collect()
    }

    fn nodes() -> Vec<Node> {
        [("a", "ready"), ("b", "unknown"), ("dead", "down")]
            .map(|(id, state)| serde_json::from_value(json!({"ID": id, "Status": {"State": state}})).unwrap())
            .to_vec()
    }

    const SECOND: Duration = Duration::from_secs(1);

    /// Shows the same thing each second, ten times; what came of it and when.
    fn run(service: &Service, tasks: &[Task]) -> (Option<Outcome>, Duration, Diagnosis) {
        let (mut state, nodes) = (Convergence::new(None, None), nodes());
        for second in 0..10 {
            let now = second * SECOND;
            if let Some(outcome) = state.step(Seen { service, tasks, nodes: &nodes }, now) {
                return (Some(outcome), now, state.diagnosis().clone());
            }
        }
        (None, 10 * SECOND, state.diagnosis().clone())
    }

    #[test]
    fn what_counts_as_converged() {
        let yes = |n| Some(Outcome::Converged { running: n });
        let cases: &[(Value, &[&str], Option<Outcome>)] = &[
            (replicas(2), &["1 running running a", "2 running running b"], yes(2)),
            (replicas(0), &[], yes(0)),
            (replicas(0), &["1 running shutdown a"], yes(0)),
            // Slots may have gaps.
            (replicas(2), &["3 running running a", "9 running running b"], yes(2)),
            // Its past does not matter.
            (replicas(1), &["1 failed shutdown a", "1 running running a"], yes(1)),
            (replicas(2), &["1 running running a"], None),
            (replicas(2), &["1 running running a", "2 starting running b"], None),
            (replicas(2), &["1 running running a", "2 running shutdown b"], None),
            (replicas(2), &["1 running running a", "2 running running dead"], None),
            // One slot twice is one replica.
            (replicas(2), &["1 running running a", "1 running running b"], None),
            // Too many are not the wanted number either.
            (replicas(1), &["1 running running a", "2 running running b"], None),
            (json!({"Global": {}}), &["0 running running a", "0 running running b"], yes(2)),
            (json!({"Global": {}}), &["0 running running a", "0 running running dead"], yes(1)),
            (json!({"Global": {}}), &["0 running running a", "0 preparing running b"], None),
            (json!({"Global": {}}), &[], None),
            (json!({"Novel": {}}), &["1 running running a"], None),
        ];
        for (mode, list, expected) in cases {
            let (outcome, at, _) = run(&service(mode.clone(), None, "any"), &tasks(list));
            assert_eq!(outcome, *expected, "{mode} {list:?}");
            if expected.is_some() {
                assert_eq!(at, 2 * SECOND, "it must stay for the monitor time: {mode} {list:?}");
            }
        }
    }

    #[test]
    fn how_an_update_ends() {
        let message = || "because".to_owned();
        let all: &[&str] = &["1 running running a"];
        let some: &[&str] = &["1 failed running a"];
        for (state, list, expected) in [
            ("paused", all, Some(Outcome::Paused { message: message() })),
            ("rollback_paused", all, Some(Outcome::RollbackPaused { message: message() })),
            ("rollback_completed", some, Some(Outcome::RolledBack { message: message() })),
            ("rollback_started", all, Some(Outcome::RolledBack { message: message() })),
            ("rollback_started", some, None),
            ("updating", all, Some(Outcome::Converged { running: 1 })),
            // Swarm's word alone does not make it so.
            ("completed", some, None),
            ("completed", all, Some(Outcome::Converged { running: 1 })),
            ("novel", all, Some(Outcome::Converged { running: 1 })),
        ] {
            let (outcome, _, diagnosis) = run(&service(replicas(1), Some(state), "any"), &tasks(list));
            assert_eq!(outcome, expected, "{state}");
            assert_eq!(diagnosis.rolling_back, state == "rollback_started", "{state}");
        }
    }

    #[test]
    fn tasks_that_end_on_purpose() {
        let done = |n| Some(Outcome::TasksCompleted { completed: n });
        let job = |n: u64| json!({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": n}});
        let cases: &[(Value, &str, &[&str], Option<Outcome>)] = &[
            (replicas(1), "none", &["1 complete shutdown a"], done(1)),
            (replicas(2), "on-failure", &["1 complete shutdown a", "2 running running b"], done(1)),
            (replicas(1), "any", &["1 complete shutdown a"], None),
            (replicas(1), "none", &["1 failed shutdown a"], None),
            (job(2), "none", &["1 complete complete a", "2 complete complete b"], done(2)),
            (job(2), "none", &["1 complete complete a", "2 running complete b"], None),
            (json!({"GlobalJob": {}}), "none", &["0 complete complete a", "0 complete complete b"], done(2)),
            (json!({"GlobalJob": {}}), "none", &["0 complete complete a", "0 running complete b"], None),
            (json!({"GlobalJob": {}}), "none", &[], None),
        ];
        for (mode, condition, list, expected) in cases {
            let (outcome, _, _) = run(&service(mode.clone(), None, condition), &tasks(list));
            assert_eq!(outcome, *expected, "{mode} {condition} {list:?}");
        }
    }

    #[test]
    fn a_replacement_starts_the_clock_anew() {
        let (mut state, nodes, service) =
            (Convergence::new(Some(3 * SECOND), None), nodes(), service(replicas(1), None, "any"));
        let mut at = |second: u32, list: &[&str]| {
            state.step(Seen { service: &service, tasks: &tasks(list), nodes: &nodes }, second * SECOND)
        };
        let first = ["1 running running a"];
        assert_eq!(at(0, &first), None);
        assert_eq!(at(2, &first), None);
        // Another task took the slot between two looks: the number never fell, yet it is not stable.
        assert_eq!(at(3, &["1 failed shutdown a", "1 running running a"]), None);
        assert_eq!(at(5, &["1 failed shutdown a", "1 running running a"]), None);
        assert_eq!(
            at(6, &["1 failed shutdown a", "1 running running a"]),
            Some(Outcome::Converged { running: 1 })
        );
    }

    #[test]
    fn what_is_missing_is_said() {
        let mut list = tasks(&[
            "1 running running a",
            "2 pending running -",
            "3 preparing running b",
            "4 failed shutdown a",
        ]);
        let error = "no suitable node (insufficient resources on 2 nodes; scheduling constraints not satisfied on 1 node)";
        list[1].status.err = Some(error.to_owned());
        list[3].status.err = Some("task: non-zero exit (1)".to_owned());
        let (outcome, _, diagnosis) = run(&service(replicas(3), Some("updating"), "any"), &list);
        assert_eq!(outcome, None);
        assert_eq!(
            Outcome::TimedOut { diagnosis }.to_string(),
            "timed out: 1 of 3 running, 1 pending, 1 preparing; no suitable node: insufficient resources on 2 nodes, \
             placement constraints not satisfied on 1 node; task: non-zero exit (1)"
        );
        let (_, _, nowhere) = run(&service(json!({"Global": {}}), None, "any"), &[]);
        assert_eq!(nowhere.to_string(), "0 running and no task wanted anywhere; check the placement");
    }

    #[test]
    fn tasks_that_find_no_node_end_the_wait_only_if_nothing_else_moves() {
        let no_node = "no suitable node (scheduling constraints not satisfied on 2 nodes)";
        let pending = |list: &[&str]| {
            let mut tasks = tasks(list);
            for task in tasks.iter_mut().filter(|task| task.status.state == TaskState::Pending) {
                task.status.err = Some(no_node.to_owned());
            }
            tasks
        };
        let nodes = nodes();
        let ends = |mode: &Value, list: &[Task]| {
            let mut state = Convergence::new(None, Some(3 * SECOND));
            let service = service(mode.clone(), None, "any");
            (0..8).find_map(|second| {
                let seen = Seen { service: &service, tasks: list, nodes: &nodes };
                state.step(seen, second * SECOND).map(|outcome| (outcome, second))
            })
        };
        let all = pending(&["1 running running a", "2 pending running -", "3 pending running -"]);
        let (outcome, second) = ends(&replicas(3), &all).unwrap();
        assert_eq!(second, 3);
        assert_eq!(
            outcome.to_string(),
            "unschedulable: 1 of 3 running, 2 pending; no suitable node: placement constraints not satisfied on 2 nodes"
        );
        let moving = pending(&["1 running running a", "2 pending running -", "3 preparing running b"]);
        assert_eq!(ends(&replicas(3), &moving), None);
        // Pending for another reason: not looked at by the scheduler yet.
        assert_eq!(ends(&replicas(1), &tasks(&["1 pending running -"])), None);
        let (outcome, _) = ends(&json!({"Global": {}}), &[]).unwrap();
        assert!(matches!(outcome, Outcome::Unschedulable { .. }), "{outcome}");
    }

    #[test]
    fn another_spec_supersedes_and_another_scale_does_not() {
        let nodes = nodes();
        let mut state = Convergence::new(Some(SECOND), None);
        let mut web = service(replicas(2), Some("updating"), "any");
        let mut at = |web: &Service, second: u32, list: &[&str]| {
            state.step(Seen { service: web, tasks: &tasks(list), nodes: &nodes }, second * SECOND)
        };
        let one = ["1 running running a"];
        assert_eq!(at(&web, 0, &one), None);
        assert!(web.spec.set_replicas(1));
        web.spec.labels.insert("term".into(), "2".into());
        web.update_status = None;
        assert_eq!(at(&web, 1, &one), None);
        assert_eq!(at(&web, 2, &one), Some(Outcome::Converged { running: 1 }));
        // Swarm's own way back is no other spec of somebody's.
        web.spec.task_template.container_spec.get_or_insert_default().image = "web:2".to_owned();
        web.update_status = service(replicas(1), Some("rollback_started"), "any").update_status;
        assert_ne!(at(&web, 3, &[]), Some(Outcome::Superseded));
        web.update_status = None;
        assert_eq!(at(&web, 4, &one), Some(Outcome::Superseded));
    }
}
