//! The short forms of compose: durations, sizes, ports, volumes.

use crate::model::{Mount, PortConfig, Protocol, PublishMode};

/// `1m30s`, `500ms`: nanoseconds.
pub(super) fn duration(text: &str) -> Option<i64> {
    let mut total: f64 = 0.0;
    let mut rest = text;
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let factor = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * factor;
        rest = after;
    }
    (total < 9.2e18).then_some(total.round() as i64)
}

/// `64M`, `1g`, `512kb`: bytes.
pub(super) fn bytes(text: &str) -> Option<i64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let factor = match unit.trim() {
        "" | "b" => 1.0,
        "k" | "kb" | "kib" => 1024.0,
        "m" | "mb" | "mib" => 1024.0 * 1024.0,
        "g" | "gb" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "t" | "tb" | "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let total = number.parse::<f64>().ok()? * factor;
    (total < 9.2e18).then_some(total as i64)
}

/// `0.5`: billionths of a processor.
pub(super) fn cpus(text: &str) -> Option<i64> {
    let cpus: f64 = text.parse().ok()?;
    (cpus.is_finite() && (0.0..1e6).contains(&cpus)).then(|| (cpus * 1e9).round() as i64)
}

/// `[HOST:]CONTAINER[/PROTOCOL]`, each part one port or a range of the same length.
pub(super) fn ports(text: &str) -> Result<Vec<PortConfig>, String> {
    let (ports, protocol) = match text.split_once('/') {
        Some((ports, protocol)) => (ports, Protocol::from(protocol.to_owned())),
        None => (text, Protocol::Tcp),
    };
    if matches!(protocol, Protocol::Unknown(_)) {
        return Err(format!("{protocol:?} is no protocol; use tcp, udp or sctp"));
    }
    let parts: Vec<&str> = ports.split(':').collect();
    let (published, target) = match parts[..] {
        [target] => (None, target),
        [published, target] => (Some(published).filter(|p| !p.is_empty()), target),
        _ => return Err("Swarm publishes on all of a node's addresses; leave the address away".to_owned()),
    };
    let target = range(target)?;
    let published = published.map(range).transpose()?;
    if published.as_ref().is_some_and(|published| published.len() != target.len()) {
        return Err("the two ranges have different lengths".to_owned());
    }
    let port = |(index, target): (usize, u16)| PortConfig {
        protocol: Some(protocol.clone()),
        target_port: Some(target),
        published_port: published.as_ref().and_then(|published| published.get(index).copied()),
        publish_mode: Some(PublishMode::Ingress),
        ..PortConfig::default()
    };
    Ok(target.into_iter().enumerate().map(port).collect())
}

fn range(text: &str) -> Result<Vec<u16>, String> {
    let port = |text: &str| {
        text.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(|| format!("{text:?} is no port"))
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    if first > last || last - first >= MAX_RANGE {
        return Err(format!("{text:?} is no range of at most {MAX_RANGE} ports"));
    }
    Ok((first..=last).collect())
}

/// `SOURCE:TARGET[:MODE]`, or a target alone.
pub(super) fn volume(text: &str) -> Result<Mount, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, mode] => (Some(source), target, mode),
        _ => return Err(format!("{text:?} is not SOURCE:TARGET[:ro]")),
    };
    if !target.starts_with('/') {
        return Err(format!("the path {target:?} in the container is not absolute"));
    }
    let kind = match source {
        Some(source) if source.starts_with('/') => "bind",
        Some(source) if source.starts_with(['.', '~']) => {
            return Err(format!("the path {source:?} would be another on each node; write it in full"));
        }
        _ => "volume",
    };
    let read_only = match mode {
        "" | "rw" => None,
        "ro" => Some(true),
        other => return Err(format!("the mode {other:?} is not ro or rw; use the long form")),
    };
    Ok(Mount {
        kind: Some(kind.to_owned()),
        source: source.map(str::to_owned),
        target: Some(target.to_owned()),
        read_only,
        ..Mount::default()
    })
}

/// More than anybody publishes, and few enough to list.
const MAX_RANGE: u16 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_are_read() {
        for (text, expected) in [
            ("1m30s", Some(90_000_000_000)),
            ("500ms", Some(500_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("0", Some(0)),
            ("5", None),
            ("s", None),
            ("", None),
            ("99999999999h", None),
        ] {
            assert_eq!(duration(text), expected, "{text}");
        }
        for (text, expected) in
            [("64M", Some(67_108_864)), ("1gb", Some(1 << 30)), ("512", Some(512)), ("x", None), ("1q", None)]
        {
            assert_eq!(bytes(text), expected, "{text}");
        }
        assert_eq!(cpus("0.25"), Some(250_000_000));
        assert_eq!((cpus("-1"), cpus("nan"), cpus("x")), (None, None, None));
        let read = |text| {
            ports(text)
                .map(|all| all.iter().map(|p| (p.published_port, p.target_port.unwrap())).collect::<Vec<_>>())
        };
        assert_eq!(read("80").unwrap(), [(None, 80)]);
        assert_eq!(read("8080:80/udp").unwrap(), [(Some(8080), 80)]);
        assert_eq!(read("8000-8001:80-81").unwrap(), [(Some(8000), 80), (Some(8001), 81)]);
        for bad in ["127.0.0.1:80:80", "80-81:80", "0", "x", "80/tls", "1-9999", "81-80"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert_eq!(volume("/a:/b:ro").unwrap().read_only, Some(true));
        assert_eq!(volume("data:/b").unwrap().kind.unwrap(), "volume");
        for bad in ["./a:/b", "a:b", "/a:/b:z", "a:b:c:d"] {
            assert!(volume(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]
        #[test]
        fn no_text_makes_them_panic(text in "[0-9a-z:./µé-]{0,20}") {
            let _ = (duration(&text), bytes(&text), cpus(&text), ports(&text), volume(&text));
        }
    }
}
