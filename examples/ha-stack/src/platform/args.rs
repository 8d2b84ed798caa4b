//! The command lines of the roles in containers, the same on every platform.

use std::time::Duration;

use super::StackSpec;
use super::front::{ADMIN_PORT, GATEWAY_PORT};
use crate::roles::coordination::Discovery;

pub(super) fn web(spec: &StackSpec) -> Vec<String> {
    let mut args = list(&[
        ("--listen", format!("0.0.0.0:{SITE_PORT}")),
        ("--session-lifetime", spec.session_lifetime.as_secs().to_string()),
        ("--drain", spec.drain.as_secs().to_string()),
    ]);
    args.extend(spec.faults.then(|| "--faults".to_owned()));
    args
}

pub(super) fn registrar(by: Discovery) -> Vec<String> {
    let mut args = list(&[("--metrics", format!("0.0.0.0:{REGISTRAR_METRICS_PORT}"))]);
    args.extend(discovery(by));
    args
}

pub(super) fn gateway(spec: &StackSpec, by: Discovery) -> Vec<String> {
    let mut args = list(&[
        ("--service", spec.service.clone()),
        ("--listen", format!("0.0.0.0:{GATEWAY_PORT}")),
        ("--admin", format!("0.0.0.0:{ADMIN_PORT}")),
        ("--wait", spec.wait.as_secs().to_string()),
        // The site's GETs may be repeated: a replica that fails fast is nobody's problem until it is ejected.
        ("--retry-on", "500".to_owned()),
    ]);
    args.extend(discovery(by));
    // Where there is no Consul, gateways are found as tasks of their service.
    args.extend((by == Discovery::Consul).then(|| "--register".to_owned()));
    args
}

pub(super) fn scaler(spec: &StackSpec, by: Discovery) -> Vec<String> {
    let mut args = list(&[
        ("--service", spec.service.clone()),
        ("--min", spec.min.to_string()),
        ("--max", spec.max.to_string()),
        ("--target", spec.target_in_flight.to_string()),
        ("--calm", spec.calm.as_secs().to_string()),
        ("--down-percent", spec.down_percent_a_minute.to_string()),
        ("--metrics", format!("0.0.0.0:{SCALER_METRICS_PORT}")),
    ]);
    args.extend(discovery(by));
    args
}

/// Consul is what roles ask where nothing else is said.
fn discovery(by: Discovery) -> Option<String> {
    (by != Discovery::Consul).then(|| format!("--discovery={}", by.name()))
}

fn list(flags: &[(&str, String)]) -> Vec<String> {
    flags.iter().flat_map(|(flag, value)| [(*flag).to_owned(), value.clone()]).collect()
}

/// Where each host's registrar says how its rounds go, and its scaler, if it has one, what it decided: for Prometheus.
const REGISTRAR_METRICS_PORT: u16 = 8082;
const SCALER_METRICS_PORT: u16 = 8083;
/// Where a replica listens inside its container.
pub(super) const SITE_PORT: u16 = 8080;
/// Longer than the drain period by this, so that the kill finds nobody.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(15);
/// The gateway serves on for 3 s, then gives what is in flight 20 s.
pub(super) const GATEWAY_DRAIN: Duration = Duration::from_secs(25);
