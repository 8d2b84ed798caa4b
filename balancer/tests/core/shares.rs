//! Who gets how much: weights, slow start, tiers, limits, keys, affinity; in every policy.

use std::collections::BTreeMap;
use std::time::Duration;

use balancer::{
    Config, Health, Ketama, Limits, Locality, Maglev, Outcome, PickRequest, Policy, Pool, Prequal, Priority,
    Reason, RoundRobin, SlowStart, State, SuccessRate, Update, Verdict, hash,
};
use proptest::prelude::*;

use crate::support::*;

/// Picks with `concurrency` requests in flight at any time; the share of each endpoint.
fn spread(pool: &Pool, picks: u64, concurrency: usize, at: Duration) -> BTreeMap<String, f64> {
    let mut flying = std::collections::VecDeque::new();
    let mut counts = BTreeMap::new();
    for n in 0..picks {
        let request = PickRequest::default().key(hash(n.to_le_bytes()));
        let lease = pool.pick(&request, at).unwrap();
        *counts.entry(lease.endpoint().id.to_string()).or_insert(0.0) += 1.0 / picks as f64;
        flying.push_back(lease);
        if flying.len() >= concurrency {
            flying.pop_front().unwrap().finish(Outcome::Success, at);
        }
    }
    counts
}

#[test]
fn weights_are_kept_by_every_policy_idle_or_busy() {
    for policy in policies() {
        for concurrency in [1, 64] {
            // Idle, the one with the highest weight is the least busy one per weight: documented, and not judged.
            if matches!(policy, Policy::LeastPending(_)) && concurrency == 1 {
                continue;
            }
            let name = policy.name();
            let pool = Pool::new(Config::default().policy(policy.clone()), 3).unwrap();
            pool.apply(
                Update::reset([1, 1, 4].iter().enumerate().map(|(n, w)| endpoint(n).weight(*w))),
                ms(0),
            );
            let shares = spread(&pool, 6000, concurrency, ms(0));
            for (n, ideal) in [1.0 / 6.0, 1.0 / 6.0, 4.0 / 6.0].into_iter().enumerate() {
                let share = shares.get(id(n).as_str()).copied().unwrap_or(0.0);
                assert!((0.7..1.4).contains(&(share / ideal)), "{name} with {concurrency}: {shares:?}");
            }
        }
    }
}

#[test]
fn a_new_endpoint_ramps_in_every_policy_and_reaches_its_share() {
    for policy in policies() {
        let name = policy.name();
        let config = Config::default().policy(policy.clone()).slow_start(SlowStart::default());
        let pool = Pool::new(config, 5).unwrap();
        pool.apply(Update::reset((0..3).map(endpoint)), ms(0));
        // All new: nobody is held back from anybody.
        let start = spread(&pool, 3000, 32, ms(100));
        assert!(start.values().all(|share| (0.2..0.5).contains(share)), "{name}: {start:?}");
        pool.tick(ms(10_000));
        pool.apply(Update::Add(endpoint(3)), ms(20_000));
        assert_eq!(state(&pool, 3), Some((State::Ramping, Reason::New)));
        let mut last = 0.0;
        for (at, least, most) in [(20_500, 0.0, 0.08), (25_000, 0.08, 0.22), (29_999, 0.18, 0.32)] {
            let share = spread(&pool, 6000, 32, ms(at)).get("web.3").copied().unwrap_or(0.0);
            assert!((least..most).contains(&share), "{name} at {at}: {share}");
            assert!(share >= last * 0.9, "{name}: {share} after {last}");
            last = share;
        }
        pool.tick(ms(30_000));
        assert_eq!(state(&pool, 3), Some((State::Ready, Reason::New)), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn the_ramp_never_falls_and_ends_at_one(aggression in 0.1f32..10.0, floor in 0.01f32..1.0, ages in prop::collection::vec(0u64..20_000, 2..40)) {
        let slow = SlowStart::default().aggression(aggression).floor(floor);
        let mut ages = ages;
        ages.sort_unstable();
        let shares: Vec<_> = ages.iter().map(|age| slow.share(ms(*age))).collect();
        prop_assert!(shares.windows(2).all(|pair| pair[0] <= pair[1]));
        prop_assert!(shares.iter().all(|share| (floor..=1.0).contains(share)));
        prop_assert_eq!(slow.share(ms(10_000)), 1.0);
    }
}

#[test]
fn what_is_near_is_preferred_by_every_policy_until_it_is_too_busy_or_too_few() {
    for policy in policies() {
        let name = policy.name();
        let locality = Locality::default().host("h0").zone("z0");
        let pool = Pool::new(Config::default().policy(policy.clone()).locality(locality), 5).unwrap();
        // One on the same host, two in the same zone, three elsewhere.
        let zone = |n: usize| if n < 3 { "z0" } else { "z1" };
        pool.apply(Update::reset((0..6).map(|n| endpoint(n).host(format!("h{n}")).zone(zone(n)))), ms(0));
        let idle = spread(&pool, 600, 1, ms(0));
        assert_eq!(idle.len(), 1, "{name}: {idle:?}");
        // Busy, the own host has twice its fair share, the zone too, and the others the rest.
        let busy = spread(&pool, 3000, 60, ms(0));
        let own = busy["web.0"];
        assert!((0.25..0.42).contains(&own), "{name}: {busy:?}");
        let near: f64 = (0..3).map(|n| busy.get(id(n).as_str()).copied().unwrap_or(0.0)).sum();
        assert!(near > 0.6, "{name}: {busy:?}");
        fail(&pool, 0, 2, Outcome::ConnectFailed, ms(1));
        fail(&pool, 1, 2, Outcome::ConnectFailed, ms(1));
        let (lease, why) = pool.pick_explained(&PickRequest::default(), ms(2));
        drop(lease);
        // A third of the zone is left: the load goes to all.
        let left = spread(&pool, 600, 1, ms(2));
        assert!(left.len() >= 3, "{name}: {left:?}; {why}");
    }
}

#[test]
fn limits_are_kept_and_what_is_full_says_so() {
    for policy in policies() {
        let pool = Pool::new(Config::default().policy(policy).limits(Limits::per_endpoint(4)), 5).unwrap();
        pool.apply(Update::reset((0..3).map(endpoint)), ms(0));
        let mut held: Vec<_> = (0..12).map(|_| pool.pick(&PickRequest::default(), ms(0)).unwrap()).collect();
        let error = pool.pick(&PickRequest::default(), ms(0)).unwrap_err();
        assert!(error.is_full());
        assert_eq!(error.to_string(), "no endpoint can take the request: 3 at their limit");
        held.pop();
        let (again, why) = pool.pick_explained(&PickRequest::default(), ms(0));
        again.unwrap().finish(Outcome::Success, ms(1));
        assert_eq!(why.candidates.iter().filter(|c| c.verdict == Verdict::Full).count(), 2, "{why}");
    }
}

#[test]
fn who_matters_more_finds_room_longer() {
    let pool = Pool::new(Config::default().limits(Limits::per_endpoint(100)), 5).unwrap();
    pool.apply(Update::reset([endpoint(0)]), ms(0));
    let fill = |priority| {
        let request = PickRequest::default().priority(priority);
        let mut held = Vec::new();
        while let Ok(lease) = pool.pick(&request, ms(0)) {
            held.push(lease);
        }
        held
    };
    let low = fill(Priority::Low);
    let normal = fill(Priority::Normal);
    let high = fill(Priority::High);
    assert_eq!((low.len(), normal.len(), high.len()), (80, 15, 5));
}

#[test]
fn keys_stay_where_they_are_while_others_come_and_go() {
    for policy in [Policy::from(Maglev::default().overload(None)), Ketama::default().overload(None).into()] {
        let pool = Pool::new(Config::default().policy(policy.clone()), 5).unwrap();
        pool.apply(Update::reset((0..10).map(endpoint)), ms(0));
        let places = || -> Vec<String> {
            let place = |key: u64| {
                let lease = pool.pick(&PickRequest::default().key(hash(key.to_le_bytes())), ms(0)).unwrap();
                lease.endpoint().id.to_string()
            };
            (0..2000).map(place).collect()
        };
        let before = places();
        assert_eq!(before, places(), "the same key goes to the same place");
        // Out and back: only its own keys move, and all come home.
        fail(&pool, 4, 2, Outcome::ConnectFailed, ms(1));
        let out = places();
        for (old, new) in before.iter().zip(&out) {
            assert!(old == new || old == "web.4", "{}: {old} moved to {new}", policy.name());
        }
        pool.pick(&PickRequest::default(), ms(2000)).unwrap().finish(Outcome::Success, ms(2001));
        assert_eq!(before, places());
        // One leaves for good: few others move.
        pool.apply(Update::Remove(id(7)), ms(3000));
        let moved = before.iter().zip(places()).filter(|(old, new)| *old != new && *old != "web.7").count();
        assert!(moved <= 200, "{}: {moved} of 2000", policy.name());
        // A gateway elsewhere agrees.
        let other = Pool::new(Config::default().policy(policy), 77).unwrap();
        other.apply(Update::reset((0..10).rev().map(endpoint)), ms(0));
        let there = other.pick(&PickRequest::default().key(hash(1u64.to_le_bytes())), ms(0)).unwrap();
        assert_eq!(there.endpoint().id.as_str(), before[1]);
    }
}

#[test]
fn a_hot_key_is_spread_by_bounded_load() {
    for policy in [Policy::from(Maglev::default()), Ketama::default().into()] {
        let pool = Pool::new(Config::default().policy(policy.clone()), 5).unwrap();
        pool.apply(Update::reset((0..10).map(endpoint)), ms(0));
        let hot = PickRequest::default().key(42);
        let _held: Vec<_> = (0..100).map(|_| pool.pick(&hot, ms(0)).unwrap()).collect();
        let most = pool.snapshot().views(ms(0)).iter().map(|view| view.in_flight).max().unwrap();
        assert!(most <= 15, "{}: {most} of 100 on one of ten", policy.name());
    }
}

#[test]
fn affinity_is_soft() {
    let pool = pool(Config::default(), 3);
    let home = id(2);
    let request = PickRequest::default().prefer(Some(&home));
    for at in 0..50 {
        let (lease, why) = pool.pick_explained(&request, ms(at));
        assert_eq!(lease.unwrap().endpoint().id, home);
        assert_eq!(why.candidates[2].verdict, Verdict::PickedByAffinity);
    }
    pool.apply(Update::Drain(id(2)), ms(100));
    assert_ne!(pool.pick(&request, ms(101)).unwrap().endpoint().id, home, "a drain moves it");
    pool.apply(Update::Add(endpoint(2)), ms(102));
    let exclude = [id(2)];
    let again = PickRequest::excluding(&exclude).prefer(Some(&home));
    assert_ne!(pool.pick(&again, ms(103)).unwrap().endpoint().id, home, "it was tried there");
}

#[test]
fn one_failure_in_three_is_found_out_by_comparison() {
    let mut health = Health::default();
    health.success_rate = Some(SuccessRate::default());
    let pool = pool(Config::default().policy(RoundRobin::default()).health(health), 3);
    for n in 0..900u64 {
        let at = ms(n * 10);
        let lease = pool.pick(&PickRequest::default(), at).unwrap();
        // Never two errors in a row: no row would ever tell.
        let bad = lease.endpoint().id == id(1) && (n / 3) % 3 == 0;
        lease.finish(Outcome::Status(if bad { 500 } else { 200 }), at);
        pool.tick(at);
    }
    pool.tick(ms(10_000));
    assert_eq!(state(&pool, 1), Some((State::Ejected, Reason::SuccessRate(66))));
    let told = pool.drain_events().pop().unwrap().to_string();
    assert!(told.ends_with("only 66 % of its answers were good, clearly fewer than elsewhere"), "{told}");
}

#[test]
fn reports_of_load_are_followed_while_they_are_fresh() {
    let pool = Pool::new(Config::default().policy(Prequal::default()), 5).unwrap();
    pool.apply(Update::reset((0..4).map(endpoint)), ms(0));
    assert_eq!(pool.load_probes().len(), 3);
    let tell = |at| {
        for (n, in_flight, latency) in [(0, 3, 50), (1, 4, 5), (2, 90, 1), (3, 2, 60)] {
            pool.load_report(&id(n), in_flight, ms(latency), ms(at));
        }
    };
    for at in 0..10 {
        tell(at);
        // The fastest one of those that are not hot.
        assert_eq!(pool.pick(&PickRequest::default(), ms(at)).unwrap().endpoint().id, id(1));
    }
    let aged = spread(&pool, 400, 1, ms(5000));
    assert_eq!(aged.len(), 4, "old reports are worth nothing: {aged:?}");
}
