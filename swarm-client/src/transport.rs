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
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::endpoint::Endpoint;
use crate::error::{Error, Result};

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

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Sends one request and reads the whole answer, within the limits and before `end`, since a call can take several exchanges.
/// [`Error::Unreachable`] means that nothing was sent.
pub(crate) async fn exchange(
    endpoint: &Endpoint,
    method: &Method,
    path: &str,
    body: Option<Bytes>,
    what: &str,
    limits: Limits,
    end: Instant,
) -> Result<Answer> {
    let limits = limits.until(end);
    let unreachable =
        |source: io::Error| Error::Unreachable { what: what.to_owned(), endpoint: endpoint.clone(), source };
    match endpoint {
        Endpoint::Tcp { host, port } => {
            let stream = connected(tokio::net::TcpStream::connect((host.as_str(), *port)), limits)
                .await
                .map_err(unreachable)?;
            stream.set_nodelay(true).map_err(unreachable)?;
            talk(stream, endpoint, method, path, body, what, limits.until(end)).await
        }
        #[cfg(unix)]
        Endpoint::Unix(socket) => {
            let stream =
                connected(tokio::net::UnixStream::connect(socket), limits).await.map_err(unreachable)?;
            talk(stream, endpoint, method, path, body, what, limits.until(end)).await
        }
        #[cfg(not(unix))]
        Endpoint::Unix(_) => Err(unreachable(io::Error::from(io::ErrorKind::Unsupported))),
    }
}

async fn connected<S>(connecting: impl Future<Output = io::Result<S>>, limits: Limits) -> io::Result<S> {
    timeout(limits.connect, connecting).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {:?}", limits.connect)))
    })
}

async fn talk<S>(
    stream: S,
    endpoint: &Endpoint,
    method: &Method,
    path: &str,
    body: Option<Bytes>,
    what: &str,
    limits: Limits,
) -> Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let talking = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let _driver = Driver(tokio::spawn(async move {
            // Its error reaches the caller through the response.
            let _ = connection.await;
        }));
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(path)
            // The engine wants some host, and does not look at it.
            .header(header::HOST, "docker")
            .header(header::USER_AGENT, concat!("swarm-client/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let response = sender.send_request(request.body(Full::new(body.unwrap_or_default()))?).await?;
        let (head, body) = response.into_parts();
        let body = collect(body, limits.body).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Answer {
            status: head.status,
            headers: head.headers,
            body,
        })
    };
    match timeout(limits.request, talking).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => {
            Err(Error::Interrupted { what: what.to_owned(), endpoint: endpoint.clone(), source })
        }
        Err(_) => {
            Err(Error::Timeout { what: what.to_owned(), endpoint: endpoint.clone(), after: limits.request })
        }
    }
}

async fn collect(
    mut body: Incoming,
    limit: usize,
) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    let mut all = BytesMut::new();
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

/// Ends the connection when the exchange is over or given up.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}
