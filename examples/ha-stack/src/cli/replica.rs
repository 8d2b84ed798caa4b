//! `ha-stack replica`: the demo site as a child process of the local platform.

use std::process::ExitCode;

use anyhow::{Context, Result};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::platform::local::replica::LISTENING;

/// Serves until SIGTERM, or until standard input ends because the parent is gone.
///
/// # Errors
/// When the port can't be bound or the site can't be served.
pub async fn run(settings: web::Settings) -> Result<ExitCode> {
    let listener = TcpListener::bind(&settings.listen).await;
    let listener = listener.with_context(|| format!("--listen is {}: it can't be bound", settings.listen))?;
    println!("{LISTENING}{}", listener.local_addr()?);
    let signal = super::shutdown_signal()?;
    tokio::spawn(async {
        let mut byte = [0_u8; 1];
        while let Ok(1) = tokio::io::stdin().read(&mut byte).await {}
        // Nobody is left to drain for.
        std::process::exit(0);
    });
    web::serve(settings, listener, signal).await?;
    Ok(ExitCode::SUCCESS)
}
