//! The conformance suite on the stores that need no server.
#![cfg(feature = "conformance")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use async_trait::async_trait;
use session_store::{
    Applied, Durability, Lifetime, MemoryStore, Op, Patch, Record, SessionId, SessionStore, StoreError,
    StoreKey, conformance,
};
use std::{sync::Arc, time::Duration};

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    conformance::run(Arc::new(MemoryStore::new())).await;
}

/// A store of a third party with the required methods only: what is provided on them conforms too.
#[derive(Debug, Default)]
struct Required(MemoryStore);

#[async_trait]
impl SessionStore for Required {
    async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
        tokio::task::yield_now().await; // as one that is somewhere else
        self.0.load(key).await
    }

    async fn apply(&self, key: &StoreKey, op: Op, durability: Durability) -> Result<Applied, StoreError> {
        tokio::task::yield_now().await;
        self.0.apply(key, op, durability).await
    }

    async fn sessions_of(&self, principal: &str) -> Result<Vec<StoreKey>, StoreError> {
        self.0.sessions_of(principal).await
    }

    async fn health(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_provided_conforms() {
    conformance::run(Arc::new(Required::default())).await;
}

/// A call keeps to its own deadline, with all the steps that it takes, and so does one through the store's.
#[tokio::test(start_paused = true)]
async fn calls_keep_to_their_deadline() {
    #[derive(Debug, Default)]
    struct Slow(MemoryStore);

    #[async_trait]
    impl SessionStore for Slow {
        async fn load(&self, key: &StoreKey) -> Result<Option<Record>, StoreError> {
            tokio::time::sleep(Duration::from_secs(3)).await;
            self.0.load(key).await
        }

        async fn apply(&self, key: &StoreKey, op: Op, durability: Durability) -> Result<Applied, StoreError> {
            tokio::time::sleep(Duration::from_secs(3)).await;
            self.0.apply(key, op, durability).await
        }

        async fn sessions_of(&self, principal: &str) -> Result<Vec<StoreKey>, StoreError> {
            self.0.sessions_of(principal).await
        }

        async fn health(&self) -> Result<(), StoreError> {
            Ok(())
        }
    }
    let store: Arc<dyn SessionStore> = Arc::new(Slow::default());
    let now = session_store::lifetime::unix_now();
    let quick = store.within(Duration::from_secs(4));
    for (bound, limit) in [(&store, 8), (&quick, 4), (&store.within(Duration::from_secs(99)), 8)] {
        let first = SessionId::random().key();
        store.create(&first, Lifetime::default(), None, Patch::new(), None).await.unwrap();
        let mut last = first;
        for _ in 0..3 {
            let next = SessionId::random().key();
            store.rotate(&last, &next, Duration::from_secs(60)).await.unwrap();
            last = next;
        }
        let limit = Duration::from_secs(limit);
        assert_eq!(bound.time_limit(), limit);
        assert!(bound.load(&first).await.unwrap().is_some(), "one step of 3 s is within it");
        // Four loads, and four steps, of 3 s each.
        let begin = tokio::time::Instant::now();
        assert!(bound.find(&first, now).await.unwrap_err().is_timeout());
        assert!(begin.elapsed() <= limit + Duration::from_millis(5), "{:?}", begin.elapsed());
        let begin = tokio::time::Instant::now();
        let error = bound.delete(&first).await.unwrap_err();
        assert!(error.is_timeout() && begin.elapsed() <= limit + Duration::from_millis(5), "{error}");
    }
}

/// Encryption changes nothing of what a store promises.
#[cfg(feature = "encryption")]
#[tokio::test(flavor = "multi_thread")]
async fn encrypted_stores_conform() {
    let keys = session_store::Keyring::new(2, &[2; 32]).also(1, &[1; 32]);
    let options = session_store::StoreOptions::new().keys(keys);
    // Not the checks of thousands of commits: the cipher is slow in a build for tests, and they are the same steps again.
    let some = async |store: Arc<dyn SessionStore>| {
        conformance::ids_do_not_collide(&*store).await;
        conformance::commits_are_idempotent(&*store).await;
        conformance::changes_merge_or_conflict(&*store).await;
        conformance::deletes_win(&*store).await;
        conformance::rotations_are_atomic(&*store).await;
        conformance::users_are_indexed(&*store).await;
        conformance::sessions_are_counted(&*store).await;
        conformance::limits_hold(&*store).await;
        conformance::revocations_are_complete(&*store).await;
        conformance::revocations_win_races(store).await;
    };
    some(options.clone().connect("memory:").await.unwrap()).await;
    #[cfg(feature = "sqlite")]
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        let url = format!("sqlite:{}", path.display());
        let store = options.connect(&url).await.unwrap();
        some(store.clone()).await;
        let key = SessionId::random().key();
        let patch = Patch::new().set("note", *b"very private");
        store.create(&key, Lifetime::default(), Some("ada lovelace".into()), patch, None).await.unwrap();
        drop(store);
        let error = session_store::connect(&url).await.unwrap().load(&key).await.unwrap_err();
        assert!(error.to_string().contains("encrypted"), "{error}");
        for file in std::fs::read_dir(folder.path()).unwrap() {
            // What is gone by now holds nothing.
            let Ok(bytes) = std::fs::read(file.unwrap().path()) else { continue };
            for text in ["very private", "ada lovelace"] {
                let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
                assert!(!found, "{text} can be read from the file");
            }
        }
    }
}

/// 64 tasks add 1 to one session 1,000 times each.
async fn every_view_is_counted(store: Arc<dyn SessionStore>) {
    conformance::adds_add_up(&[store], 64, 1_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_view_is_counted_in_memory() {
    every_view_is_counted(Arc::new(MemoryStore::new())).await;
}

async fn sweeping_forgets(store: &dyn SessionStore) {
    let lifetime = Lifetime { idle: Duration::from_millis(1), absolute: Duration::from_secs(9) };
    let mut keys = Vec::new();
    for _ in 0..3 {
        let key = SessionId::random().key();
        store.create(&key, lifetime, None, Patch::new(), None).await.unwrap();
        keys.push(key);
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(store.sweep(2).await.unwrap(), 2);
    assert_eq!(store.sweep(usize::MAX).await.unwrap(), 1);
    assert_eq!(store.sweep(usize::MAX).await.unwrap(), 0);
    assert_eq!(store.load(&keys[0]).await.unwrap(), None);
}

#[tokio::test]
async fn memory_is_swept() {
    sweeping_forgets(&MemoryStore::new()).await;
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::*;
    use session_store::SqliteStore;

    #[tokio::test(flavor = "multi_thread")]
    async fn sqlite_conforms() {
        let folder = tempfile::tempdir().unwrap();
        conformance::run(Arc::new(SqliteStore::open(folder.path().join("s.db")).await.unwrap())).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_view_is_counted_in_sqlite() {
        let folder = tempfile::tempdir().unwrap();
        every_view_is_counted(Arc::new(SqliteStore::open(folder.path().join("s.db")).await.unwrap())).await;
    }

    /// Steps share a transaction; what one of them may not do is its own affair.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_step_that_is_refused_fails_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(SqliteStore::open(folder.path().join("s.db")).await.unwrap());
        let tasks = (0..200_usize).map(|number| {
            let store = store.clone();
            tokio::spawn(async move {
                let key = SessionId::random().key();
                store.create(&key, Lifetime::default(), None, Patch::new(), None).await.unwrap();
                let size = if number % 3 == 0 { session_store::codec::MAX_RECORD } else { 9 };
                let patch = Patch::new().set("x", vec![b'1'; size]).commit();
                let done = store.apply(&key, patch, Durability::Primary).await;
                assert_eq!(done.is_err_and(|error| error.is_too_large()), number % 3 == 0);
                let record = store.load(&key).await.unwrap().unwrap();
                assert_eq!(record.get("x").is_some(), number % 3 != 0);
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
    }

    #[tokio::test]
    async fn sqlite_survives_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("s.db").display());
        conformance::restarts_lose_nothing(async || session_store::connect(&url).await.unwrap()).await;
    }

    /// Two connections of one file, as two processes have: both count, and what one wrote the other finds after a restart.
    #[tokio::test(flavor = "multi_thread")]
    async fn two_openings_share_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        let (a, b) = tokio::join!(SqliteStore::open(&path), SqliteStore::open(&path));
        let (a, b) = (a.unwrap(), b.unwrap());
        let key = SessionId::random().key();
        a.create(&key, Lifetime::default(), None, Patch::new(), None).await.unwrap();
        let count = async |store: &SqliteStore| {
            for _ in 0..200 {
                let commit = Patch::new().add("views", 1).commit();
                assert!(store.apply(&key, commit, Default::default()).await.unwrap().outcome.is_done());
            }
        };
        tokio::join!(count(&a), count(&b));
        drop((a, b));
        let again = SqliteStore::open(&path).await.unwrap();
        assert_eq!(again.load(&key).await.unwrap().unwrap().counter("views"), Some(400));
        again.health().await.unwrap();
    }

    #[tokio::test]
    async fn sqlite_is_swept() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}?sync=full", folder.path().join("s.db").display());
        sweeping_forgets(&*session_store::connect(&url).await.unwrap()).await;
        let error = session_store::connect(&format!("{url}y")).await.unwrap_err();
        assert!(error.is_config() && error.to_string().contains("sync=full"), "{error}");
    }

    /// A file of the first version names users; opening it hashes them, and their sessions are found under the hash.
    #[tokio::test]
    async fn an_older_file_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        let store = SqliteStore::open(&path).await.unwrap();
        let key = SessionId::random().key();
        store.create(&key, Lifetime::default(), Some("ada".into()), Patch::new(), None).await.unwrap();
        drop(store);
        let raw = rusqlite::Connection::open(&path).unwrap();
        raw.execute_batch("UPDATE sessions SET principal = 'ada'; PRAGMA user_version = 1;").unwrap();
        for _ in 0..2 {
            let store = SqliteStore::open(&path).await.unwrap();
            assert_eq!(store.sessions_of("ada").await.unwrap(), [key]);
        }
        let name: String = raw.query_row("SELECT principal FROM sessions", [], |row| row.get(0)).unwrap();
        assert!(!name.contains("ada"), "a user's name is in the table");
    }

    #[tokio::test]
    async fn a_path_that_cannot_be_opened_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let foreign = folder.path().join("foreign.db");
        std::fs::write(&foreign, "this is no database at all, but long enough to be read as one".repeat(20))
            .unwrap();
        for path in [folder.path().join("no/such/folder.db"), foreign] {
            let error = session_store::connect(&format!("sqlite:{}", path.display())).await.unwrap_err();
            assert!(error.is_config() && error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn only_the_owner_can_read_the_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.db");
        drop(SqliteStore::open(&path).await.unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

/// A runtime that stands still between calls of `block_on` keeps no caller in another one waiting.
#[cfg(feature = "sqlite")]
#[test]
fn a_store_answers_though_the_runtime_that_opened_it_stands_still() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let opened_in = runtime();
    let store = opened_in.block_on(session_store::SqliteStore::open(folder.path().join("s.db"))).unwrap();
    let store = Arc::new(store.deadline(Duration::from_secs(5)));
    runtime().block_on(async {
        let load = |store: Arc<session_store::SqliteStore>| async move {
            store.load(&SessionId::random().key()).await
        };
        let loads = (0..64).map(|_| tokio::spawn(load(store.clone()))).collect::<Vec<_>>();
        for load in loads {
            assert!(load.await.unwrap().unwrap().is_none());
        }
    });
}

/// "No deadline" is a long one, and no sum of times runs over the clock's end.
#[cfg(all(feature = "sqlite", feature = "redis"))]
#[tokio::test]
async fn the_longest_deadline_is_one() {
    let key = SessionId::random().key();
    let folder = tempfile::tempdir().unwrap();
    let store = session_store::SqliteStore::open(folder.path().join("sessions.db")).await.unwrap();
    assert!(store.deadline(Duration::MAX).load(&key).await.unwrap().is_none());
    let options = session_store::StoreOptions::new().deadline(Duration::MAX);
    let url = format!("sqlite:{}", folder.path().join("others.db").display());
    assert!(options.connect(&url).await.unwrap().load(&key).await.unwrap().is_none());
    // Nobody listens there: the call waits for its deadline, of which this is the beginning.
    let nobody = session_store::RedisStore::open("127.0.0.1:1").unwrap().deadline(Duration::MAX);
    let waiting = tokio::time::timeout(Duration::from_millis(100), nobody.load(&key)).await;
    assert!(waiting.is_err(), "{waiting:?}");
}
