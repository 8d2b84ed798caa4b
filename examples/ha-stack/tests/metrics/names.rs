//! The files for Prometheus and Grafana name only what a role says.

use std::collections::BTreeSet;
use std::path::Path;

use ha_stack::dashboard::view::{Frame, Sample, View};
use ha_stack::metrics;
use serde_json::Value;

/// Every page of every role, with something known in each.
pub(crate) fn pages() -> Vec<(&'static str, String)> {
    let config = balancer::proxy::Config::default().probe("/healthz");
    let services = ha_stack::roles::services::Services::new(config, Some("web"), None).unwrap();
    let endpoint = balancer::Endpoint::new("web.1", "127.0.0.1:9".parse().unwrap()).host("h1");
    services.apply("web", balancer::Update::Add(endpoint));
    let view = View { service: "web".into(), wanted: Some(2), ..View::default() };
    let frame =
        Frame { view, sample: Sample { in_flight: Some(1), ..Sample::default() }, ..Frame::default() };
    let (_, scaler) = metrics::scaler::Counted::new((), "web");
    let registrar = metrics::registrar::Figures::default();
    registrar.round(&Ok::<_, ()>(()));
    vec![
        ("gateway", metrics::gateway::page(&services.whole_load(), true)),
        ("stack", metrics::stack::page(Some(&frame))),
        ("scaler", scaler.page()),
        ("registrar", registrar.page()),
    ]
}

pub(crate) fn deployed(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)
}

/// The queries of the Grafana dashboard.
pub(crate) fn queries() -> Vec<String> {
    let text = std::fs::read_to_string(deployed("grafana/ha-stack.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let of_notes = dashboard["annotations"]["list"].as_array().unwrap();
    targets.chain(of_notes).map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("ha_")).collect()
}

#[test]
fn rules_and_dashboard_name_only_what_exists() {
    let pages = pages();
    let families = pages.iter().flat_map(|(_, page)| page.lines()).filter_map(|line| {
        let family = line.strip_prefix("# TYPE ")?;
        family.split(' ').next()
    });
    let families: BTreeSet<&str> = families.collect();
    let rules = std::fs::read_to_string(deployed("prometheus/ha-stack.rules.yml")).unwrap();
    let queries = queries().join("\n");
    let used: BTreeSet<&str> = names(&rules).union(&names(&queries)).copied().collect();
    assert!(used.len() >= 12, "{used:?}");
    let unknown: Vec<_> = used.difference(&families).collect();
    assert!(unknown.is_empty(), "no role says {unknown:?}");
}

#[test]
fn names_follow_the_conventions() {
    for (role, page) in pages() {
        for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            assert!(name.starts_with(&format!("ha_{role}_")), "{name}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        }
    }
}
