//! How the session store is.

use std::time::Duration;

use session_store::StoreError;

/// Whether the store at this URL answers and takes writes, in these words, with about how many sessions it holds where it says so in time: a count is
/// worth no alarm.
///
/// # Errors
/// Why it does not.
pub(super) async fn seen(url: &str, words: &str) -> Result<String, StoreError> {
    let store = session_store::connect(url).await?;
    store.health().await?;
    let count = store.within(COUNTED).about_how_many().await.ok().flatten();
    Ok(count.map_or_else(|| words.to_owned(), |count| format!("{words}; about {count} sessions")))
}

/// The whole look has a second.
const COUNTED: Duration = Duration::from_millis(200);
