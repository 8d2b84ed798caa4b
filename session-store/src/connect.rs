//! The choice of a store by URL.

#[cfg(feature = "encryption")]
use crate::Keyring;
use crate::{
    error::StoreError,
    seal::Seal,
    store::{Durability, SessionStore},
};
use std::{sync::Arc, time::Duration};

/// Opens the store that a URL names.
///
/// | URL | Store |
/// |---|---|
/// | `memory:` | this process only |
/// | `sqlite:PATH[?sync=full]` | one host, several processes (feature `sqlite`) |
/// | `redis://[[USER]:PASSWORD@]HOST[:PORT][/DB][?replicas=N]`, `HOST:PORT` | one Redis 6.2 or newer (feature `redis`) |
/// | `redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT],../NAME[/DB][?replicas=N]` | the master that the Sentinels name (feature `redis`) |
/// | `rediss://..`, `rediss+sentinel://..` | the same over TLS, to the Sentinels too (feature `tls`) |
///
/// More settings stand after `?`, joined by `&`, percent-encoded: `sentinel-user` and `sentinel-password` for Sentinels that ask for a login of their own;
/// `ca=PATH` (trust this CA instead of the machine's), `cert=PATH` and `key=PATH` (show a certificate), `server-name=NAME` (expect this name in every
/// certificate) for TLS. Redis Cluster is not offered: a log-in moves a session from key to key in one step, and the keys of a user's sessions are
/// found on the way, which one slot cannot hold.
///
/// `replicas` is how many must confirm a log-out, a log-in or a revocation ([`Durability`]): 1 with Sentinel, whose failover would bring an ended
/// session back otherwise; 0 for one Redis, which may have none, and then a lost log-out comes with the loss of that Redis.
///
/// A Redis that cannot be reached yet is no error here: ask [`health`](SessionStore::health).
///
/// # Errors
/// [`StoreError::Config`] for a URL that cannot work or a feature that is not built in; [`StoreError::Unavailable`] for a file that cannot be opened.
pub async fn connect(url: &str) -> Result<Arc<dyn SessionStore>, StoreError> {
    StoreOptions::new().connect(url).await
}

/// What a URL does not say about a store.
#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    pub(crate) deadline: Option<Duration>,
    pub(crate) durability: Option<Durability>,
    pub(crate) seal: Seal,
    #[cfg(feature = "redis")]
    pub(crate) sentinel_login: Option<Login>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::TlsOptions>,
}

/// A user's name and password.
#[cfg(feature = "redis")]
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) user: Option<String>,
    pub(crate) password: String,
}

#[cfg(feature = "redis")]
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login(..)")
    }
}

impl StoreOptions {
    /// As [`connect`] has them.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How long a call may wait, through a failover too; at most a day. 8 s by default.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline.min(LONGEST_DEADLINE));
        self
    }

    /// What a log-out, a rotation or a revocation waits for; overrides `replicas` of a URL, and means nothing to a store on one host.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// Encrypts the records.
    #[cfg(feature = "encryption")]
    #[must_use]
    pub fn keys(mut self, keys: Keyring) -> Self {
        self.seal.keys = Some(keys);
        self
    }

    /// User (none: the default one) and password of the Sentinels themselves; those in the URL before the hosts are Redis's own.
    #[cfg(feature = "redis")]
    #[must_use]
    pub fn sentinel_login(mut self, user: Option<&str>, password: &str) -> Self {
        self.sentinel_login = Some(Login { user: user.map(str::to_owned), password: password.to_owned() });
        self
    }

    /// Certificates for `rediss://` and `rediss+sentinel://`.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: crate::TlsOptions) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Opens the store that a URL names. See [`connect`] for the forms.
    ///
    /// # Errors
    /// As of [`connect`].
    pub async fn connect(self, url: &str) -> Result<Arc<dyn SessionStore>, StoreError> {
        let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
        match scheme {
            "memory" if rest.is_empty() => Ok(Arc::new(crate::MemoryStore::with(self))),
            "memory" => Err(config(url, "memory: takes nothing after it", "write memory:")),
            #[cfg(feature = "sqlite")]
            "sqlite" => Ok(Arc::new(crate::SqliteStore::connect(rest, self).await?)),
            #[cfg(not(feature = "sqlite"))]
            "sqlite" => Err(config(url, "SQLite is not built in", "build with the feature sqlite")),
            #[cfg(feature = "redis")]
            _ => Ok(Arc::new(crate::RedisStore::open_with(url, self)?)),
            #[cfg(not(feature = "redis"))]
            _ => Err(config(
                url,
                "it names no store that is built in",
                "build with the feature redis, or write memory:",
            )),
        }
    }
}

pub(crate) fn config(url: &str, reason: impl Into<String>, hint: &'static str) -> StoreError {
    StoreError::Config { url: without_password(url), reason: reason.into(), hint }
}

/// A URL as it may be shown: whatever stands before the last `@` of its authority is left out.
pub(crate) fn without_password(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
    let shown = rest.rsplit_once('@').map_or_else(|| rest.to_owned(), |(_, host)| format!("***@{host}"));
    let shown = shown.split('?').next().unwrap_or_default().to_owned();
    if scheme.is_empty() { shown } else { format!("{scheme}://{shown}") }
}

/// A deadline that is "none" must not run over the clock's end.
pub(crate) const LONGEST_DEADLINE: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_never_shown() {
        assert_eq!(without_password("redis://u:p@ss@h:1/0?x=p"), "redis://***@h:1/0");
        assert_eq!(without_password("h:6379"), "h:6379");
        let error = config("redis://:secret@h", "bad", "mend it");
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}
