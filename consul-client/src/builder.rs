//! [`ClientBuilder`]: settings, checked before anything is opened.

use std::{sync::atomic::AtomicUsize, time::Duration};

use base64::Engine as _;
use http::{HeaderValue, header::AUTHORIZATION};
use reqwest::redirect::Policy;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

use crate::{
    Client, Error, Result,
    address::{Address, Environment},
    transport::{Lane, Transport},
};

/// Settings of a [`Client`].
#[derive(Debug)]
pub struct ClientBuilder {
    /// With the setting's name, for messages.
    addresses: Vec<(&'static str, String)>,
    token: Option<SecretString>,
    basic_auth: Option<SecretString>,
    request_timeout: Duration,
    deadline: Duration,
    connect_timeout: Duration,
    max_short: usize,
    max_blocking: usize,
    max_answer: usize,
}

impl ClientBuilder {
    pub(crate) fn from_env() -> Result<Self> {
        let env = Environment::read(|name| std::env::var(name).ok(), |path| std::fs::read_to_string(path))?;
        Ok(Self {
            addresses: env.address.map(|value| ("CONSUL_HTTP_ADDR", value)).into_iter().collect(),
            token: env.token.map(SecretString::from),
            basic_auth: env.basic_auth.map(SecretString::from),
            ..Self::default()
        })
    }

    /// Adds an agent: `host:port` or `http://host:port[/prefix]`. With several, a call whose agent cannot be reached or knows no
    /// leader goes to the next one, and the calls after it start there; so they do after an agent that gave no answer, also within
    /// the caller's own time limit, and after one that a watch found cut off from the leader.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(("address", address.into()));
        self
    }

    /// The ACL token, sent as a header.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(SecretString::from(token.into()));
        self
    }

    /// The limit of one attempt (10 s: more than the 7 s that a server holds a call while it looks for a leader).
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// The limit of a call with all its repetitions (20 s: an election at Consul's default settings takes up to 18 s).
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The limit of opening a connection (2 s: agents are near).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How many connections for short calls and for blocking ones (90 and 60: together well below the server's 200 per address).
    /// Calls beyond that queue, first come first served. Each active watch takes one blocking connection.
    pub fn max_connections(mut self, short: usize, blocking: usize) -> Self {
        (self.max_short, self.max_blocking) = (short, blocking);
        self
    }

    /// The largest answer that is read (32 MiB).
    pub fn max_answer_bytes(mut self, bytes: usize) -> Self {
        self.max_answer = bytes;
        self
    }

    /// Checks the settings. Opens no connection.
    ///
    /// # Errors
    /// [`Error::Setting`] with the field, the value and the rule.
    pub fn build(self) -> Result<Client> {
        for (name, value) in [
            ("request_timeout", self.request_timeout),
            ("deadline", self.deadline),
            ("connect_timeout", self.connect_timeout),
        ] {
            if value.is_zero() {
                return Err(Error::setting(name, "0", "must be more than zero"));
            }
        }
        let total = self.max_short.saturating_add(self.max_blocking);
        if self.max_short == 0 || self.max_blocking == 0 || total > MAX_CONNECTIONS {
            let value = format!("{} + {}", self.max_short, self.max_blocking);
            let rule = format!(
                "each at least 1, together at most {MAX_CONNECTIONS}: a server closes what exceeds 200"
            );
            return Err(Error::setting("max_connections", &value, rule));
        }
        if self.max_answer == 0 {
            return Err(Error::setting("max_answer_bytes", "0", "must be more than zero"));
        }
        let mut addresses = Vec::new();
        for (name, value) in &self.addresses {
            addresses.push(Address::parse(name, value)?);
        }
        if addresses.is_empty() {
            addresses.push(Address::default());
        }
        let transport = Transport {
            addresses,
            current: AtomicUsize::new(0),
            short: self.lane(self.max_short)?,
            blocking: self.lane(self.max_blocking)?,
            auth: self.auth()?,
            request_timeout: self.request_timeout,
            deadline: self.deadline,
            max_answer: self.max_answer,
        };
        Ok(Client::new(transport))
    }

    fn lane(&self, size: usize) -> Result<Lane> {
        let http = reqwest::Client::builder()
            // Following a redirect would write another key than the one asked for.
            .redirect(Policy::none())
            // An agent is reached directly; a proxy from the environment would see the token.
            .no_proxy()
            // Repeating is decided in one place, by class of error.
            .retry(reqwest::retry::never())
            .connect_timeout(self.connect_timeout)
            .pool_max_idle_per_host(size)
            // Longer than any gap between polls, shorter than a forgotten connection.
            .pool_idle_timeout(Duration::from_secs(90))
            // A host that loses power says nothing; these notice it under a blocking query in about ten seconds.
            .tcp_keepalive(Duration::from_secs(4))
            .tcp_keepalive_interval(Duration::from_secs(2))
            .tcp_keepalive_retries(3)
            // The HTTP library's own limit of 30 s would overrule the three above, and it also ends what was sent to a
            // host that was dead already.
            .tcp_user_timeout(Duration::from_secs(10))
            .build()
            .map_err(|error| Error::setting("http client", "", format!("cannot be built: {error}")))?;
        Ok(Lane { http, slots: Semaphore::new(size), size })
    }

    fn auth(&self) -> Result<Vec<(http::HeaderName, HeaderValue)>> {
        let mut headers = Vec::new();
        let sensitive = |name: &str, text: &str| {
            let mut value = HeaderValue::from_str(text).map_err(|_| {
                Error::setting(name, "<hidden>", "contains a character that a header cannot carry")
            })?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        };
        if let Some(token) =
            self.token.as_ref().map(|token| token.expose_secret()).filter(|token| !token.is_empty())
        {
            headers.push((http::HeaderName::from_static("x-consul-token"), sensitive("token", token)?));
        }
        if let Some(pair) = &self.basic_auth {
            let pair = pair.expose_secret();
            let pair = if pair.contains(':') { pair.to_owned() } else { format!("{pair}:") };
            let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
            headers.push((AUTHORIZATION, sensitive("CONSUL_HTTP_AUTH", &format!("Basic {encoded}"))?));
        }
        Ok(headers)
    }
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            token: None,
            basic_auth: None,
            request_timeout: Duration::from_secs(10),
            deadline: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(2),
            max_short: 90,
            max_blocking: 60,
            max_answer: 32 * 1024 * 1024,
        }
    }
}

/// A server allows 200 per address; the rest is for other clients of the same host and for connections that are closing.
const MAX_CONNECTIONS: usize = 190;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_token() {
        let builder = Client::builder().token("hunter2");
        assert!(!format!("{builder:?}").contains("hunter2"));
        let client = builder.build().unwrap();
        assert!(!format!("{client:?}").contains("hunter2"));
        let error = Client::builder().token("hunter\n2").build().unwrap_err();
        assert!(!format!("{error:?}").contains("hunter"));
    }

    #[test]
    fn wrong_settings_name_the_field() {
        let message = |builder: ClientBuilder| builder.build().unwrap_err().to_string();
        assert!(message(Client::builder().request_timeout(Duration::ZERO)).contains("request_timeout"));
        assert!(message(Client::builder().max_connections(100, 100)).contains("100 + 100"));
        assert!(message(Client::builder().address("https://x:1")).contains("TLS"));
    }
}
