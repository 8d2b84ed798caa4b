//! Which services a gateway serves, and by which labels: from what Consul says. Pure.
//!
//! The registrar copies a service's routing labels (`balancer.*`, `traefik.*`) into the tags of its tasks' registrations,
//! and into a [`Record`] under [`labels::ROUTES`], which outlives the tasks: a service whose only replica has just died, or
//! that was scaled to zero, keeps its route, and its requests wait. Services that somebody else registers have tags alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use balancer::routing::labels as rules;
use serde::{Deserialize, Serialize};
use swarm_client::Service;

use super::labels;

/// Labels by name.
pub type Labels = BTreeMap<String, String>;

/// A value under [`labels::ROUTES`]: what a Swarm wants of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The id of the Swarm; only its registrars take the record back.
    pub swarm: String,
    /// The routing labels.
    pub labels: Labels,
}

/// The routing labels among all of a service's.
pub fn routing<'a>(all: impl IntoIterator<Item = (&'a str, &'a str)>) -> Labels {
    let ours = |name: &str| {
        let start =
            |prefix: &str| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        PREFIXES.iter().any(|prefix| start(prefix))
    };
    all.into_iter()
        .filter(|(name, _)| ours(name))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The routing labels of a Swarm's service.
pub fn of_service(service: &Service) -> Labels {
    routing(service.spec.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())))
}

/// The routing labels in a list of tags.
pub fn of_tags(tags: &[String]) -> Labels {
    routing(rules::of_tags(tags.iter().map(String::as_str)))
}

/// The same as tags.
pub fn tags(labels: &Labels) -> impl Iterator<Item = String> {
    labels.iter().map(|(name, value)| format!("{name}={value}"))
}

/// The port that a service's labels name, if they do: of its first route.
pub fn port(service: &str, labels: &Labels) -> Option<u16> {
    let labels = labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    rules::read(service, labels).ok()?.into_iter().find_map(|route| route.port)
}

/// What Consul has said of every service that has, or had, routing labels.
#[derive(Debug, Default)]
pub struct Book {
    services: BTreeMap<String, Page>,
}

#[derive(Debug, Default)]
struct Page {
    /// What its record says.
    recorded: Option<Labels>,
    /// What the tags of its instances say.
    tagged: Option<Labels>,
    /// Whether the catalog has it.
    listed: bool,
    /// Whether it had a record that was taken back, by somebody who knows that the service has ended.
    ended: bool,
    /// Until when to keep it, which has neither record nor instance.
    until: Option<Duration>,
}

impl Book {
    /// Takes in the catalog: every service with the tags that its instances have between them.
    pub fn catalog<'a>(&mut self, listed: impl IntoIterator<Item = (&'a str, &'a [String])>, now: Duration) {
        let mut seen = BTreeSet::new();
        for (service, tags) in listed {
            let labels = of_tags(tags);
            if labels.is_empty() && !self.services.contains_key(service) {
                continue;
            }
            seen.insert(service.to_owned());
            let page = self.services.entry(service.to_owned()).or_default();
            (page.listed, page.until) = (true, None);
            // Until it is known what its instances say one by one. Instances without such tags have none to keep.
            if labels.is_empty() {
                page.tagged = None;
            } else {
                page.tagged.get_or_insert(labels);
            }
        }
        for (_, page) in self.services.iter_mut().filter(|(service, _)| !seen.contains(*service)) {
            page.listed = false;
            if page.recorded.is_none() {
                page.until.get_or_insert(if page.ended { Duration::ZERO } else { now + KEPT });
            }
        }
    }

    /// Takes in all records, by service.
    pub fn records(&mut self, records: BTreeMap<String, Labels>) {
        for (service, page) in &mut self.services {
            if page.recorded.is_some() && !records.contains_key(service) {
                (page.recorded, page.ended) = (None, true);
                page.until = (!page.listed).then_some(Duration::ZERO);
            }
        }
        for (service, labels) in records {
            let page = self.services.entry(service).or_default();
            (page.recorded, page.ended, page.until) = (Some(labels), false, None);
        }
    }

    /// Takes in the tags of each registered instance of a service. While they differ, as in an update, most of them win.
    pub fn instances(&mut self, service: &str, tags: impl IntoIterator<Item = Labels>) {
        let Some(page) = self.services.get_mut(service) else { return };
        let mut counts: BTreeMap<Labels, usize> = BTreeMap::new();
        for labels in tags {
            *counts.entry(labels).or_default() += 1;
        }
        // Of equal counts the first in order: every gateway has to come to the same.
        if let Some((labels, _)) = counts.into_iter().rev().max_by_key(|(_, count)| *count) {
            page.tagged = Some(labels).filter(|labels| !labels.is_empty());
        }
    }

    /// The labels of every service that is wanted now. What is gone is kept for a while: its only replica may have died.
    pub fn wanted(&mut self, now: Duration) -> BTreeMap<String, Labels> {
        self.services.retain(|_, page| page.until.is_none_or(|until| now < until));
        let labels = self.services.iter().filter_map(|(service, page)| {
            let labels = page.recorded.as_ref().or(page.tagged.as_ref())?;
            Some((service.clone(), labels.clone()))
        });
        labels.collect()
    }
}

/// What a record is for, by its key.
pub fn service_of(key: &str) -> Option<&str> {
    key.strip_prefix(labels::ROUTES).filter(|service| !service.is_empty())
}

const PREFIXES: [&str; 2] = ["balancer.", "traefik."];
/// Longer than a host takes to start a replica again.
const KEPT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> Labels {
        Labels::from([("balancer.host".to_owned(), name.to_owned())])
    }

    fn list(service: &str, host: &str) -> (String, Vec<String>) {
        (service.to_owned(), vec![format!("balancer.host={host}"), "other".to_owned()])
    }

    fn see(book: &mut Book, listed: &[(String, Vec<String>)], now: u64) {
        let listed = listed.iter().map(|(service, tags)| (service.as_str(), tags.as_slice()));
        book.catalog(listed, Duration::from_secs(now));
    }

    fn wanted(book: &mut Book, now: u64) -> Vec<(String, Labels)> {
        book.wanted(Duration::from_secs(now)).into_iter().collect()
    }

    #[test]
    fn only_routing_labels_go_into_tags_and_come_back() {
        let all = [
            ("ha-stack.check", "/healthz"),
            ("balancer.host", "a=b.example"),
            ("Traefik.http.routers.x.rule", "Host(`x`)"),
            ("balance", "no"),
        ];
        let labels = routing(all);
        assert_eq!(labels.len(), 2);
        let back: Vec<String> = tags(&labels).collect();
        assert_eq!(of_tags(&back), labels);
        assert!(of_tags(&["balancer.host".into(), "plain".into(), "é".into()]).is_empty());
    }

    #[test]
    fn a_service_without_routing_tags_is_none_of_ours() {
        let mut book = Book::default();
        see(&mut book, &[("consul".into(), vec![]), list("shop", "a")], 1);
        assert_eq!(wanted(&mut book, 1), [("shop".to_owned(), host("a"))]);
        // The tags were taken away, and the service is there.
        see(&mut book, &[("shop".into(), vec![])], 2);
        assert!(wanted(&mut book, 2).is_empty());
    }

    #[test]
    fn a_service_whose_only_replica_died_keeps_its_route_for_a_while() {
        let mut book = Book::default();
        see(&mut book, &[list("shop", "a")], 10);
        see(&mut book, &[], 20);
        assert_eq!(wanted(&mut book, 79).len(), 1);
        see(&mut book, &[list("shop", "a")], 79);
        see(&mut book, &[], 80);
        assert_eq!(wanted(&mut book, 139).len(), 1, "it was back in between");
        assert!(wanted(&mut book, 140).is_empty());
    }

    #[test]
    fn a_record_keeps_a_service_without_replicas_and_ends_it_at_once() {
        let mut book = Book::default();
        book.records(BTreeMap::from([("shop".to_owned(), host("a"))]));
        see(&mut book, &[], 1);
        assert_eq!(wanted(&mut book, 100_000), [("shop".to_owned(), host("a"))]);
        // The newer word, while instances still have old tags.
        see(&mut book, &[list("shop", "old")], 100_001);
        assert_eq!(wanted(&mut book, 100_001), [("shop".to_owned(), host("a"))]);
        book.records(BTreeMap::new());
        assert_eq!(wanted(&mut book, 100_001), [("shop".to_owned(), host("old"))], "instances are there");
        see(&mut book, &[], 100_002);
        assert!(wanted(&mut book, 100_002).is_empty(), "it did not die, it ended");
        book.records(BTreeMap::from([("shop".to_owned(), host("a"))]));
        book.records(BTreeMap::new());
        assert!(wanted(&mut book, 0).is_empty());
    }

    #[test]
    fn what_most_instances_say_is_the_route() {
        let mut book = Book::default();
        see(&mut book, &[list("shop", "a")], 1);
        book.instances("shop", [host("a"), host("b"), host("b")]);
        assert_eq!(wanted(&mut book, 1), [("shop".to_owned(), host("b"))]);
        book.instances("shop", [host("b"), host("a")]);
        assert_eq!(wanted(&mut book, 1), [("shop".to_owned(), host("a"))]);
        // Nobody passes: what was said last stays.
        book.instances("shop", []);
        assert_eq!(wanted(&mut book, 1), [("shop".to_owned(), host("a"))]);
        book.instances("stranger", [host("c")]);
        assert_eq!(wanted(&mut book, 1).len(), 1);
    }
}
