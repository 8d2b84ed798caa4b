//! Which engines a client knows, and how a call finds one that can answer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use http::Method;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::reason::Reason;
use crate::request::{ApiVersion, Request, Target, without_secrets};
use crate::transport::{Answer, Call, Limits, Wire, exchange};

/// The engines and what is known of them.
pub(crate) struct Engines {
    first: Site,
    others: Vec<Site>,
    current: AtomicUsize,
    pub(crate) wire: Wire,
    pub(crate) conflict_retries: u32,
}

/// One engine and what is known of it.
pub(crate) struct Site {
    pub(crate) endpoint: Endpoint,
    version: Mutex<Option<ApiVersion>>,
}

impl Site {
    fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, version: Mutex::new(None) }
    }

    fn version(&self) -> Option<ApiVersion> {
        *self.version.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_version(&self, version: Option<ApiVersion>) {
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = version;
    }
}

impl Engines {
    pub(crate) fn new(first: Endpoint, others: Vec<Endpoint>, wire: Wire, conflict_retries: u32) -> Self {
        let others = others.into_iter().map(Site::new).collect();
        Self { first: Site::new(first), others, current: AtomicUsize::new(0), wire, conflict_retries }
    }

    /// Finds the first engine that answers at all.
    pub(crate) async fn connect(&self) -> Result<()> {
        let mut attempts = Vec::new();
        for (index, site) in self.sites().enumerate() {
            match self.negotiate(site, self.wire.limits.end()).await {
                Ok(_) => {
                    self.current.store(index, Ordering::Relaxed);
                    return Ok(());
                }
                Err(error) => attempts.push(error),
            }
        }
        Err(combined("connect", attempts))
    }

    /// The engine that calls go to first at the moment.
    pub(crate) fn current(&self) -> &Site {
        self.site(self.current.load(Ordering::Relaxed))
    }

    /// Finds an engine that can answer. Returns its answer, which is a success, and who gave it.
    pub(crate) async fn send(&self, request: &Request) -> Result<(Answer, Endpoint)> {
        let count = self.sites().count();
        if request.target == Target::OneEngine && count > 1 {
            return Err(Error::Invalid {
                what: request.what.clone(),
                problem: format!(
                    "it acts on one machine, and this client has {count} endpoints; use a client with that machine's endpoint alone"
                ),
            });
        }
        let start = self.current.load(Ordering::Relaxed);
        let mut attempts = Vec::new();
        for index in (0..count).map(|step| (start + step) % count) {
            let site = self.site(index);
            let asked = Asked { engines: self, start, index, count };
            let result = self.ask(site, request).await;
            asked.answered();
            match result {
                Ok(answer) => {
                    self.current.store(index, Ordering::Relaxed);
                    return Ok((answer, site.endpoint.clone()));
                }
                Err(error) if moves_on(request, &error) => {
                    if count > 1 {
                        warn!(endpoint = %site.endpoint, what = request.what, %error, "endpoint cannot answer, trying the next");
                    }
                    attempts.push(error);
                }
                Err(error) => {
                    // An engine that refused for the request's own sake is a good engine.
                    if matches!(error, Error::Engine { .. }) {
                        self.current.store(index, Ordering::Relaxed);
                    } else {
                        self.current.store((index + 1) % count, Ordering::Relaxed);
                    }
                    // The endpoints before this one did nothing, so this failure alone says what is known of the outcome.
                    return Err(error);
                }
            }
        }
        Err(combined(&request.what, attempts))
    }

    pub(crate) fn sites(&self) -> impl Iterator<Item = &Site> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn site(&self, index: usize) -> &Site {
        index.checked_sub(1).and_then(|i| self.others.get(i)).unwrap_or(&self.first)
    }

    /// One request to one engine. If another release has taken its place and refuses the version that was settled with the
    /// former one, which proves that nothing was done, a version is settled anew, once. All of it shares the time of one request.
    async fn ask(&self, site: &Site, request: &Request) -> Result<Answer> {
        let limits = Limits { request: self.wire.limits.request.max(request.at_least), ..self.wire.limits };
        let end = limits.end();
        let known = site.version();
        let version = match known {
            Some(version) => version,
            None => self.negotiate(site, end).await?,
        };
        match self.ask_as(site, request, version, limits, end).await {
            Err(error) if known.is_some() && error.reason() == Some(Reason::ApiVersion) => {
                let version = self.negotiate(site, end).await?;
                self.ask_as(site, request, version, limits, end).await
            }
            result => result,
        }
    }

    /// One request to one engine, in this version; anything but a success is an error.
    async fn ask_as(
        &self,
        site: &Site,
        request: &Request,
        version: ApiVersion,
        limits: Limits,
        end: Instant,
    ) -> Result<Answer> {
        let path = request.path(version);
        let call = Call {
            endpoint: &site.endpoint,
            method: &request.method,
            path: &path,
            headers: &request.headers,
            body: request.body.clone(),
            what: &request.what,
            stream: request.stream,
            expected: request.expected,
        };
        let result = exchange(&self.wire, call, limits, end).await;
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => {
                debug!(endpoint = %site.endpoint, method = %request.method, path = request.bare_path(), %error, "no answer");
                if matches!(error, Error::Unreachable { .. }) {
                    // It may come back as another release.
                    site.set_version(None);
                }
                return Err(error);
            }
        };
        debug!(endpoint = %site.endpoint, method = %request.method, path = request.bare_path(), status = answer.status.as_u16(), "answered");
        if answer.status.is_success() {
            return Ok(answer);
        }
        let error = refusal(&request.what, &site.endpoint, &answer);
        if error.reason() == Some(Reason::ApiVersion) {
            site.set_version(None);
        }
        Err(error)
    }

    /// Asks an engine which API version it speaks, and settles on one.
    async fn negotiate(&self, site: &Site, end: Instant) -> Result<ApiVersion> {
        let what = "ask for the API version";
        let call = Call {
            endpoint: &site.endpoint,
            method: &Method::GET,
            path: "/_ping",
            headers: &[],
            body: None,
            what,
            stream: false,
            expected: 0,
        };
        let answer = exchange(&self.wire, call, self.wire.limits, end).await.map_err(|error| {
            match error {
                // The version is asked for before the request is sent, so whatever happens here did nothing.
                Error::Interrupted { endpoint, source, .. } => Error::Unreachable {
                    what: what.to_owned(),
                    endpoint,
                    source: std::io::Error::other(source),
                },
                Error::Timeout { endpoint, after, .. } => Error::Unreachable {
                    what: what.to_owned(),
                    endpoint,
                    source: std::io::Error::new(
                        std::io::ErrorKind::TimedOut,
                        format!("no answer within {after:?}"),
                    ),
                },
                other => other,
            }
        })?;
        if !answer.status.is_success() {
            return Err(refusal(what, &site.endpoint, &answer));
        }
        let header = answer.headers.get("api-version").and_then(|value| value.to_str().ok());
        let Some(theirs) = header.and_then(ApiVersion::parse) else {
            return Err(Error::Decode {
                what: what.to_owned(),
                endpoint: site.endpoint.clone(),
                problem: "the answer to /_ping names no API version".to_owned(),
            });
        };
        if theirs < ApiVersion::MIN {
            let (min, has) = (ApiVersion::MIN, theirs);
            return Err(Error::Engine {
                what: what.to_owned(),
                endpoint: site.endpoint.clone(),
                status: answer.status.as_u16(),
                reason: Reason::ApiVersion,
                message: format!(
                    "the engine speaks API {}.{} and this client needs at least {}.{}",
                    has.major, has.minor, min.major, min.minor
                ),
            });
        }
        let version = theirs.min(ApiVersion::MAX);
        site.set_version(Some(version));
        Ok(version)
    }
}

/// A call under way. Dropped without a result, because its caller gave up, it decides where the next call begins: else callers
/// with less patience than the connect timeout would begin at the same dead engine for ever.
struct Asked<'a> {
    engines: &'a Engines,
    /// Where the call began, and where it is.
    start: usize,
    index: usize,
    count: usize,
}

impl Asked<'_> {
    fn answered(self) {
        std::mem::forget(self);
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        // The first engine had all of the time that there was. A later one had what the ones before it left, which may have been
        // too little for a good one.
        let next = if self.index == self.start { (self.index + 1) % self.count } else { self.index };
        // Not if another call has settled on an engine meanwhile.
        let _ = self.engines.current.compare_exchange(self.start, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// True if the next endpoint may be asked after this failure.
fn moves_on(request: &Request, error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } => true,
        Error::Timeout { .. } | Error::Interrupted { .. } => request.repeatable,
        // Only the answer to the version question is read this early, and then nothing was sent yet.
        Error::Decode { .. } => true,
        Error::Engine { reason, .. } if request.target == Target::AnyManager => {
            reason.proves_nothing_done() || (request.repeatable && reason.is_this_manager_only())
        }
        Error::Engine { reason, .. } => matches!(reason, Reason::ApiVersion | Reason::TlsRequired),
        _ => false,
    }
}

fn refusal(what: &str, endpoint: &Endpoint, answer: &Answer) -> Error {
    #[derive(serde::Deserialize)]
    struct Message {
        message: String,
    }
    let status = answer.status.as_u16();
    let message = serde_json::from_slice::<Message>(&answer.body).map_or_else(
        |_| String::from_utf8_lossy(answer.body.get(..2000).unwrap_or(&answer.body)).into_owned(),
        |m| m.message,
    );
    let reason = Reason::of(status, &message);
    Error::Engine {
        what: what.to_owned(),
        endpoint: endpoint.clone(),
        status,
        reason,
        message: without_secrets(&message),
    }
}

/// One failure as it is, several as one.
fn combined(what: &str, mut attempts: Vec<Error>) -> Error {
    match attempts.pop() {
        Some(only) if attempts.is_empty() => only,
        last => {
            attempts.extend(last);
            Error::NoManager { what: what.to_owned(), attempts }
        }
    }
}
