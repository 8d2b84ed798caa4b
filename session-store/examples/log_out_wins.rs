//! A save that is late does not bring a session back.
//!
//! `cargo run -p session-store --example log_out_wins`

use session_store::{Durability, Lifetime, Patch, SessionId, StoreError};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), StoreError> {
    let sessions = session_store::connect("memory:").await?;
    let id = SessionId::random();
    sessions.create(&id.key(), Lifetime::default(), Some("ada".into()), Patch::new(), None).await?;
    // A slow request has loaded the session; meanwhile the user logs out everywhere.
    let ended = sessions.revoke_all("ada", None).await?;
    let late = sessions.apply(&id.key(), Patch::new().add("views", 1).commit(), Durability::Primary).await?;
    println!("ended: {ended:?}; the late save: {:?}", late.outcome);
    assert!(late.record.is_none());
    Ok(())
}
