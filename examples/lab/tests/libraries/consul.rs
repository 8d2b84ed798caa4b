//! consul-client.

use std::time::{Duration, Instant};

use consul_client::{Check, Client, ServiceEntry, ServiceRegistration, Watch};
use lab::{Host, Lab};
use tokio::time::timeout;

use crate::{a_follower, power_on, told};

/// One loss of power, and all that has to live through it: watches, and a lock.
pub(crate) async fn watches_and_a_lock_outlive_the_loss_of_a_host(lab: &Lab) {
    let victim = a_follower(lab, |leaders| &leaders.consul).await;
    let others: Vec<&Host> = lab.hosts().iter().filter(|host| *host != victim).collect();
    let (holder, heir) = (client(&others[..1]), client(&others[1..]));
    for host in lab.hosts() {
        let check = Check::tcp(host.redis_addr().to_string()).interval(Duration::from_secs(1));
        let api = ServiceRegistration::new("api", format!("api-{}", host.name)).port(7000).check(check);
        client(&[host]).agent().register(&api).await.unwrap();
    }
    let start = Instant::now();
    let mut near = holder.health().service("api").passing().watch();
    // This one asks the host that will die.
    let mut astray = client(&[victim, others[0], others[1]]).health().service("api").passing().watch();
    for watch in [&mut near, &mut astray] {
        // An instance that the watch has not seen yet is no loss: until here the set may grow.
        until(watch, 0, lab.hosts().iter().collect()).await;
    }
    told("registered with three agents, seen by two watches", start);

    let key = "jobs/nightly/leader";
    let lock = holder.lock(key).ttl(TTL).value("holder").acquire().await.unwrap();
    let start = Instant::now();
    let power_off = async {
        // Only once the watches ask.
        tokio::time::sleep(Duration::from_millis(200)).await;
        lab.power_off(&victim.name).await.unwrap();
    };
    let near_notices = async {
        until(&mut near, 2, others.clone()).await;
        told(&format!("{} gone from the watch", victim.name), start);
    };
    // Its agent's machine says nothing when it goes: that may show only when the time of a blocking query is over.
    let astray_notices = async {
        until(&mut astray, 2, others.clone()).await;
        told("and from the one whose agent it was", start);
    };
    let lock_is_kept = async {
        // Longer than the lock would last without renewal.
        while start.elapsed() < TTL + Duration::from_secs(1) {
            assert!(lock.is_held());
            let taken = heir.lock(key).ttl(TTL).try_acquire().await.unwrap();
            assert!(taken.is_none(), "one holder at a time");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let fence = lock.fence();
        let next = heir.lock(key).ttl(TTL).value("heir").acquire();
        let (next, released) = tokio::join!(timeout(LIMIT, next), lock.release());
        released.unwrap();
        let next = next.expect("the lock is handed over in time").unwrap();
        assert!(next.is_held() && next.fence() > fence, "{} after {fence}", next.fence());
        next.release().await.unwrap();
        told(&format!("a lock of {} s kept, and then handed over", TTL.as_secs()), start);
    };
    tokio::join!(power_off, near_notices, astray_notices, lock_is_kept);

    power_on(lab, victim).await;
    let start = Instant::now();
    for watch in [&mut near, &mut astray] {
        until(watch, 2, lab.hosts().iter().collect()).await;
        assert!(watch.state().is_live(), "{:?}", watch.state());
    }
    told(&format!("{} back in both watches", victim.name), start);
}

/// Follows a watch until it shows exactly these hosts' instances. It must not end, nor show fewer than `least` on the way.
async fn until(watch: &mut Watch<ServiceEntry>, least: usize, hosts: Vec<&Host>) {
    let mut wanted: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
    wanted.sort_unstable();
    let mut seen = Vec::new();
    let follow = async {
        loop {
            let snapshot = watch.next().await.expect("a watch never ends");
            let mut names: Vec<String> = snapshot.items.into_iter().map(|item| item.node.node).collect();
            names.sort_unstable();
            assert!(names.len() >= least, "never fewer than {least}: {names:?}");
            seen = names;
            if seen == wanted {
                return;
            }
        }
    };
    let ended = timeout(LIMIT, follow).await;
    assert!(ended.is_ok(), "wanted {wanted:?}, last seen {seen:?}, {:?}", watch.state());
}

fn client(hosts: &[&Host]) -> Client {
    hosts.iter().fold(Client::builder(), |builder, host| builder.address(host.consul_addr())).build().unwrap()
}

/// The least that Consul grants.
const TTL: Duration = Duration::from_secs(10);
/// A blocking query of 15 s, and what it takes to notice that nobody answers it.
const LIMIT: Duration = Duration::from_secs(40);
