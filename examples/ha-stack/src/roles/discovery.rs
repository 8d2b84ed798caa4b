//! From what Consul's health or the Swarm's tasks say to what the gateway's pool should do: a pure comparison.
//!
//! Consul calls every instance of a host critical when the agent there falls silent, and where that agent is a server it takes
//! them out of the catalog altogether. Host and instances may be well: then only the messenger died, and dropping them would
//! turn one dead process into lost capacity. So they are doubted instead: they stay for as long as they answer when asked.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use balancer::{Endpoint, EndpointId, Update};
use consul_client::{ServiceEntry, Standing};

use super::labels;

/// What the feed said last, so that the next answer becomes a few updates rather than a new pool.
#[derive(Debug, Default)]
pub struct Feed {
    /// Those that the pool has.
    known: BTreeMap<String, Endpoint>,
    /// Those whose agent fell silent, in the pool or not.
    doubted: BTreeMap<String, Doubted>,
    round: u32,
}

#[derive(Debug)]
struct Doubted {
    endpoint: Endpoint,
    /// Where it answers whether it serves; `None` where its registration does not say.
    check: Option<String>,
    /// How often in a row it did not answer.
    silent: u32,
}

/// An instance to ask whether it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The instance.
    pub id: String,
    /// Where it is.
    pub address: SocketAddr,
    /// The path of its readiness check, where its registration names it.
    pub check: Option<String>,
}

impl Feed {
    /// The updates that lead from the last answer to this one, which holds instances of any health. A replica that is no
    /// longer well gets nothing new, and is forgotten when it has answered what it was asked.
    ///
    /// An answer without a single replica changes nothing: checks that fail everywhere at once (a busy machine, a
    /// session store that is away) are no reason to give up replicas that may still answer. The gateway's own probes
    /// find out which do, and the next replica that Consul lists replaces those that are gone.
    pub fn updates(&mut self, entries: &[ServiceEntry]) -> Vec<Update> {
        let all = || entries.iter().filter_map(|entry| Some((entry.standing(), entry, endpoint(entry)?)));
        let mut next: BTreeMap<String, Endpoint> = all()
            .filter(|(standing, ..)| *standing == Standing::Passing)
            .map(|(_, _, endpoint)| (endpoint.id.as_str().to_owned(), endpoint))
            .collect();
        self.doubt(entries, all());
        // Who is doubted stays where it is.
        let stay = self.known.iter().filter(|(id, _)| self.doubted.contains_key(*id));
        next.extend(stay.map(|(id, endpoint)| (id.clone(), endpoint.clone())));
        self.updates_to(next)
    }

    /// The same for replicas by their ids, whoever named them.
    pub fn updates_to(&mut self, next: BTreeMap<String, Endpoint>) -> Vec<Update> {
        if next.is_empty() {
            return Vec::new();
        }
        let gone = self.known.keys().filter(|id| !next.contains_key(*id));
        let removed = gone.map(|id| Update::Remove(EndpointId::new(id)));
        let added = next.iter().filter(|(id, endpoint)| self.known.get(*id) != Some(*endpoint));
        // New capacity first: a replica that replaces another is there before that one leaves.
        let updates = added.map(|(_, endpoint)| Update::Add(endpoint.clone())).chain(removed).collect();
        self.known = next;
        updates
    }

    /// Who is doubted from now on: those whose agent is lost, and those of them that have left the catalog since, for that
    /// is what becomes of a server's. Any other word of Consul about an instance ends the doubt.
    fn doubt<'a>(
        &mut self,
        entries: &[ServiceEntry],
        all: impl Iterator<Item = (Standing, &'a ServiceEntry, Endpoint)>,
    ) {
        let listed = |id: &str| entries.iter().any(|entry| entry.service.id == id);
        let mut before = std::mem::take(&mut self.doubted);
        for (_, entry, endpoint) in all.filter(|(standing, ..)| *standing == Standing::AgentLost) {
            let id = &entry.service.id;
            let check = entry.service.meta.get(labels::META_CHECK).cloned();
            // The same news again is no new beginning.
            let silent = before.get(id).filter(|one| one.endpoint == endpoint).map_or(0, |one| one.silent);
            self.doubted.insert(id.clone(), Doubted { endpoint, check, silent });
        }
        before.retain(|id, _| !listed(id) && self.known.contains_key(id));
        self.doubted.append(&mut before);
    }

    /// Whether there is anybody to ask.
    pub fn doubts(&self) -> bool {
        !self.doubted.is_empty()
    }

    /// Whom to ask this time, about once a second. Those who are silent for longer are asked less often: their host may
    /// stay away for days.
    pub fn questions(&mut self) -> Vec<Question> {
        self.round = self.round.wrapping_add(1);
        let seldom = self.round.is_multiple_of(SELDOM);
        let due = self.doubted.iter().filter(|(_, one)| one.silent < SILENT || seldom);
        let question = |(id, one): (&String, &Doubted)| Question {
            id: id.clone(),
            address: one.endpoint.addr,
            check: one.check.clone(),
        };
        due.map(question).collect()
    }

    /// What a doubted instance said: one that serves is in the pool, or comes back; one that was silent repeatedly leaves,
    /// unless it would leave an empty pool behind.
    pub fn answered(&mut self, id: &str, serves: bool) -> Option<Update> {
        let doubted = self.doubted.get_mut(id)?;
        if serves {
            doubted.silent = 0;
            let endpoint = doubted.endpoint.clone();
            let new = self.known.insert(id.to_owned(), endpoint.clone()).is_none();
            return new.then_some(Update::Add(endpoint));
        }
        doubted.silent = doubted.silent.saturating_add(1);
        if doubted.silent < SILENT || !self.known.contains_key(id) || self.known.len() == 1 {
            return None;
        }
        self.known.remove(id);
        Some(Update::Remove(EndpointId::new(id)))
    }
}

/// `None` for an entry without a usable address, which can't take traffic.
fn endpoint(entry: &ServiceEntry) -> Option<Endpoint> {
    let ip: IpAddr = entry.address().parse().ok()?;
    let endpoint = Endpoint::new(entry.service.id.as_str(), SocketAddr::new(ip, entry.service.port));
    let host = entry.service.meta.get(labels::META_HOST).unwrap_or(&entry.node.node);
    Some(endpoint.host(host.as_str()))
}

/// In a row, a second apart: one lost answer is no death.
const SILENT: u32 = 3;
/// How many rounds apart those are asked that have been silent so often.
const SELDOM: u32 = 15;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(id: &str, port: u16) -> ServiceEntry {
        entry_of(id, port, "passing", "passing")
    }

    fn entry_of(id: &str, port: u16, agent: &str, own: &str) -> ServiceEntry {
        serde_json::from_value(json!({
            "Node": {"Node": "h1", "Address": "198.18.0.11"},
            "Service": {"ID": id, "Service": "web", "Address": "", "Port": port, "Meta": {}, "Tags": []},
            "Checks": [
                {"CheckID": "serfHealth", "Status": agent, "ServiceID": ""},
                {"CheckID": format!("service:{id}"), "Status": own, "ServiceID": id},
            ],
        }))
        .unwrap()
    }

    fn lost(id: &str, port: u16) -> ServiceEntry {
        entry_of(id, port, "critical", "passing")
    }

    fn removed(id: &str) -> Update {
        Update::Remove(EndpointId::new(id))
    }

    #[test]
    fn only_differences_become_updates_and_the_missing_leave() {
        let mut feed = Feed::default();
        let first = feed.updates(&[entry("a", 1), entry("b", 2)]);
        assert_eq!(first.len(), 2);
        assert!(feed.updates(&[entry("b", 2), entry("a", 1)]).is_empty());
        let next = feed.updates(&[entry("b", 3)]);
        let address = "198.18.0.11:3".parse().unwrap();
        let moved = Update::Add(Endpoint::new("b", address).host("h1"));
        assert_eq!(next, [moved, removed("a")]);
        assert_eq!(feed.updates(&[entry("b", 3), entry("c", 4)]).len(), 1);
        assert_eq!(feed.updates(&[entry("b", 3), entry_of("c", 4, "passing", "critical")]), [removed("c")]);
    }

    #[test]
    fn an_empty_answer_keeps_what_is_known_until_a_replica_is_listed_again() {
        let mut feed = Feed::default();
        feed.updates(&[entry("a", 1)]);
        assert!(feed.updates(&[]).is_empty());
        let next = feed.updates(&[entry("b", 2)]);
        assert!(
            matches!(&next[..], [Update::Add(_), Update::Remove(gone)] if gone.as_str() == "a"),
            "{next:?}"
        );
    }

    #[test]
    fn an_entry_without_an_address_is_left_out() {
        let mut odd = entry("a", 1);
        odd.node.address = "not an address".into();
        assert!(Feed::default().updates(&[odd]).is_empty());
    }

    #[test]
    fn a_dead_agents_replicas_stay_for_as_long_as_they_answer() {
        let mut feed = Feed::default();
        feed.updates(&[entry("a", 1), entry("b", 2)]);
        assert!(feed.updates(&[lost("a", 1), entry("b", 2)]).is_empty() && feed.doubts());
        assert_eq!(feed.questions().iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["a"]);
        for serves in [true, false, false, true, false, false] {
            assert_eq!(feed.answered("a", serves), None, "two misses in a row are no death");
        }
        // Other news of the same host does not start the count anew, and a server's node leaves the catalog with all that is registered there.
        assert!(feed.updates(&[lost("a", 1), entry("b", 2)]).is_empty());
        assert!(feed.updates(&[entry("b", 2)]).is_empty() && feed.doubts());
        assert_eq!(feed.answered("a", false), Some(removed("a")));
        assert!(!feed.updates(&[entry("b", 2), entry("c", 3)]).is_empty() && !feed.doubts());
    }

    #[test]
    fn consuls_next_word_ends_the_doubt() {
        let mut feed = Feed::default();
        feed.updates(&[entry("a", 1), entry("b", 2)]);
        feed.updates(&[lost("a", 1), entry("b", 2)]);
        assert!(feed.updates(&[entry("a", 1), entry("b", 2)]).is_empty() && !feed.doubts());
        assert_eq!(feed.answered("a", false), None);
        feed.updates(&[lost("a", 1), entry("b", 2)]);
        let failing = entry_of("a", 1, "critical", "critical");
        assert_eq!(feed.updates(&[failing, entry("b", 2)]), [removed("a")]);
        assert!(!feed.doubts());
    }

    #[test]
    fn who_comes_later_asks_before_it_believes_and_silence_is_asked_for_seldom() {
        let mut feed = Feed::default();
        assert!(feed.updates(&[lost("a", 1), lost("b", 2)]).is_empty(), "nobody has answered yet");
        assert!(matches!(feed.answered("a", true), Some(Update::Add(_))));
        let mut asked = 0;
        for _ in 0..30 {
            asked += feed.questions().iter().filter(|one| one.id == "b").count();
            feed.answered("b", false);
        }
        assert!((4..=6).contains(&asked), "{asked} times in 30 s");
        assert!(
            matches!(feed.answered("b", true), Some(Update::Add(_))),
            "it came back before its agent did"
        );
    }

    #[test]
    fn the_last_replica_is_never_given_up() {
        let mut feed = Feed::default();
        feed.updates(&[entry("a", 1)]);
        feed.updates(&[lost("a", 1)]);
        assert!((0..10).all(|_| feed.answered("a", false).is_none()));
        feed.updates(&[lost("a", 1), entry("b", 2)]);
        assert!((0..10).any(|_| feed.answered("a", false) == Some(removed("a"))));
    }
}
