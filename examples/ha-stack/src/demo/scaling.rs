//! Chapters about numbers: scaled by hand, scaled by load.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::story::{Story, instances, join, timed};
use super::visitor::Crowd;
use crate::load::{self, Load, LoadPlan};
use crate::platform::usable;

/// From 2 to 4 by hand, and back.
pub async fn by_hand(story: &mut Story<'_>) -> Result<()> {
    story.progress.heading("Scaled by hand, from 2 to 4 and back");
    story.platform.scale(4, HAND_HOLD).await?;
    story.wait_for_replicas(4).await?;
    let seen = story.views(4).await?;
    story.progress.line(format!("the answers come from {}", join(&seen)));

    let crowd = Crowd::gather(&story.platform.site(), story.pace.habits(4)).await?;
    story.platform.scale(2, HAND_HOLD).await?;
    let back = story.wait_for_replicas(2).await;
    // The replicas that leave serve on for a while: requests go on until they have ended.
    tokio::time::sleep(story.spec.drain).await;
    let ledger = crowd.disperse().await?;
    // What the users lived through counts, whatever came of the step.
    story.add(&ledger);
    back?;
    story.progress.line(format!(
        "back to 2: {} requests meanwhile, {} failed",
        ledger.requests,
        ledger.failures()
    ));
    Ok(())
}

/// The load rises above the target, and ends.
pub async fn by_load(story: &mut Story<'_>) -> Result<()> {
    story.progress.heading("The load rises, and ends");
    story.platform.scale(story.spec.min, Duration::ZERO).await?;
    story.platform.release().await?;
    story.wait_for_replicas(story.spec.min as usize).await?;
    let before = instances(&story.platform.replicas().await?);
    let named = format!("{}.", story.spec.service);
    let is_new = |instance: &str| instance.starts_with(&named) && !before.contains(instance);

    let site = story.platform.site();
    let crowd = Crowd::gather(&site, story.pace.habits(4)).await?;
    let step = story
        .progress
        .step(format!("{} requests of {} ms in flight at once", story.pace.surge, story.pace.work_ms));
    let began = Instant::now();
    let surge = Load::start(LoadPlan {
        url: format!("{site}/work?ms={}", story.pace.work_ms),
        workers: story.pace.surge,
        pause: Duration::ZERO,
        timeout: story.pace.patience,
        post: false,
    })?;
    let added = timed(began, story.pace.deadline, async || {
        surge.so_far().first_seen_seconds.keys().any(|instance| is_new(instance))
    })
    .await;
    match added {
        Some(_) => step.done("an added replica answers"),
        None => step.done("NO replica was added"),
    }
    // The load goes on for a while, so that the scaler reaches the number it wants.
    let mut most = 0;
    let steady = Instant::now();
    while steady.elapsed() < SURGE_GOES_ON {
        if let Ok(replicas) = story.platform.replicas().await {
            most = most.max(usable(&replicas).count());
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let report = surge.stop().await;
    let new = report.first_seen_seconds.iter().filter(|(instance, _)| is_new(instance));
    let first_new = new.map(|(_, seconds)| *seconds).reduce(f64::min);
    story.verdict.scale_out_seconds = first_new;
    if first_new.is_none() {
        let line = format!("no added replica answered within {} s of load", report.seconds.round());
        story.verdict.broken.push(line);
    }
    story.verdict.max_replicas = u32::try_from(most).unwrap_or(u32::MAX);
    story.count(report.requests, &report.failed);
    story.progress.line(format!(
        "{} requests, {} failed; {most} replicas at most; median {:.0} ms, p99 {:.0} ms",
        report.requests,
        report.failures(),
        report.latency_ms[0],
        report.latency_ms[2],
    ));

    // Long requests while replicas go: one that is cut can't be sent again by anybody, so it shows.
    let long = Load::start(LoadPlan {
        url: format!("{site}/work?ms={LONG_MS}"),
        workers: LONG_AT_ONCE,
        pause: Duration::ZERO,
        timeout: story.pace.patience,
        post: true,
    })?;
    let floor = story.spec.min as usize;
    let step = story.progress.step(format!("the load has ended; waiting for {floor} replicas again"));
    let calm = timed(Instant::now(), story.pace.calm_deadline, async || {
        story
            .platform
            .status()
            .await
            .is_ok_and(|s| usable(&s.replicas).count() == floor && s.wanted as usize == floor)
    })
    .await;
    step.done(if calm.is_some() { "there again" } else { "NOT reached" });
    tokio::time::sleep(story.spec.drain).await;
    let long = long.stop().await;
    let ledger = crowd.disperse().await?;
    story.progress.line(format!("{} requests meanwhile, {} failed", ledger.requests, ledger.failures()));
    story.add(&ledger);
    story.count(long.requests, &long.failed);
    let there = instances(&story.platform.replicas().await?);
    let gone = long.instances.iter().filter(|(instance, _)| !there.contains(*instance));
    let on_gone: u64 = gone.map(|(_, answers)| answers).sum();
    story.verdict.long_requests = long.requests;
    story.verdict.long_requests_cut = long.failures();
    story.verdict.long_requests_on_removed = on_gone;
    story.progress.line(format!(
        "of {} POSTs of {} s meanwhile {} were cut; {on_gone} were answered by replicas that are gone now",
        long.requests,
        LONG_MS / 1000,
        long.failures()
    ));
    let left = usable(&story.platform.replicas().await?).count();
    story.verdict.final_replicas = u32::try_from(left).unwrap_or(u32::MAX);
    for decision in story.platform.decisions().await? {
        if decision.from != decision.to {
            story.progress.line(format!("the scaler: {}", decision.sentence));
        }
    }
    Ok(())
}

/// Nothing to do, so nothing runs; and the first request brings the site back.
pub async fn to_zero(story: &mut Story<'_>) -> Result<()> {
    story.progress.heading("Nobody comes for a while, and then somebody does");
    story.platform.idle_to_zero(Some(IDLE)).await?;
    let step = story.progress.step("waiting for zero replicas");
    let began = Instant::now();
    let zero = timed(began, story.pace.calm_deadline, async || {
        story.platform.status().await.is_ok_and(|s| s.wanted == 0 && usable(&s.replicas).count() == 0)
    })
    .await;
    let Some(took) = zero else {
        step.done("NOT reached");
        bail!("the idle site did not go to zero within {} s", story.pace.calm_deadline.as_secs());
    };
    step.done(format!("nothing runs, {took:.0} s after it might"));
    // More than one, so that waiting together is shown too.
    let url = format!("{}/work?ms=10", story.platform.site());
    let http = load::client(story.pace.patience)?;
    let (began, step) = (Instant::now(), story.progress.step("five requests come at once"));
    let asked = (0..5).map(|_| async {
        let answer = http.get(&url).send().await.map_err(|error| load::failure_kind(&error))?;
        if answer.status().is_success() {
            Ok(())
        } else {
            Err(format!("status {}", answer.status().as_u16()))
        }
    });
    let mut failed: BTreeMap<String, u64> = BTreeMap::new();
    let answers = futures_util::future::join_all(asked).await;
    let requests = answers.len() as u64;
    for kind in answers.into_iter().filter_map(Result::err) {
        *failed.entry(kind).or_default() += 1;
    }
    let took = began.elapsed().as_secs_f64();
    step.done(format!(
        "answered after {took:.1} s in the waiting room, {} failed",
        failed.values().sum::<u64>()
    ));
    story.verdict.from_zero_seconds = Some(took);
    story.count(requests, &failed);
    story.platform.idle_to_zero(None).await?;
    story.wait_for_replicas(story.spec.min as usize).await.map(drop)
}

/// Longer than a drain of the gateways alone could hide.
const LONG_MS: u64 = 2000;
/// Some on each replica that goes, and far from the target of those that stay.
const LONG_AT_ONCE: usize = 8;
/// How long nobody may have come, in the story; twice a look at the labels.
const IDLE: Duration = Duration::from_secs(8);

/// How long the scaler keeps off after a step by hand: longer than the chapters that need it.
pub(super) const HAND_HOLD: Duration = Duration::from_secs(600);

const SURGE_GOES_ON: Duration = Duration::from_secs(12);
