//! A whole stack as `up` sees it. Pure.

use super::text::{Kind, Page};
use crate::dashboard::view::Frame;

/// The page of a stack; of one that can't be seen only that.
pub fn page(frame: Option<&Frame>) -> String {
    let seen = frame.filter(|frame| frame.error.is_none());
    let flag = |on: bool| f64::from(u8::from(on));
    let page = Page::default()
        .family("ha_stack_visible", Kind::Gauge, "1 while the state of the stack can be read.")
        .sample(&[], flag(seen.is_some()));
    let Some(Frame { view, sample, .. }) = seen else { return page.finish() };
    let newest = view.decisions.last();
    page.family("ha_stack_replicas_wanted", Kind::Gauge, "Replicas that are wanted.")
        .known(&[("service", &view.service)], view.wanted.map(f64::from))
        .family("ha_stack_replicas_usable", Kind::Gauge, "Replicas that take traffic.")
        .sample(&[("service", &view.service)], view.usable() as f64)
        .family("ha_stack_host_up", Kind::Gauge, "1 while a host is there.")
        .samples(&view.hosts, |page, host| page.sample(&[("host", &host.name)], flag(host.up)))
        .family("ha_stack_backend_up", Kind::Gauge, "1 while a service that the stack stands on is well.")
        .samples(&view.backends, |page, backend| page.sample(&[("backend", &backend.name)], flag(backend.ok)))
        .family("ha_stack_scaler_held", Kind::Gauge, "1 while a person keeps the scaler off.")
        .sample(&[("service", &view.service)], flag(view.hold.is_some()))
        .family("ha_stack_requests_in_flight", Kind::Gauge, "Requests under way at all gateways that answer.")
        .known(&[], sample.in_flight.map(|n| n as f64))
        .family(
            "ha_stack_last_decision_timestamp_seconds",
            Kind::Gauge,
            "When the scaler decided something new last.",
        )
        .known(&[("service", &view.service)], newest.map(|decided| decided.at))
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dashboard::view::View;
    use crate::platform::{Backend, Host};

    #[test]
    fn a_stack_that_is_not_seen_has_no_figures() {
        let hidden = "# HELP ha_stack_visible 1 while the state of the stack can be read.\n# TYPE ha_stack_visible gauge\nha_stack_visible 0\n";
        assert_eq!(page(None), hidden);
        let failed = Frame { error: Some("no manager".into()), ..Frame::default() };
        assert_eq!(page(Some(&failed)), hidden);
    }

    #[test]
    fn hosts_and_backends_are_flags() {
        let host = Host { name: "h2".into(), up: false, ..Host::default() };
        let backend = Backend { name: "consul".into(), ok: true, detail: String::new() };
        let view =
            View { service: "web".into(), hosts: vec![host], backends: vec![backend], ..View::default() };
        let text = page(Some(&Frame { view, ..Frame::default() }));
        for line in [
            "ha_stack_visible 1",
            "ha_stack_host_up{host=\"h2\"} 0",
            "ha_stack_backend_up{backend=\"consul\"} 1",
        ] {
            assert!(text.lines().any(|there| there == line), "{line}\n{text}");
        }
        assert!(!text.contains("ha_stack_replicas_wanted{"), "{text}");
    }
}
