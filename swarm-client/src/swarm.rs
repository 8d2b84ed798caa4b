//! The swarm as a whole: making it, joining it, its tokens and settings.

use std::convert::Infallible;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::client::Client;
use crate::error::{Error, Result};
use crate::model::{Availability, JoinToken, LocalNodeState, NodeId, Role, Swarm, SwarmSpec};
use crate::modify::{self, How, Modified};
use crate::reason::Reason;
use crate::request::{Request, Target};

/// The swarm as a whole. `init`, `join` and `leave` act on one machine, so they refuse a client with several endpoints.
#[derive(Debug, Clone)]
pub struct SwarmApi {
    pub(crate) client: Client,
}

/// How to make a swarm.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// Where this manager listens for the others: `IP[:PORT]` or an interface's name. The default is `0.0.0.0:2377`.
    pub listen_addr: String,
    /// The address that the others are told: `IP[:PORT]`. Needed when the machine has more than one; empty lets it guess.
    pub advertise_addr: String,
    /// How often nodes report; a node is given up after three times this. `None` is the engine's 5 seconds.
    pub heartbeat_period: Option<Duration>,
    /// How many ended tasks are kept for each slot. `None` is the engine's 5.
    pub task_history_limit: Option<u32>,
    /// The address of container traffic, if it is another.
    pub data_path_addr: Option<String>,
    /// Subnets from which overlay networks take theirs, such as `10.20.0.0/16`. Empty is the engine's choice.
    pub default_addr_pool: Vec<String>,
    /// How much of that pool each network gets, as the length of its prefix. `None` is 24.
    pub subnet_size: Option<u8>,
    /// Whether a manager that restarts waits for the unlock key.
    pub autolock: bool,
    /// Whether this manager runs tasks; `None` is the engine's active.
    pub availability: Option<Availability>,
    /// Makes a new swarm out of what this manager remembers, when the others are lost for good.
    pub force_new_cluster: bool,
}

impl Default for InitOptions {
    fn default() -> Self {
        Self {
            listen_addr: LISTEN.to_owned(),
            advertise_addr: String::new(),
            heartbeat_period: None,
            task_history_limit: None,
            data_path_addr: None,
            default_addr_pool: Vec::new(),
            subnet_size: None,
            autolock: false,
            availability: None,
            force_new_cluster: false,
        }
    }
}

/// How to join a swarm.
#[derive(Debug, Clone)]
pub struct JoinOptions {
    /// As in [`InitOptions`].
    pub listen_addr: String,
    /// As in [`InitOptions`].
    pub advertise_addr: String,
    /// The managers' addresses, `HOST:2377` each. They are tried one by one (the engine itself tries only the first).
    pub remote_addrs: Vec<String>,
    /// The secret, which also says in which role.
    pub token: JoinToken,
    /// Whether the node takes tasks; `None` is the engine's active.
    pub availability: Option<Availability>,
}

impl JoinOptions {
    /// Joins through these managers with this token, all else by default.
    pub fn new(remote_addrs: impl IntoIterator<Item = impl Into<String>>, token: JoinToken) -> Self {
        Self {
            listen_addr: LISTEN.to_owned(),
            advertise_addr: String::new(),
            remote_addrs: remote_addrs.into_iter().map(Into::into).collect(),
            token,
            availability: None,
        }
    }
}

impl SwarmApi {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Makes a swarm with this engine as its first manager, and returns its node id.
    ///
    /// # Errors
    /// [`Error::is_already_in_swarm`].
    pub async fn init(&self, options: InitOptions) -> Result<NodeId> {
        let mut spec = SwarmSpec::default();
        if let Some(period) = options.heartbeat_period {
            spec.set_heartbeat_period(period);
        }
        if let Some(limit) = options.task_history_limit {
            spec.set_task_history_limit(limit);
        }
        if options.autolock {
            spec.set_autolock(true);
        }
        let mut body = json!({
            "ListenAddr": options.listen_addr,
            "AdvertiseAddr": options.advertise_addr,
            "ForceNewCluster": options.force_new_cluster,
            "Spec": spec,
        });
        if let Some(addr) = options.data_path_addr {
            body["DataPathAddr"] = addr.into();
        }
        if options.autolock {
            // The engine reads this one at init, and the one in the spec later.
            body["AutoLockManagers"] = true.into();
        }
        if let Some(availability) = options.availability {
            body["Availability"] = availability.as_str().into();
        }
        if !options.default_addr_pool.is_empty() {
            body["DefaultAddrPool"] = options.default_addr_pool.into();
            // The engine has no default for this one, and refuses a pool without it.
            body["SubnetSize"] = options.subnet_size.unwrap_or(SUBNET_SIZE).into();
        }
        let request = Request::post("init a swarm", &["swarm", "init"]).json(&body)?;
        self.client.call(request.target(Target::OneEngine).at_least(SLOW)).await
    }

    /// Makes this engine a member of a swarm and waits until it is one. Each address is tried; where the engine says that it
    /// goes on in the background, or where no answer came, its state is watched instead of asking twice. Behind an address at
    /// which nobody answers it would go on for ever: after this address's share of the time it is given up for the next one.
    ///
    /// # Errors
    /// [`Error::is_already_in_swarm`]; [`Error::NotJoined`] when 90 seconds passed or the engine gave up; else why the last
    /// address failed.
    pub async fn join(&self, options: JoinOptions) -> Result<()> {
        self.join_within(options, JOIN_DEADLINE).await
    }

    /// Like [`join`](Self::join), but waits for at most `deadline` in all.
    ///
    /// # Errors
    /// As there.
    pub async fn join_within(&self, options: JoinOptions, deadline: Duration) -> Result<()> {
        let what = "join a swarm";
        if options.remote_addrs.is_empty() {
            let problem = "no manager's address was given; give at least one as HOST:2377".to_owned();
            return Err(Error::Invalid { what: what.to_owned(), problem });
        }
        let start = Instant::now();
        let mut failure = None;
        let mut to_try = options.remote_addrs.len();
        for addr in &options.remote_addrs {
            let left = deadline.saturating_sub(start.elapsed());
            if left.is_zero() {
                break;
            }
            // What is left is divided among those that are not tried yet; all of it is the last one's.
            let until = start.elapsed() + left / u32::try_from(to_try).unwrap_or(u32::MAX);
            to_try -= 1;
            let mut body = json!({
                "ListenAddr": options.listen_addr,
                "AdvertiseAddr": options.advertise_addr,
                "RemoteAddrs": [addr],
                "JoinToken": options.token.expose(),
            });
            if let Some(availability) = &options.availability {
                body["Availability"] = availability.as_str().into();
            }
            let request = Request::post(format!("{what} through {addr}"), &["swarm", "join"]).json(&body)?;
            let joining = self.client.call_unit(request.target(Target::OneEngine).at_least(SLOW));
            match timeout(left, joining).await {
                Ok(Ok(())) => return self.wait_active(what, start, deadline).await,
                Ok(Err(error)) if error.reason() == Some(Reason::JoinPending) || is_silent(&error) => {
                    info!(addr, "joining goes on in the background");
                    let until = if to_try == 0 { deadline } else { until.max(start.elapsed() + ONE_LOOK) };
                    match self.wait_active(what, start, until).await {
                        Err(error @ Error::NotJoined { .. }) if to_try > 0 => {
                            warn!(addr, %error, "giving up this manager");
                            if self.has_joined_after_all().await? {
                                return self.wait_active(what, start, deadline).await;
                            }
                            failure = Some(error);
                        }
                        joined_or_not => return joined_or_not,
                    }
                }
                Ok(Err(error)) if error.is_already_in_swarm() || error.is_unreachable() => return Err(error),
                Ok(Err(error)) => {
                    warn!(addr, %error, "could not join through this manager");
                    failure = Some(error);
                }
                Err(_) => return self.wait_active(what, start, deadline).await,
            }
        }
        Err(failure.unwrap_or_else(|| Error::NotJoined {
            what: what.to_owned(),
            state: "not asked".to_owned(),
            message: "the deadline left no time".to_owned(),
            waited: start.elapsed(),
        }))
    }

    /// Takes this engine out of its swarm. A manager leaves only with `force`, which can cost the others their majority:
    /// demote it first.
    ///
    /// # Errors
    /// [`Error::is_not_in_swarm`]; [`Error::is_quorum_at_risk`] without `force`.
    pub async fn leave(&self, force: bool) -> Result<()> {
        let request = Request::post("leave the swarm", &["swarm", "leave"]);
        let request = request.query("force", if force { "true" } else { "false" });
        self.client.call_unit(request.target(Target::OneEngine).at_least(SLOW)).await
    }

    /// Reads the swarm.
    ///
    /// # Errors
    /// [`Error::is_not_manager`] if no engine that was asked is a manager.
    pub async fn get(&self) -> Result<Swarm> {
        modify::get(&self.client, "").await
    }

    /// Reads the swarm, or `None` if each engine that the client knows says that it is in none.
    ///
    /// # Errors
    /// If that cannot be told; [`Error::is_not_manager`] on a worker, which is in a swarm but cannot see it.
    pub async fn get_opt(&self) -> Result<Option<Swarm>> {
        match self.get().await {
            Ok(swarm) => Ok(Some(swarm)),
            Err(error) if error.is_not_in_swarm() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The token with which another engine joins in this role.
    ///
    /// # Errors
    /// If the swarm cannot be read or shows no such token.
    pub async fn join_token(&self, role: Role) -> Result<JoinToken> {
        let swarm = self.get().await?;
        swarm
            .join_token(&role)
            .cloned()
            .ok_or_else(|| Error::NotFound { kind: "join token", name: role.to_string() })
    }

    /// Changes the swarm's settings as [`Services::modify`](crate::Services::modify) does a service's spec.
    ///
    /// # Errors
    /// As there.
    pub async fn modify(&self, mut change: impl FnMut(&mut SwarmSpec)) -> Result<Modified<SwarmSpec>> {
        self.change(false, |spec| change(spec)).await
    }

    /// Sets how often nodes report; a node is given up after three times this. Takes effect on the running swarm. A short
    /// period takes a short gap for a death and starts the tasks anew elsewhere.
    ///
    /// # Errors
    /// As for [`modify`](Self::modify).
    pub async fn set_heartbeat_period(&self, period: Duration) -> Result<Modified<SwarmSpec>> {
        self.change(true, |spec| spec.set_heartbeat_period(period)).await
    }

    /// Sets how many ended tasks are kept for each slot.
    ///
    /// # Errors
    /// As for [`modify`](Self::modify).
    pub async fn set_task_history_limit(&self, limit: u32) -> Result<Modified<SwarmSpec>> {
        self.change(true, |spec| spec.set_task_history_limit(limit)).await
    }

    pub(crate) async fn change(
        &self,
        repeatable: bool,
        mut change: impl FnMut(&mut SwarmSpec),
    ) -> Result<Modified<SwarmSpec>> {
        let result = modify::modify(&self.client, "", How::repeatable(repeatable), |_: &Swarm, spec| {
            change(spec);
            Ok::<(), Infallible>(())
        });
        modify::never_refused(result.await)
    }

    /// Ends a join that goes on in the background, so that another one can begin. True if it has become a manager meanwhile, which
    /// the engine keeps from leaving.
    async fn has_joined_after_all(&self) -> Result<bool> {
        match self.leave(false).await {
            Ok(()) => Ok(false),
            Err(error) if error.is_not_in_swarm() => Ok(false),
            Err(error) if error.is_quorum_at_risk() => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn wait_active(&self, what: &str, start: Instant, deadline: Duration) -> Result<()> {
        let mut last = (String::from("unknown"), String::new());
        loop {
            let left = deadline.saturating_sub(start.elapsed());
            match timeout(left, self.client.info()).await {
                Ok(Ok(engine)) if engine.swarm.state == LocalNodeState::Active => return Ok(()),
                Ok(Ok(engine)) => last = (engine.swarm.state.to_string(), engine.swarm.error),
                Ok(Err(error)) if error.is_retryable() => last.1 = error.to_string(),
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
            // `error` and `inactive` do not change by themselves.
            let over = ["error", "inactive"].contains(&last.0.as_str());
            if over || start.elapsed() >= deadline {
                let (state, message) = last;
                return Err(Error::NotJoined {
                    what: what.to_owned(),
                    state,
                    message,
                    waited: start.elapsed(),
                });
            }
            sleep(POLL_EVERY.min(deadline.saturating_sub(start.elapsed()))).await;
        }
    }
}

/// True if the request was sent and nothing is known of what became of it.
fn is_silent(error: &Error) -> bool {
    matches!(error, Error::Timeout { .. } | Error::Interrupted { .. })
}

/// As Docker's command line has it.
const SUBNET_SIZE: u8 = 24;
const LISTEN: &str = "0.0.0.0:2377";
/// The engine works on a join for 20 seconds before it answers.
const SLOW: Duration = Duration::from_secs(30);
const JOIN_DEADLINE: Duration = Duration::from_secs(90);
const POLL_EVERY: Duration = Duration::from_millis(250);
/// Before a join is given up its state is looked at.
const ONE_LOOK: Duration = Duration::from_secs(2);
