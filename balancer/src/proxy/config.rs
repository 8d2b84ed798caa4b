//! Settings of the gateway.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{Probes, at_most_a_day};
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
    /// Whether an `x-request-id` of the client is kept. Only behind a proxy that sets it.
    pub trust_request_id: bool,
    /// On shutdown: how long to go on serving while the front notices that we are not ready.
    pub drain_delay: Duration,
    /// On shutdown: how long to wait for requests in flight after that.
    pub drain_deadline: Duration,
    /// Active probes; `None` is none.
    pub probe: Option<Probe>,
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
            replay_limit: 64 * 1024,
            whole_response_limit: 16 * 1024,
            waiting_limit: 1024,
            waiting_timeout: Duration::from_secs(20),
            idle_connections: 128,
            idle_timeout: Duration::from_secs(15),
            max_connections: 10_000,
            max_headers: 100,
            max_head_bytes: 64 * 1024,
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
        max_connections: usize, "Sets how many client connections are served at a time.";
        trust_request_id: bool, "Sets whether an `x-request-id` of the client is kept.";
        drain_delay: Duration, "Sets how long to go on serving on shutdown.";
        drain_deadline: Duration, "Sets how long to wait for requests in flight on shutdown.";
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
