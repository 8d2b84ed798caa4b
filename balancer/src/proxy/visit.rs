//! One connection of a client, as every request on it sees it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, HeaderValue, Uri, header};
use tokio::sync::OwnedSemaphorePermit;

use super::client_io::Seen;
use super::gateway::Inner;
use super::router::Routes;

/// Who came, how, and where his requests may go.
pub(crate) struct Visit {
    pub(crate) peer: IpAddr,
    /// The peer as it goes into a chain.
    pub(crate) text: HeaderValue,
    pub(crate) tls: bool,
    /// What was read between requests; only where one follows another.
    pub(crate) seen: Option<Seen>,
    /// Whose listener it was: closes, and knows the rules for connections.
    pub(crate) edge: Arc<Inner>,
    pub(crate) target: Target,
    /// Whether a request has come.
    pub(crate) asked: AtomicBool,
    /// Room for one more connection once it is gone.
    pub(crate) _room: (Option<OwnedSemaphorePermit>, Option<Guest>),
}

/// Where requests go.
#[derive(Clone)]
pub(crate) enum Target {
    One(Arc<Inner>),
    Routed(Arc<Routes>),
}

impl Visit {
    /// The service that a request is for.
    pub(crate) fn service(&self, uri: &Uri, headers: &HeaderMap) -> Option<Arc<Inner>> {
        match &self.target {
            Target::One(inner) => Some(Arc::clone(inner)),
            Target::Routed(routes) => {
                let line = || headers.get(header::HOST).and_then(|host| host.to_str().ok());
                let host =
                    uri.authority().map(http::uri::Authority::as_str).or_else(line).unwrap_or_default();
                routes.find(host, uri.path())
            }
        }
    }
}

/// How many connections each client has.
#[derive(Debug, Default)]
pub(crate) struct Guests(Mutex<HashMap<IpAddr, usize>>);

/// One connection of a client, counted while it lives.
pub(crate) struct Guest {
    guests: Arc<Guests>,
    who: IpAddr,
}

impl Guests {
    /// Counts one more, unless the client has `most` already; 0 is no limit.
    pub(crate) fn enter(self: &Arc<Self>, peer: IpAddr, most: usize) -> Result<Option<Guest>, ()> {
        if most == 0 {
            return Ok(None);
        }
        let who = network(peer);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(who).or_default();
        if *count >= most {
            return Err(());
        }
        *count += 1;
        Ok(Some(Guest { guests: Arc::clone(self), who }))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut all = self.guests.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.who);
            }
        }
    }
}

/// An IPv6 client has a /64 at least, all addresses of which are his.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(addr) => IpAddr::V6(Ipv6Addr::from(u128::from(addr) >> 64 << 64)),
        addr => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_so_many_and_gets_them_back() {
        let guests = Arc::new(Guests::default());
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), "2001:db8::1".parse().unwrap());
        let first = guests.enter(a, 1).unwrap();
        assert!(guests.enter(a, 1).is_err() && guests.enter("::ffff:10.0.0.1".parse().unwrap(), 1).is_err());
        let _other = guests.enter(b, 1).unwrap();
        assert!(guests.enter("2001:db8::2".parse().unwrap(), 1).is_err(), "the same /64");
        drop(first);
        assert!(guests.enter(a, 1).is_ok() && guests.enter(a, 0).unwrap().is_none());
        assert_eq!(guests.0.lock().unwrap().len(), 1);
    }
}
