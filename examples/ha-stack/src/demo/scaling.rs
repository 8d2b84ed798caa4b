//! Chapters about numbers: scaled by hand, scaled by load.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::story::{Story, instances, join, timed};
use super::visitor::Crowd;
use crate::load::{Load, LoadPlan};
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
    let ledger = crowd.disperse().await?;
    story.progress.line(format!("{} requests meanwhile, {} failed", ledger.requests, ledger.failures()));
    story.add(&ledger);
    let left = usable(&story.platform.replicas().await?).count();
    story.verdict.final_replicas = u32::try_from(left).unwrap_or(u32::MAX);
    for decision in story.platform.decisions().await? {
        if decision.from != decision.to {
            story.progress.line(format!("the scaler: {}", decision.sentence));
        }
    }
    Ok(())
}

/// How long the scaler keeps off after a step by hand: longer than the chapters that need it.
pub(super) const HAND_HOLD: Duration = Duration::from_secs(600);

const SURGE_GOES_ON: Duration = Duration::from_secs(12);
