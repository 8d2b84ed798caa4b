//! Two watchdogs of one pool, of which a lease lets one act.

use std::sync::Mutex;

use async_trait::async_trait;
use swarm_client::engines::{ContainerSpec, Lease, MemoryRoster, Roster, RosterStore, StoreError, Watchdog};

use super::pool::{Docker, pool};
use super::*;

/// A lease that a test hands round.
#[derive(Clone, Default)]
struct Handed(Arc<Mutex<Option<u64>>>);

impl Handed {
    fn set(&self, term: Option<u64>) {
        *self.0.lock().unwrap() = term;
    }
}

impl Lease for Handed {
    fn term(&self) -> Option<u64> {
        *self.0.lock().unwrap()
    }
}

/// A store that takes the leadership of another away while it is read: its roster is an old leader's by then.
struct Taken(Handed, Arc<MemoryRoster>);

#[async_trait]
impl RosterStore for Taken {
    async fn load(&self) -> Result<Option<Roster>, StoreError> {
        let roster = self.1.load().await;
        self.0.set(Some(9));
        roster
    }

    async fn save(&self, roster: &Roster, term: u64) -> Result<(), StoreError> {
        self.1.save(roster, term).await
    }
}

#[tokio::test]
async fn only_the_leader_acts_and_the_next_one_knows_what_it_knew() {
    let (one, two) = (Docker::start("h1", "A", &["web:1"]).await, Docker::start("h2", "B", &["web:1"]).await);
    let addrs = [one.addr(), two.addr()];
    let store = Arc::new(MemoryRoster::default());
    let (lease_a, lease_b) = (Handed::default(), Handed::default());
    let watchdog = |lease: &Handed| Watchdog::new(pool(&addrs), Arc::new(lease.clone()), store.clone());
    let (mut a, mut b) = (watchdog(&lease_a), watchdog(&lease_b));

    let web = ContainerSpec::new("web", "web:1").constraint("node!=h3").reschedule();
    let placed = pool(&addrs).run(web.affinity("container!=web")).await.unwrap();
    let (lost, left) = if placed.to_string() == "h1/web" { (&one, &two) } else { (&two, &one) };
    lease_a.set(Some(1));
    assert!(a.round().await.led);
    lost.set_broken(true);

    // Who does not lead asks no engine anything.
    let before = (one.asked(), two.asked());
    for _ in 0..5 {
        let round = b.round().await;
        assert!(!round.led && round.engines.is_empty(), "{round}");
    }
    assert_eq!((one.asked(), two.asked()), before);

    // The leader loses its lease before it is sure; the next one has to see for itself, and knows the container from the store.
    assert!(a.round().await.done.is_empty());
    lease_a.set(None);
    lease_b.set(Some(2));
    for look in 1..=2 {
        let round = b.round().await;
        assert!(round.led && round.done.is_empty(), "look {look}: {round}");
    }
    let round = b.round().await;
    assert_eq!((round.done.len(), left.names()), (1, vec!["web".to_owned()]), "{round}");
    assert!(!a.round().await.led);
    assert!(b.round().await.done.is_empty(), "once is enough");

    // The lost engine is back: of the two copies the leader removes one.
    lost.set_broken(false);
    for _ in 0..3 {
        b.round().await;
        a.round().await;
    }
    assert_eq!((lost.names(), left.names()), (Vec::new(), vec!["web".to_owned()]));
}

#[tokio::test]
async fn a_leader_whose_term_ends_in_the_middle_of_a_round_leaves_the_rest() {
    let (one, two) = (Docker::start("h1", "A", &["web:1"]).await, Docker::start("h2", "B", &["web:1"]).await);
    let addrs = [one.addr(), two.addr()];
    let (lease, store) = (Handed::default(), Arc::new(MemoryRoster::default()));
    pool(&addrs).run(ContainerSpec::new("web", "web:1").reschedule()).await.unwrap();
    lease.set(Some(1));
    let taken = Taken(lease.clone(), store.clone());
    let mut watchdog = Watchdog::new(pool(&addrs), Arc::new(lease.clone()), Arc::new(taken));
    let round = watchdog.round().await;
    assert!(round.held.iter().any(|held| held.contains("another one leads now")), "{round}");
}
