//! Active probes: GET on a connection of their own, so that what idles in the pool tells no lies.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{self, HeaderValue};
use http::{Request, Uri};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::body::RequestBody;
use super::config::Probe;
use super::gateway::Inner;
use super::upstream::{Speech, Upstream, is_ours};
use crate::endpoint::EndpointId;
use crate::pool::ProbeOutcome;

/// Starts the probes that are due.
pub(crate) fn start_due(inner: &Arc<Inner>, probes: &mut JoinSet<()>) {
    while probes.try_join_next().is_some() {}
    let Some(probe) = &inner.config.probe else { return };
    for (id, addr) in inner.pool.probes_due(inner.now()) {
        let inner = Arc::clone(inner);
        let probe = probe.clone();
        probes.spawn(async move {
            match ask(addr, &probe, inner.upstreams.speech()).await {
                Ok(outcome) => {
                    tracing::trace!(target: "balancer", endpoint = %id, ?outcome, "probed");
                    report(&inner, &id, outcome);
                }
                // A gateway that lacks something learns nothing; the endpoints stay what they are.
                Err(error) => tracing::warn!(target: "balancer", endpoint = %id, %error, "not probed"),
            }
        });
    }
}

fn report(inner: &Inner, id: &EndpointId, outcome: ProbeOutcome) {
    inner.pool.probe_result(id, outcome, inner.now());
    inner.follow();
}

/// What the probe found.
///
/// # Errors
/// The reason, when it could not be made at all for want of something on this side.
async fn ask(addr: SocketAddr, probe: &Probe, speech: &Speech) -> io::Result<ProbeOutcome> {
    let within = probe.rules.timeout;
    match timeout(within, status(addr, &probe.path, within, speech)).await {
        Ok(Ok(status)) => Ok(ProbeOutcome::from_status(status)),
        Ok(Err(error)) if is_ours(&error) => Err(error),
        Ok(Err(_)) => Ok(ProbeOutcome::Failed),
        Err(_) => Ok(ProbeOutcome::Timeout),
    }
}

async fn status(addr: SocketAddr, path: &str, within: Duration, speech: &Speech) -> io::Result<u16> {
    // Ending it is left to the timeout around, so that slow is told from refused.
    let mut connection = Upstream::dial(addr, within * 2, speech).await?;
    let mut request = Request::new(RequestBody::empty());
    *request.uri_mut() = path.parse::<Uri>().map_err(io::Error::other)?;
    let host = HeaderValue::from_str(&addr.to_string()).map_err(io::Error::other)?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, host);
    headers.insert(header::USER_AGENT, HeaderValue::from_static("balancer-probe"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let response = connection.send(request).await.map_err(|error| io::Error::other(error.into_error()))?;
    Ok(response.status().as_u16())
}
