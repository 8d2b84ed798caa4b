//! session-store.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::{Lab, REDIS_MASTER};
use session_store::{
    CommitId, Durability, Gone, Lifetime, Loaded, Mode, Op, Outcome, Patch, SessionId, SessionStore,
    StoreKey, lifetime::unix_now,
};

use crate::support::redis;
use crate::told;

/// The last case, since it leaves a host without power: the one that leads the Swarm and Consul as well.
pub(crate) async fn sessions_outlive_the_redis_master(lab: &Lab) {
    let url = lab.env().into_iter().find(|(name, _)| name == "REDIS_URL").unwrap().1;
    let sessions = session_store::connect(&url).await.unwrap();
    let old = lab.leaders().await.unwrap().redis.unwrap();
    let old = lab.host(&old).unwrap();
    let sentinels: Vec<SocketAddr> =
        lab.hosts().iter().filter(|host| *host != old).map(lab::Host::sentinel_addr).collect();

    let logged_out = session(&sessions).await;
    assert!(matches!(sessions.delete(&logged_out).await.unwrap(), Outcome::Saved { .. }));
    let done = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        let key = session(&sessions).await;
        writers.push((key, tokio::spawn(write(Arc::clone(&sessions), key, Arc::clone(&done)))));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;

    let off = Instant::now();
    lab.power_off(&old.name).await.unwrap();
    let elected = tokio::task::spawn_blocking({
        let old = old.redis_addr().ip().to_string();
        move || elected(&sentinels, &old)
    });
    let elected = elected.await.unwrap();
    told("another Redis master elected", off);
    tokio::time::sleep(CALL_DEADLINE).await;
    done.store(true, Ordering::Relaxed);

    let (mut acknowledged, mut counted, mut doubtful, mut last_moment, mut slowest) =
        (0, 0, 0, 0, Duration::ZERO);
    for (key, writer) in writers {
        let written = writer.await.unwrap();
        let first = written.acknowledged.iter().find(|at| **at > elected);
        let first = *first.expect("a writer wrote nothing after the election");
        slowest = slowest.max(first - elected);
        assert!(first - elected < CALL_DEADLINE, "written again {:?} after the election", first - elected);
        let record = sessions.load(&key).await.unwrap().expect("a session is not lost");
        let count = u64::try_from(record.counter("n").unwrap()).unwrap();
        let all = written.acknowledged.len() as u64;
        // What the master acknowledged in its last moment may be lost with it, and nothing else may.
        let just_before =
            written.acknowledged.iter().filter(|at| **at < off + GRACE && **at + LAST_MOMENT > off);
        let at_risk = just_before.count() as u64;
        assert!(count <= all, "{count} counted of {all} commits: some counted twice");
        assert!(all - count <= at_risk, "{count} counted of {all} commits, {at_risk} of them at risk");
        acknowledged += all;
        counted += count;
        doubtful += written.doubtful;
        last_moment += at_risk;
    }
    let found = sessions.find(&logged_out, unix_now()).await.unwrap();
    assert_eq!(found, Loaded::Revoked, "a log-out stays");
    let again = sessions.apply(&logged_out, add(), Durability::Primary).await.unwrap();
    assert_eq!(again.outcome, Outcome::Gone(Gone::Deleted));
    println!(
        "          {acknowledged} acknowledged, {counted} counted, {} lost of {last_moment} in the last moment, {doubtful} sent again; all writers wrote {slowest:.1?} after the election",
        acknowledged - counted
    );
    told("sessions through the loss of their master", off);
}

/// What a writer was told.
#[derive(Default)]
struct Written {
    /// When each commit was acknowledged.
    acknowledged: Vec<Instant>,
    /// Calls that ended without an answer, so that the same commit was sent again.
    doubtful: u64,
}

/// Adds to a session's counter. A commit without an answer is sent again under the same id until there is one.
async fn write(sessions: Arc<dyn SessionStore>, key: StoreKey, done: Arc<AtomicBool>) -> Written {
    let mut written = Written::default();
    while !done.load(Ordering::Relaxed) {
        let commit = add();
        let end = Instant::now() + Duration::from_secs(40);
        loop {
            match sessions.apply(&key, commit.clone(), Durability::Primary).await {
                Ok(applied) => {
                    assert!(matches!(applied.outcome, Outcome::Saved { .. }), "{:?}", applied.outcome);
                    break;
                }
                Err(error) => {
                    assert!(error.is_retryable() && Instant::now() < end, "{error}");
                    written.doubtful += 1;
                }
            }
        }
        written.acknowledged.push(Instant::now());
    }
    written
}

async fn session(sessions: &Arc<dyn SessionStore>) -> StoreKey {
    let key = SessionId::random().key();
    let user = Some("ada".to_owned());
    let made = sessions.create(&key, Lifetime::default(), user, Patch::new(), None).await.unwrap();
    assert!(matches!(made.outcome, Outcome::Saved { .. }), "{:?}", made.outcome);
    key
}

fn add() -> Op {
    let (patch, id) = (Patch::new().add("n", 1), Some(CommitId::random()));
    Op::Commit { base: None, patch, mode: Mode::Merge, id }
}

/// When one of these Sentinels names another master than the old one.
fn elected(sentinels: &[SocketAddr], old: &str) -> Instant {
    let start = Instant::now();
    let question = format!("SENTINEL GET-MASTER-ADDR-BY-NAME {REDIS_MASTER}");
    loop {
        let now = Instant::now();
        let answers = sentinels.iter().filter_map(|sentinel| redis(*sentinel, &question).ok());
        if answers.into_iter().any(|answer| answer.starts_with("*2") && !answer.contains(old)) {
            return now;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "the Sentinels elect nobody");
        std::thread::sleep(Duration::from_millis(50));
    }
}

const WRITERS: usize = 8;
/// What the store promises: each call ends within it.
const CALL_DEADLINE: Duration = Duration::from_secs(8);
/// Before the loss of a master: what it had not handed on yet may be lost with it.
const LAST_MOMENT: Duration = Duration::from_secs(1);
/// For an answer that was on its way when the power went, and the time that taking the power takes.
const GRACE: Duration = Duration::from_millis(500);
