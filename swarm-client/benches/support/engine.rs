//! An engine that knows tasks and nothing else.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::child::now_ms;

pub(crate) struct Engine {
    url: String,
    state: Arc<State>,
}

struct State {
    tasks: Mutex<Vec<String>>,
    lists: AtomicUsize,
}

impl Engine {
    pub(crate) fn start(tasks: usize) -> Self {
        let tasks = (0..tasks).map(|index| task(index, 10)).collect();
        let state = Arc::new(State { tasks: Mutex::new(tasks), lists: AtomicUsize::new(0) });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("tcp://{}", listener.local_addr().unwrap());
        let served = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&served);
                thread::spawn(move || serve(stream.unwrap(), &state));
            }
        });
        Self { url, state }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn size(&self) -> usize {
        self.state.tasks.lock().unwrap().iter().map(String::len).sum()
    }

    /// How often the tasks were listed.
    pub(crate) fn lists(&self) -> usize {
        self.state.lists.load(Ordering::Relaxed)
    }

    /// From now on, changes so many tasks each time, at moments that do not keep step with anybody's clock.
    pub(crate) fn change_every(&self, time: Duration, count: usize) {
        let state = Arc::clone(&self.state);
        thread::spawn(move || {
            for round in 0_usize.. {
                thread::sleep(time.mul_f64(0.5 + (round * 7 % 11) as f64 / 10.0));
                let mut tasks = state.tasks.lock().unwrap();
                for step in 0..count {
                    let index = (round * count + step) % tasks.len();
                    tasks[index] = task(index, 11 + round as u64);
                }
            }
        });
    }
}

fn serve(mut stream: TcpStream, state: &State) {
    let mut head = Vec::new();
    let mut byte = [0; 1024];
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(0) | Err(_) => return,
            Ok(read) => head.extend_from_slice(&byte[..read]),
        }
    }
    let path = String::from_utf8_lossy(&head).split_whitespace().nth(1).unwrap_or_default().to_owned();
    let (status, body) = if path == "/_ping" {
        ("200 OK", "OK".to_owned())
    } else if path.contains("/tasks") {
        let body = format!("[{}]", state.tasks.lock().unwrap().join(","));
        state.lists.fetch_add(1, Ordering::Relaxed);
        ("200 OK", body)
    } else {
        ("404 Not Found", "{\"message\":\"page not found\"}".to_owned())
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nApi-Version: 1.47\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}

/// One of 500 tasks of its service, with what a usual one has; its status' message is the time of the change in ms.
fn task(index: usize, version: u64) -> String {
    let service = index / 500;
    let spec = json!({
        "ContainerSpec": {
            "Image": format!("registry.example:5000/team/service-{service}:1.2.3@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
            "Labels": {"com.docker.stack.namespace": "shop"}, "Args": ["serve", "--listen", "0.0.0.0:80"],
            "Env": ["LOG_LEVEL=info", "DATABASE=postgres://db/shop", "CACHE=redis://cache:6379", "REGION=eu"],
            "Init": false, "StopGracePeriod": 20_000_000_000_i64,
            "Healthcheck": {"Test": ["CMD", "/app", "check"], "Interval": 5_000_000_000_i64, "Timeout": 2_000_000_000_i64, "Retries": 3},
            "DNSConfig": {}, "Isolation": "default",
            "Mounts": [{"Type": "volume", "Source": "data", "Target": "/data", "VolumeOptions": {"Labels": {"a": "b"}}}],
            "Secrets": [{"File": {"Name": "pw", "UID": "0", "GID": "0", "Mode": 292}, "SecretID": "s0123456789abcdef01234567", "SecretName": "shop_pw"}],
        },
        "Resources": {"Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 268_435_456}, "Reservations": {"MemoryBytes": 134_217_728}},
        "RestartPolicy": {"Condition": "any", "Delay": 5_000_000_000_i64, "MaxAttempts": 0},
        "Placement": {"Constraints": ["node.role==worker"], "Platforms": [{"Architecture": "amd64", "OS": "linux"}]},
        "Networks": [{"Target": "n0123456789abcdef01234567", "Aliases": ["web"]}],
        "ForceUpdate": 0,
    });
    let network = json!({
        "ID": "n0123456789abcdef01234567", "Version": {"Index": 20}, "CreatedAt": "2026-11-25T22:00:00.000000000Z", "UpdatedAt": "2026-11-25T22:00:00.000000000Z",
        "Spec": {"Name": "shop_back", "Labels": {"com.docker.stack.namespace": "shop"}, "DriverConfiguration": {"Name": "overlay"}, "Attachable": true,
            "IPAMOptions": {"Driver": {"Name": "default"}}, "Scope": "swarm"},
        "DriverState": {"Name": "overlay", "Options": {"com.docker.network.driver.overlay.vxlanid_list": "4097"}},
        "IPAMOptions": {"Driver": {"Name": "default"}, "Configs": [{"Subnet": "10.0.0.0/16", "Gateway": "10.0.0.1"}]},
    });
    let status = json!({
        "Timestamp": "2026-11-25T22:00:05.123456789Z", "State": "running", "Message": now_ms().to_string(),
        "ContainerStatus": {"ContainerID": format!("{index:064x}"), "PID": 1000 + index % 30_000, "ExitCode": 0}, "PortStatus": {},
    });
    let address = format!("10.0.{}.{}/16", index / 250 + 1, index % 250 + 2);
    // In the order in which the engine writes it.
    format!(
        "{{\"ID\":\"t{index:024}\",\"Version\":{{\"Index\":{version}}},\"CreatedAt\":\"2026-11-25T22:00:00.000000000Z\",\
         \"UpdatedAt\":\"2026-11-25T22:00:05.200000000Z\",\"Labels\":{{}},\"Spec\":{spec},\"ServiceID\":\"s{service:024}\",\"Slot\":{},\
         \"NodeID\":\"m{:024}\",\"Status\":{status},\"DesiredState\":\"running\",\
         \"NetworksAttachments\":[{{\"Network\":{network},\"Addresses\":[\"{address}\"]}}]}}",
        index % 500 + 1,
        index % 50,
    )
}
