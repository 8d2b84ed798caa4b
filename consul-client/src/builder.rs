//! [`ClientBuilder`]: settings, checked before anything is opened.

use std::{
    future::Future,
    path::PathBuf,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use base64::Engine as _;
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;

use crate::{
    Client, Consistency, Error, Result,
    address::Address,
    dial::Dial,
    environment::Environment,
    pool::Pool,
    scope::Scope,
    token::{TokenSource, header},
    transport::{Lane, Transport},
};
#[cfg(feature = "tls")]
use crate::{Tls, dial};

/// Settings of a [`Client`].
#[derive(Debug)]
pub struct ClientBuilder {
    /// With the setting's name, for messages.
    addresses: Vec<(&'static str, String)>,
    /// Whether an address without a scheme means TLS.
    secure: bool,
    #[cfg(feature = "tls")]
    tls: Tls,
    token: Token,
    basic_auth: Option<SecretString>,
    scope: Scope,
    request_timeout: Duration,
    deadline: Duration,
    connect_timeout: Duration,
    max_short: usize,
    max_blocking: usize,
    max_answer: usize,
}

#[derive(Debug)]
enum Token {
    None,
    Fixed(SecretString),
    Source(TokenSource),
}

impl ClientBuilder {
    pub(crate) fn from_env() -> Result<Self> {
        Self::from_environment(Environment::read(|name| std::env::var(name).ok())?)
    }

    fn from_environment(env: Environment) -> Result<Self> {
        if env.tls.on && cfg!(not(feature = "tls")) {
            let reason = "TLS needs the feature `tls` of consul-client; unset it to use a local agent";
            return Err(Error::setting("CONSUL_HTTP_SSL", "true", reason));
        }
        let token = match (env.token_file, env.token) {
            // The file wins over the variable, as in HashiCorp's own client.
            (Some(path), _) => {
                // A path that is wrong now is told now.
                if let Err(error) = std::fs::metadata(&path) {
                    let value = path.display().to_string();
                    let reason = format!("cannot be read: {error}");
                    return Err(Error::setting("CONSUL_HTTP_TOKEN_FILE", &value, reason));
                }
                Token::Source(TokenSource::file(path))
            }
            (None, Some(token)) => Token::Fixed(token.into()),
            (None, None) => Token::None,
        };
        Ok(Self {
            addresses: env.address.map(|value| ("CONSUL_HTTP_ADDR", value)).into_iter().collect(),
            secure: env.tls.on,
            token,
            basic_auth: env.basic_auth.map(SecretString::from),
            scope: Scope { namespace: env.namespace, partition: env.partition, ..Scope::default() },
            #[cfg(feature = "tls")]
            tls: Tls::from_env(env.tls),
            ..Self::default()
        })
    }

    /// Adds an agent: `host:port`, `http://host:port[/prefix]`, `https://host:port[/prefix]` or `unix:///path/of/socket`. With several,
    /// a call whose agent cannot be reached or knows no leader goes to the next one, and the calls after it start there; so they do
    /// after an agent that gave no answer, also within the caller's own time limit, and after one that a watch found cut off from the
    /// leader.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(("address", address.into()));
        self
    }

    /// How the agent's certificate is checked, and how this client proves who it is; for addresses with `https://`.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = tls;
        self
    }

    /// The ACL token, sent as a header.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Token::Fixed(SecretString::from(token.into()));
        self
    }

    /// Takes the ACL token from a file: read at the first call, and again when the server denies it, at most once a second.
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token = Token::Source(TokenSource::file(path.into()));
        self
    }

    /// Takes the ACL token from a function: asked at the first call, and again when the server denies what it gave, at most once a
    /// second. Its error ends the call that needed it, with [`Error::Setting`] and this text.
    pub fn token_with<F, O, E>(mut self, fetch: F) -> Self
    where
        F: Fn() -> O + Send + Sync + 'static,
        O: Future<Output = Result<String, E>> + Send + 'static,
        E: std::fmt::Display,
    {
        let source = TokenSource::fetched("token function", move || {
            let token = fetch();
            Box::pin(async move {
                token.await.map_err(|error| Error::setting("token function", "", format!("failed: {error}")))
            })
        });
        self.token = Token::Source(source);
        self
    }

    /// The data centre that every call is about, unless the handle says otherwise ([`Client::with_datacenter`]).
    pub fn datacenter(mut self, name: impl Into<String>) -> Self {
        self.scope.datacenter = Some(name.into());
        self
    }

    /// How fresh every read is, unless the handle ([`Client::with_consistency`]) or the query says otherwise.
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.scope.consistency = Some(consistency);
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
            addresses.push(Address::parse(name, value, self.secure)?);
        }
        if addresses.is_empty() {
            addresses.push(Address::local(self.secure)?);
        }
        #[cfg(feature = "tls")]
        let tls =
            addresses.iter().any(Address::is_https).then(|| self.tls.config()).transpose()?.map(Arc::new);
        let lane = |size| {
            self.lane(
                &addresses,
                size,
                #[cfg(feature = "tls")]
                &tls,
            )
        };
        let (short, blocking) = (lane(self.max_short)?, lane(self.max_blocking)?);
        let basic_auth = self.basic_auth.as_ref().map(|pair| basic(pair.expose_secret())).transpose()?;
        let token = match self.token {
            Token::Source(source) => source,
            Token::Fixed(text) if !text.expose_secret().is_empty() => {
                TokenSource::Fixed(header("token", text.expose_secret())?)
            }
            Token::Fixed(_) | Token::None => TokenSource::None,
        };
        let transport = Transport {
            addresses,
            current: AtomicUsize::new(0),
            short,
            blocking,
            token,
            basic_auth,
            request_timeout: self.request_timeout,
            deadline: self.deadline,
            max_answer: self.max_answer,
        };
        Ok(Client::new(transport, self.scope))
    }

    /// A redirect is an answer like any other: following it would write another key than the one asked for. Nor is there a proxy from
    /// the environment, which would see the token.
    fn lane(
        &self,
        addresses: &[Address],
        size: usize,
        #[cfg(feature = "tls")] tls: &dial::Tls,
    ) -> Result<Lane> {
        let pool = |address: &Address| {
            let dial = Dial::new(
                address,
                self.connect_timeout,
                #[cfg(feature = "tls")]
                tls,
            );
            Ok(Pool::new(dial?))
        };
        let pools = addresses.iter().map(pool).collect::<Result<_>>()?;
        Ok(Lane { pools, slots: Arc::new(Semaphore::new(size)), size })
    }
}

/// The `Authorization` header of `user[:password]`.
fn basic(pair: &str) -> Result<HeaderValue> {
    let pair = if pair.contains(':') { pair.to_owned() } else { format!("{pair}:") };
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
    header("CONSUL_HTTP_AUTH", &format!("Basic {encoded}"))
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            secure: false,
            #[cfg(feature = "tls")]
            tls: Tls::default(),
            token: Token::None,
            basic_auth: None,
            scope: Scope::default(),
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
    }

    #[test]
    fn the_environment_is_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let (file, gone) = (dir.path().join("token"), dir.path().join("gone"));
        std::fs::write(&file, "hunter2").unwrap();
        let with = |token_file| Environment {
            address: Some("unix:///run/consul.sock".into()),
            token: Some("t".into()),
            token_file: Some(token_file),
            namespace: Some("ns".into()),
            ..Environment::default()
        };
        let builder = ClientBuilder::from_environment(with(file)).unwrap();
        assert!(matches!(builder.token, Token::Source(_)), "the file wins");
        assert_eq!(builder.scope.namespace.as_deref(), Some("ns"));
        assert!(format!("{:?}", builder.build().unwrap()).contains("unix:///run/consul.sock"));
        let error = ClientBuilder::from_environment(with(gone)).unwrap_err().to_string();
        assert!(error.contains("CONSUL_HTTP_TOKEN_FILE") && error.contains("gone"), "{error}");
    }
}
