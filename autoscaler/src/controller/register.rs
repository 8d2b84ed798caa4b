//! A lease and a journal in anything with a compare-and-set: a labelled object of the orchestrator, a row, a key.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::claim::{Claim, Contender, Put};
use super::error::{BoxError, JournalError, LeaseError};
use super::journal::{Journal, JournalEntry};
use super::lease::{Held, Lease, Term};
use crate::state::State;

/// One text that can be compared and set.
#[async_trait]
pub trait Register: Send + Sync {
    /// The text and its version; `None` if there is none yet.
    ///
    /// # Errors
    /// When it can't be read. No answer is not an absent text.
    async fn get(&self) -> Result<Option<(String, u64)>, BoxError>;

    /// Stores a text if the version still is `expected` (`None`: if there is none yet). Returns whether it was stored;
    /// every text that is stored has a new version.
    ///
    /// # Errors
    /// When it is not known whether it was stored.
    async fn put(&self, text: String, expected: Option<u64>) -> Result<bool, BoxError>;
}

#[async_trait]
impl<T: Register + ?Sized> Register for Arc<T> {
    async fn get(&self) -> Result<Option<(String, u64)>, BoxError> {
        (**self).get().await
    }

    async fn put(&self, text: String, expected: Option<u64>) -> Result<bool, BoxError> {
        (**self).put(text, expected).await
    }
}

/// A [`Register`] in memory.
#[derive(Debug, Default)]
pub struct MemoryRegister(Mutex<Option<(String, u64)>>);

#[async_trait]
impl Register for MemoryRegister {
    async fn get(&self) -> Result<Option<(String, u64)>, BoxError> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn put(&self, text: String, expected: Option<u64>) -> Result<bool, BoxError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let version = kept.as_ref().map(|&(_, version)| version);
        if version != expected {
            return Ok(false);
        }
        *kept = Some((text, version.map_or(1, |version| version + 1)));
        Ok(true)
    }
}

/// A [`Lease`] in a [`Register`].
///
/// The holder counts up a number in it, three times in the time to live. Who sees the text unchanged for a whole time to
/// live, by its own clock, takes over with the next term; nobody's wall clock is compared with another's. A holder that
/// could not renew for two thirds of the time to live gives up before another may take over. (This is the scheme of
/// Kubernetes' leader election, with terms.)
pub struct RegisterLease<R> {
    register: Arc<R>,
    holder: String,
    ttl: Duration,
    floor: AtomicU64,
    release: Mutex<Option<Release>>,
}

/// Cancelled when a lease is to be given back, and when that is done.
#[derive(Clone, Default)]
struct Release {
    asked: CancellationToken,
    done: CancellationToken,
}

impl<R: Register + 'static> RegisterLease<R> {
    /// A lease for a holder of this name (for people), living `ttl` (a second at least).
    pub fn new(register: R, holder: impl Into<String>, ttl: Duration) -> Self {
        let ttl = ttl.max(Duration::from_secs(1));
        let (holder, release) = (holder.into(), Mutex::default());
        Self { register: Arc::new(register), holder, ttl, floor: AtomicU64::new(0), release }
    }

    /// Sees to it that every leadership from now on has a higher term than this one: the term that stands at the target.
    /// Without that, a register that was lost begins again at 1, and its leaders are fenced off by what they wrote before.
    pub fn above(&self, term: Term) {
        self.floor.fetch_max(term.0, Ordering::Relaxed);
    }

    /// Who holds the lease as far as the register says, and under which term; `None` if nobody does. A holder that died
    /// stands there until the next one takes over.
    ///
    /// # Errors
    /// When it can't be read, or is no lease.
    pub async fn holder(&self) -> Result<Option<(String, Term)>, LeaseError> {
        let held = self.read().await?.filter(|(claim, _)| !claim.holder.is_empty());
        Ok(held.map(|(claim, _)| (claim.holder, Term(claim.term))))
    }

    async fn read(&self) -> Result<Option<(Claim, u64)>, LeaseError> {
        let tried = "reading the lease's register";
        let found = match timeout(self.ttl / 3, self.register.get()).await {
            Ok(read) => read.map_err(|error| LeaseError::unavailable(tried, error))?,
            Err(late) => return Err(LeaseError::unavailable(tried, late)),
        };
        let Some((text, version)) = found else { return Ok(None) };
        let claim = serde_json::from_str(&text).map_err(|_| LeaseError::Refused {
            tried: tried.to_owned(),
            why: "its text is no lease; delete it to begin anew".to_owned(),
        })?;
        Ok(Some((claim, version)))
    }

    fn keep(&self, contender: Contender, epoch: Instant, term: u64) -> Held {
        let held = Held { term: Term(term), lost: CancellationToken::new() };
        let release = Release::default();
        *self.release.lock().unwrap_or_else(PoisonError::into_inner) = Some(release.clone());
        let keeper = Keeper { register: Arc::clone(&self.register), ttl: self.ttl, contender, epoch };
        let lost = held.lost.clone();
        tokio::spawn(async move {
            keeper.run(&lost, &release.asked).await;
            lost.cancel();
            release.done.cancel();
        });
        held
    }
}

#[async_trait]
impl<R: Register + 'static> Lease for RegisterLease<R> {
    async fn acquire(&self) -> Result<Held, LeaseError> {
        let epoch = Instant::now();
        let mut contender = Contender::new(&self.holder, self.ttl);
        loop {
            let found = self.read().await?;
            let began = epoch.elapsed();
            let found = found.as_ref().map(|(claim, version)| (claim, *version));
            if let Some(Put { claim, expected }) =
                contender.seek(found, self.floor.load(Ordering::Relaxed), began)
            {
                let put = timeout(self.ttl / 3, self.register.put(text_of(&claim)?, expected)).await;
                let term = claim.term;
                // Whether it was stored or not is seen at the next reading; then it is waited for like anybody's.
                if let Ok(Ok(true)) = put
                    && contender.stored(claim, began, epoch.elapsed())
                {
                    return Ok(self.keep(contender, epoch, term));
                }
            }
            sleep((self.ttl / 6).mul_f64(rand::random_range(0.8..1.2))).await;
        }
    }

    async fn release(&self, _held: &Held) {
        let release = self.release.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(release) = release {
            release.asked.cancel();
            release.done.cancelled().await;
        }
    }
}

impl<R> Drop for RegisterLease<R> {
    /// What nobody can use any more is given back.
    fn drop(&mut self) {
        if let Some(release) = self.release.get_mut().unwrap_or_else(PoisonError::into_inner) {
            release.asked.cancel();
        }
    }
}

fn text_of(claim: &Claim) -> Result<String, LeaseError> {
    serde_json::to_string(claim).map_err(|error| LeaseError::unavailable("writing the lease", error))
}

/// Renews a lease until it is lost or given back.
struct Keeper<R> {
    register: Arc<R>,
    ttl: Duration,
    contender: Contender,
    /// Where the contender's times begin.
    epoch: Instant,
}

impl<R: Register> Keeper<R> {
    async fn run(mut self, lost: &CancellationToken, asked: &CancellationToken) {
        loop {
            tokio::select! {
                () = sleep(self.ttl / 3) => {}
                () = asked.cancelled() => {
                    lost.cancel();
                    let _ = timeout(self.ttl / 3, self.replace(Contender::give_back)).await;
                    return;
                }
            }
            // Until it is renewed, or the time is over in which nobody else may have taken over.
            loop {
                let began = self.epoch.elapsed();
                let left = self.contender.until().unwrap_or_default().saturating_sub(began);
                match timeout(left, self.replace(Contender::renew)).await {
                    Ok(Ok(Some(claim))) => {
                        if self.contender.stored(claim, began, self.epoch.elapsed()) {
                            break;
                        }
                        return;
                    }
                    Ok(Err(_)) if self.contender.holds(self.epoch.elapsed()) => sleep(self.ttl / 30).await,
                    _ => return,
                }
            }
        }
    }

    /// Puts a text in the place of our own, and gives what stands there then. `None` if what stands there is not ours.
    async fn replace(&self, next: Next) -> Replaced {
        let Some((text, version)) = self.register.get().await? else { return Ok(None) };
        let found: Claim = serde_json::from_str(&text)?;
        let Some(Put { claim, expected }) = next(&self.contender, Some((&found, version))) else {
            return Ok(None);
        };
        let stored = self.register.put(serde_json::to_string(&claim)?, expected).await?;
        Ok(stored.then_some(claim))
    }
}

/// What to put in the place of what was found.
type Next = fn(&Contender, Option<(&Claim, u64)>) -> Option<Put>;
type Replaced = Result<Option<Claim>, BoxError>;

/// A [`Journal`] in a [`Register`] of one service: its state, and its last entries.
#[derive(Debug)]
pub struct RegisterJournal<R> {
    register: R,
    keep: usize,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Pages {
    state: Option<State>,
    entries: VecDeque<JournalEntry>,
}

impl<R: Register> RegisterJournal<R> {
    /// A journal that keeps the last `entries` (at least one; an entry has about a kilobyte).
    pub fn new(register: R, entries: usize) -> Self {
        Self { register, keep: entries.max(1) }
    }

    /// The entries that are kept, oldest first.
    ///
    /// # Errors
    /// When they can't be read.
    pub async fn entries(&self, service: &str) -> Result<Vec<JournalEntry>, JournalError> {
        Ok(self.read(service).await?.0.entries.into())
    }

    async fn read(&self, service: &str) -> Result<(Pages, Option<u64>), JournalError> {
        let found = self.register.get().await;
        match found.map_err(|error| JournalError::unavailable(service, "reading the journal", error))? {
            None => Ok((Pages::default(), None)),
            Some((text, version)) => {
                let pages = serde_json::from_str(&text).map_err(|error| JournalError::Corrupt {
                    service: service.to_owned(),
                    source: error.into(),
                })?;
                Ok((pages, Some(version)))
            }
        }
    }

    async fn change(&self, service: &str, change: impl Fn(&mut Pages) + Send) -> Result<(), JournalError> {
        let failed = |error: BoxError| JournalError::unavailable(service, "writing the journal", error);
        for _ in 0..TRIES {
            let (mut pages, version) = self.read(service).await?;
            change(&mut pages);
            let text = serde_json::to_string(&pages).map_err(|error| failed(error.into()))?;
            if self.register.put(text, version).await.map_err(failed)? {
                return Ok(());
            }
        }
        Err(failed(format!("somebody else wrote each of {TRIES} times").into()))
    }
}

#[async_trait]
impl<R: Register> Journal for RegisterJournal<R> {
    async fn record(&self, entry: JournalEntry) -> Result<(), JournalError> {
        let service = entry.service.clone();
        self.change(&service, |pages| {
            pages.entries.push_back(entry.clone());
            while pages.entries.len() > self.keep {
                pages.entries.pop_front();
            }
        })
        .await
    }

    async fn load_state(&self, service: &str) -> Result<Option<State>, JournalError> {
        Ok(self.read(service).await?.0.state)
    }

    async fn save_state(&self, service: &str, state: &State) -> Result<(), JournalError> {
        self.change(service, |pages| pages.state = Some(state.clone())).await
    }
}

/// A journal of one service has one writer, and for a moment two.
const TRIES: u32 = 5;
