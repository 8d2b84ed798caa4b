//! Serving, and stopping without losing a request.

use crate::{metrics, pages::app, settings::Settings, state::AppState};
use anyhow::Context;
use axum::serve::ListenerExt;
use std::{future::Future, io, time::Duration};
use tokio::{net::TcpListener, signal, sync::oneshot, task::JoinSet};

/// Binds, serves until SIGTERM or Ctrl-C, drains and returns.
///
/// # Errors
/// One line that names the setting, its value and what to do.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let listener = TcpListener::bind(&settings.listen).await.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => "another program has it; stop that one or choose another port",
            io::ErrorKind::PermissionDenied => "ports below 1024 need root; choose a higher one",
            _ => "give an address of this machine as IP:PORT",
        };
        anyhow::anyhow!("cannot listen on --listen {}: {error}; {hint}", settings.listen)
    })?;
    let stop = stop_signal().context("cannot wait for SIGTERM")?;
    serve(settings, listener, stop).await
}

/// Serves on a listener until `shutdown`; then is not ready for the drain period, serving on, stops accepting, and finishes what is in flight.
///
/// A store that cannot be reached is no error: the instance is not ready until it can.
///
/// # Errors
/// A session URL that cannot work, or an address for figures that is taken, in one line.
pub async fn serve(
    settings: Settings,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let url = settings.session_url();
    let url = url.with_context(|| format!("--session-file is {:?}", settings.session_file))?;
    let store = session_store::connect(&url).await.context("bad --session")?;
    let figures = match settings.metrics {
        Some(address) => Some(metrics::bind(address).await?),
        None => None,
    };
    let drain = Duration::from_secs(settings.drain);
    let address = listener.local_addr().context("the listener has no address")?;
    tracing::info!(%address, instance = settings.instance, host = settings.host, ?store, "serving");
    if !store.is_shared() && !address.ip().is_loopback() {
        tracing::warn!(
            ?store,
            "no other host shares these sessions: a user whose next request goes to another one is not logged in there; name a Redis by --session"
        );
    }
    let state = AppState::new(settings, store);
    // Ends with this function.
    let mut beside = JoinSet::new();
    if let Some(listener) = figures {
        beside.spawn(metrics::serve(listener, state.clone()));
    }

    tokio::spawn({
        let state = state.clone();
        async move { state.readiness().await } // says in the log whether the store answers
    });
    let (stopped, accepting_ends) = oneshot::channel();
    let stopping = {
        let state = state.clone();
        async move {
            shutdown.await;
            state.drain();
            tracing::info!(?drain, "draining: not ready, serving on");
            tokio::time::sleep(drain).await;
            let _ = stopped.send(());
        }
    };
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true); // an answer is one small write; without this it may wait for an acknowledgement
    });
    let serving = axum::serve(listener, app(state)).with_graceful_shutdown(stopping);
    let too_long = async {
        match accepting_ends.await {
            Ok(()) => tokio::time::sleep(FINISH).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        done = serving => done.context("serving failed")?,
        () = too_long => tracing::warn!(deadline = ?FINISH, "requests in flight were not finished in time"),
    }
    tracing::info!("stopped");
    Ok(())
}

#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut term = signal::unix::signal(signal::unix::SignalKind::terminate())?;
    let mut interrupt = signal::unix::signal(signal::unix::SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    Ok(async {
        if signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    })
}

/// The longest request is `/work` with 10 s, or one that waits for its store for 8 s.
const FINISH: Duration = Duration::from_secs(12);
