//! From what Consul's health or the Swarm's tasks say to what the gateway's pool should do: a pure comparison.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use balancer::{Endpoint, EndpointId, Update};
use consul_client::ServiceEntry;

use super::labels;

/// What the feed said last, so that the next answer becomes a few updates rather than a new pool.
#[derive(Debug, Default)]
pub struct Feed {
    known: BTreeMap<String, Endpoint>,
}

impl Feed {
    /// The updates that lead from the last answer to this one. A replica that is no longer listed gets nothing new, and
    /// is forgotten when it has answered what it was asked.
    ///
    /// An answer without a single replica changes nothing: checks that fail everywhere at once (a busy machine, a
    /// session store that is away) are no reason to give up replicas that may still answer. The gateway's own probes
    /// find out which do, and the next replica that Consul lists replaces those that are gone.
    pub fn updates(&mut self, entries: &[ServiceEntry]) -> Vec<Update> {
        self.updates_to(entries.iter().filter_map(endpoint).map(|e| (e.id.as_str().to_owned(), e)).collect())
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
}

/// `None` for an entry without a usable address, which can't take traffic.
fn endpoint(entry: &ServiceEntry) -> Option<Endpoint> {
    let own = &entry.service.address;
    let address = if own.is_empty() { &entry.node.address } else { own };
    let ip: IpAddr = address.parse().ok()?;
    let endpoint = Endpoint::new(entry.service.id.as_str(), SocketAddr::new(ip, entry.service.port));
    let host = entry.service.meta.get(labels::META_HOST).unwrap_or(&entry.node.node);
    Some(endpoint.host(host.as_str()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(id: &str, port: u16) -> ServiceEntry {
        serde_json::from_value(json!({
            "Node": {"Node": "h1", "Address": "198.18.0.11"},
            "Service": {"ID": id, "Service": "web", "Address": "", "Port": port, "Meta": {}, "Tags": []},
            "Checks": [],
        }))
        .unwrap()
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
        assert_eq!(next, [moved, Update::Remove(EndpointId::new("a"))]);
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
}
