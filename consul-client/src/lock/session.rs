//! A session that is kept alive, and the lease on it.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{Lost, lease::Lease};
use crate::{Client, Error, Result, Session, SessionOptions, backoff::Backoff, sessions};

/// A session that is renewed until its lease is lost or this is dropped. It is not destroyed here.
pub(crate) struct KeptSession {
    id: String,
    ttl: Duration,
    shared: Arc<Shared>,
    keeper: Option<Task>,
}

impl KeptSession {
    /// Creates a session, with this TTL in any case, and starts to keep it.
    pub(crate) async fn create(client: &Client, options: SessionOptions, ttl: Duration) -> Result<Self> {
        let began = Instant::now();
        // Not longer: the lease counts from here, and an old one is worthless.
        let id = match client.sessions().create_within(&options.ttl(ttl), Some(ttl / 2)).await {
            Ok(id) => id,
            // An agent that has just started is not registered yet; one of another data centre never will be.
            Err(Error::NotReady(answer)) => {
                at_home(client, true).await?;
                return Err(Error::NotReady(answer));
            }
            Err(error) => return Err(error),
        };
        let shared = Arc::new(Shared { began, lease: watch::Sender::new(Lease::new(ttl, Duration::ZERO)) });
        let keeper = tokio::spawn(keep(client.clone(), id.clone(), ttl, Arc::clone(&shared)));
        Ok(Self { id, ttl, shared, keeper: Some(Task(keeper)) })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn ttl(&self) -> Duration {
        self.ttl
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Renews it no longer.
    pub(crate) fn stop(&mut self) {
        self.keeper = None;
    }
}

/// Refuses what would be waited for in vain: a session hangs on the node of the agent that is asked, and that one is registered in
/// its own data centre alone. An agent that may not be asked for its own gets the benefit of the doubt, unless it was `refused`
/// already for want of its node.
///
/// # Errors
/// [`Error::Invalid`] when the client's calls are about another data centre than its agent's.
pub(super) async fn at_home(client: &Client, refused: bool) -> Result<()> {
    let Some(wanted) = client.datacenter() else { return Ok(()) };
    let own = match client.agent().self_info().await {
        Ok(info) if info.datacenter == wanted => return Ok(()),
        Ok(info) => format!("which is {:?}", info.datacenter),
        Err(error) if refused && error.is_denied() => "which this token may not ask for".to_owned(),
        Err(_) => return Ok(()),
    };
    let rule = format!(
        "a lock belongs to the data centre of its agent, {own}: use a client whose address is an agent of {wanted:?}"
    );
    Err(Error::invalid("data centre", wanted, rule))
}

/// A lease that the keeper, the monitor and the lock share.
pub(crate) struct Shared {
    began: Instant,
    lease: watch::Sender<Lease>,
}

impl Shared {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn is_held(&self) -> bool {
        self.lease.borrow().lost(self.now()).is_none()
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.began + self.lease.borrow().deadline()
    }

    pub(crate) fn lose(&self, why: Lost) {
        let now = self.now();
        self.lease.send_modify(|lease| lease.lose(why, now));
    }

    pub(crate) async fn lost(&self) -> Lost {
        let mut changes = self.lease.subscribe();
        loop {
            let lease = *changes.borrow_and_update();
            if let Some(why) = lease.lost(self.now()) {
                return why;
            }
            // Whatever the keeper is stuck in, this fires at the deadline. The sender lives in `self`.
            let _ = tokio::time::timeout_at(self.began + lease.deadline(), changes.changed()).await;
        }
    }
}

/// Watches over what is held at `key` until it is lost: `taken` completes when it is another's by the word of a quorum.
pub(super) fn monitor(
    shared: &Arc<Shared>,
    what: &'static str,
    key: String,
    taken: impl Future<Output = ()> + Send + 'static,
) -> Task {
    let shared = Arc::clone(shared);
    Task(tokio::spawn(async move {
        let why = tokio::select! {
            () = taken => Lost::Taken,
            why = shared.lost() => why,
        };
        shared.lose(why);
        if why != Lost::Released {
            tracing::warn!(key, %why, "consul {what} lost");
        }
    }))
}

/// A task that ends with its owner.
pub(crate) struct Task(pub(crate) JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Renews the session every third of its TTL until the lease is lost.
async fn keep(client: Client, session: String, ttl: Duration, shared: Arc<Shared>) {
    let limit = (ttl / 4).min(Duration::from_secs(5));
    let mut backoff = Backoff::new(Duration::from_millis(200), (ttl / 10).min(Duration::from_secs(2)));
    let mut next = shared.began + ttl / 3;
    while shared.is_held() {
        tokio::time::sleep_until(next.min(shared.deadline())).await;
        if !shared.is_held() {
            // A renewal now would only keep the next holder waiting.
            return;
        }
        let sent = shared.now();
        match renew(&client, &session, limit).await {
            Ok(()) => {
                let now = shared.now();
                shared.lease.send_modify(|lease| lease.renewed(sent, now));
                backoff.reset();
                next = shared.began + sent + ttl / 3;
            }
            Err(error) if error.is_not_found() => shared.lose(Lost::SessionGone),
            Err(error) => {
                tracing::debug!(%error, "consul lock: renewal failed");
                next = Instant::now() + backoff.next(rand::random());
            }
        }
    }
}

async fn renew(client: &Client, session: &str, limit: Duration) -> Result<()> {
    let request = sessions::renew_request(session)?.once(limit);
    let sessions: Vec<Session> = client.read(request.clone()).await?.value;
    if sessions.iter().any(|renewed| renewed.id == session) {
        return Ok(());
    }
    Err(Error::Decode {
        endpoint: request.endpoint(),
        reason: "a list without the session".to_owned(),
        write: true,
    })
}
