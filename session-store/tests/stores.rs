//! The conformance suite on the stores that need no server.
#![cfg(feature = "conformance")]

use session_store::{MemoryStore, conformance};
use std::sync::Arc;

#[tokio::test(flavor = "multi_thread")]
async fn memory_conforms() {
    conformance::run(Arc::new(MemoryStore::new())).await;
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::*;
    use session_store::{Lifetime, Patch, SessionId, SessionStore, SqliteStore};

    #[tokio::test(flavor = "multi_thread")]
    async fn sqlite_conforms() {
        let folder = tempfile::tempdir().unwrap();
        conformance::run(Arc::new(SqliteStore::open(folder.path().join("s.db")).await.unwrap())).await;
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
