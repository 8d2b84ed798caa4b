//! A site that counts its views, with the tower layer.
//!
//! `cargo run -p session-store --features axum --example site`, then
//! `curl -c jar -b jar http://127.0.0.1:8080/` a few times.

use axum::Router;
use axum::routing::get;
use session_store::{CookieConfig, Session, SessionError, SessionLayer};

async fn page(session: Session) -> Result<String, SessionError> {
    // Counted by the store when the request ends: what two requests add at once is added twice.
    session.add("views", 1);
    // A handler sees what it has changed itself.
    Ok(format!("your view {}\n", session.get::<i64>("views").await?.unwrap_or_default()))
}

async fn site(store: &str) -> Result<Router, session_store::StoreError> {
    // Without TLS a cookie can't be `Secure`: for trying it, never for users.
    let layer =
        SessionLayer::new(session_store::connect(store).await?).cookie(CookieConfig::insecure_local());
    Ok(Router::new().route("/", get(page)).layer(layer))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:8080".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("http://{}", listener.local_addr()?);
    axum::serve(listener, site("memory:").await?).await?;
    Ok(())
}
