//! The libraries' promises, on real hosts that lose their power. One walk, since there is one lab at a time.
#![allow(clippy::unwrap_used, reason = "clippy.toml's permission does not reach a test's helpers")]
#![allow(clippy::large_futures, reason = "a walk of many cases is one future, awaited once")]

mod consul;
mod engines;
mod registry;
mod sessions;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "the lab's own test uses the rest")]
mod support;
mod swarm;
mod swarm_members;
mod swarm_moves;
mod swarm_rollouts;
mod swarm_stack;
mod swarm_surface;
mod swarm_tls;
mod swarm_watch;

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use lab::{Host, Lab, Leaders};
use support::{DownAtLast, image, left_overs};

#[test]
#[ignore = "needs root and Docker: ./test.sh runs it"]
fn the_libraries_on_hosts_that_lose_their_power() {
    on_a_large_stack(walk);
}

#[test]
#[ignore = "needs root and Docker: ./test.sh runs it"]
fn the_swarm_behind_certificates() {
    on_a_large_stack(swarm_tls::engines_answer_those_who_have_a_certificate_alone);
}

fn on_a_large_stack<F: Future<Output = ()>>(walk: impl FnOnce() -> F + Send + 'static) {
    // Built without optimisation, a walk of so many cases needs more stack than a test's thread has.
    let on_its_thread = std::thread::Builder::new().stack_size(STACK).spawn(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(walk());
    });
    if let Err(panic) = on_its_thread.unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

/// Bytes.
const STACK: usize = 64 << 20;

async fn walk() {
    assert!(Lab::attach().unwrap().is_none(), "a lab is up, and this test needs one of its own: lab down");
    let _down = DownAtLast::new(env!("CARGO_BIN_EXE_lab"));
    // The lab's own steps among the cases' times.
    let filter = tracing_subscriber::EnvFilter::new("lab=info");
    let output = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer();
    output.without_time().with_ansi(false).with_target(false).with_level(false).init();
    let start = Instant::now();
    let lab = Lab::up(3).await.unwrap();
    lab.hosts().iter().for_each(image);
    told("lab up, images on its hosts", start);

    // One that fails does not keep the others from being told. LAB_CASES=drain,watch runs those whose names have a part of it.
    let mut failed = Vec::new();
    case(
        &mut failed,
        "a_service_of_raw_fields_keeps_them_all_when_it_is_scaled",
        swarm::a_service_of_raw_fields_keeps_them_all_when_it_is_scaled(&lab),
    )
    .await;
    case(
        &mut failed,
        "changes_by_many_writers_at_once_all_land",
        swarm::changes_by_many_writers_at_once_all_land(&lab),
    )
    .await;
    case(
        &mut failed,
        "tokens_roles_secrets_networks_logs",
        swarm_surface::tokens_roles_secrets_networks_logs(&lab),
    )
    .await;
    case(
        &mut failed,
        "an_image_is_pinned_to_the_digest_of_its_tag",
        swarm_surface::an_image_is_pinned_to_the_digest_of_its_tag(&lab),
    )
    .await;
    case(
        &mut failed,
        "each_end_of_a_rollout_is_a_value",
        swarm_rollouts::each_end_of_a_rollout_is_a_value(&lab),
    )
    .await;
    case(
        &mut failed,
        "a_rollback_that_fails_too_ends_there",
        swarm_rollouts::a_rollback_that_fails_too_ends_there(&lab),
    )
    .await;
    case(&mut failed, "a_rollback_goes_past_a_scale", swarm_rollouts::a_rollback_goes_past_a_scale(&lab))
        .await;
    case(
        &mut failed,
        "a_change_of_a_task_is_seen_within_a_second",
        swarm_watch::a_change_of_a_task_is_seen_within_a_second(&lab),
    )
    .await;
    case(
        &mut failed,
        "a_service_is_seen_from_its_first_to_its_last",
        swarm_watch::a_service_is_seen_from_its_first_to_its_last(&lab),
    )
    .await;
    case(
        &mut failed,
        "a_task_that_goes_down_is_not_offered",
        swarm_watch::a_task_that_goes_down_is_not_offered(&lab),
    )
    .await;
    case(&mut failed, "endpoints_of_all_kinds", swarm_watch::endpoints_of_all_kinds(&lab)).await;
    case(
        &mut failed,
        "a_stack_is_planned_applied_and_pruned",
        swarm_stack::a_stack_is_planned_applied_and_pruned(&lab),
    )
    .await;
    case(
        &mut failed,
        "a_placement_that_is_taken_away_costs_no_leader",
        swarm_moves::a_placement_that_is_taken_away_costs_no_leader(&lab),
    )
    .await;
    case(
        &mut failed,
        "a_drain_and_a_rebalance_cost_no_capacity",
        swarm_moves::a_drain_and_a_rebalance_cost_no_capacity(&lab),
    )
    .await;
    case(
        &mut failed,
        "a_member_leaves_and_joins_again",
        swarm_members::a_member_leaves_and_joins_again(&lab),
    )
    .await;
    case(&mut failed, "a_locked_manager_is_unlocked", swarm_surface::a_locked_manager_is_unlocked(&lab))
        .await;
    case(
        &mut failed,
        "a_swarm_without_a_leader_says_so",
        swarm_members::a_swarm_without_a_leader_says_so(&lab),
    )
    .await;
    case(
        &mut failed,
        "a_client_of_three_managers_outlives_the_one_it_used",
        swarm::a_client_of_three_managers_outlives_the_one_it_used(&lab),
    )
    .await;
    case(&mut failed, "a_watch_outlives_the_leader", swarm_watch::a_watch_outlives_the_leader(&lab)).await;
    case(
        &mut failed,
        "plain_engines_of_a_file_are_filled_watched_and_healed",
        engines::plain_engines_of_a_file_are_filled_watched_and_healed(&lab),
    )
    .await;
    case(
        &mut failed,
        "watches_and_a_lock_outlive_the_loss_of_a_host",
        consul::watches_and_a_lock_outlive_the_loss_of_a_host(&lab),
    )
    .await;
    case(&mut failed, "sessions_outlive_the_redis_master", sessions::sessions_outlive_the_redis_master(&lab))
        .await;
    assert!(failed.is_empty(), "failed: {failed:?}");

    lab.down().await.unwrap();
    assert_eq!(left_overs(), Vec::<String>::new());
    told("all", start);
}

async fn case(failed: &mut Vec<&'static str>, name: &'static str, walk: impl Future<Output = ()>) {
    if std::env::var("LAB_CASES").is_ok_and(|wanted| !wanted.split(',').any(|part| name.contains(part))) {
        return;
    }
    if AssertUnwindSafe(Box::pin(walk)).catch_unwind().await.is_err() {
        println!("FAILED {name}");
        failed.push(name);
    }
}

/// A host that does not lead this cluster and, unless the leaders are scattered over all hosts, no other one either.
async fn a_follower(lab: &Lab, of: fn(&Leaders) -> &Option<String>) -> &Host {
    let start = Instant::now();
    loop {
        match lab.leaders().await {
            Ok(leaders) if leaders.swarm.is_some() && leaders.consul.is_some() && leaders.redis.is_some() => {
                let followers = lab.hosts().iter().filter(|host| of(&leaders).as_ref() != Some(&host.name));
                return followers.min_by_key(|host| leaders.includes(&host.name)).unwrap();
            }
            leaders => assert!(start.elapsed() < Duration::from_secs(30), "{leaders:?}"),
        }
        pause().await;
    }
}

async fn power_on(lab: &Lab, host: &Host) {
    let start = Instant::now();
    lab.power_on(&host.name).await.unwrap();
    told(&format!("{} on again", host.name), start);
}

/// Has a host's engine stop or go on; what it runs is not touched.
async fn signal_engine(lab: &Lab, host: &Host, signal: &str) {
    let sent = lab.exec(&host.name, &["pkill", signal, "-x", "dockerd"]).await.unwrap();
    assert!(sent.status.success(), "{signal} to dockerd on {}", host.name);
}

fn told(what: &str, since: Instant) {
    println!("{:>6.1} s  {what}", since.elapsed().as_secs_f64());
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}
