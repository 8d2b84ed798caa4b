//! The stack on real hosts, where a process can be stopped and woken up: the Swarm's own lease.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use autoscaler::controller::{ScaleError, ScaleTarget, Term};
use ha_stack::load::{Load, LoadPlan};
use ha_stack::roles::coordination::Coordination;
use ha_stack::roles::labels;
use ha_stack::roles::swarm_target::SwarmTarget;
use lab::{Daemon, Deed, Lab};
use serde_json::json;
use swarm_client::bollard::query_parameters::{KillContainerOptionsBuilder, ListContainersOptionsBuilder};
use swarm_client::{Client, ServiceSpec};

#[test]
#[ignore = "needs root and Docker: ./test.sh runs it"]
fn a_scaler_that_was_stopped_writes_nothing_when_it_wakes_up() {
    // Built without optimisation, it needs more stack than a test's thread has.
    let walk = std::thread::Builder::new().stack_size(64 << 20).spawn(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(walk());
    });
    if let Err(panic) = walk.unwrap().join() {
        std::panic::resume_unwind(panic);
    }
}

/// Takes the lab away when the walk stops half-way.
struct DownAtLast;

impl Drop for DownAtLast {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let down = || tokio::runtime::Runtime::new().unwrap().block_on(Lab::clear());
            let _ = std::thread::spawn(down).join();
        }
    }
}

async fn walk() {
    assert!(Lab::attach().unwrap().is_none(), "a lab is up, and this test needs one of its own: lab down");
    let _down = DownAtLast;
    let lab = Lab::up(3).await.unwrap();
    for host in lab.hosts() {
        lab.daemon(&host.name, Daemon::Consul, Deed::Stop).await.unwrap();
    }
    let stack = Stack::up(&lab);
    let swarm = lab.hosts().iter().fold(Client::builder(), |b, host| b.endpoint(host.docker_endpoint()));
    let swarm = swarm.request_timeout(Duration::from_secs(5)).connect().await.unwrap();
    let by = Coordination::Swarm { swarm: swarm.clone(), gateways: labels::GATEWAYS.to_owned() };
    let seen = Seen::watch(swarm.clone());

    // The first leader acts, and sleeps while there is something to do.
    let (first, term) = soon("a leader", async || by.leader("web").await.unwrap()).await;
    let load = stack.load();
    let acted = async || seen.last().filter(|seen| seen.term == Some(term) && seen.replicas > 2);
    soon("the first leader's scale-out", acted).await;
    signal(&lab, &first, "SIGSTOP").await;
    let slept = Instant::now();
    load.abandon();

    // Another one leads by a higher term. The load has ended meanwhile: it scales in.
    let (second, next) =
        soon("another leader", async || by.leader("web").await.unwrap().filter(|now| now.1 > term)).await;
    assert_ne!(first, second);
    soon("the second leader's scale-in", async || {
        seen.last().filter(|seen| seen.term == Some(next) && seen.replicas == 2)
    })
    .await;
    println!(
        "{second} leads in place of {first} by term {next}, and has acted, {:.1?} later",
        slept.elapsed()
    );

    // The first wakes up with a load before it that it would act on, and the second acts.
    let written = seen.all().len();
    let load = stack.load();
    signal(&lab, &first, "SIGCONT").await;
    soon("the second leader's scale-out", async || {
        seen.last().filter(|seen| seen.term == Some(next) && seen.replicas > 2)
    })
    .await;
    // Longer than several of its decisions, and than a lease.
    tokio::time::sleep(Duration::from_secs(12)).await;
    load.abandon();
    assert_eq!(by.leader("web").await.unwrap(), Some((second, next)), "the one that woke up stands back");
    let all = seen.all();
    assert!(all.len() > written, "{all:?}");
    let after = all.iter().skip_while(|seen| seen.term != Some(next));
    for seen in after {
        assert_eq!(seen.term, Some(next), "somebody else than the second leader wrote: {all:?}");
    }
    println!("what the service was, one after the other: {all:?}");

    stack.down();
    a_write_that_comes_late_is_refused_by_the_managers(&swarm).await;
    lab.down().await.unwrap();
}

/// What the woken leader can't be made to do at a moment of our choice: its decision is made, and only the write is left.
async fn a_write_that_comes_late_is_refused_by_the_managers(swarm: &Client) {
    swarm.services().create(&ServiceSpec::builder("late", "none:1").replicas(1).build()).await.unwrap();
    let target = SwarmTarget::new(swarm.clone(), "late");
    let decision = |current: u64| {
        serde_json::from_value(
            json!({"at": {"secs": 0, "nanos": 0}, "action": "hold", "current": current, "reason": "load",
            "votes": [], "stages": [], "valid_until": {"secs": 9, "nanos": 0}}),
        )
        .unwrap()
    };
    let read = async || swarm.services().get("late").await.unwrap();
    for round in 1..=20 {
        // Both decided on what they saw. Whoever the managers let write first, the lower term never stands at the end.
        let before = read().await.replicas().unwrap();
        let (old, new) = (Term(2 * round), Term(2 * round + 1));
        let (old_because, new_because) = (decision(before), decision(before));
        let both = tokio::join!(
            target.write(900, old, &old_because),
            target.write(100 + round as u32, new, &new_because)
        );
        let now = read().await;
        let term = now.label(labels::TERM).map(str::to_owned);
        match both {
            // The old one came late.
            (Err(ScaleError::Fenced { .. }), Ok(_)) => {
                assert_eq!((term, now.replicas()), (Some(new.to_string()), Some(100 + round)));
            }
            // It came first, so that the new one saw another number than it had decided on.
            (Ok(_), Err(ScaleError::Conflict { .. })) => {
                assert_eq!((term, now.replicas()), (Some(old.to_string()), Some(900)));
            }
            other => panic!("round {round}: {other:?}"),
        }
        // From now on the new term has written, and nothing of the old one comes through.
        let because = decision(now.replicas().unwrap());
        target.write(200 + round as u32, new, &because).await.unwrap();
        let version = read().await.version;
        let late = target.write(1, old, &decision(200 + round)).await;
        assert!(matches!(late, Err(ScaleError::Fenced { .. })), "round {round}: {late:?}");
        assert_eq!(read().await.version, version, "round {round}: something was written");
    }
    swarm.services().remove("late").await.unwrap();
}

/// The service at one moment.
#[derive(Clone, Debug, PartialEq)]
struct Moment {
    term: Option<Term>,
    replicas: u64,
}

/// Every state that the service was seen in, one after the other.
struct Seen {
    moments: Arc<Mutex<Vec<Moment>>>,
    looking: tokio::task::JoinHandle<()>,
}

impl Seen {
    fn watch(swarm: Client) -> Self {
        let moments = Arc::new(Mutex::new(Vec::<Moment>::new()));
        let kept = Arc::clone(&moments);
        let looking = tokio::spawn(async move {
            loop {
                if let Ok(service) = swarm.services().get("web").await {
                    let term = service.label(labels::TERM).and_then(|term| term.parse().ok()).map(Term);
                    let now = Moment { term, replicas: service.replicas().unwrap() };
                    let mut kept = kept.lock().unwrap();
                    if kept.last() != Some(&now) {
                        kept.push(now);
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self { moments, looking }
    }

    fn all(&self) -> Vec<Moment> {
        self.moments.lock().unwrap().clone()
    }

    fn last(&self) -> Option<Moment> {
        self.moments.lock().unwrap().last().cloned()
    }
}

impl Drop for Seen {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

/// `ha-stack up` on the lab, without a Consul.
struct Stack {
    child: Child,
    site: String,
}

impl Stack {
    fn up(lab: &Lab) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ha-stack"));
        command.args(["up", "--platform", "swarm", "--discovery", "swarm", "--calm", "5"]);
        command.args(["--control", "127.0.0.1:0"]).envs(lab.env()).env_remove("CONSUL_HTTP_ADDR");
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let mut said = Vec::new();
        let site = lines.find_map(|line| {
            said.push(line.clone());
            let after = line.split_once("the site is at ")?.1;
            Some(after.split(';').next()?.to_owned())
        });
        let site = site.unwrap_or_else(|| panic!("the stack ended early: {said:?}"));
        // Read on, or the stack waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, site }
    }

    /// More than two replicas are to have in flight.
    fn load(&self) -> Load {
        Load::start(LoadPlan {
            url: format!("{}/work?ms=200", self.site),
            workers: 44,
            pause: Duration::ZERO,
            timeout: Duration::from_secs(20),
            post: false,
        })
        .unwrap()
    }

    fn down(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::TERM,
        );
        let _ = self.child.wait();
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.end();
    }
}

/// Sends a signal to the scaler on a host.
async fn signal(lab: &Lab, host: &str, signal: &str) {
    let endpoint = lab.host(host).unwrap().docker_endpoint();
    let engine = Client::builder().endpoint(endpoint).connect().await.unwrap().bollard().unwrap();
    let label = "com.docker.swarm.service.name=ha-scaler".to_owned();
    let filters = std::collections::HashMap::from([("label".to_owned(), vec![label])]);
    let found =
        engine.list_containers(Some(ListContainersOptionsBuilder::new().filters(&filters).build())).await;
    let scaler = found.unwrap().pop().and_then(|there| there.id).expect("a scaler on this host");
    let options = KillContainerOptionsBuilder::new().signal(signal).build();
    engine.kill_container(&scaler, Some(options)).await.unwrap();
}

/// Asks until there is an answer.
async fn soon<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
