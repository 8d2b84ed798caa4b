//! Sessions that survive machines, races and log-outs.
//!
//! A session is one versioned record behind an id of 256 random bits. Every change of it is one atomic step, decided by
//! one pure function that all stores share ([`apply_op`]): concurrent requests merge key by key, a log-out beats every later save,
//! and a commit that is sent twice counts once.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), session_store::StoreError> {
//! use session_store::{Durability, Lifetime, Patch, SessionId, SessionStore};
//!
//! let sessions = session_store::connect("memory:").await?; // or redis+sentinel://a,b,c/main, or sqlite:PATH
//! let id = SessionId::random();
//! sessions.create(&id.key(), Lifetime::default(), Some("ada".into()), Patch::new(), None).await?;
//! let done = sessions.apply(&id.key(), Patch::new().add("views", 1).commit(), Durability::Primary).await?;
//! assert_eq!(done.record.and_then(|record| record.counter("views")), Some(1));
//! # Ok(()) }
//! ```
//!
//! | Module | What it holds |
//! |---|---|
//! | [`store`] | [`SessionStore`], what a load or an apply answers, [`Durability`] |
//! | [`connect`] | [`StoreOptions`], and a store by URL |
//! | [`op`], [`rule`] | [`Patch`], [`Op`], [`Outcome`]; the rule [`apply_op`] |
//! | [`record`], [`codec`] | [`Record`], and its bytes |
//! | [`id`], [`lifetime`], [`error`] | ids and their storage keys; idle and absolute lifetime; what can fail |
//! | [`memory`], `sqlite`, `redis` | the three stores |
//! | `layer` | the tower layer: the cookie, the `Session` handle, typed keys, updates, migrations, a user's own sessions |
//! | `conformance` | what every store must pass |
//! | `security` | OWASP ASVS 5.0, chapters 7 and 3.3, line by line, with the test of each |
//!
//! | Feature | Default | Adds |
//! |---|---|---|
//! | `redis` | yes | the Redis store: one server, or a master found through Sentinel |
//! | `tower` | yes | the tower layer |
//! | `sqlite` | no | the SQLite store, for several processes of one host (builds C) |
//! | `tls` | no | `rediss://` and `rediss+sentinel://`: TLS to Redis and Sentinel (builds C) |
//! | `axum` | no | `Session` as an axum extractor, `SessionError` as a response |
//! | `encryption` | no | authenticated encryption of the records, with rotation of keys |
//! | `conformance` | no | the suite for stores of third parties |
//!
//! A log-out, log-in or revocation on Redis with Sentinel waits for a replica before it is acknowledged ([`Durability`]); each call ends within the store's
//! deadline, 8 s unless [`StoreOptions::deadline`] says otherwise, or that of a single call: `store.within(time)`.
//!
//! Events: target `session_store`; fields `store`, `attempt`, `error`, `master`. Never an id, a principal or a value.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod codec;
#[cfg(feature = "conformance")]
pub mod conformance;
mod connect;
pub mod error;
pub mod id;
#[cfg(feature = "tower")]
pub mod layer;
pub mod lifetime;
pub mod memory;
pub mod op;
pub mod record;
#[cfg(feature = "redis")]
pub mod redis;
pub mod rule;
mod seal;
mod sorted;
#[cfg(feature = "tower")]
#[doc = include_str!("security.md")]
pub mod security {}
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod store;
mod within;

pub use connect::{StoreOptions, connect};
pub use error::StoreError;
pub use id::{CommitId, SessionId, StoreKey};
#[cfg(feature = "tower")]
pub use layer::{CookieConfig, Session, SessionError, SessionLayer, TypedKey};
pub use lifetime::Lifetime;
pub use memory::MemoryStore;
pub use op::{Applied, Gone, Mode, Op, Outcome, Patch};
pub use record::{Record, Value};
#[cfg(feature = "redis")]
pub use redis::RedisStore;
#[cfg(feature = "tls")]
pub use redis::TlsOptions;
pub use rule::{Step, apply_op};
#[cfg(feature = "encryption")]
pub use seal::Keyring;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;
pub use store::{Durability, Loaded, SessionStore};

#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../README.md")]
struct Readme;
