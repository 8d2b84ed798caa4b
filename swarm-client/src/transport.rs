//! One exchange with one engine.
//!
//! Each exchange has a connection of its own. A kept one that died cannot tell whether it died before or after the engine
//! read a write; with a new one, "could not connect" proves that nothing was sent, which is what makes it safe to try the next
//! manager. A connection to a socket on the same host or network costs little beside a call that the managers agree on.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
#[cfg(feature = "tls")]
use crate::tls::Tls;

/// How long to wait, and how much to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) connect: Duration,
    pub(crate) request: Duration,
    pub(crate) body: usize,
}

impl Limits {
    /// When a call of one engine that begins now has to be over.
    pub(crate) fn end(self) -> Instant {
        // A limit that the clock cannot hold is none.
        let now = Instant::now();
        now.checked_add(self.connect.saturating_add(self.request)).unwrap_or(now + FOREVER)
    }

    /// What is left of them until then.
    fn until(self, end: Instant) -> Self {
        let left = end.saturating_duration_since(Instant::now());
        Self { connect: self.connect.min(left), request: self.request.min(left), ..self }
    }
}

const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// How engines are reached.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    pub(crate) limits: Limits,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Tls>,
}

impl Wire {
    #[cfg(test)]
    pub(crate) fn plain(limits: Limits) -> Self {
        Self {
            limits,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

/// What is asked of one engine.
pub(crate) struct Call<'a> {
    pub(crate) endpoint: &'a Endpoint,
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(&'static str, String)],
    pub(crate) body: Option<Bytes>,
    pub(crate) what: &'a str,
    /// True if a success is read piece by piece rather than as a whole.
    pub(crate) stream: bool,
    /// So long the answer probably is.
    pub(crate) expected: usize,
}

/// An answer: whole, or a success whose body is still to be read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) stream: Option<Pieces>,
}

/// The rest of an answer, piece by piece. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Pieces {
    body: Incoming,
    _driver: Driver,
}

impl Pieces {
    /// The next piece, or `None` at the proper end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, hyper::Error> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// Sends one request and reads the answer, within the limits and before `end`, since a call can take several exchanges.
/// [`Error::Unreachable`] means that the engine has read nothing of it.
pub(crate) async fn exchange(wire: &Wire, call: Call<'_>, limits: Limits, end: Instant) -> Result<Answer> {
    let stream = connect_within(wire, call.endpoint, limits.until(end).connect, limits.connect).await;
    let stream = stream.map_err(|source| Error::Unreachable {
        what: call.what.to_owned(),
        endpoint: call.endpoint.clone(),
        source,
    })?;
    let (what, endpoint, limits) = (call.what, call.endpoint, limits.until(end));
    match timeout(limits.request, talk(stream, call, limits)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => {
            let (what, endpoint) = (what.to_owned(), endpoint.clone());
            #[cfg(feature = "tls")]
            if let Some(source) = wire.tls.as_ref().and_then(|tls| tls.late_refusal(&*source)) {
                return Err(Error::Unreachable { what, endpoint, source });
            }
            Err(Error::Interrupted { what, endpoint, source })
        }
        Err(_) => {
            Err(Error::Timeout { what: what.to_owned(), endpoint: endpoint.clone(), after: limits.request })
        }
    }
}

/// Passes a request of another client on, over a connection of its own. The answer's body may be read for as long as it comes;
/// the connection ends with it.
#[cfg(all(feature = "bollard", feature = "tls"))]
pub(crate) async fn pass_on<B>(
    wire: &Wire,
    endpoint: &Endpoint,
    mut request: hyper::Request<B>,
) -> io::Result<hyper::Response<Incoming>>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    let limit = wire.limits.connect;
    let stream = connect_within(wire, endpoint, limit, limit).await?;
    let explained = |error: hyper::Error| {
        let refusal = wire.tls.as_ref().and_then(|tls| tls.late_refusal(&error));
        refusal.unwrap_or_else(|| io::Error::other(error))
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(explained)?;
    let driver = Driver::new(connection.with_upgrades());
    *request.uri_mut() = match request.uri().path_and_query() {
        Some(path) => path.clone().into(),
        None => http::Uri::from_static("/"),
    };
    // The engine wants some host, and does not look at it.
    request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("docker"));
    match sender.send_request(request).await {
        Ok(response) => {
            driver.detach();
            Ok(response)
        }
        Err(error) => Err(explained(driver.cause(error).await)),
    }
}

async fn connect_within(
    wire: &Wire,
    endpoint: &Endpoint,
    limit: Duration,
    told: Duration,
) -> io::Result<Box<dyn Io>> {
    timeout(limit, connect(wire, endpoint)).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {:?}", limit.max(told))))
    })
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

async fn connect(wire: &Wire, endpoint: &Endpoint) -> io::Result<Box<dyn Io>> {
    #[cfg(not(feature = "tls"))]
    let _ = wire;
    match endpoint {
        Endpoint::Tcp { host, port } => Ok(Box::new(dial(host, *port).await?)),
        #[cfg(feature = "tls")]
        Endpoint::Tls { host, port } => {
            let tls = wire.tls.as_ref().ok_or_else(|| io::Error::other("no certificates were given"))?;
            Ok(Box::new(tls.connect(host, dial(host, *port).await?).await?))
        }
        #[cfg(unix)]
        Endpoint::Unix(socket) => Ok(Box::new(tokio::net::UnixStream::connect(socket).await?)),
        #[allow(
            unreachable_patterns,
            reason = "which endpoints are left depends on the system and the features"
        )]
        _ => Err(io::Error::from(io::ErrorKind::Unsupported)),
    }
}

async fn dial(host: &str, port: u16) -> io::Result<tokio::net::TcpStream> {
    let stream = tokio::net::TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn talk(
    stream: Box<dyn Io>,
    call: Call<'_>,
    limits: Limits,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = Driver::new(connection);
    let mut request = hyper::Request::builder()
        .method(call.method)
        .uri(call.path)
        // The engine wants some host, and does not look at it.
        .header(header::HOST, "docker")
        .header(header::USER_AGENT, concat!("swarm-client/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close");
    if call.body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    for (name, value) in call.headers {
        request = request.header(*name, value);
    }
    let request = request.body(Full::new(call.body.unwrap_or_default()))?;
    let response = match sender.send_request(request).await {
        Ok(response) => response,
        Err(error) => return Err(driver.cause(error).await.into()),
    };
    let (head, body) = response.into_parts();
    let (status, headers) = (head.status, head.headers);
    if call.stream && status.is_success() {
        let stream = Some(Pieces { body, _driver: driver });
        return Ok(Answer { status, headers, body: Bytes::new(), stream });
    }
    let body = collect(body, call.expected, limits.body).await?;
    Ok(Answer { status, headers, body, stream: None })
}

async fn collect(
    mut body: Incoming,
    expected: usize,
    limit: usize,
) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    // What an engine announces is no reason to make room for it.
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(0).min(ANNOUNCED);
    let mut all = BytesMut::with_capacity(announced.max(expected).min(limit));
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            if data.len() > limit.saturating_sub(all.len()) {
                return Err(format!("the answer is longer than {limit} bytes").into());
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(all.freeze())
}

/// Up to this, an announced length is taken for true.
const ANNOUNCED: usize = 1 << 20;

/// Ends the connection when the exchange is over or given up.
#[derive(Debug)]
struct Driver(Option<JoinHandle<Option<hyper::Error>>>);

impl Driver {
    fn new(connection: impl Future<Output = hyper::Result<()>> + Send + 'static) -> Self {
        Self(Some(tokio::spawn(async move { connection.await.err() })))
    }

    /// Why a request failed: of one that was still to be sent when the connection ended, the connection alone knows.
    async fn cause(mut self, error: hyper::Error) -> hyper::Error {
        match self.0.as_mut() {
            Some(connection) if error.is_canceled() => connection.await.ok().flatten().unwrap_or(error),
            _ => error,
        }
    }

    /// Lets the connection go on by itself, until its answer is read or dropped.
    #[cfg(all(feature = "bollard", feature = "tls"))]
    fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.abort();
        }
    }
}
