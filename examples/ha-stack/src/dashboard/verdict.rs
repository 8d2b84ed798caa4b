//! The whole stack in one sentence, for somebody who is woken up at night. Pure.

use serde::{Deserialize, Serialize};

use super::view::{Sample, View};

/// How it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// How bad it is.
    pub level: Level,
    /// In a few words.
    pub title: String,
    /// With the figures, or the reason.
    pub text: String,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Nothing to do.
    #[default]
    Good,
    /// More replicas are on their way; nothing to do.
    Growing,
    /// Something is lost, and users don't notice.
    Warn,
    /// Users notice, or soon will.
    Bad,
}

/// Judges what was seen; `error` says why the newest look failed, if it did.
pub fn judge(view: &View, sample: &Sample, error: Option<&str>) -> Verdict {
    let up = view.hosts.iter().filter(|host| host.up).count();
    let usable = view.usable();
    let replicas = match view.wanted {
        Some(wanted) => format!("{usable} of {wanted} replicas in use"),
        None => format!("{usable} replicas in use"),
    };
    let hosts = format!("{up} of {} hosts up", view.hosts.len());
    let counts = if view.hosts.is_empty() { replicas } else { format!("{hosts}, {replicas}") };
    let say = |level, title: &str, text: String| Verdict { level, title: title.into(), text };

    if let Some(error) = error {
        return say(Level::Bad, "The stack can't be seen", error.into());
    }
    if usable == 0 && view.wanted != Some(0) {
        let text = match sample.waiting {
            Some(waiting @ 1..) => format!("{waiting} requests wait for one; {counts}"),
            _ => counts,
        };
        return say(Level::Bad, "No replica takes traffic", text);
    }
    let starved = view.services.iter().filter(|one| one.usable == 0 && one.waiting > 0);
    let starved: Vec<_> = starved
        .map(|one| format!("{} requests wait for a replica of {}", one.waiting, one.service))
        .collect();
    if !starved.is_empty() {
        return say(Level::Bad, "A service has no replica", format!("{}; {counts}", starved.join(", ")));
    }
    let wrong = not_well(view);
    if !wrong.is_empty() {
        return say(Level::Bad, "Something it stands on is not well", wrong.join("; "));
    }
    let lacking = view.wanted.is_some_and(|wanted| usable < wanted as usize);
    if up < view.hosts.len() {
        let title = if lacking { "A host is away" } else { "A host is away, and users don't notice" };
        return say(Level::Warn, title, counts);
    }
    let leaving = view.replicas.iter().filter(|replica| replica.state.starts_with("draining")).count();
    if view.wanted.is_some_and(|wanted| usable + leaving >= wanted as usize) && lacking {
        return say(Level::Good, "Replicas are leaving, and finish what they have", counts);
    }
    if lacking {
        return say(Level::Growing, "More replicas are coming", counts);
    }
    say(Level::Good, "All is well", counts)
}

fn not_well(view: &View) -> Vec<String> {
    let backends = view.backends.iter().filter(|backend| !backend.ok);
    let backends = backends.map(|backend| format!("{}: {}", backend.name, backend.detail));
    // That the gateway of a host without power is silent says nothing new.
    let lost = |name: &str| view.hosts.iter().any(|host| !host.up && host.name == name);
    let silent = view.gateways.iter().filter(|gateway| gateway.error.is_some() && !lost(&gateway.name));
    backends.chain(silent.map(|gateway| format!("the gateway {} is silent", gateway.name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::{Backend, GatewayStatus, Host, Replica};

    fn view(up: [bool; 2], usable: usize, wanted: u32) -> View {
        let host = |(n, up): (usize, &bool)| Host { name: format!("h{n}"), up: *up, ..Host::default() };
        View {
            hosts: up.iter().enumerate().map(host).collect(),
            replicas: vec![Replica { usable: true, ..Replica::default() }; usable],
            wanted: Some(wanted),
            ..View::default()
        }
    }

    fn level(view: &View) -> Level {
        judge(view, &Sample::default(), None).level
    }

    #[test]
    fn what_users_notice_is_bad_and_what_they_do_not_is_not() {
        assert_eq!(level(&view([true, true], 2, 2)), Level::Good);
        assert_eq!(level(&view([true, true], 2, 4)), Level::Growing);
        assert_eq!(level(&view([true, false], 2, 2)), Level::Warn);
        assert_eq!(level(&view([true, false], 0, 2)), Level::Bad);
        // Turned off by a person: nothing is missing.
        assert_eq!(level(&view([true, true], 0, 0)), Level::Good);
    }

    #[test]
    fn one_that_is_told_to_leave_is_not_one_that_is_to_come() {
        let mut seen = view([true, true], 2, 3);
        seen.replicas.push(Replica { state: "draining".into(), ..Replica::default() });
        let verdict = judge(&seen, &Sample::default(), None);
        assert_eq!(verdict.level, Level::Good);
        assert!(verdict.title.contains("leaving"), "{}", verdict.title);
        seen.wanted = Some(4);
        assert_eq!(level(&seen), Level::Growing);
    }

    #[test]
    fn who_waits_is_said() {
        let sample = Sample { waiting: Some(12), ..Sample::default() };
        let verdict = judge(&view([true, true], 0, 1), &sample, None);
        assert_eq!(verdict.text, "12 requests wait for one; 2 of 2 hosts up, 0 of 1 replicas in use");
    }

    #[test]
    fn one_of_several_services_without_a_replica_is_named_while_somebody_waits() {
        let mut seen = view([true, true], 2, 2);
        let shop = crate::dashboard::view::ServiceSeen { service: "shop".into(), ..Default::default() };
        seen.services = vec![shop];
        assert_eq!(level(&seen), Level::Good, "scaled to zero, and nobody asks");
        seen.services[0].waiting = 3;
        let verdict = judge(&seen, &Sample::default(), None);
        assert_eq!(verdict.level, Level::Bad);
        assert!(verdict.text.starts_with("3 requests wait for a replica of shop; "), "{}", verdict.text);
    }

    #[test]
    fn a_silent_gateway_counts_unless_its_host_is_lost() {
        let silent = |name: &str| GatewayStatus {
            name: name.into(),
            error: Some("?".into()),
            ..GatewayStatus::default()
        };
        let mut seen = view([true, false], 2, 2);
        seen.gateways = vec![silent("h1")];
        assert_eq!(level(&seen), Level::Warn);
        seen.gateways = vec![silent("h0")];
        assert_eq!(judge(&seen, &Sample::default(), None).text, "the gateway h0 is silent");
    }

    #[test]
    fn a_backend_that_is_not_well_is_named_with_its_reason() {
        let mut seen = view([true, true], 2, 2);
        seen.backends = vec![Backend { name: "consul".into(), ok: false, detail: "no leader".into() }];
        let verdict = judge(&seen, &Sample::default(), None);
        assert_eq!((verdict.level, verdict.text.as_str()), (Level::Bad, "consul: no leader"));
    }
}
