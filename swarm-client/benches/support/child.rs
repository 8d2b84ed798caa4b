//! What one process measures of itself. It prints numbers alone.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use swarm_client::watch::{WatchConfig, WatchEvent, watcher};
use swarm_client::{Client, Task};

pub(crate) fn run(args: &[String]) {
    let [url, what, how] = args else { panic!("{args:?}") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    match what.as_str() {
        "list" => runtime.block_on(list(url, how)),
        "watch" => runtime.block_on(watch(url, Duration::from_secs(how.parse().unwrap()))),
        other => panic!("{other}"),
    }
}

/// The median time of a list, and the peak of memory in MB.
async fn list(url: &str, how: &str) {
    const LISTS: usize = 5;
    let mut times = Vec::new();
    let ours = Client::builder().endpoint(url).connect().await.unwrap();
    let theirs = bollard::Docker::connect_with_http(url, 120, bollard::API_DEFAULT_VERSION).unwrap();
    for _ in 0..LISTS {
        let start = Instant::now();
        let count = match how {
            "swarm-client" => ours.tasks().list().await.unwrap().len(),
            "bollard" => {
                theirs.list_tasks(None::<bollard::query_parameters::ListTasksOptions>).await.unwrap().len()
            }
            // The wire and nothing else.
            _ => {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let mut stream =
                    tokio::net::TcpStream::connect(url.trim_start_matches("tcp://")).await.unwrap();
                stream.write_all(b"GET /tasks HTTP/1.1\r\n\r\n").await.unwrap();
                let mut all = Vec::new();
                stream.read_to_end(&mut all).await.unwrap()
            }
        };
        times.push(start.elapsed().as_secs_f64() * 1e3);
        assert!(count > 0);
    }
    times.sort_by(f64::total_cmp);
    println!("{} {}", times[LISTS / 2], peak_mb());
}

/// Processor time in ms; then how long after each change it was seen (median, 99 %, all), how many were, and the peak of memory.
async fn watch(url: &str, time: Duration) {
    let client = Client::builder().endpoint(url).connect().await.unwrap();
    let mut events = watcher::<Task>(&client, WatchConfig::default());
    assert!(matches!(events.next().await, Some(Ok(WatchEvent::Init(_)))));
    let (start, before) = (Instant::now(), cpu_ms());
    let mut delays = Vec::new();
    while let Ok(event) = tokio::time::timeout(time.saturating_sub(start.elapsed()), events.next()).await {
        let WatchEvent::Apply(task) = event.unwrap().unwrap() else { continue };
        let changed: f64 = task.status.message.as_deref().unwrap().parse().unwrap();
        delays.push(now_ms() - changed);
    }
    let cpu = cpu_ms() - before;
    delays.sort_by(f64::total_cmp);
    let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize];
    println!("{cpu} {} {} {} {} {}", at(0.5), at(0.99), at(1.0), delays.len(), peak_mb());
}

pub(crate) fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() * 1e3
}

/// Of this process' only busy thread.
fn cpu_ms() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1e6
}

fn peak_mb() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap() / 1e3
}
