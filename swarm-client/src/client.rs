//! The client: which engines it knows, and how a call finds one that can answer.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Method;
use serde::de::DeserializeOwned;
use tracing::{debug, warn};

use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::model::EngineInfo;
use crate::nodes::Nodes;
use crate::reason::Reason;
use crate::request::{ApiVersion, Request, Target, without_secrets, without_values};
use crate::services::Services;
use crate::swarm::SwarmApi;
use crate::tasks::Tasks;
use crate::transport::{Answer, Limits, exchange};

/// A client of one swarm, through one or several of its engines. Cloning is cheap, and clones share what they learn.
///
/// With several endpoints a call goes to the one that answered last, and moves on when that one cannot be reached, is no
/// manager, is locked or sees no leader. Reads move on after a timeout or a broken answer too; writes do not, unless the
/// answer proves that nothing was done or the write may be done twice. A call takes at most the connect and the request
/// timeout for each endpoint.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

impl Client {
    /// Connects to the engine that the environment names: `DOCKER_HOST`, or else the local socket (`/var/run/docker.sock`, or
    /// the one of a rootless or desktop installation). Docker's contexts are not read.
    ///
    /// # Errors
    /// If the setting cannot be used, or if the engine does not answer: the message names both and what to do.
    pub async fn from_env() -> Result<Self> {
        let endpoint = Endpoint::from_env(|name| std::env::var(name).ok(), std::path::Path::exists)?;
        ClientBuilder::default().push(endpoint).connect().await
    }

    /// Starts a client of chosen engines.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// What the engine says of itself. With several endpoints it is the one that the client uses at the moment.
    ///
    /// # Errors
    /// If no engine answers.
    pub async fn info(&self) -> Result<EngineInfo> {
        self.call(Request::get("read the engine's info", &["info"]).target(Target::AnyEngine)).await
    }

    /// The swarm as a whole: init, join, leave, tokens, settings.
    #[must_use]
    pub fn swarm(&self) -> SwarmApi {
        SwarmApi::new(self.clone())
    }

    /// The services.
    #[must_use]
    pub fn services(&self) -> Services {
        Services::new(self.clone())
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> Nodes {
        Nodes::new(self.clone())
    }

    /// The tasks.
    #[must_use]
    pub fn tasks(&self) -> Tasks {
        Tasks::new(self.clone())
    }

    /// The endpoint that calls go to first at the moment.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.inner.site(self.inner.current.load(Ordering::Relaxed)).endpoint
    }

    /// All endpoints, in the order given.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.inner.sites().map(|site| &site.endpoint)
    }

    #[cfg(feature = "bollard")]
    pub(crate) fn request_timeout(&self) -> Duration {
        self.inner.limits.request
    }

    pub(crate) fn conflict_retries(&self) -> u32 {
        self.inner.conflict_retries
    }

    /// Calls and reads the answer.
    pub(crate) async fn call<T: DeserializeOwned>(&self, request: Request) -> Result<T> {
        let (answer, endpoint) = self.send(&request).await?;
        serde_json::from_slice(&answer.body).map_err(|error| Error::Decode {
            what: request.what,
            endpoint,
            problem: without_values(&error.to_string()),
        })
    }

    /// Calls and drops the answer's body.
    pub(crate) async fn call_unit(&self, request: Request) -> Result<()> {
        self.send(&request).await.map(|_| ())
    }

    /// Finds an engine that can answer. Returns its answer, which is a success, and who gave it.
    async fn send(&self, request: &Request) -> Result<(Answer, Endpoint)> {
        let count = self.inner.sites().count();
        if request.target == Target::OneEngine && count > 1 {
            return Err(Error::Invalid {
                what: request.what.clone(),
                problem: format!(
                    "it acts on one machine, and this client has {count} endpoints; use a client with that machine's endpoint alone"
                ),
            });
        }
        let start = self.inner.current.load(Ordering::Relaxed);
        let mut attempts = Vec::new();
        for index in (0..count).map(|step| (start + step) % count) {
            let site = self.inner.site(index);
            match self.inner.ask(site, request).await {
                Ok(answer) => {
                    self.inner.current.store(index, Ordering::Relaxed);
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
                        self.inner.current.store(index, Ordering::Relaxed);
                    } else {
                        self.inner.current.store((index + 1) % count, Ordering::Relaxed);
                    }
                    // The endpoints before this one did nothing, so this failure alone says what is known of the outcome.
                    return Err(error);
                }
            }
        }
        Err(match (attempts.len(), attempts.pop()) {
            (1, Some(only)) => only,
            (_, last) => {
                attempts.extend(last);
                Error::NoManager { what: request.what.clone(), attempts }
            }
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints: Vec<String> = self.endpoints().map(ToString::to_string).collect();
        f.debug_struct("Client").field("endpoints", &endpoints).finish_non_exhaustive()
    }
}

/// Settings of a [`Client`].
#[derive(Clone)]
#[must_use]
pub struct ClientBuilder {
    endpoints: Vec<Result<Endpoint, String>>,
    limits: Limits,
    conflict_retries: u32,
}

impl ClientBuilder {
    /// Adds an engine: `unix:///run/docker.sock` or `tcp://HOST[:PORT]`. Several are several managers of one swarm; the first
    /// is used first.
    pub fn endpoint(mut self, endpoint: impl AsRef<str>) -> Self {
        let text = endpoint.as_ref();
        self.endpoints.push(text.parse().map_err(|_| text.to_owned()));
        self
    }

    /// For one connection. The default is 3 seconds: a host on the same site answers within one, and one lost packet costs
    /// another.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.limits.connect = timeout;
        self
    }

    /// For one request, from its sending to the end of the answer. The default is 30 seconds: a manager gives up by itself
    /// after 20. With several managers a shorter one finds the good one sooner when another is cut off.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.limits.request = timeout;
        self
    }

    /// The longest answer that is read, in bytes. The default is 64 MiB.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.limits.body = bytes;
        self
    }

    /// How often a change is read and written anew because another writer came between, before the conflict is returned. The
    /// default is 60, and never longer than 30 seconds: with a dozen writers at once each gets through after some tries.
    pub fn max_conflict_retries(mut self, retries: u32) -> Self {
        self.conflict_retries = retries;
        self
    }

    fn push(mut self, endpoint: Endpoint) -> Self {
        self.endpoints.push(Ok(endpoint));
        self
    }

    /// Asks the endpoints, in their order, until one answers.
    ///
    /// # Errors
    /// If an endpoint cannot be read, none was given, a timeout is zero, or none answers.
    pub async fn connect(self) -> Result<Client> {
        for (setting, value) in
            [("connect_timeout", self.limits.connect), ("request_timeout", self.limits.request)]
        {
            if value.is_zero() {
                return Err(Error::Config {
                    setting,
                    value: format!("{value:?}"),
                    problem: "nothing answers in no time".to_owned(),
                    advice: "use some seconds",
                });
            }
        }
        let mut sites = Vec::new();
        for endpoint in self.endpoints {
            let endpoint = endpoint.or_else(|text| text.parse())?;
            sites.push(Site { endpoint, version: Mutex::new(None) });
        }
        let mut sites = sites.into_iter();
        let Some(first) = sites.next() else {
            return Err(Error::Config {
                setting: "endpoint",
                value: String::new(),
                problem: "the client has none".to_owned(),
                advice: "add at least one, such as unix:///var/run/docker.sock",
            });
        };
        let inner = Inner {
            first,
            others: sites.collect(),
            current: AtomicUsize::new(0),
            limits: self.limits,
            conflict_retries: self.conflict_retries,
        };
        let client = Client { inner: Arc::new(inner) };
        let (mut answered, mut attempts) = (false, Vec::new());
        for (index, site) in client.inner.sites().enumerate() {
            match client.inner.negotiate(site).await {
                Ok(_) => {
                    client.inner.current.store(index, Ordering::Relaxed);
                    answered = true;
                    break;
                }
                Err(error) => attempts.push(error),
            }
        }
        if answered {
            return Ok(client);
        }
        Err(match (attempts.len(), attempts.pop()) {
            (1, Some(only)) => only,
            (_, last) => {
                attempts.extend(last);
                Error::NoManager { what: "connect".to_owned(), attempts }
            }
        })
    }
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            conflict_retries: 60,
            endpoints: Vec::new(),
            limits: Limits {
                connect: Duration::from_secs(3),
                request: Duration::from_secs(30),
                body: 64 << 20,
            },
        }
    }
}

impl fmt::Debug for ClientBuilder {
    /// Leaves out what could not be read, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints: Vec<&Endpoint> = self.endpoints.iter().flatten().collect();
        f.debug_struct("ClientBuilder").field("endpoints", &endpoints).field("limits", &self.limits).finish()
    }
}

struct Inner {
    first: Site,
    others: Vec<Site>,
    current: AtomicUsize,
    limits: Limits,
    conflict_retries: u32,
}

/// One engine and what is known of it.
struct Site {
    endpoint: Endpoint,
    version: Mutex<Option<ApiVersion>>,
}

impl Site {
    fn version(&self) -> Option<ApiVersion> {
        *self.version.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_version(&self, version: Option<ApiVersion>) {
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = version;
    }
}

impl Inner {
    fn sites(&self) -> impl Iterator<Item = &Site> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn site(&self, index: usize) -> &Site {
        index.checked_sub(1).and_then(|i| self.others.get(i)).unwrap_or(&self.first)
    }

    /// One request to one engine; anything but a success is an error.
    async fn ask(&self, site: &Site, request: &Request) -> Result<Answer> {
        let version = match site.version() {
            Some(version) => version,
            None => self.negotiate(site).await?,
        };
        let limits = Limits { request: self.limits.request.max(request.at_least), ..self.limits };
        let path = request.path(version);
        let result =
            exchange(&site.endpoint, &request.method, &path, request.body.clone(), &request.what, limits)
                .await;
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
    async fn negotiate(&self, site: &Site) -> Result<ApiVersion> {
        let what = "ask for the API version";
        let answer = exchange(&site.endpoint, &Method::GET, "/_ping", None, what, self.limits)
            .await
            .map_err(|error| {
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
        Error::Engine { reason, .. } => *reason == Reason::ApiVersion,
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
