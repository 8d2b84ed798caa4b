//! How a connection is opened: over TCP, with TLS on top, or over a unix socket; and HTTP/1.1 on it, which is all that Consul speaks.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Uri};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::BoxBody;
use hyper::{
    client::conn::http1::{self, SendRequest},
    rt::{Read, Write},
};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tower_service::Service as _;

use crate::{Result, address::Address};

/// What a connection fails with.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What is sent: nearly always whole, and as it comes for an archive.
pub(crate) enum Body {
    Whole(Option<Bytes>),
    Stream(BoxBody<Bytes, Source>),
}

/// What a source of bytes failed with.
#[derive(Debug)]
pub(crate) struct Source(pub(crate) Cause);

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Source {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Source;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Source>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(body) => body.size_hint(),
        }
    }
}

/// What it takes to open a connection to one address.
pub(crate) struct Dial {
    way: Way,
    /// The `Host` header.
    pub(crate) host: HeaderValue,
    timeout: Duration,
}

enum Way {
    Tcp {
        connector: HttpConnector,
        uri: Uri,
    },
    #[cfg(feature = "tls")]
    Tls {
        connector: HttpConnector,
        uri: Uri,
        tls: tokio_rustls::TlsConnector,
        name: rustls::pki_types::ServerName<'static>,
    },
    #[cfg(unix)]
    Unix(std::path::PathBuf),
}

impl Dial {
    pub(crate) fn new(
        address: &Address,
        timeout: Duration,
        #[cfg(feature = "tls")] tls: &Tls,
    ) -> Result<Self> {
        let way = match address.unix() {
            #[cfg(unix)]
            Some(path) => Way::Unix(path.to_owned()),
            _ => tcp(
                address,
                timeout,
                #[cfg(feature = "tls")]
                tls,
            )?,
        };
        Ok(Self { way, host: address.host_header()?, timeout })
    }

    /// Opens a connection within the connect timeout, which a name with several addresses shares among them.
    pub(crate) async fn open(&self) -> Result<SendRequest<Body>, Cause> {
        match tokio::time::timeout(self.timeout, self.dial()).await {
            Ok(sender) => sender,
            Err(_) => {
                let text = format!("no connection within {:?}", self.timeout);
                Err(io::Error::new(io::ErrorKind::TimedOut, text).into())
            }
        }
    }

    async fn dial(&self) -> Result<SendRequest<Body>, Cause> {
        match &self.way {
            Way::Tcp { connector, uri } => speak(connector.clone().call(uri.clone()).await?).await,
            #[cfg(feature = "tls")]
            Way::Tls { connector, uri, tls, name } => {
                let tcp = connector.clone().call(uri.clone()).await?.into_inner();
                speak(TokioIo::new(tls.connect(name.clone(), tcp).await?)).await
            }
            #[cfg(unix)]
            Way::Unix(path) => speak(TokioIo::new(tokio::net::UnixStream::connect(path).await?)).await,
        }
    }
}

/// The TLS settings, read once for all addresses; `None` where none of them asks for TLS.
#[cfg(feature = "tls")]
pub(crate) type Tls = Option<std::sync::Arc<rustls::ClientConfig>>;

fn tcp(address: &Address, timeout: Duration, #[cfg(feature = "tls")] tls: &Tls) -> Result<Way> {
    let (connector, uri) = (connector(timeout), address.root());
    #[cfg(feature = "tls")]
    if let (true, Some(config)) = (address.is_https(), tls) {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = rustls::pki_types::ServerName::try_from(host).map_err(|_| {
            crate::Error::setting(
                "address",
                address.as_str(),
                "TLS needs a DNS name or an IP address as the host",
            )
        })?;
        let tls = tokio_rustls::TlsConnector::from(std::sync::Arc::clone(config));
        return Ok(Way::Tls { connector, uri, tls, name });
    }
    Ok(Way::Tcp { connector, uri })
}

fn connector(timeout: Duration) -> HttpConnector {
    let mut connector = HttpConnector::new();
    // The scheme was looked at before.
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(timeout));
    connector.set_nodelay(true);
    // A host that loses power says nothing; these notice it under a blocking query in about ten seconds.
    connector.set_keepalive(Some(Duration::from_secs(4)));
    connector.set_keepalive_interval(Some(Duration::from_secs(2)));
    connector.set_keepalive_retries(Some(3));
    // And this also ends what was sent to a host that was dead already.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    connector.set_tcp_user_timeout(Some(Duration::from_secs(10)));
    connector
}

/// HTTP on a connection, which lives in a task of its own for as long as the sender does.
async fn speak<T: Read + Write + Unpin + Send + 'static>(io: T) -> Result<SendRequest<Body>, Cause> {
    let (sender, connection) = http1::handshake(io).await?;
    tokio::spawn(async move {
        // Whoever waits for an answer is told as well.
        if let Err(error) = connection.await {
            tracing::trace!(%error, "consul connection ended");
        }
    });
    Ok(sender)
}
