//! What the gateway says where it has no answer of an endpoint: a status, a sentence, and when to come again.

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};

use super::attempt::{Failure, Outgoing};
use super::body::ResponseBody;
use super::gateway::Ticket;

/// A reply of the gateway's own.
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) why: String,
    /// Seconds after which to come again.
    pub(super) again: Option<u32>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into(), again: None }
    }
}

pub(super) fn broke_off(outgoing: &Outgoing) -> Refusal {
    if outgoing.body.too_large() {
        return Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "the body of the request is too large");
    }
    let why = "the body of the request broke off or stood still for too long";
    Refusal::new(StatusCode::REQUEST_TIMEOUT, why)
}

pub(super) fn give_up(failure: &Failure) -> Refusal {
    let bad = |why: String| Refusal::new(StatusCode::BAD_GATEWAY, why);
    match failure {
        Failure::Local(why) => {
            let why = format!("the gateway could not make a connection: {why}");
            Refusal { again: Some(1), ..Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why) }
        }
        Failure::Connect(why) => bad(format!("no endpoint could be reached: {why}")),
        Failure::Reset { why, .. } => bad(format!("the endpoint broke off before it answered: {why}")),
        Failure::Abandoned { .. } => bad("the endpoint became unreachable before it answered".to_owned()),
        Failure::Late => {
            let why = "the time for the request was up before an endpoint answered";
            Refusal::new(StatusCode::GATEWAY_TIMEOUT, why)
        }
        Failure::Timeout | Failure::Client => {
            Refusal::new(StatusCode::GATEWAY_TIMEOUT, "the endpoint did not answer in time")
        }
    }
}

/// An answer of the gateway's own: one sentence and the request id.
pub(super) fn sentence(
    refusal: &Refusal,
    id: &HeaderValue,
    body: bool,
    ticket: Ticket,
) -> Response<ResponseBody> {
    let text = format!("{} (request {})\n", refusal.why, id.to_str().unwrap_or("without id"));
    let text = if body { Bytes::from(text) } else { Bytes::new() };
    let mut response = Response::new(ResponseBody::whole(text, ticket));
    *response.status_mut() = refusal.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(again) = refusal.again {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(again));
    }
    response
}
