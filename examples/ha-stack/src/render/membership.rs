//! From a stream of changes to snapshots worth rendering: pure, `now` is an argument.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use balancer::Update;

/// A server behind the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The instance's id.
    pub id: String,
    /// Where it listens.
    pub addr: SocketAddr,
    /// The machine that it runs on.
    pub host: String,
    /// It finishes what it has and gets nothing new.
    pub draining: bool,
}

/// The servers, and when the next snapshot is due.
#[derive(Debug)]
pub struct Membership {
    servers: BTreeMap<String, (Server, Option<Duration>)>,
    drain: Duration,
    due: Option<Duration>,
}

impl Membership {
    /// Nobody yet. A server that leaves is drained for `drain` before it is gone.
    pub fn new(drain: Duration) -> Self {
        Self { servers: BTreeMap::new(), drain, due: None }
    }

    /// A change. Those that come within [`COALESCE`] of the first one make one snapshot.
    pub fn apply(&mut self, update: Update, now: Duration) {
        match update {
            Update::Reset(endpoints) => {
                let listed: Vec<String> = endpoints.iter().map(|e| e.id.as_str().to_owned()).collect();
                let gone: Vec<String> =
                    self.servers.keys().filter(|id| !listed.contains(id)).cloned().collect();
                gone.iter().for_each(|id| self.leave(id, now));
                endpoints.into_iter().for_each(|endpoint| self.add(&endpoint, now));
            }
            Update::Add(endpoint) => self.add(&endpoint, now),
            Update::Remove(id) | Update::Drain(id) => self.leave(id.as_str(), now),
            _ => {}
        }
    }

    /// When the next snapshot is to be taken, if one is.
    pub fn due(&self) -> Option<Duration> {
        let drained = self.servers.values().filter_map(|(_, until)| *until).min();
        [self.due, drained].into_iter().flatten().min()
    }

    /// The snapshot, if one is due.
    pub fn take(&mut self, now: Duration) -> Option<Vec<Server>> {
        self.due().filter(|due| *due <= now)?;
        self.due = None;
        self.servers.retain(|_, (_, until)| until.is_none_or(|until| until > now));
        Some(self.servers.values().map(|(server, _)| server.clone()).collect())
    }

    /// The snapshot could not be rendered: it is due again after a pause.
    pub fn retry(&mut self, now: Duration) {
        self.due = Some(now + RETRY);
    }

    fn add(&mut self, endpoint: &balancer::Endpoint, now: Duration) {
        let server = Server {
            id: endpoint.id.as_str().to_owned(),
            addr: endpoint.addr,
            host: endpoint.host.as_deref().unwrap_or_default().to_owned(),
            draining: false,
        };
        self.servers.insert(server.id.clone(), (server, None));
        self.soon(now);
    }

    fn leave(&mut self, id: &str, now: Duration) {
        if let Some((server, until)) = self.servers.get_mut(id)
            && !server.draining
        {
            server.draining = true;
            *until = Some(now + self.drain.max(COALESCE));
            self.soon(now);
        }
    }

    fn soon(&mut self, now: Duration) {
        self.due.get_or_insert(now + COALESCE);
    }
}

/// A deployment changes several servers within a moment; a user notices nothing of a tenth of a second.
pub const COALESCE: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use balancer::{Endpoint, EndpointId};

    use super::*;

    fn add(id: &str) -> Update {
        Update::Add(Endpoint::new(id, "127.0.0.1:80".parse().unwrap()).host("h1"))
    }

    fn ids(servers: &[Server]) -> Vec<(&str, bool)> {
        servers.iter().map(|server| (server.id.as_str(), server.draining)).collect()
    }

    #[test]
    fn changes_of_a_moment_are_one_snapshot_and_a_leaving_server_is_drained_first() {
        let ms = Duration::from_millis;
        let mut membership = Membership::new(ms(5000));
        assert_eq!(membership.take(ms(0)), None);
        membership.apply(add("a"), ms(0));
        membership.apply(add("b"), ms(90));
        assert_eq!(membership.take(ms(99)), None);
        assert_eq!(ids(&membership.take(ms(100)).unwrap()), [("a", false), ("b", false)]);
        assert_eq!(membership.due(), None);
        membership.apply(Update::Remove(EndpointId::new("a")), ms(1000));
        assert_eq!(ids(&membership.take(ms(1100)).unwrap()), [("a", true), ("b", false)]);
        assert_eq!(membership.due(), Some(ms(6000)));
        assert_eq!(ids(&membership.take(ms(6000)).unwrap()), [("b", false)]);
        // One that comes back within its drain serves on.
        membership.apply(Update::Remove(EndpointId::new("b")), ms(7000));
        membership.apply(add("b"), ms(7050));
        assert_eq!(ids(&membership.take(ms(7100)).unwrap()), [("b", false)]);
        assert_eq!(membership.due(), None);
    }

    #[test]
    fn what_could_not_be_rendered_is_due_again() {
        let mut membership = Membership::new(Duration::ZERO);
        membership.apply(add("a"), Duration::ZERO);
        membership.take(Duration::from_secs(1)).unwrap();
        membership.retry(Duration::from_secs(1));
        assert_eq!(membership.take(Duration::from_secs(1)), None);
        assert_eq!(membership.take(Duration::from_secs(2)).unwrap().len(), 1);
    }
}
