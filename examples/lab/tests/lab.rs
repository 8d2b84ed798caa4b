//! The lab's promises, on the lab itself. One walk, since there is one lab at a time.
#![allow(clippy::unwrap_used, reason = "clippy.toml's permission does not reach a test's helpers")]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::{Daemon, Deed, Host, Lab, VIRTUAL_ADDR};
use rustix::process::{Pid, Signal, kill_process};
use support::{DownAtLast, container, docker, eventually, image, left_overs, redis, run_container};

const PORT: u16 = 7000;

#[test]
fn refusals_are_one_line_with_exit_code_2() {
    // Without root, so that no lab is touched.
    for args in [&["packages"][..], &["up"], &["power-off", "h0"], &["cut", "h0"], &["down"]] {
        let output = as_nobody(args);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and Docker: ./test.sh runs it"]
async fn a_lab_from_up_to_down() {
    assert!(Lab::attach().unwrap().is_none(), "a lab is up, and this test needs one of its own: lab down");
    let _down = DownAtLast::new(env!("CARGO_BIN_EXE_lab"));
    // The lab's own steps, so that a failure says in which one.
    let filter = tracing_subscriber::EnvFilter::new("lab=info");
    tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().init();
    ctrl_c_leaves_nothing();
    a_crash_leaves_remains();
    let start = Instant::now();
    let lab = Lab::up(3).await.unwrap();
    println!("up after a crash: {:.1?}", start.elapsed());

    // A second lab is refused, and the first one is not harmed by that.
    assert!(Lab::up(3).await.unwrap_err().is_refusal());
    let status = lab.status().await.unwrap();
    assert!(status.is_healthy(), "{status:#?}");
    let leaders = lab.leaders().await.unwrap();
    assert_eq!(leaders.swarm.as_deref(), Some("h1"));
    assert_eq!(leaders.consul.as_deref(), Some("h1"));
    assert_eq!(Lab::attach().unwrap().unwrap().hosts(), lab.hosts());
    let name = lab.exec("h2", &["hostname"]).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&name.stdout).trim(), "h2");

    let third = lab.host("h3").unwrap();
    containers_reach_and_are_reached(&lab, third);
    a_follower_dies_and_returns(&lab).await;
    a_daemon_is_killed_stopped_and_hung(&lab, third).await;
    a_disk_is_full(&lab, third).await;
    the_virtual_address_follows_the_ready_gateways(&lab).await;
    a_cut_host_runs_on(&lab, third).await;
    the_old_redis_master_returns_as_a_replica(&lab).await;
    a_blackout_passes(&lab).await;

    let start = Instant::now();
    lab.down().await.unwrap();
    println!("down: {:.1?}", start.elapsed());
    assert_eq!(left_overs(), Vec::<String>::new());
    assert!(Lab::attach().unwrap().is_none());
    assert!(!Lab::clear().await.unwrap(), "down twice is no error, and finds nothing");
}

fn containers_reach_and_are_reached(lab: &Lab, host: &Host) {
    image(host);
    container(host, &["redis-server", "--port", "7000", "--protected-mode", "no"], Some(PORT));
    let addr = SocketAddr::from((host.addr, PORT));
    let answers = || redis(addr, "PING").is_ok_and(|answer| answer.starts_with("+PONG"));
    eventually("a published port answers", Duration::from_secs(10), answers);
    for other in lab.hosts() {
        let addr = other.addr.to_string();
        let code = run_container(host, &["redis-cli", "-h", &addr, "ping"]);
        assert_eq!(code, 0, "a container on {} reaches Redis on {}", host.name, other.name);
    }
}

/// `h3` leads nothing, so that nobody else is disturbed.
async fn a_daemon_is_killed_stopped_and_hung(lab: &Lab, host: &Host) {
    let addr = host.redis_addr();
    let pid = || redis(addr, "INFO server").map(|info| info.split("process_id:").nth(1).map(str::to_owned));
    let before = pid().unwrap();
    lab.daemon("h3", Daemon::Redis, Deed::Kill).await.unwrap();
    eventually("a killed daemon is started again", Duration::from_secs(10), || {
        pid().is_ok_and(|now| now.is_some() && now != before)
    });
    lab.daemon("h3", Daemon::Redis, Deed::Stop).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(redis(addr, "PING").is_err(), "a stopped daemon stays down");
    assert!(lab.daemon("h3", Daemon::Redis, Deed::Pause).await.unwrap_err().is_refusal());
    lab.daemon("h3", Daemon::Redis, Deed::Start).await.unwrap();
    eventually("a daemon that may start again", Duration::from_secs(10), || redis(addr, "PING").is_ok());
    lab.daemon("h3", Daemon::Redis, Deed::Pause).await.unwrap();
    let inside = lab.exec("h3", &["timeout", "1", "redis-cli", "ping"]).await.unwrap();
    assert!(!inside.status.success(), "a hung daemon answers nothing");
    lab.daemon("h3", Daemon::Redis, Deed::Resume).await.unwrap();
    assert!(redis(addr, "PING").is_ok());
    well_again(lab).await;
}

async fn a_disk_is_full(lab: &Lab, host: &Host) {
    let free = async || {
        let df = ["sh", "-c", "df --output=avail -B1 /etc | tail -n 1"];
        let out = lab.exec(&host.name, &df).await.unwrap();
        String::from_utf8_lossy(&out.stdout).trim().parse::<u64>().unwrap()
    };
    assert!(free().await > 0);
    lab.fill_disk("h3").await.unwrap();
    assert_eq!(free().await, 0);
    assert!(lab.fill_disk("h3").await.unwrap_err().is_refusal());
    lab.free_disk("h3").await.unwrap();
    assert!(free().await > 0);
    assert!(lab.free_disk("h3").await.unwrap_err().is_refusal());
    well_again(lab).await;
}

async fn the_virtual_address_follows_the_ready_gateways(lab: &Lab) {
    let holder = async || {
        let mut names = Vec::new();
        for host in lab.hosts() {
            let show = lab.exec(&host.name, &["ip", "-br", "addr", "show", "eth0"]).await.unwrap();
            if String::from_utf8_lossy(&show.stdout).contains(&VIRTUAL_ADDR.to_string()) {
                names.push(host.name.clone());
            }
        }
        names
    };
    let becomes = async |wanted: &[&str]| {
        let start = Instant::now();
        while holder().await != wanted {
            assert!(start.elapsed() < Duration::from_secs(15), "{:?}, not {wanted:?}", holder().await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        println!("the virtual address is on {wanted:?} after {:.1?}", start.elapsed());
    };
    becomes(&[]).await;
    // What keepalived asks of a gateway, and no more.
    // It reads before it answers: a connection that is closed with something unread takes the answer along.
    let gateway = "use IO::Socket::INET; $SIG{PIPE} = 'IGNORE'; my $l = IO::Socket::INET->new(Listen => 5, ReuseAddr \
                   => 1, LocalAddr => '127.0.0.1:8081') or die; while (my $c = $l->accept) { my $request = <$c>; \
                   print $c \"HTTP/1.0 200 OK\\r\\n\\r\\n\"; close $c }";
    let start = async |host: &str| {
        let script = "perl -e \"$1\" </dev/null >/dev/null 2>&1 & echo $! > /run/test-gateway";
        assert!(lab.exec(host, &["sh", "-c", script, "sh", gateway]).await.unwrap().status.success());
    };
    let stop = async |host: &str| {
        let script = "kill -9 \"$(cat /run/test-gateway)\"";
        assert!(lab.exec(host, &["sh", "-c", script]).await.unwrap().status.success());
    };
    start("h2").await;
    becomes(&["h2"]).await;
    start("h3").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(holder().await, ["h2"], "another ready gateway takes nothing away");
    stop("h2").await;
    becomes(&["h3"]).await;
    stop("h3").await;
    becomes(&[]).await;
}

async fn a_cut_host_runs_on(lab: &Lab, host: &Host) {
    let addr = SocketAddr::from((host.addr, PORT));
    lab.cut(&host.name).await.unwrap();
    assert!(lab.cut(&host.name).await.unwrap_err().is_refusal());
    assert!(redis(addr, "PING").is_err(), "a cut host can't be reached");
    let inside = lab.exec(&host.name, &["redis-cli", "-h", "127.0.0.1", "ping"]).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&inside.stdout).trim(), "PONG", "and runs on all the same");
    assert!(!lab.status().await.unwrap().is_healthy());
    lab.heal(&host.name).await.unwrap();
    assert!(lab.heal(&host.name).await.unwrap_err().is_refusal());
    eventually("a healed host answers", Duration::from_secs(10), || redis(addr, "PING").is_ok());
    well_again(lab).await;
}

async fn a_follower_dies_and_returns(lab: &Lab) {
    let start = Instant::now();
    lab.power_off("h2").await.unwrap();
    println!("power-off: {:.2?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(2));
    assert!(lab.power_off("h2").await.unwrap_err().is_refusal());
    assert!(lab.exec("h2", &["true"]).await.unwrap_err().is_refusal());
    let first = lab.host("h1").unwrap();
    let noticed = eventually("the Swarm sees the node down", Duration::from_secs(15), || {
        let nodes = docker(first, "GET /nodes", "application/json", b"");
        let node = nodes.as_array().unwrap().iter().find(|n| n["Description"]["Hostname"] == "h2");
        node.is_some_and(|n| n["Status"]["State"] == "down")
    });
    println!("down in the Swarm after {noticed:.1?}");
    let start = Instant::now();
    lab.power_on("h2").await.unwrap();
    println!("power-on: {:.1?}", start.elapsed());
    assert!(lab.power_on("h2").await.unwrap_err().is_refusal());
    let status = lab.status().await.unwrap();
    assert!(status.is_healthy(), "{status:#?}");
    let leaders = lab.leaders().await.unwrap();
    assert_eq!((leaders.swarm.as_deref(), leaders.consul.as_deref()), (Some("h1"), Some("h1")));
}

/// Not for a moment may it call itself the master again: what it then took would be lost.
async fn the_old_redis_master_returns_as_a_replica(lab: &Lab) {
    let old = lab.leaders().await.unwrap().redis.unwrap();
    let addr = lab.host(&old).unwrap().redis_addr();
    lab.power_off(&old).await.unwrap();
    let start = Instant::now();
    // While a leader is being elected a question may go without an answer: ask again.
    while !lab
        .leaders()
        .await
        .is_ok_and(|l| l.redis.is_some_and(|new| new != old) && l.swarm.is_some_and(|s| s != old))
    {
        assert!(start.elapsed() < PATIENCE, "no failover within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("all leaders moved after {:.1?}", start.elapsed());
    let done = Arc::new(AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let done = Arc::clone(&done);
        move || {
            let (mut seen, mut master) = (0, 0);
            while !done.load(Ordering::Relaxed) {
                if let Ok(answer) = redis(addr, "INFO replication") {
                    seen += 1;
                    master += usize::from(answer.contains("role:master"));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            (seen, master)
        }
    });
    let back = lab.power_on(&old).await;
    done.store(true, Ordering::Relaxed);
    let (seen, master) = watcher.join().unwrap();
    back.unwrap();
    assert!(seen > 10, "the watcher saw it {seen} times");
    assert_eq!(master, 0, "of {seen} answers");
    well_again(lab).await;
}

/// All hosts off, then on one by one, the first of them with nobody to ask.
async fn a_blackout_passes(lab: &Lab) {
    for host in lab.hosts() {
        lab.power_off(&host.name).await.unwrap();
    }
    assert!(Lab::up(3).await.unwrap_err().is_refusal(), "a lab whose hosts are off is a lab");
    for host in lab.hosts().iter().rev() {
        lab.power_on(&host.name).await.unwrap();
    }
    well_again(lab).await;
}

async fn well_again(lab: &Lab) {
    let start = Instant::now();
    loop {
        let status = lab.status().await.unwrap();
        if status.is_healthy() {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{status:#?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn ctrl_c_leaves_nothing() {
    let mut up = start_up();
    signal(&up, Signal::INT);
    assert_eq!(up.wait().unwrap().code(), Some(130));
    assert_eq!(left_overs(), Vec::<String>::new());
}

/// As if the machine's out-of-memory killer had taken the builder: what it had built so far stays.
fn a_crash_leaves_remains() {
    let mut up = start_up();
    signal(&up, Signal::KILL);
    up.wait().unwrap();
    assert!(!left_overs().is_empty());
    assert!(Lab::attach().unwrap().is_none(), "remains are no lab");
}

/// Starts a `lab up`, and returns when it has built half of it.
fn start_up() -> Child {
    let mut up = Command::new(env!("CARGO_BIN_EXE_lab")).arg("up").stderr(Stdio::piped()).spawn().unwrap();
    eventually("the second host's namespace", Duration::from_secs(300), || {
        if let Some(status) = up.try_wait().unwrap() {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut up.stderr.take().unwrap(), &mut text).unwrap();
            panic!("lab up ended too early ({status}): {text}");
        }
        Path::new("/run/netns/halab-h2").exists()
    });
    up
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), signal).unwrap();
}

/// Runs the binary without root's rights.
fn as_nobody(args: &[&str]) -> std::process::Output {
    if !rustix::process::geteuid().is_root() {
        return Command::new(env!("CARGO_BIN_EXE_lab")).args(args).output().unwrap();
    }
    // The build's folder may be root's alone.
    let copy = std::env::temp_dir().join(format!("lab-as-nobody-{}", std::process::id()));
    std::fs::copy(env!("CARGO_BIN_EXE_lab"), &copy).unwrap();
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    let output = nobody.arg(&copy).args(args).output().unwrap();
    std::fs::remove_file(&copy).unwrap();
    output
}

/// Elections take seconds, but a manager that was off for long can make the Swarm elect anew for a minute (see the
/// README's limits), and a machine that builds beside it takes longer for everything.
const PATIENCE: Duration = Duration::from_secs(150);
