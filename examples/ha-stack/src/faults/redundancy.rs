//! How long the stack had fewer good replicas than it wants, and what it said about that. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::platform::Replica;

/// What is known to be gone, whatever a gateway still believes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Hosts without power or cable.
    pub hosts: BTreeSet<String>,
    /// Replicas that were killed, hang or fail.
    pub instances: BTreeSet<String>,
}

impl Lost {
    /// One host.
    pub fn host(name: &str) -> Self {
        Self { hosts: BTreeSet::from([name.to_owned()]), ..Self::default() }
    }

    /// One replica.
    pub fn instance(name: &str) -> Self {
        Self { instances: BTreeSet::from([name.to_owned()]), ..Self::default() }
    }

    fn has(&self, replica: &Replica) -> bool {
        self.hosts.contains(&replica.host) || self.instances.contains(&replica.instance)
    }
}

/// What the gateways showed from the strike on.
#[derive(Debug, Default)]
pub struct Watched {
    /// When the stack was last seen with too few.
    last_short: Option<Duration>,
    /// Whether the last look saw enough.
    whole: bool,
    /// What gateways said of replicas that they did not use, with how often.
    said: BTreeMap<String, u32>,
}

impl Watched {
    /// Takes a look, `since` the strike: what each gateway that answered shows.
    pub fn look(&mut self, since: Duration, gateways: &[Vec<Replica>], wanted: usize, lost: &Lost) {
        let good = |view: &Vec<Replica>| view.iter().filter(|r| r.usable && !lost.has(r)).count();
        // The users' gateway may be any of them. None that answers is no proof that the stack is whole.
        self.whole = !gateways.is_empty() && gateways.iter().all(|view| good(view) >= wanted);
        if !self.whole {
            self.last_short = Some(since);
        }
        for replica in gateways.iter().flatten().filter(|r| !r.usable) {
            if self.said.len() < SENTENCES {
                *self.said.entry(format!("{} {}", short(&replica.instance), replica.state)).or_default() += 1;
            }
        }
    }

    /// Seconds from the strike until the stack was whole for good; `None` while it is not.
    pub fn seconds(&self) -> Option<f64> {
        self.whole.then(|| self.last_short.map_or(0.0, |last| last.as_secs_f64()))
    }

    /// Whether the last look saw enough.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// The gateways' sentences, the most frequent first.
    pub fn said(&self) -> Vec<String> {
        let mut said: Vec<(&String, &u32)> = self.said.iter().collect();
        said.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        said.into_iter().take(SENTENCES_SHOWN).map(|(sentence, _)| sentence.clone()).collect()
    }
}

/// `web.2` of `web.2.q7ld...`: what a person needs.
fn short(instance: &str) -> String {
    instance.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

const SENTENCES: usize = 500;
const SENTENCES_SHOWN: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(instance: &str, host: &str, usable: bool) -> Replica {
        Replica {
            instance: instance.into(),
            host: host.into(),
            address: String::new(),
            usable,
            state: if usable { "ready".into() } else { "ejected: 2 probes unanswered".into() },
            in_flight: 0,
            ..Replica::default()
        }
    }

    #[test]
    fn who_is_lost_does_not_count_though_the_gateway_still_believes_in_it() {
        let mut watched = Watched::default();
        let before = vec![replica("web.1.a", "h1", true), replica("web.2.b", "h2", true)];
        let lost = Lost::host("h2");
        watched.look(Duration::ZERO, std::slice::from_ref(&before), 2, &lost);
        assert_eq!(watched.seconds(), None);
        let after = vec![replica("web.1.a", "h1", true), replica("web.2.c", "h3", true)];
        watched.look(Duration::from_secs(3), &[after.clone(), before], 2, &lost);
        assert_eq!(watched.seconds(), None, "one gateway has not noticed");
        watched.look(Duration::from_secs(4), std::slice::from_ref(&after), 2, &lost);
        assert_eq!(watched.seconds(), Some(3.0));
        watched.look(Duration::from_secs(5), &[], 2, &lost);
        assert_eq!(watched.seconds(), None, "no gateway that answers is no proof");
        watched.look(Duration::from_secs(6), &[after], 2, &Lost::instance("web.9.z"));
        assert_eq!(watched.seconds(), Some(5.0));
    }

    #[test]
    fn what_was_said_is_kept_once() {
        let mut watched = Watched::default();
        for second in 0..3 {
            let view = vec![replica("web.1.abc", "h1", false)];
            watched.look(Duration::from_secs(second), &[view], 1, &Lost::default());
        }
        assert_eq!(watched.said(), ["web.1 ejected: 2 probes unanswered"]);
    }
}
