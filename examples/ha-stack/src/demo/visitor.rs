//! A user of the site: an HTTP client with a cookie jar that logs in once, views the page again and again, and
//! keeps a ledger of what the site acknowledged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::load;

/// What the site shows a user who is logged in.
#[derive(Clone, Debug, Deserialize)]
pub struct View {
    /// Who is logged in; `None` where the site knows nobody.
    pub user: Option<String>,
    /// Views counted for this session.
    #[serde(default)]
    pub views: u64,
    /// The replica that answered.
    pub instance: String,
    /// The machine that it runs on.
    pub host: String,
}

/// How a request ended that brought no view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    /// The site no longer knows the user.
    LoggedOut,
    /// No good answer, of this kind; whether the view was counted is not known.
    Failed(String),
}

/// One user.
pub struct Visitor {
    name: String,
    site: String,
    http: reqwest::Client,
}

impl Visitor {
    /// A user with an empty cookie jar, who waits at most `patience` for an answer.
    ///
    /// # Errors
    /// When the HTTP client can't be built.
    pub fn new(name: impl Into<String>, site: impl Into<String>, patience: Duration) -> Result<Self> {
        let http =
            load::builder(patience).cookie_store(true).build().context("the HTTP client can't be built")?;
        Ok(Self { name: name.into(), site: site.into(), http })
    }

    /// Logs in through the site's form.
    ///
    /// # Errors
    /// When the site does not let the user in.
    pub async fn log_in(&self) -> Result<()> {
        let url = format!("{}/login", self.site);
        let answer = self.http.post(&url).form(&[("user", self.name.as_str())]).send().await;
        let answer = answer.with_context(|| format!("{} could not log in at {url}", self.name))?;
        let status = answer.status();
        if !(status.is_redirection() || status.is_success()) {
            let text = answer.text().await.unwrap_or_default();
            bail!("{} could not log in at {url}: {status}: {}", self.name, text.trim());
        }
        Ok(())
    }

    /// Views the page once, which counts.
    pub async fn view(&self) -> Result<View, Miss> {
        self.fetch(self.http.get(format!("{}/views", self.site))).await
    }

    /// The same by POST: a request that nobody may send twice on a guess.
    pub async fn post_view(&self) -> Result<View, Miss> {
        self.fetch(self.http.post(format!("{}/views", self.site))).await
    }

    /// The page itself, as a browser gets it; that counts as a view too.
    pub async fn page(&self) -> Result<String, Miss> {
        let failed = |e: reqwest::Error| Miss::Failed(load::failure_kind(&e));
        let answer = self.http.get(format!("{}/", self.site)).send().await.map_err(failed)?;
        let status = answer.status().as_u16();
        if status != 200 {
            return Err(Miss::Failed(format!("status {status}")));
        }
        answer.text().await.map_err(failed)
    }

    /// What the site knows of the user, without counting a view.
    pub async fn look(&self) -> Result<View, Miss> {
        self.fetch(self.http.get(format!("{}/whoami", self.site))).await
    }

    async fn fetch(&self, request: reqwest::RequestBuilder) -> Result<View, Miss> {
        let failed = |e: reqwest::Error| Miss::Failed(load::failure_kind(&e));
        let answer = request.send().await.map_err(failed)?;
        match answer.status().as_u16() {
            200 => {
                let body = answer.bytes().await.map_err(failed)?;
                let view: View =
                    serde_json::from_slice(&body).map_err(|_| Miss::Failed("unreadable answer".into()))?;
                if view.user.as_deref() == Some(self.name.as_str()) { Ok(view) } else { Err(Miss::LoggedOut) }
            }
            401 | 303 => Err(Miss::LoggedOut),
            status => Err(Miss::Failed(format!("status {status}"))),
        }
    }
}

/// What a crowd of visitors lived through.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Requests sent.
    pub requests: u64,
    /// Requests without a good answer, by kind: all of them but [`Ledger::failed_posts`].
    pub failed: BTreeMap<String, u64>,
    /// POSTs without a good answer, by kind.
    pub failed_posts: BTreeMap<String, u64>,
    /// Users that the site forgot.
    pub lost_sessions: u64,
    /// Views that were acknowledged and are not counted.
    pub lost_views: u64,
    /// Views that were counted more than once.
    pub doubled_views: u64,
    /// Good answers: when each arrived, and from which instance and host.
    pub answers: Vec<Answer>,
}

/// One good answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// When it arrived.
    pub at: Instant,
    /// How long the user waited for it.
    pub took: Duration,
    /// The replica that gave it.
    pub instance: String,
    /// The machine of that replica.
    pub host: String,
}

impl Ledger {
    /// The longest stretch without a good answer between `from` and `until`.
    pub fn longest_gap(&self, from: Instant, until: Instant) -> Duration {
        let within = self.answers.iter().map(|a| a.at).filter(|at| (from..=until).contains(at));
        let mut times: Vec<Instant> = [from, until].into_iter().chain(within).collect();
        times.sort_unstable();
        times.iter().zip(times.iter().skip(1)).map(|(a, b)| b.duration_since(*a)).max().unwrap_or_default()
    }

    /// Requests without a good answer.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    fn settle(&mut self, acknowledged: u64, unknown: u64, counted: u64) {
        self.lost_views += acknowledged.saturating_sub(counted);
        self.doubled_views += counted.saturating_sub(acknowledged + unknown);
    }
}

/// What visitors do.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// How many visitors there are.
    pub visitors: usize,
    /// How often each of them sends a request, as far as the answers allow: one at a time.
    pub every: Duration,
    /// How long they wait for an answer.
    pub patience: Duration,
    /// One request in so many adds a view by POST and the others only look; `None`: each is a view by GET.
    pub posts: Option<u32>,
}

/// Several visitors who view the page at a steady pace.
pub struct Crowd {
    stop: CancellationToken,
    members: JoinSet<Result<()>>,
    ledger: Arc<Mutex<Ledger>>,
}

impl Crowd {
    /// Logs the visitors in and lets them begin.
    ///
    /// # Errors
    /// When a user can't log in.
    pub async fn gather(site: &str, habits: Habits) -> Result<Self> {
        let stop = CancellationToken::new();
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let mut visitors = Vec::new();
        for n in 0..habits.visitors {
            let visitor = Visitor::new(format!("visitor-{n}"), site, habits.patience)?;
            visitor.log_in().await?;
            visitors.push(visitor);
        }
        let mut members = JoinSet::new();
        let count = u32::try_from(visitors.len()).unwrap_or(u32::MAX).max(1);
        for (n, visitor) in (0_u32..).zip(visitors) {
            let (stop, ledger) = (stop.clone(), Arc::clone(&ledger));
            // Spread, so that they don't come as one wave.
            let first = habits.every / count * n;
            members.spawn(async move { visit(&visitor, n, first, habits, &stop, &ledger).await });
        }
        Ok(Self { stop, members, ledger })
    }

    /// The ledger until now; views are only settled at the end.
    pub fn so_far(&self) -> Ledger {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets every visitor finish, compares what was acknowledged with what the site counted, and reports.
    ///
    /// # Errors
    /// When the count of a visitor can't be read for a long time: then nothing can be said about it.
    pub async fn disperse(mut self) -> Result<Ledger> {
        self.stop.cancel();
        let mut failed = None;
        while let Some(member) = self.members.join_next().await {
            if let Err(error) = member.context("a visitor's task ended early").and_then(|ended| ended) {
                failed = Some(error);
            }
        }
        let ledger = std::mem::take(&mut *self.ledger.lock().unwrap_or_else(PoisonError::into_inner));
        failed.map_or(Ok(ledger), Err)
    }
}

async fn visit(
    visitor: &Visitor,
    mut turn: u32,
    first: Duration,
    habits: Habits,
    stop: &CancellationToken,
    ledger: &Mutex<Ledger>,
) -> Result<()> {
    let (mut acknowledged, mut unknown) = (0, 0);
    let book = || ledger.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + first, habits.every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => break,
        }
        let post = habits.posts.is_some_and(|posts| turn.is_multiple_of(posts.max(1)));
        let counts = post || habits.posts.is_none();
        turn = turn.wrapping_add(1);
        let sent = Instant::now();
        let seen = match (post, counts) {
            (true, _) => visitor.post_view().await,
            (false, true) => visitor.view().await,
            (false, false) => visitor.look().await,
        };
        let (at, took) = (Instant::now(), sent.elapsed());
        book().requests += 1;
        match seen {
            Ok(view) => {
                acknowledged += u64::from(counts);
                book().answers.push(Answer { at, took, instance: view.instance, host: view.host });
            }
            Err(Miss::LoggedOut) => {
                // Nothing more can be learned from a user without a session.
                book().lost_sessions += 1;
                return Ok(());
            }
            Err(Miss::Failed(kind)) => {
                unknown += u64::from(counts);
                let mut book = book();
                let failed = if post { &mut book.failed_posts } else { &mut book.failed };
                *failed.entry(kind).or_default() += 1;
            }
        }
    }
    let counted = recount(visitor).await;
    match counted.with_context(|| format!("the views of {} can't be read", visitor.name))? {
        Some(counted) => book().settle(acknowledged, unknown, counted),
        None => book().lost_sessions += 1,
    }
    Ok(())
}

/// The count that the site has for a visitor; `None` when it no longer knows the visitor.
async fn recount(visitor: &Visitor) -> Result<Option<u64>> {
    let mut last = String::new();
    let deadline = Instant::now() + RECOUNT_DEADLINE;
    while Instant::now() < deadline {
        match visitor.look().await {
            Ok(view) => return Ok(Some(view.views)),
            Err(Miss::LoggedOut) => return Ok(None),
            Err(Miss::Failed(kind)) => last = kind,
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let seconds = RECOUNT_DEADLINE.as_secs();
    bail!("{}/whoami gave no good answer for {seconds} s, the last time: {last}", visitor.site)
}

/// Longer than a request may wait at the gateway, so that a slow answer is not taken for none.
const RECOUNT_DEADLINE: Duration = Duration::from_secs(25);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_and_doubled_views_allow_for_requests_of_unknown_outcome() {
        let mut ledger = Ledger::default();
        ledger.settle(10, 2, 11);
        assert_eq!((ledger.lost_views, ledger.doubled_views), (0, 0));
        ledger.settle(10, 0, 9);
        assert_eq!((ledger.lost_views, ledger.doubled_views), (1, 0));
        ledger.settle(10, 1, 13);
        assert_eq!((ledger.lost_views, ledger.doubled_views), (1, 2));
    }

    #[test]
    fn a_page_that_knows_nobody_is_read_as_such() {
        let view: View =
            serde_json::from_str(r#"{"user":null,"views":0,"instance":"a","host":"b"}"#).unwrap();
        assert_eq!(view.user, None);
    }

    #[test]
    fn the_gap_counts_from_the_given_moment() {
        let start = Instant::now();
        let answer = |ms| Answer {
            at: start + Duration::from_millis(ms),
            took: Duration::from_millis(10),
            instance: "web.1".into(),
            host: "h1".into(),
        };
        let ledger = Ledger { answers: vec![answer(100), answer(400), answer(500)], ..Ledger::default() };
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(ledger.longest_gap(start, at(550)), Duration::from_millis(300));
        // A site that never came back was away until the end.
        assert_eq!(ledger.longest_gap(start, at(5500)), Duration::from_millis(5000));
        assert_eq!(Ledger::default().longest_gap(start, at(700)), Duration::from_millis(700));
    }
}
