//! The handle that a request's handler uses.

use super::{
    Outage, SessionLayer,
    outcome::{Commit, SessionError},
    value::{self, Key},
};
use crate::{
    error::StoreError,
    id::{CommitId, SessionId, StoreKey},
    lifetime::unix_now,
    op::{Applied, Change, Gone, Mode, Op, Outcome, Patch},
    record::Record,
    store::{Durability, Loaded},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tracing::Instrument;

/// The session of one request. Clones share it. Changes are kept here until [`commit`](Self::commit), which the layer calls at the end.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    layer: SessionLayer,
    cookie: Option<SessionId>,
    pending: Mutex<Pending>,
    slot: tokio::sync::Mutex<Slot>,
}

#[derive(Default)]
pub(super) struct Pending {
    patch: Patch,
    read: HashSet<String>,
    request: Option<String>,
    commits: u32,
    used: bool,
    /// A write was begun and not seen to its end: its future is still running, or the handler dropped it.
    pub(super) writing: bool,
    failure: Option<SessionError>,
}

pub(super) struct Slot {
    pub(super) state: SlotState,
    cookie: Option<CookieOut>,
}

pub(super) enum SlotState {
    Unread,
    None,
    /// The client has been sent another id. A new session here would replace that one in the browser.
    Rotated,
    /// Logged out or deleted.
    Revoked,
    Live(StoreKey, Box<Record>),
    /// It could not be read, and the handler may go on as long as it changes nothing.
    Away(SessionError),
    Failed(SessionError),
}

pub(super) enum CookieOut {
    Set(SessionId),
    Clear,
}

impl Session {
    pub(super) fn new(layer: SessionLayer, cookie: Option<SessionId>) -> Self {
        let slot = Slot { state: SlotState::Unread, cookie: None };
        Self { inner: Arc::new(Inner { layer, cookie, pending: Mutex::default(), slot: slot.into() }) }
    }

    /// A value, with this request's own changes. `None` where there is no session or no such value.
    ///
    /// # Errors
    /// The store's failure, or a value of another type.
    pub async fn get<T: DeserializeOwned>(&self, key: impl Key<T>) -> Result<Option<T>, SessionError> {
        let key = key.as_ref().to_owned();
        let key = key.as_str();
        let mut slot = self.inner.slot.lock().await;
        let stored = self.readable(&mut slot).await?.and_then(|record| record.get(key).cloned());
        let change = {
            let mut pending = self.pending();
            pending.read.insert(key.to_owned());
            pending.patch.changes.get(key).cloned()
        };
        value::read(key, stored.as_ref(), change.as_ref())
    }

    /// Sets a value, kept as JSON. A session is created at commit if there is none.
    ///
    /// # Errors
    /// A value that is no JSON.
    pub fn set<T: Serialize + ?Sized>(&self, key: impl Key<T>, value: &T) -> Result<(), SessionError> {
        let change = value::write(key.as_ref(), value)?;
        self.pending().patch.put(key.as_ref().into(), change);
        Ok(())
    }

    /// Removes a value.
    pub fn remove(&self, key: impl AsRef<str>) {
        self.pending().patch.put(key.as_ref().into(), Change::Remove);
    }

    /// Adds to a counter; concurrent requests lose nothing. The committed number is there after [`commit`](Self::commit).
    pub fn add(&self, key: impl Key<i64>, number: i64) {
        self.pending().patch.put(key.as_ref().into(), Change::Add(number));
    }

    /// Names this request, so that its commits take effect once when a gateway sends it again. Call it before changing anything.
    pub fn idempotency(&self, request: &str) {
        self.pending().request = Some(request.to_owned());
    }

    /// Who is logged in.
    ///
    /// # Errors
    /// The store's failure.
    pub async fn principal(&self) -> Result<Option<String>, SessionError> {
        let mut slot = self.inner.slot.lock().await;
        Ok(self.readable(&mut slot).await?.and_then(|record| record.principal.as_deref().map(str::to_owned)))
    }

    /// Whether the session could be read, or is known not to be there. Only under [`Outage::Anonymous`] a page is worth making without.
    pub async fn is_available(&self) -> bool {
        let mut slot = self.inner.slot.lock().await;
        self.readable(&mut slot).await.is_ok() && !matches!(slot.state, SlotState::Away(_))
    }

    /// Logs in, at once and together with the changes so far: the session gets a new id and the old one ends. Values stay, unless they are
    /// another user's.
    ///
    /// # Errors
    /// The store's failure; nobody is logged in then.
    pub async fn login(&self, principal: &str) -> Result<(), SessionError> {
        let mut slot = self.inner.slot.lock().await;
        self.loaded(&mut slot).await?;
        let (patch, id) = self.take();
        if let SlotState::Live(key, record) = &slot.state {
            let (key, fresh) = (*key, SessionId::random());
            let (to, name) = (fresh.key(), Some(principal.to_owned()));
            let (patch, id) = (patch.clone(), Some(id));
            let op = Op::Rotate { to, principal: name, patch, grace: Duration::ZERO, id };
            let durability = self.inner.layer.store.durability();
            let applied = self.apply(Some(record), &key, op, durability).await;
            let applied = applied.map_err(|error| self.fail(&mut slot, error))?;
            if let Outcome::NotCounter { key } = applied.outcome {
                return Err(SessionError::NotCounter { key });
            }
            let record = match applied.record {
                None if applied.outcome.is_done() => self.load(&mut slot, &to).await?, // a repeated rotation
                record => record.filter(|_| applied.outcome.is_done()),
            };
            if let Some(record) = record {
                slot.state = SlotState::Live(to, Box::new(record));
                slot.cookie = Some(CookieOut::Set(fresh));
                return Ok(());
            }
            // The old session ended meanwhile; the user has just proved who they are and gets a new one.
        }
        self.create(&mut slot, Some(principal.to_owned()), patch, id).await.map(drop)
    }

    /// Logs out, at once: the session ends on every store and host, and changes made in this request are dropped.
    ///
    /// # Errors
    /// The store's failure; the user may then still be logged in, and the layer says 503.
    pub async fn logout(&self) -> Result<(), SessionError> {
        let mut slot = self.inner.slot.lock().await;
        self.loaded(&mut slot).await?;
        drop(self.take());
        let key = match (&slot.state, &self.inner.cookie) {
            (SlotState::Live(key, _), _) => Some(*key),
            // Ended, or not there, as far as this host can tell: its clock may be ahead of another one's, its log-out before may have reached
            // the primary alone, and an id that was replaced stands for the same user's session under the new one.
            (_, Some(id)) => Some(id.key()),
            (_, None) => None,
        };
        if let Some(key) = key {
            self.pending().writing = true;
            let deleted = self.inner.layer.store.delete(&key).instrument(call("delete")).await;
            self.pending().writing = false;
            if let Err(error) = deleted {
                return Err(self.fail(&mut slot, error));
            }
        }
        slot.state = SlotState::None;
        slot.cookie = self.inner.cookie.is_some().then_some(CookieOut::Clear);
        Ok(())
    }

    /// Writes the changes now; [`get`](Self::get) answers what is committed afterwards. Creates a session if there is none to change.
    ///
    /// # Errors
    /// The store's failure; the layer then says 503.
    pub async fn commit(&self) -> Result<Commit, SessionError> {
        if self.pending().patch.is_empty() {
            return Ok(Commit::Unchanged);
        }
        let mut slot = self.inner.slot.lock().await;
        self.loaded(&mut slot).await?;
        let depends = self.pending().changes_what_it_read();
        let (patch, id) = self.take();
        match &slot.state {
            SlotState::Rotated => Ok(Commit::Gone(Gone::Rotated)),
            SlotState::Live(key, record) => {
                let (key, base) = (*key, depends.then_some(record.version));
                self.commit_from(&mut slot, &key, base, patch, Mode::Merge, id).await
            }
            _ if patch.changes.iter().all(|(_, change)| matches!(change, Change::Remove)) => {
                Ok(Commit::Unchanged)
            }
            _ => self.create(&mut slot, None, patch, id).await,
        }
    }

    /// Whether anything asked this session.
    pub(super) fn is_used(&self) -> bool {
        let pending = self.pending();
        pending.used || !pending.patch.is_empty()
    }

    /// The store's failure in this request, if there was one. A write that the handler did not wait for counts as one: its changes are not
    /// here any more, and nobody knows whether they are in the store.
    pub(super) fn failure(&self) -> Option<SessionError> {
        let pending = self.pending();
        let dropped = || {
            let (store, reason) = ("session".to_owned(), "the handler did not wait for its end".to_owned());
            let error = StoreError::Unavailable { store, action: "write", reason, source: None };
            SessionError::Store(Arc::new(error))
        };
        pending.failure.clone().or_else(|| pending.writing.then(dropped))
    }

    pub(super) async fn take_cookie(&self) -> Option<CookieOut> {
        self.inner.slot.lock().await.cookie.take()
    }

    /// Renews the idle deadline where that is due. It is no reason to fail or to delay a response that is ready.
    pub(super) async fn touch_if_due(&self) {
        let slot = self.inner.slot.lock().await;
        let SlotState::Live(key, record) = &slot.state else { return };
        if record.lifetime.touch_is_due(record.touched_at, unix_now()) {
            let touch = self.inner.layer.store.apply_from(key, record, Op::Touch, Durability::Primary);
            match tokio::time::timeout(TOUCH_DEADLINE, touch).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "session not renewed"),
                Err(_) => tracing::warn!(deadline = ?TOUCH_DEADLINE, "session not renewed in time"),
            }
        }
    }

    pub(super) fn layer(&self) -> &SessionLayer {
        &self.inner.layer
    }

    pub(super) fn slot(&self) -> &tokio::sync::Mutex<Slot> {
        &self.inner.slot
    }

    /// [`readable`](Self::readable) for who goes on to change something: then it has to be known.
    pub(super) async fn loaded<'a>(&self, slot: &'a mut Slot) -> Result<Option<&'a Record>, SessionError> {
        self.readable(slot).await?;
        if let SlotState::Away(error) = &slot.state {
            let error = error.clone();
            self.pending().failure = Some(error.clone());
            slot.state = SlotState::Failed(error);
        }
        self.readable(slot).await
    }

    async fn readable<'a>(&self, slot: &'a mut Slot) -> Result<Option<&'a Record>, SessionError> {
        self.pending().used = true;
        if matches!(slot.state, SlotState::Unread) {
            let found = match &self.inner.cookie {
                None => Loaded::Absent,
                Some(id) => {
                    match self.inner.layer.store.find(&id.key(), unix_now()).instrument(call("load")).await {
                        Ok(found) => found,
                        Err(error)
                            if self.inner.layer.outage == Outage::Anonymous && error.is_retryable() =>
                        {
                            tracing::warn!(%error, "request answered without its session");
                            slot.state = SlotState::Away(SessionError::Store(Arc::new(error)));
                            return Ok(None);
                        }
                        Err(error) => return Err(self.fail(slot, error)),
                    }
                }
            };
            slot.state = match found {
                Loaded::Live { key, record } => SlotState::Live(key, record),
                Loaded::Rotated => SlotState::Rotated,
                Loaded::Revoked => SlotState::Revoked,
                _ => SlotState::None,
            };
            if let Err(error) = self.migrate(slot).await {
                slot.state = SlotState::Failed(error); // values of another version are not shown as this one's
            }
        }
        match &slot.state {
            SlotState::Live(_, record) => Ok(Some(record)),
            SlotState::Failed(error) => Err(error.clone()),
            SlotState::None
            | SlotState::Rotated
            | SlotState::Revoked
            | SlotState::Unread
            | SlotState::Away(_) => Ok(None),
        }
    }

    async fn load(&self, slot: &mut Slot, key: &StoreKey) -> Result<Option<Record>, SessionError> {
        self.inner
            .layer
            .store
            .load(key)
            .instrument(call("load"))
            .await
            .map_err(|error| self.fail(slot, error))
    }

    /// A step, from the record that was loaded under this key where one was.
    pub(super) async fn apply(
        &self,
        seen: Option<&Record>,
        key: &StoreKey,
        op: Op,
        durability: Durability,
    ) -> Result<Applied, StoreError> {
        self.pending().writing = true;
        let store = &self.inner.layer.store;
        let applied = match seen {
            Some(record) => store.apply_from(key, record, op, durability).instrument(call("write")).await,
            None => store.apply(key, op, durability).instrument(call("write")).await,
        };
        self.pending().writing = false;
        applied
    }

    pub(super) async fn create(
        &self,
        slot: &mut Slot,
        principal: Option<String>,
        patch: Patch,
        id: CommitId,
    ) -> Result<Commit, SessionError> {
        let patch = match &self.inner.layer.migration {
            Some(migration) => patch.schema(migration.to),
            None => patch,
        };
        for _ in 0..MAX_COLLISIONS {
            let fresh = SessionId::random();
            let (lifetime, id) = (self.inner.layer.lifetime, Some(id));
            let op = Op::Create { lifetime, principal: principal.clone(), patch: patch.clone(), id };
            let applied = self.apply(None, &fresh.key(), op, self.inner.layer.commits).await;
            let applied = applied.map_err(|error| self.fail(slot, error))?;
            match (applied.outcome, applied.record) {
                (Outcome::Saved { version }, Some(record)) => {
                    slot.state = SlotState::Live(fresh.key(), Box::new(record));
                    slot.cookie = Some(CookieOut::Set(fresh));
                    return Ok(Commit::Saved { version });
                }
                (Outcome::NotCounter { key }, _) => return Err(SessionError::NotCounter { key }),
                _ => {}
            }
        }
        Err(SessionError::NoFreeId)
    }

    /// Remembers a failure: nothing more is sent to the store in this request, and the layer answers for it.
    pub(super) fn fail(&self, slot: &mut Slot, error: StoreError) -> SessionError {
        let error = SessionError::Store(Arc::new(error));
        slot.state = SlotState::Failed(error.clone());
        self.pending().failure = Some(error.clone());
        error
    }

    /// The changes so far, and the id of the commit that takes them.
    fn take(&self) -> (Patch, CommitId) {
        let mut pending = self.pending();
        let id = pending.next_id();
        (std::mem::take(&mut pending.patch), id)
    }

    pub(super) fn pending(&self) -> MutexGuard<'_, Pending> {
        self.inner.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    /// The id of this request's next commit: the same one when the request is sent again.
    pub(super) fn next_id(&mut self) -> CommitId {
        let number = self.commits;
        self.commits = number.wrapping_add(1);
        match &self.request {
            Some(request) => CommitId::of(format!("{number} {request}")),
            None => CommitId::random(),
        }
    }

    /// Only a value that was read and then changed can be lost to another request: that is a conflict, everything else merges.
    fn changes_what_it_read(&self) -> bool {
        self.patch
            .changes
            .iter()
            .any(|(key, change)| !matches!(change, Change::Add(_)) && self.read.contains(&**key))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("has_cookie", &self.inner.cookie.is_some()).finish_non_exhaustive()
    }
}

/// A call of the store, for whoever follows what a request waits for.
fn call(action: &'static str) -> tracing::Span {
    tracing::debug_span!(target: "session_store", "session", action)
}

/// A renewal waits this long at most.
const TOUCH_DEADLINE: Duration = Duration::from_secs(1);

/// Two random ids of 256 bits do not meet; three tries tell a broken generator from a cosmic accident.
const MAX_COLLISIONS: usize = 3;
