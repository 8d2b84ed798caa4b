//! Lists of engines as text: `h1:2375,h2:2375`, `10.0.0.[10:20]:2375`, and the lines of a file. Pure.

use super::super::error::DiscoveryError;
use super::super::expr::shortened;

/// Reads one entry: `HOST:PORT`, where one range `[from:to]`, both included, may stand for numbers of the host.
///
/// # Errors
/// When it is no entry, or stands for more than [`MAX_ENGINES`].
pub fn entry(text: &str) -> Result<Vec<String>, DiscoveryError> {
    let bad = |problem: &str| DiscoveryError::List { text: shortened(text), problem: problem.to_owned() };
    if text.len() > MAX_ENTRY {
        return Err(bad("it is too long"));
    }
    let (before, from, to, after) = match range(text) {
        None => return Ok(vec![host_port(text).map_err(bad)?]),
        Some(Err(problem)) => return Err(bad(problem)),
        Some(Ok(range)) => range,
    };
    let count = to.checked_sub(from).ok_or_else(|| bad("the range ends before it begins"))?;
    if usize::try_from(count).unwrap_or(usize::MAX) >= MAX_ENGINES {
        return Err(bad("the range has more than 1000 engines"));
    }
    (from..=to).map(|number| host_port(&format!("{before}{number}{after}")).map_err(bad)).collect()
}

/// Reads entries with commas between them. An engine that is listed twice is one engine.
///
/// # Errors
/// As [`entry`]; and when there are more than [`MAX_ENGINES`] in all.
pub fn comma_separated(text: &str) -> Result<Vec<String>, DiscoveryError> {
    collect(text.split(','))
}

/// Reads one entry a line; `#` begins a comment.
///
/// # Errors
/// As [`comma_separated`].
pub fn lines(text: &str) -> Result<Vec<String>, DiscoveryError> {
    collect(text.lines().map(|line| line.split('#').next().unwrap_or_default()))
}

fn collect<'a>(entries: impl Iterator<Item = &'a str>) -> Result<Vec<String>, DiscoveryError> {
    let mut all: Vec<String> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for text in entries.map(str::trim).filter(|text| !text.is_empty()) {
        for engine in entry(text)? {
            if seen.insert(engine.clone()) {
                all.push(engine);
            }
            if all.len() > MAX_ENGINES {
                let problem = format!("there are more than {MAX_ENGINES} engines");
                return Err(DiscoveryError::List { text: shortened(text), problem });
            }
        }
    }
    Ok(all)
}

type Range<'a> = (&'a str, u32, u32, &'a str);

/// The first `[from:to]`; `None` where there is none. An IPv6 address in brackets is none.
fn range(text: &str) -> Option<Result<Range<'_>, &'static str>> {
    let open = text.find('[')?;
    let close = open + text[open..].find(']')?;
    let (before, inside, after) = (&text[..open], &text[open + 1..close], &text[close + 1..]);
    if before.is_empty() && inside.parse::<std::net::Ipv6Addr>().is_ok() {
        return None;
    }
    let numbers = inside.split_once(':').and_then(|(from, to)| Some((number(from)?, number(to)?)));
    Some(match numbers {
        None => Err("a range is two numbers, as in [10:20]"),
        Some(_) if after.contains(['[', ']']) || before.contains(']') => Err("it has more than one range"),
        Some((from, to)) => Ok((before, from, to, after)),
    })
}

/// Digits alone: no sign, no blank.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn host_port(text: &str) -> Result<String, &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("it has no port")?;
    if number(port).is_none_or(|port| port == 0 || port > 65_535) {
        return Err("the port is no number from 1 to 65535");
    }
    let v6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let good = match v6 {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    };
    if good { Ok(text.to_owned()) } else { Err("the host is no name or address") }
}

/// Most engines that one list may have: a typo in a range must not ask a whole network.
pub const MAX_ENGINES: usize = 1000;
const MAX_ENTRY: usize = 300;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_range_stands_for_each_of_its_numbers() {
        assert_eq!(
            entry("10.0.0.[9:11]:2375").unwrap(),
            ["10.0.0.9:2375", "10.0.0.10:2375", "10.0.0.11:2375"]
        );
        assert_eq!(entry("node[1:2].lan:2375").unwrap(), ["node1.lan:2375", "node2.lan:2375"]);
        assert_eq!(entry("h:1[0:1]").unwrap(), ["h:10", "h:11"]);
        assert_eq!(entry("[fe80::1]:2375").unwrap(), ["[fe80::1]:2375"]);
        assert_eq!(comma_separated(" a:1, b:2,,a:1").unwrap(), ["a:1", "b:2"]);
        assert_eq!(lines("# ours\n a:1 # first\n\nb:[2:3]\r\n").unwrap(), ["a:1", "b:2", "b:3"]);
        assert_eq!(lines("").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_engine_is_named() {
        for bad in [
            "a",
            "a:",
            "a:0",
            "a:x",
            "a:+1",
            ":1",
            "a:65536",
            "a/b:1",
            "10.0.0.[5:4]:1",
            "a[1:2]b[3:4]:1",
            "a[1-2]:1",
            "[1:4000000000]:1",
            "a[:2]:1",
            "a[0:1000]:1",
            "tcp://a:1",
            "a[1:2:1",
        ] {
            let error = entry(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
        assert!(comma_separated("a[1:900]:1,b[1:900]:1").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[a-c0-9\\[\\]:.,\n#]{0,40}|\\PC{0,60}") {
            for read in [lines(&text), comma_separated(&text)].into_iter().flatten() {
                prop_assert!(read.len() <= MAX_ENGINES);
                for engine in read {
                    prop_assert_eq!(entry(&engine).unwrap(), [engine]);
                }
            }
        }
    }
}
