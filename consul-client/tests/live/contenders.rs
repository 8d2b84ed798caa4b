//! Two contenders in processes of their own, which are stopped and resumed at random, as are the servers: never two holders past the
//! fence.
//!
//! The holder of the lock writes its fence to a register, which takes a fence only if it is not lower than the last one. What the
//! register took must be in order, and each fence one contender's.

use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use consul_client::Client;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::agent::{Consul, signal};

/// What the register took and refused.
#[derive(Default)]
struct Register {
    last: u64,
    taken: u64,
    refused: u64,
    owners: BTreeMap<u64, String>,
    wrong: Vec<String>,
}

impl Register {
    fn write(&mut self, who: &str, fence: u64) -> bool {
        if fence < self.last {
            self.refused += 1;
            return false;
        }
        self.last = fence;
        self.taken += 1;
        let owner = self.owners.entry(fence).or_insert_with(|| who.to_owned()).clone();
        if owner != who {
            self.wrong.push(format!("fence {fence} is {owner}'s and {who}'s"));
        }
        true
    }
}

/// Serves lines `who fence`; answers `y` or `n`.
async fn serve(register: Arc<Mutex<Register>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let register = Arc::clone(&register);
            tokio::spawn(async move {
                let (read, mut write) = stream.into_split();
                let mut lines = BufReader::new(read).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    let (who, fence) = line.split_once(' ').unwrap();
                    let taken = register.lock().unwrap().write(who, fence.parse().unwrap());
                    if write.write_all(if taken { b"y" } else { b"n" }).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

struct Contender(Child);

impl Contender {
    fn start(name: &str, servers: &[String], register: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "contenders::one_contender_in_a_process_of_its_own"])
            .env("CONTENDER", name)
            .env("CONTENDER_SERVERS", servers.join(","))
            .env("CONTENDER_REGISTER", register)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        // Also ends one that is stopped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The body of a contender's process. Without the variables, when the test runner runs it, it has nothing to do.
#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn one_contender_in_a_process_of_its_own() {
    let Ok(name) = std::env::var("CONTENDER") else { return };
    let servers = std::env::var("CONTENDER_SERVERS").unwrap();
    let builder = servers.split(',').fold(Client::builder(), with_address);
    let client = builder.deadline(Duration::from_secs(8)).build().unwrap();
    let mut register = TcpStream::connect(std::env::var("CONTENDER_REGISTER").unwrap()).await.unwrap();
    loop {
        let lock = client.lock("contended").ttl(Duration::from_secs(10)).lock_delay(Duration::from_secs(1));
        let Ok(lock) = lock.value(name.clone()).acquire().await else { continue };
        let until = Instant::now() + Duration::from_millis(700);
        while lock.is_held() && Instant::now() < until {
            register.write_all(format!("{name} {}\n", lock.fence()).as_bytes()).await.unwrap();
            register.read_u8().await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let _ = lock.release().await;
    }
}

#[allow(non_snake_case, reason = "named like the method that it stands for")]
fn with_address(builder: consul_client::ClientBuilder, address: &str) -> consul_client::ClientBuilder {
    builder.address(address)
}

#[tokio::test]
#[ignore = "needs consul: ./test.sh runs it"]
async fn never_two_holders_past_the_fence() {
    let long = std::env::var_os("HA_STACK_LONG").is_some();
    let duration = Duration::from_secs(if long { 600 } else { 60 });
    let seed = std::env::var("CONTENDERS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed);
    println!("seed {seed} (CONTENDERS_SEED)");
    let mut random = rand::rngs::StdRng::seed_from_u64(seed);
    let servers = Consul::start_three().await;
    let register = Arc::new(Mutex::new(Register::default()));
    let address = serve(Arc::clone(&register)).await;
    let addresses: Vec<_> = servers.iter().map(Consul::address).collect();
    let contenders = ["one", "two"].map(|name| Contender::start(name, &addresses, &address));
    let began = Instant::now();
    while began.elapsed() < duration {
        tokio::time::sleep(Duration::from_millis(random.random_range(200..1500))).await;
        // Mostly a contender for longer than its lease; now and then a server for longer than an election.
        if random.next_u32() % 3 < 2 {
            let victim = contenders[random.random_range(0..2)].0.id();
            signal(victim, "STOP");
            tokio::time::sleep(Duration::from_millis(random.random_range(50..12_000))).await;
            signal(victim, "CONT");
        } else {
            let victim = &servers[random.random_range(0..3)];
            victim.signal("STOP");
            tokio::time::sleep(Duration::from_millis(random.random_range(50..4000))).await;
            victim.signal("CONT");
        }
    }
    drop(contenders);
    let register = register.lock().unwrap();
    let owners = register.owners.values().collect::<std::collections::BTreeSet<_>>().len();
    println!(
        "{} writes taken, {} refused, {} terms by {owners} contenders",
        register.taken,
        register.refused,
        register.owners.len()
    );
    assert!(register.wrong.is_empty(), "seed {seed}: {:?}", register.wrong);
    assert!(register.owners.len() > 3 && owners == 2, "seed {seed}: the lock hardly changed hands");
}
