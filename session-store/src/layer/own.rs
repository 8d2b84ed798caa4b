//! What a user does with all of their sessions: see them, end one, end the others, end them all (OWASP ASVS 5.0, 7.4.3 and 7.5.2).

use super::{
    outcome::SessionError,
    session::{Session, SlotState},
};
use crate::{id::StoreKey, lifetime::unix_now, record::Record, store::Loaded};
use std::future::Future;

/// One of the sessions of the user that is logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnSession {
    /// Names it to [`Session::end`]. It opens nothing.
    pub key: StoreKey,
    /// When it began and was last used, and what the application keeps in it, such as a device's name.
    pub record: Record,
    /// The one that asks.
    pub is_current: bool,
}

impl Session {
    /// The live sessions of the user that is logged in, the latest used first, at most 100; nothing where nobody is.
    ///
    /// # Errors
    /// The store's failure.
    pub async fn own_sessions(&self) -> Result<Vec<OwnSession>, SessionError> {
        let Some((current, user)) = self.user().await? else { return Ok(Vec::new()) };
        let store = &self.layer().store;
        let mut own = Vec::new();
        for key in self.told(store.sessions_of(&user)).await? {
            if own.len() == MAX_LISTED {
                break;
            }
            // One that ended or moved since it was listed is left out.
            match self.told(store.load(&key)).await? {
                Some(record)
                    if record.gone(unix_now()).is_none() && record.principal.as_deref() == Some(&*user) =>
                {
                    own.push(OwnSession { key, record, is_current: key == current });
                }
                _ => {}
            }
        }
        own.sort_by_key(|session| std::cmp::Reverse(session.record.touched_at));
        Ok(own)
    }

    /// Ends one of the user's own sessions, at once, also the current one. `false`: it is none of theirs, or has ended.
    ///
    /// # Errors
    /// The store's failure; the session may then live on.
    pub async fn end(&self, key: &StoreKey) -> Result<bool, SessionError> {
        let Some((current, user)) = self.user().await? else { return Ok(false) };
        let store = &self.layer().store;
        match self.told(store.find(key, unix_now())).await? {
            Loaded::Live { key, record } if record.principal.as_deref() == Some(&*user) => {
                if key == current {
                    self.logout().await?;
                } else {
                    self.written(store.delete(&key)).await?;
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Ends every other session of the user, at once, and answers how many: for a changed password or a lost device. 0 where nobody is logged in.
    ///
    /// # Errors
    /// The store's failure; some may live on.
    pub async fn logout_others(&self) -> Result<usize, SessionError> {
        let Some((current, user)) = self.user().await? else { return Ok(0) };
        self.written(self.layer().store.revoke_all(&user, Some(&current))).await
    }

    /// Ends every session of the user, at once, this one included, and answers how many. 0 where nobody is logged in.
    ///
    /// # Errors
    /// The store's failure; some may live on.
    pub async fn logout_everywhere(&self) -> Result<usize, SessionError> {
        let Some((_, user)) = self.user().await? else { return Ok(0) };
        let ended = self.written(self.layer().store.revoke_all(&user, None)).await?;
        self.logout().await?;
        Ok(ended)
    }

    /// Who is logged in, and where.
    async fn user(&self) -> Result<Option<(StoreKey, String)>, SessionError> {
        let mut slot = self.slot().lock().await;
        self.loaded(&mut slot).await?;
        Ok(match &slot.state {
            SlotState::Live(key, record) => record.principal.as_deref().map(|user| (*key, user.to_owned())),
            _ => None,
        })
    }

    /// A read whose failure the layer answers for.
    async fn told<T>(
        &self,
        call: impl Future<Output = Result<T, crate::StoreError>>,
    ) -> Result<T, SessionError> {
        match call.await {
            Ok(done) => Ok(done),
            Err(error) => Err(self.fail(&mut *self.slot().lock().await, error)),
        }
    }

    /// A write that is no success if the handler drops it.
    async fn written<T>(
        &self,
        call: impl Future<Output = Result<T, crate::StoreError>>,
    ) -> Result<T, SessionError> {
        self.pending().writing = true;
        let done = call.await;
        self.pending().writing = false;
        self.told(std::future::ready(done)).await
    }
}

/// A page of sessions; each is one read.
const MAX_LISTED: usize = 100;
