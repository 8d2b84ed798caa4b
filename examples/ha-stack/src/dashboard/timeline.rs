//! Faults and what became of them, told from one look to the next. Pure: the time is an argument.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::view::View;
use crate::platform::Happening;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Seconds since 1970.
    pub at: f64,
    /// What kind of thing.
    pub kind: Kind,
    /// As one sentence.
    pub text: String,
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Something broke.
    Fault,
    /// It is over.
    Recovery,
    /// Neither: a replica came or went in order.
    Change,
}

/// A time without a host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outage {
    /// Which.
    pub host: String,
    /// Seconds since 1970.
    pub from: f64,
    /// When it was back; `None` while it is away.
    pub until: Option<f64>,
}

/// What has happened, and what is still going on.
#[derive(Debug, Default)]
pub struct Timeline {
    entries: VecDeque<Entry>,
    outages: VecDeque<Outage>,
    /// Things that are wrong, and since when.
    wrong: BTreeMap<String, f64>,
    /// The newest event of the gateway that was taken in.
    newest: f64,
    /// Replicas that took traffic at the last look.
    usable: Option<usize>,
    /// Hosts, backends and gateways that were seen well or not once before.
    known: BTreeMap<String, bool>,
}

impl Timeline {
    /// Takes in what was seen at `at`, in seconds since 1970.
    pub fn observe(&mut self, at: f64, view: &View) {
        let mut fresh = self.events(&view.events);
        for host in &view.hosts {
            let subject = format!("host {}", host.name);
            if let Some(entry) = self.turn(at, &subject, host.up, "has no power or no network") {
                match entry.kind {
                    Kind::Fault => self.push_outage(&host.name, at),
                    _ => self.end_outage(&host.name, at),
                }
                fresh.push(entry);
            }
        }
        for backend in &view.backends {
            fresh.extend(self.turn(
                at,
                &backend.name,
                backend.ok,
                &format!("is not well: {}", backend.detail),
            ));
        }
        for gateway in &view.gateways {
            let why = gateway.error.as_deref().unwrap_or_default();
            let subject = format!("gateway {}", gateway.name);
            fresh.extend(self.turn(at, &subject, gateway.error.is_none(), &format!("is silent: {why}")));
        }
        if let Some(wanted) = view.wanted {
            let usable = view.usable();
            // Fewer than wanted because more are wanted is no fault; fewer than a moment ago is one.
            let fewer = usable < self.usable.replace(usable).unwrap_or(usable);
            let wrong = self.known.get(&view.service) == Some(&false);
            let whole = usable >= wanted as usize || !(fewer || wrong);
            let lacking = format!("has {usable} of {wanted} replicas in use");
            fresh.extend(self.turn(at, &view.service, whole, &lacking));
        }
        fresh.sort_by(|a, b| a.at.total_cmp(&b.at));
        for entry in fresh {
            if self.entries.len() >= KEPT {
                self.entries.pop_front();
            }
            self.entries.push_back(entry);
        }
    }

    /// What happened, oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.iter().cloned().collect()
    }

    /// When hosts were away, oldest first.
    pub fn outages(&self) -> Vec<Outage> {
        self.outages.iter().cloned().collect()
    }

    fn events(&mut self, events: &[Happening]) -> Vec<Entry> {
        let newest = self.newest;
        let fresh = events.iter().filter(|event| event.at > newest);
        let entries = fresh.filter_map(|event| {
            let kind = match event.kind.as_str() {
                "ejected" => Kind::Fault,
                "recovered" => Kind::Recovery,
                // That it was added says less than that it is ready, and a trial is an attempt.
                "added" | "trial" => return None,
                _ => Kind::Change,
            };
            Some(Entry { at: event.at, kind, text: event.text.clone() })
        });
        let entries = entries.collect();
        self.newest = events.iter().map(|event| event.at).fold(newest, f64::max);
        entries
    }

    /// An entry when a thing has turned from well to wrong or back; none for the first sight of one that is well.
    fn turn(&mut self, at: f64, subject: &str, well: bool, fault: &str) -> Option<Entry> {
        let before = self.known.insert(subject.to_owned(), well);
        match (before, well) {
            (Some(false), true) => {
                let since = self.wrong.remove(subject).unwrap_or(at);
                let text = format!("{subject} is well again, after about {:.0} s", (at - since).max(1.0));
                Some(Entry { at, kind: Kind::Recovery, text })
            }
            (Some(true) | None, false) => {
                self.wrong.insert(subject.to_owned(), at);
                Some(Entry { at, kind: Kind::Fault, text: format!("{subject} {fault}") })
            }
            _ => None,
        }
    }

    fn push_outage(&mut self, host: &str, at: f64) {
        if self.outages.len() >= KEPT {
            self.outages.pop_front();
        }
        self.outages.push_back(Outage { host: host.into(), from: at, until: None });
    }

    fn end_outage(&mut self, host: &str, at: f64) {
        let open = self.outages.iter_mut().rev().find(|outage| outage.host == host && outage.until.is_none());
        if let Some(outage) = open {
            outage.until = Some(at);
        }
    }
}

/// More than fits on a page.
const KEPT: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::{Backend, Host, Replica};

    fn view(h2_up: bool, usable: usize) -> View {
        let host = |name: &str, up| Host { name: name.into(), up, ..Host::default() };
        let replica = |n| Replica { instance: format!("web.{n}"), usable: true, ..Replica::default() };
        View {
            service: "web".into(),
            wanted: Some(2),
            hosts: vec![host("h1", true), host("h2", h2_up)],
            replicas: (0..usable).map(replica).collect(),
            ..View::default()
        }
    }

    fn texts(timeline: &Timeline) -> Vec<String> {
        timeline.entries().into_iter().map(|entry| entry.text).collect()
    }

    #[test]
    fn a_lost_host_is_a_fault_until_it_is_back() {
        let mut timeline = Timeline::default();
        timeline.observe(1.0, &view(true, 2));
        assert!(timeline.entries().is_empty());
        timeline.observe(2.0, &view(false, 1));
        timeline.observe(3.0, &view(false, 2));
        assert_eq!(timeline.outages(), [Outage { host: "h2".into(), from: 2.0, until: None }]);
        timeline.observe(9.0, &view(true, 2));
        assert_eq!(timeline.outages(), [Outage { host: "h2".into(), from: 2.0, until: Some(9.0) }]);
        assert_eq!(
            texts(&timeline),
            [
                "host h2 has no power or no network",
                "web has 1 of 2 replicas in use",
                "web is well again, after about 1 s",
                "host h2 is well again, after about 7 s",
            ]
        );
    }

    #[test]
    fn growing_is_no_fault() {
        let mut timeline = Timeline::default();
        timeline.observe(1.0, &view(true, 2));
        let mut more = view(true, 2);
        more.wanted = Some(5);
        timeline.observe(2.0, &more);
        assert!(timeline.entries().is_empty());
        more.replicas.pop();
        timeline.observe(3.0, &more);
        assert_eq!(texts(&timeline), ["web has 1 of 5 replicas in use"]);
    }

    #[test]
    fn events_of_the_gateway_are_taken_in_once() {
        let event = |at, kind: &str| Happening { at, kind: kind.into(), text: format!("web.1 {kind}") };
        let mut seen = view(true, 2);
        seen.events = vec![event(1.0, "added"), event(1.5, "ejected")];
        let mut timeline = Timeline::default();
        timeline.observe(2.0, &seen);
        seen.events.push(event(2.5, "recovered"));
        timeline.observe(3.0, &seen);
        assert_eq!(texts(&timeline), ["web.1 ejected", "web.1 recovered"]);
        let kinds: Vec<Kind> = timeline.entries().iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [Kind::Fault, Kind::Recovery]);
    }

    #[test]
    fn a_backend_that_was_never_well_is_said_at_once() {
        let mut seen = view(true, 2);
        seen.backends = vec![Backend { name: "consul".into(), ok: false, detail: "no leader".into() }];
        let mut timeline = Timeline::default();
        timeline.observe(1.0, &seen);
        timeline.observe(2.0, &seen);
        assert_eq!(texts(&timeline), ["consul is not well: no leader"]);
    }

    #[test]
    fn a_host_that_flaps_for_a_day_does_not_fill_the_memory() {
        let mut timeline = Timeline::default();
        for second in 0..1000_u32 {
            timeline.observe(second.into(), &view(second % 2 == 0, 2));
        }
        assert_eq!((timeline.entries().len(), timeline.outages().len()), (KEPT, KEPT));
    }
}
