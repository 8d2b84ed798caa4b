//! Chapters about power: a host is lost with two replicas, and with one.

use std::io::{BufRead, IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::scaling::HAND_HOLD;
use super::story::{Story, instances, join, timed};
use super::visitor::{Crowd, Ledger};
use crate::platform::{Faults, Platform, Replica, hosts, usable};

/// Power off under load, with two replicas.
pub async fn two_replicas(story: &mut Story<'_>) -> Result<()> {
    story.progress.heading("A host loses power, with two replicas");
    let Some(plug) = plug(story, "the power-off with two replicas") else { return Ok(()) };
    let victim = plug.victim(story).await?;
    let crowd = gather(story).await?;

    let off = plug.pull(story, &victim).await?;
    let seen = replaced(story, &victim, off).await;
    // The users go on while the host comes back: that must cost them nothing either.
    let back = plug.put_back(story, &victim).await;
    let ledger = crowd.disperse().await?;
    story.add(&ledger);
    seen?;
    story.progress.line(format!(
        "{} requests, {} failed{}",
        ledger.requests,
        ledger.failures(),
        longest_wait(&ledger, off)
    ));
    back
}

/// Whose answer took longest, and when it was asked for.
fn longest_wait(ledger: &Ledger, off: Instant) -> String {
    let Some(answer) = ledger.answers.iter().max_by_key(|answer| answer.took) else { return String::new() };
    let after = answer.at.saturating_duration_since(off).as_secs_f64();
    format!(
        ", longest wait of a user {:.1} s: until {after:.1} s after the power-off, for {} on {}",
        answer.took.as_secs_f64(),
        answer.instance,
        answer.host
    )
}

async fn replaced(story: &mut Story<'_>, victim: &str, off: Instant) -> Result<()> {
    let platform = story.platform;
    let out = async || platform.replicas().await.is_ok_and(|r| !uses(&r, victim));
    story.verdict.eject_seconds = timed(off, story.pace.deadline, out).await;
    match story.verdict.eject_seconds {
        Some(s) => story.progress.line(format!("the gateway no longer uses {victim}, after {s:.1} s")),
        None => story.verdict.broken.push(format!("the gateway went on using {victim}")),
    }
    let whole =
        async || platform.replicas().await.is_ok_and(|r| !uses(&r, victim) && usable(&r).count() == 2);
    story.verdict.replace_seconds = timed(off, story.pace.deadline, whole).await;
    match story.verdict.replace_seconds {
        Some(s) => {
            let now = story.platform.replicas().await?;
            story.progress.line(format!("two replicas again, on {}, after {s:.1} s", join(&hosts(&now))));
        }
        None => story.verdict.broken.push(format!("the replica of {victim} was not replaced")),
    }
    if story.hero_view().await.is_some() {
        story.progress.line(format!("ada is still logged in, with {} views", story.hero_views));
    }
    tokio::time::sleep(SETTLE).await;
    Ok(())
}

/// Power off with a single replica: how long is the site away?
pub async fn one_replica(story: &mut Story<'_>) -> Result<()> {
    story.progress.heading("A host loses power, with one replica");
    let Some(plug) = plug(story, "the power-off with one replica") else { return Ok(()) };
    let leaders = plug.leaders(story).await?;
    if let Plug::Lab(faults) = &plug {
        faults.keep_off(&leaders).await?;
    }
    story.platform.scale(1, HAND_HOLD).await?;
    let alone =
        |r: &[Replica]| usable(r).count() == 1 && hosts(r).is_disjoint(&leaders.iter().cloned().collect());
    story.wait_for("one replica in use, on a host that leads nothing", alone).await?;
    // The replicas that left end before the power goes, so that only one thing happens at a time; and the one that
    // comes instead may go anywhere.
    tokio::time::sleep(story.spec.drain).await;
    if let Plug::Lab(faults) = &plug {
        faults.keep_off(&[]).await?;
    }
    let victim = plug.victim(story).await?;
    let crowd = gather(story).await?;

    let off = plug.pull(story, &victim).await?;
    let platform = story.platform;
    let back =
        async || platform.replicas().await.is_ok_and(|r| !uses(&r, &victim) && usable(&r).count() == 1);
    let back = timed(off, story.pace.deadline, back).await;
    tokio::time::sleep(SETTLE).await;
    // The site is away from the power-off until a user has an answer again; one that never came back is away still.
    let away = crowd.so_far().longest_gap(off, Instant::now()).as_secs_f64();
    story.verdict.outage_seconds_single_replica = Some(away);
    if back.is_some() {
        let answering = platform.replicas().await.map(|r| join(&instances(&r))).unwrap_or_default();
        story.progress.line(format!("the site was away for {away:.1} s; {answering} answers now"));
    } else {
        story.verdict.broken.push(format!("the only replica, on {victim}, was not replaced"));
    }
    story.hero_view().await;
    let whole = plug.put_back(story, &victim).await;
    let ledger = crowd.disperse().await?;
    story.progress.line(format!("{} requests, {} failed: they waited", ledger.requests, ledger.failures()));
    story.add(&ledger);
    whole
}

/// Users who view the page, and have done so for a moment.
async fn gather(story: &Story<'_>) -> Result<Crowd> {
    let pace = story.pace;
    let crowd = Crowd::gather(&story.platform.site(), pace.habits(pace.visitors)).await?;
    tokio::time::sleep(SETTLE).await;
    Ok(crowd)
}

/// Whether the power-offs can be played at all, asked before anything is started.
///
/// # Errors
/// When nobody can pull the plug, with what to do.
pub fn check(platform: &dyn Platform) -> Result<()> {
    match platform.faults() {
        Some(faults) => faults.check(),
        None if std::io::stdin().is_terminal() => Ok(()),
        None => bail!(
            "this cluster is not a lab of this machine, and there is no terminal on which to ask a person to pull \
             the plug: leave the power-offs out with --no-faults"
        ),
    }
}

/// Who pulls the plug.
enum Plug<'a> {
    Lab(&'a dyn Faults),
    Person,
}

/// `None` where the chapter is left out, which the verdict says.
fn plug<'a>(story: &mut Story<'a>, chapter: &str) -> Option<Plug<'a>> {
    if !story.pace.faults {
        story.progress.line("left out, as --no-faults asks");
        story.verdict.skipped.push(format!("{chapter} (--no-faults)"));
        return None;
    }
    if let Some(faults) = story.platform.faults() {
        if let Some(caveat) = faults.caveat()
            && !story.verdict.notes.iter().any(|n| n == caveat)
        {
            story.verdict.notes.push(caveat.into());
        }
        return Some(Plug::Lab(faults));
    }
    Some(Plug::Person)
}

impl Plug<'_> {
    async fn leaders(&self, story: &Story<'_>) -> Result<Vec<String>> {
        match self {
            Self::Lab(faults) => faults.leading_hosts().await,
            Self::Person => {
                let hosts = story.platform.status().await?.hosts;
                Ok(hosts.into_iter().filter(|host| !host.leads.is_empty()).map(|host| host.name).collect())
            }
        }
    }

    /// A host that runs a replica and leads nothing.
    async fn victim(&self, story: &Story<'_>) -> Result<String> {
        let leaders = self.leaders(story).await?;
        let with_replicas = hosts(&story.platform.replicas().await?);
        let victim = with_replicas.iter().find(|host| !leaders.contains(host));
        victim.cloned().with_context(|| {
            format!(
                "each host with a replica ({}) leads something ({})",
                join(&with_replicas),
                leaders.join(", ")
            )
        })
    }

    /// Takes the power; returns the moment just before it was gone.
    async fn pull(&self, story: &Story<'_>, host: &str) -> Result<Instant> {
        match self {
            Self::Lab(faults) => {
                let off = Instant::now();
                faults.power_off(host).await?;
                story.progress.line(format!("power off: {host}"));
                Ok(off)
            }
            Self::Person => {
                ask(&format!("Pull the plug of {host}, and press Enter at the same moment.")).await?;
                Ok(Instant::now())
            }
        }
    }

    async fn put_back(&self, story: &Story<'_>, host: &str) -> Result<()> {
        let step = story.progress.step(format!("power on: {host}"));
        match self {
            Self::Lab(faults) => faults.power_on(host).await?,
            Self::Person => {
                ask(&format!("Give {host} its power back, and press Enter when it is up.")).await?;
            }
        }
        step.done("a full member again");
        Ok(())
    }
}

async fn ask(what: &str) -> Result<()> {
    // Nobody to read it means nobody to answer, which the next line finds out.
    let _ = writeln!(std::io::stderr(), "\n>>> {what}");
    let read = tokio::task::spawn_blocking(|| std::io::stdin().lock().read_line(&mut String::new()));
    let bytes = read.await.context("the question could not be asked")?.context("no answer could be read")?;
    if bytes == 0 { bail!("standard input ended before the answer") } else { Ok(()) }
}

fn uses(replicas: &[Replica], host: &str) -> bool {
    usable(replicas).any(|r| r.host == host)
}

/// So long things are left alone before and after a fault.
const SETTLE: Duration = Duration::from_secs(2);
