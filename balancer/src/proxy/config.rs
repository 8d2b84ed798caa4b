//! Settings of the gateway.

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[cfg(feature = "tls")]
use super::endpoint_tls::EndpointTls;
use super::hedge::Hedge;
use super::sticky::Sticky;
use super::trace::{Trace, TraceContext};
use super::trust::Cidr;
use crate::config::{Probes, at_most_a_day, share};
use crate::error::ConfigError;

/// Settings of a [`Gateway`](super::Gateway).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Config {
    /// How long a connection to an endpoint may take. Hosts of one site answer in a few milliseconds; a kernel
    /// repeats a lost packet only after a second, so that waiting longer than this buys nothing before that.
    pub connect_timeout: Duration,
    /// How long one attempt may wait for the head of the answer, after the request's last body byte. The time in which
    /// it is the client that pauses does not count; see [`body_idle_timeout`](Self::body_idle_timeout).
    pub response_timeout: Duration,
    /// How long all attempts and waits together may take until the head of the answer.
    pub total_timeout: Duration,
    /// The longest pause inside of a body, the request's or the answer's, and the longest that a client may leave
    /// its answer unread.
    pub body_idle_timeout: Duration,
    /// How long a client may take for the head of a request, the time between two requests included.
    pub header_read_timeout: Duration,
    /// The most attempts that reach an endpoint; failed connections don't count. A request that kills
    /// whoever works on it must not kill everybody. Attempts on the same endpoints are spread over time.
    pub max_attempts: u32,
    /// Retries as a share of requests, 0 to 10; see [`RetryBudget`](crate::RetryBudget).
    pub retry_share: f64,
    /// Retries a second whatever the traffic is.
    pub retry_per_second: u32,
    /// Answers with these statuses are not passed on while another endpoint can be asked: for requests that may be repeated
    /// (GET and the like) alone, within [`max_attempts`](Self::max_attempts) and the retry budget. The last answer is passed
    /// on as it is. None by default: an error that every endpoint gives would cost as many attempts as there are. HAProxy's
    /// `retry-on 500` and Envoy's `retriable-status-codes`.
    pub retry_statuses: Vec<u16>,
    /// Whether a request that takes longer than nearly all others is sent to a second endpoint as well; `None`, the default,
    /// is never: it pays where endpoints stall now and then, and not where all are slow for the same reason.
    pub hedge: Option<Hedge>,
    /// Request bodies up to this many bytes are kept for a retry, and read while a request waits for an endpoint.
    pub replay_limit: usize,
    /// Answers with a known length up to this many bytes are read whole before their head is passed on, so that an
    /// endpoint that dies in the middle of one costs a retry and not a cut answer.
    pub whole_response_limit: u64,
    /// Requests that may wait for an endpoint at a time.
    pub waiting_limit: usize,
    /// How long a request may wait for an endpoint.
    pub waiting_timeout: Duration,
    /// Idle connections kept per endpoint.
    pub idle_connections: usize,
    /// How long an idle connection is kept; shorter than the endpoints keep theirs.
    pub idle_timeout: Duration,
    /// Client connections served at a time; more wait in the listener's queue.
    pub max_connections: usize,
    /// The most header lines of a request.
    pub max_headers: usize,
    /// The most bytes of a request's head, at least 8192.
    pub max_head_bytes: usize,
    /// The most bytes of a request's body.
    pub max_body_bytes: u64,
    /// Client connections of one address served at a time (of one /64 with IPv6); 0 is no such limit.
    pub max_connections_per_client: usize,
    /// The most requests at once on one HTTP/2 connection.
    pub max_streams: u32,
    /// Protocols that a client may switch to. WebSocket by default.
    pub upgrades: Vec<String>,
    /// How long a switched connection may carry nothing.
    pub tunnel_idle_timeout: Duration,
    /// How endpoints are spoken to.
    pub protocol: Protocol,
    /// TLS to endpoints; `None` is in clear. Probes speak it too. Not part of the serialized form: it may hold a key.
    #[cfg(feature = "tls")]
    #[serde(skip)]
    pub endpoint_tls: Option<EndpointTls>,
    /// Whose forwarding headers are believed: proxies in front of this one. Nobody's by default.
    pub trusted: Vec<Cidr>,
    /// Which forwarding headers endpoints get.
    pub forwarding: Forwarding,
    /// The name of this gateway in `Via`; `None` leaves the header as it is.
    pub via: Option<String>,
    /// Keeps clients on their endpoints by cookie. Not part of the serialized form: it holds a key.
    #[serde(skip)]
    pub sticky: Option<Sticky>,
    /// What the hashing policies place a request by.
    pub hash_by: Option<HashBy>,
    /// A header by which trusted peers say how much a request matters: `low` or `high`.
    pub priority_header: Option<String>,
    /// Ties the spans of requests to the traces before and behind this gateway. Not part of the serialized form.
    #[serde(skip)]
    pub trace: Option<Trace>,
    /// Which requests are told of in the access log; `None` is none.
    pub access_log: Option<AccessLog>,
    /// Whether an `x-request-id` of the client is kept. Only behind a proxy that sets it.
    pub trust_request_id: bool,
    /// On shutdown: how long to go on serving while the front notices that we are not ready.
    pub drain_delay: Duration,
    /// On shutdown: how long to wait for requests in flight after that.
    pub drain_deadline: Duration,
    /// Active probes; `None` is none.
    pub probe: Option<Probe>,
}

/// How endpoints are spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Protocol {
    /// HTTP/1.1, a pool of connections per endpoint.
    #[default]
    Http1,
    /// HTTP/2 without TLS, by prior knowledge; one connection per endpoint. What gRPC needs.
    Http2,
}

/// Which forwarding headers endpoints get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Forwarding {
    /// `X-Forwarded-For`, `-Proto`, `-Host`.
    #[default]
    XForwarded,
    /// `Forwarded`.
    Rfc7239,
    /// Both of them.
    Both,
}

/// What the hashing policies place a request by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HashBy {
    /// The client's address.
    Client,
    /// The value of a header; without it the request is spread.
    Header(String),
    /// Path and query: for caches.
    Path,
}

/// Which requests are told of, as `tracing` events of target `balancer::access` at level info.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct AccessLog {
    /// The share of good and quick requests that are told of, 0 to 1.
    pub sample: f64,
    /// Requests that took as long as this are always told of, and so are those answered with 5xx.
    pub slow: Duration,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self { sample: 1.0, slow: Duration::from_secs(1) }
    }
}

impl AccessLog {
    /// With a share of the good and quick requests.
    pub fn sampled(sample: f64) -> Self {
        Self { sample, ..Self::default() }
    }
}

/// Active probes by `GET`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Probe {
    /// The path to ask for. 2xx and 3xx pass, 503 means "no new requests", all else is a failure.
    pub path: String,
    /// When, and what follows.
    pub rules: Probes,
}

impl Default for Probe {
    fn default() -> Self {
        Self { path: "/healthz".to_owned(), rules: Probes::default() }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_millis(300),
            response_timeout: Duration::from_secs(10),
            total_timeout: Duration::from_secs(30),
            body_idle_timeout: Duration::from_secs(60),
            header_read_timeout: Duration::from_secs(10),
            max_attempts: 4,
            retry_share: 0.2,
            retry_per_second: 10,
            retry_statuses: Vec::new(),
            hedge: None,
            trace: None,
            replay_limit: 64 * 1024,
            whole_response_limit: 16 * 1024,
            waiting_limit: 1024,
            waiting_timeout: Duration::from_secs(20),
            idle_connections: 128,
            idle_timeout: Duration::from_secs(15),
            max_connections: 10_000,
            max_headers: 100,
            max_head_bytes: 64 * 1024,
            max_body_bytes: 1 << 30,
            max_connections_per_client: 0,
            max_streams: 100,
            upgrades: vec!["websocket".to_owned()],
            tunnel_idle_timeout: Duration::from_secs(300),
            protocol: Protocol::Http1,
            #[cfg(feature = "tls")]
            endpoint_tls: None,
            trusted: Vec::new(),
            forwarding: Forwarding::XForwarded,
            via: None,
            sticky: None,
            hash_by: None,
            priority_header: None,
            access_log: None,
            trust_request_id: false,
            drain_delay: Duration::from_secs(2),
            drain_deadline: Duration::from_secs(20),
            probe: None,
        }
    }
}

macro_rules! setters {
    ($($field:ident: $type:ty, $doc:literal;)*) => {$(
        #[doc = $doc]
        #[must_use]
        pub fn $field(mut self, $field: $type) -> Self {
            self.$field = $field;
            self
        }
    )*};
}

impl Config {
    setters! {
        connect_timeout: Duration, "Sets how long a connection may take.";
        response_timeout: Duration, "Sets how long one attempt may wait for the head of the answer.";
        total_timeout: Duration, "Sets how long all attempts together may take.";
        body_idle_timeout: Duration, "Sets the longest pause inside of a body.";
        header_read_timeout: Duration, "Sets how long a client may take for the head of a request.";
        max_attempts: u32, "Sets the most attempts that reach an endpoint.";
        replay_limit: usize, "Sets up to how many bytes a request's body is kept for a retry.";
        whole_response_limit: u64, "Sets up to how many bytes an answer is read whole before it is passed on.";
        idle_connections: usize, "Sets how many idle connections are kept per endpoint.";
        idle_timeout: Duration, "Sets how long an idle connection is kept.";
        max_headers: usize, "Sets the most header lines of a request.";
        max_head_bytes: usize, "Sets the most bytes of a request's head.";
        waiting_limit: usize, "Sets how many requests may wait for an endpoint.";
        waiting_timeout: Duration, "Sets how long a request may wait for an endpoint.";
        max_connections: usize, "Sets how many client connections are served at a time; what waits at a listener that closes for a drain is served beyond it.";
        max_body_bytes: u64, "Sets the most bytes of a request's body.";
        max_connections_per_client: usize, "Sets how many connections one address may have; 0 is no limit.";
        max_streams: u32, "Sets how many requests at once one HTTP/2 connection may make.";
        tunnel_idle_timeout: Duration, "Sets how long a switched connection may carry nothing.";
        protocol: Protocol, "Sets how endpoints are spoken to.";
        forwarding: Forwarding, "Sets which forwarding headers endpoints get.";
        trust_request_id: bool, "Sets whether an `x-request-id` of the client is kept.";
        drain_delay: Duration, "Sets how long to go on serving on shutdown.";
        drain_deadline: Duration, "Sets how long to wait for requests in flight on shutdown.";
    }

    /// Sets the protocols that a client may switch to.
    #[must_use]
    pub fn upgrades(mut self, protocols: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.upgrades = protocols.into_iter().map(Into::into).collect();
        self
    }

    /// Sets whose forwarding headers are believed.
    #[must_use]
    pub fn trusted(mut self, ranges: impl IntoIterator<Item = Cidr>) -> Self {
        self.trusted = ranges.into_iter().collect();
        self
    }

    /// Sets the name in `Via`.
    #[must_use]
    pub fn via(mut self, name: impl Into<String>) -> Self {
        self.via = Some(name.into());
        self
    }

    /// Keeps clients on their endpoints by cookie.
    #[must_use]
    pub fn sticky(mut self, sticky: Sticky) -> Self {
        self.sticky = Some(sticky);
        self
    }

    /// Sets what the hashing policies place a request by.
    #[must_use]
    pub fn hash_by(mut self, by: HashBy) -> Self {
        self.hash_by = Some(by);
        self
    }

    /// Sets the header by which trusted peers say how much a request matters.
    #[must_use]
    pub fn priority_header(mut self, name: impl Into<String>) -> Self {
        self.priority_header = Some(name.into());
        self
    }

    /// Switches the access log on.
    #[must_use]
    pub fn access_log(mut self, log: AccessLog) -> Self {
        self.access_log = Some(log);
        self
    }

    /// Switches active probes of this path on, with the usual timing.
    #[must_use]
    pub fn probe(self, path: impl Into<String>) -> Self {
        self.probe_with(path, Probes::default())
    }

    /// Switches active probes of this path on.
    #[must_use]
    pub fn probe_with(mut self, path: impl Into<String>, rules: Probes) -> Self {
        self.probe = Some(Probe { path: path.into(), rules });
        self
    }

    /// Sets the retry budget: a share of the requests, and a constant rate.
    #[must_use]
    pub fn retries(mut self, share: f64, per_second: u32) -> Self {
        self.retry_share = share;
        self.retry_per_second = per_second;
        self
    }

    /// Sets with which statuses an answer is not passed on while another endpoint can be asked.
    #[must_use]
    pub fn retry_statuses(mut self, statuses: impl IntoIterator<Item = u16>) -> Self {
        self.retry_statuses = statuses.into_iter().collect();
        self
    }

    /// Speaks TLS to endpoints.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn endpoint_tls(mut self, tls: EndpointTls) -> Self {
        self.endpoint_tls = Some(tls);
        self
    }

    /// Switches hedged requests on.
    #[must_use]
    pub fn hedge(mut self, rules: Hedge) -> Self {
        self.hedge = Some(rules);
        self
    }

    /// Ties the spans of requests to the traces before and behind this gateway.
    #[must_use]
    pub fn trace(mut self, context: impl TraceContext + 'static) -> Self {
        self.trace = Some(Trace::new(context));
        self
    }

    /// Checks every value. No duration may be longer than a day.
    ///
    /// # Errors
    /// Names the field, its value and the rule.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (field, value) in [
            ("connect_timeout", self.connect_timeout),
            ("response_timeout", self.response_timeout),
            ("total_timeout", self.total_timeout),
            ("body_idle_timeout", self.body_idle_timeout),
            ("header_read_timeout", self.header_read_timeout),
            ("idle_timeout", self.idle_timeout),
            ("tunnel_idle_timeout", self.tunnel_idle_timeout),
        ] {
            if value.is_zero() {
                return Err(ConfigError::invalid(field, format_args!("{value:?}"), "above zero"));
            }
            at_most_a_day(field, value)?;
        }
        for (field, value) in [
            ("waiting_timeout", self.waiting_timeout),
            ("drain_delay", self.drain_delay),
            ("drain_deadline", self.drain_deadline),
        ] {
            at_most_a_day(field, value)?;
        }
        for (field, value, least) in [
            ("max_attempts", self.max_attempts as usize, 1),
            ("max_connections", self.max_connections, 1),
            ("max_headers", self.max_headers, 1),
            ("max_head_bytes", self.max_head_bytes, 8192),
        ] {
            if value < least {
                let rule = if least == 1 { "1 or more" } else { "8192 or more" };
                return Err(ConfigError::invalid(field, value, rule));
            }
        }
        if !(0.0..=10.0).contains(&self.retry_share) {
            return Err(ConfigError::invalid("retry_share", self.retry_share, "from 0 to 10"));
        }
        if let Some(status) = self.retry_statuses.iter().find(|status| !(400..=599).contains(*status)) {
            return Err(ConfigError::invalid("retry_statuses", status, "statuses from 400 to 599"));
        }
        if self.max_streams == 0 {
            return Err(ConfigError::invalid("max_streams", 0, "1 or more"));
        }
        if let Some(name) = &self.via
            && !is_token(name)
        {
            return Err(ConfigError::invalid(
                "via",
                format_args!("{name:?}"),
                "a token: no blanks, no commas",
            ));
        }
        if let Some(problem) = self.sticky.as_ref().and_then(Sticky::problem) {
            return Err(ConfigError::invalid("sticky", "[secret]", problem));
        }
        let by = match &self.hash_by {
            Some(HashBy::Header(name)) => Some(("hash_by", name)),
            _ => None,
        };
        for (field, name) in
            by.into_iter().chain(self.priority_header.as_ref().map(|name| ("priority_header", name)))
        {
            if http::HeaderName::try_from(name).is_err() {
                return Err(ConfigError::invalid(field, format_args!("{name:?}"), "the name of a header"));
            }
        }
        for name in &self.upgrades {
            if !is_token(name) || name.eq_ignore_ascii_case("h2c") {
                let rule = "the name of a protocol other than h2c";
                return Err(ConfigError::invalid("upgrades", format_args!("{name:?}"), rule));
            }
        }
        if let Some(hedge) = &self.hedge {
            share("hedge.share", hedge.share)?;
            at_most_a_day("hedge.at_least", hedge.at_least)?;
        }
        if let Some(log) = &self.access_log {
            share("access_log.sample", log.sample)?;
            at_most_a_day("access_log.slow", log.slow)?;
        }
        if let Some(probe) = &self.probe {
            if !probe.path.starts_with('/') || probe.path.parse::<http::uri::PathAndQuery>().is_err() {
                let rule = "a path and query that starts with /";
                return Err(ConfigError::invalid("probe.path", format_args!("{:?}", probe.path), rule));
            }
            probe.rules.validate()?;
        }
        Ok(())
    }
}

fn is_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}
