//! A session from its beginning to its end, on any store.
//!
//! `cargo run -p session-store --example first_session`

use session_store::{Durability, Lifetime, Patch, SessionId, StoreError};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), StoreError> {
    // redis://HOST:PORT, redis+sentinel://A,B,C/NAME, sqlite:PATH
    let sessions = session_store::connect("memory:").await?;
    let id = SessionId::random();
    sessions.create(&id.key(), Lifetime::default(), Some("ada".into()), Patch::new(), None).await?;
    for _ in 0..3 {
        sessions.apply(&id.key(), Patch::new().add("views", 1).commit(), Durability::Primary).await?;
    }
    let seen = sessions.load(&id.key()).await?;
    println!("{seen:?}");
    println!("{} sessions of ada", sessions.sessions_of("ada").await?.len());
    Ok(())
}
