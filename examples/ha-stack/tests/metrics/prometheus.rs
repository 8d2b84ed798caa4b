//! A real Prometheus reads a real stack, and promtool reads the files.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::browser::program;
use crate::names::{deployed, pages, queries};
use crate::ports::free_address;
use crate::up::Up;

fn promtool(arguments: &[&str], input: Option<&str>) {
    let mut command = Command::new(program("promtool", "prometheus"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.unwrap_or_default().as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    assert!(out.status.success(), "promtool {}: {said}", arguments.join(" "));
    // A remark of the linter is no failure to promtool, but one to us.
    assert!(arguments[1] != "metrics" || said.trim().is_empty(), "{said}");
}

#[test]
#[ignore = "needs prometheus: ./test.sh runs it"]
fn promtool_finds_nothing_to_say() {
    let file = |name: &str| deployed(&format!("prometheus/{name}")).to_str().unwrap().to_owned();
    promtool(&["check", "config", &file("prometheus.yml")], None);
    promtool(&["check", "rules", "--lint=all", "--lint-fatal", &file("ha-stack.rules.yml")], None);
    promtool(&["test", "rules", &file("ha-stack.test.yml")], None);
    for (_, page) in pages() {
        promtool(&["check", "metrics"], Some(&page));
    }
}

/// A process that ends with the test.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command) -> Ending {
    Ending(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

/// A Prometheus that asks the stack, a gateway and a site.
fn prometheus(folder: &Path, up: &Up, gateway: &str, site: &str) -> (Ending, String) {
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n\
         - {{job_name: ha-stack, static_configs: [{{targets: ['{}']}}]}}\n\
         - {{job_name: ha-gateway, static_configs: [{{targets: ['{gateway}']}}]}}\n\
         - {{job_name: ha-web, static_configs: [{{targets: ['{site}']}}]}}\n",
        deployed("prometheus/ha-stack.rules.yml").display(),
        up.control,
    );
    let file = folder.join("prometheus.yml");
    std::fs::write(&file, config).unwrap();
    let listen = free_address();
    let mut command = Command::new(program("prometheus", "prometheus"));
    command.arg(format!("--config.file={}", file.display()));
    command.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
    command.arg(format!("--web.listen-address={listen}"));
    (start(&mut command), format!("http://{listen}"))
}

async fn ask(http: &reqwest::Client, prometheus: &str, query: &str) -> Option<Value> {
    let request = http.get(format!("{prometheus}/api/v1/query")).query(&[("query", query)]);
    let answer = request.send().await.ok()?;
    let answer: Value = answer.json().await.ok()?;
    assert_eq!(answer["status"], "success", "{query}: {answer}");
    Some(answer["data"]["result"].clone())
}

#[tokio::test]
#[ignore = "needs prometheus: ./test.sh runs it"]
async fn a_real_prometheus_reads_stack_and_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(&[], None);
    let admin = free_address().to_string();
    // Without Consul: a gateway is measured before it knows anybody.
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_ha-stack"));
    gateway.args(["gateway", "--listen", &free_address().to_string(), "--admin", &admin]);
    gateway.args(["--consul", "http://127.0.0.1:1"]);
    let _gateway = start(&mut gateway);
    let [site, figures] = [free_address(), free_address()].map(|address| address.to_string());
    let mut web = Command::new(env!("CARGO_BIN_EXE_ha-stack"));
    let _web = start(web.args(["web", "--session", "memory:", "--listen", &site, "--metrics", &figures]));
    let (_prometheus, at) = prometheus(folder.path(), &up, &admin, &figures);
    let http = reqwest::Client::new();
    let value = async |query: &str| {
        let found = ask(&http, &at, query).await?;
        found[0]["value"][1].as_str().map(ToOwned::to_owned)
    };
    let wait_for = async |query: &str, wanted: &str| {
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            let seen = value(query).await;
            if seen.as_deref() == Some(wanted) {
                return;
            }
            assert!(Instant::now() < deadline, "{query} is {seen:?} and not {wanted}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    wait_for("sum(up)", "3").await;
    wait_for("ha_stack_replicas_usable{service=\"web\"}", "2").await;
    wait_for("sum(ha_stack_host_up)", "3").await;
    wait_for("ha_gateway_ready", "1").await;
    wait_for("ha_web_ready", "1").await;
    http.get(format!("http://{site}/whoami")).send().await.unwrap();
    wait_for("ha_web_requests_total{route=\"/whoami\", code=\"200\"}", "1").await;
    wait_for("ha_web_request_seconds_bucket{route=\"/whoami\", le=\"+Inf\"}", "1").await;
    for query in queries() {
        ask(&http, &at, &query).await.unwrap();
    }
    // That gateway has no replica: somebody is woken up.
    wait_for("ALERTS{alertname=\"HaStackNoReplica\", alertstate=\"firing\"}", "1").await;
}
