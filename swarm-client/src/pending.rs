//! Why a task finds no node, as data.

use std::fmt;

/// One clause of the scheduler's "no suitable node": on so many nodes, this stood in the way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct PendingReason {
    /// What stood in the way.
    pub clause: Clause,
    /// On how many nodes.
    pub nodes: u64,
}

/// What stands in the way of a task on a node: the scheduler's filters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Clause {
    /// Down, paused or drained.
    NotAvailable,
    /// Too little processor, memory or generic resource to spare.
    InsufficientResources,
    /// A plugin is missing.
    MissingPlugin,
    /// A placement constraint does not hold.
    Constraints,
    /// The image is for another platform.
    Platform,
    /// A port published in host mode is taken.
    HostPortInUse,
    /// The node has as many tasks of the service as it may.
    MaxReplicasPerNode,
    /// Anything else, in the scheduler's words.
    Other(String),
}

impl PendingReason {
    /// Reads the clauses out of a task's error; empty if it is not about placement.
    #[must_use]
    pub fn parse(error: &str) -> Vec<Self> {
        let Some((_, rest)) = error.split_once("no suitable node") else {
            return Vec::new();
        };
        let Some(clauses) = rest.trim().strip_prefix('(') else {
            return Vec::new();
        };
        let clauses = clauses.rsplit_once(')').map_or(clauses, |(inside, _)| inside);
        clauses.split(';').map(str::trim).filter(|text| !text.is_empty()).map(Self::clause).collect()
    }

    fn clause(text: &str) -> Self {
        let (what, nodes) = counted(text).unwrap_or((text, 1));
        let lower = what.to_ascii_lowercase();
        let known = CLAUSES.iter().find(|(start, _)| lower.contains(start));
        Self {
            clause: known.map_or_else(|| Clause::Other(what.to_owned()), |(_, clause)| clause.clone()),
            nodes,
        }
    }
}

impl fmt::Display for PendingReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clause = match &self.clause {
            Clause::NotAvailable => "not available for new tasks",
            Clause::InsufficientResources => "insufficient resources",
            Clause::MissingPlugin => "missing plugin",
            Clause::Constraints => "placement constraints not satisfied",
            Clause::Platform => "unsupported platform",
            Clause::HostPortInUse => "host port in use",
            Clause::MaxReplicasPerNode => "limit of tasks per node reached",
            Clause::Other(text) => text,
        };
        write!(f, "{clause} on {} node{}", self.nodes, if self.nodes == 1 { "" } else { "s" })
    }
}

/// `scheduling constraints not satisfied on 2 nodes` → the text before, and 2.
fn counted(text: &str) -> Option<(&str, u64)> {
    let (what, count) = text.rsplit_once(" on ")?;
    let nodes = count.trim().strip_suffix("nodes").or_else(|| count.trim().strip_suffix("node"))?;
    Some((what.trim(), nodes.trim().parse().ok()?))
}

/// How each of the scheduler's clauses is recognised, in lower case.
const CLAUSES: &[(&str, Clause)] = &[
    ("not available for new tasks", Clause::NotAvailable),
    ("insufficient resources", Clause::InsufficientResources),
    ("missing plugin", Clause::MissingPlugin),
    ("scheduling constraints not satisfied", Clause::Constraints),
    ("unsupported platform", Clause::Platform),
    ("host-mode port already in use", Clause::HostPortInUse),
    ("max replicas per node", Clause::MaxReplicasPerNode),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheduler_s_sentence_becomes_data() {
        let read = PendingReason::parse(
            "no suitable node (scheduling constraints not satisfied on 2 nodes; insufficient resources on 1 node; \
             host-mode port already in use on 3 nodes; max replicas per node limit exceed; 1 node not available for new tasks)",
        );
        let expected = [
            (Clause::Constraints, 2),
            (Clause::InsufficientResources, 1),
            (Clause::HostPortInUse, 3),
            (Clause::MaxReplicasPerNode, 1),
            (Clause::NotAvailable, 1),
        ];
        assert_eq!(read.into_iter().map(|r| (r.clause, r.nodes)).collect::<Vec<_>>(), expected);
        assert_eq!(
            PendingReason::parse("no suitable node (the moon on 4 nodes)")[0].to_string(),
            "the moon on 4 nodes"
        );
        assert_eq!(PendingReason::parse("no suitable node"), []);
        assert_eq!(PendingReason::parse("task: non-zero exit (1)"), []);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn any_text_is_read_without_panic(text in "(no suitable node ?)?[(); a-z0-9]{0,60}") {
            for reason in PendingReason::parse(&text) {
                proptest::prop_assert!(!reason.to_string().is_empty());
            }
        }
    }
}
