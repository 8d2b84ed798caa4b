//! Where the ACL token comes from, and when it is asked for anew.

use std::{
    fmt,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{PoisonError, RwLock},
    time::Duration,
};

use http::HeaderValue;
use tokio::{sync::Mutex, time::Instant};

use crate::{Error, Result};

type Fetch = dyn Fn() -> Pin<Box<dyn Future<Output = Result<String>> + Send>> + Send + Sync;

/// A token that is fixed, or fetched at first and again when the server denied it.
pub(crate) enum TokenSource {
    None,
    Fixed(HeaderValue),
    Fetched(Fetched),
}

/// A token behind a function.
pub(crate) struct Fetched {
    what: &'static str,
    fetch: Box<Fetch>,
    current: RwLock<Option<HeaderValue>>,
    /// When it was last fetched; also the right to fetch.
    fetching: Mutex<Option<Instant>>,
}

impl TokenSource {
    /// Read at first use, and again after a denial.
    pub(crate) fn file(path: PathBuf) -> Self {
        let read = move || {
            let path = path.clone();
            async move {
                let shown = path.display().to_string();
                let text = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
                match text.map_err(std::io::Error::other).flatten() {
                    Ok(text) if text.trim().is_empty() => {
                        Err(Error::setting("token file", &shown, "the file is empty"))
                    }
                    Ok(text) => Ok(text.trim().to_owned()),
                    Err(error) => {
                        Err(Error::setting("token file", &shown, format!("cannot be read: {error}")))
                    }
                }
            }
        };
        Self::fetched("token file", move || Box::pin(read()))
    }

    pub(crate) fn fetched(
        what: &'static str,
        fetch: impl Fn() -> Pin<Box<dyn Future<Output = Result<String>> + Send>> + Send + Sync + 'static,
    ) -> Self {
        let (current, fetching) = (RwLock::new(None), Mutex::new(None));
        Self::Fetched(Fetched { what, fetch: Box::new(fetch), current, fetching })
    }

    /// The token to send now, if that needs no waiting. `Some(None)` is to send none.
    pub(crate) fn known(&self) -> Option<Option<HeaderValue>> {
        match self {
            Self::None => Some(None),
            Self::Fixed(value) => Some(Some(value.clone())),
            Self::Fetched(fetched) => fetched.known().map(Some),
        }
    }

    /// The token to send now.
    pub(crate) async fn current(&self) -> Result<Option<HeaderValue>> {
        match self {
            Self::None => Ok(None),
            Self::Fixed(value) => Ok(Some(value.clone())),
            Self::Fetched(fetched) => match fetched.known() {
                Some(value) => Ok(Some(value)),
                None => fetched.fetch(None).await,
            },
        }
    }

    /// The server denied `sent`: the token to try instead, if there is another one.
    pub(crate) async fn after_denial(&self, sent: Option<&HeaderValue>) -> Option<HeaderValue> {
        let Self::Fetched(fetched) = self else {
            return None;
        };
        match fetched.fetch(sent).await {
            Ok(value) => value.filter(|value| Some(value) != sent),
            Err(error) => {
                tracing::warn!(%error, "consul token cannot be fetched anew");
                None
            }
        }
    }
}

impl Fetched {
    fn known(&self) -> Option<HeaderValue> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Fetches unless the known one differs from `stale`, or was fetched a moment ago.
    async fn fetch(&self, stale: Option<&HeaderValue>) -> Result<Option<HeaderValue>> {
        let mut last = self.fetching.lock().await;
        let known = self.known();
        let fresh = last.is_some_and(|at| at.elapsed() < MIN_AGE);
        if known.is_some() && (known.as_ref() != stale || fresh) {
            return Ok(known);
        }
        let text = (self.fetch)().await?;
        let value = header(self.what, &text)?;
        *last = Some(Instant::now());
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(value.clone());
        Ok(Some(value))
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Fixed(_) => "Fixed(..)",
            Self::Fetched(fetched) => fetched.what,
        })
    }
}

/// The text as a header that logs leave out.
pub(crate) fn header(name: &str, text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Error::setting(name, "<hidden>", "contains a character that a header cannot carry"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A token that is denied all the time is not fetched more often than this.
const MIN_AGE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_fetched_once_and_again_after_a_denial_but_not_in_a_storm() {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let source = TokenSource::fetched("token", move || {
            let n = counted.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move { Ok(format!("token-{n}")) })
        });
        let first = source.current().await.unwrap().unwrap();
        assert_eq!(first, "token-0");
        assert_eq!(source.current().await.unwrap().unwrap(), "token-0");
        assert_eq!(source.after_denial(Some(&first)).await, None, "a moment ago");
        tokio::time::advance(MIN_AGE).await;
        assert_eq!(source.after_denial(Some(&first)).await.unwrap(), "token-1");
        // Another call that was denied the old one finds the new one without a fetch.
        assert_eq!(source.after_denial(Some(&first)).await.unwrap(), "token-1");
        assert_eq!(count.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_file_is_read_and_a_missing_or_empty_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let source = TokenSource::file(path.clone());
        assert!(source.current().await.unwrap_err().to_string().contains("token file"));
        std::fs::write(&path, "\n").unwrap();
        assert!(source.current().await.unwrap_err().to_string().contains("empty"));
        std::fs::write(&path, " hunter2\n").unwrap();
        assert_eq!(source.current().await.unwrap().unwrap(), "hunter2");
        assert!(!format!("{source:?}").contains("hunter2"));
    }
}
