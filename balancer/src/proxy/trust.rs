//! Who the client is: ranges whose forwarding headers are believed.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::header::{HeaderMap, HeaderName};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A range of addresses such as `10.0.0.0/8` or `fd00::/8`; an address alone is a range of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    network: u128,
    /// Of 128; those of IPv4 are counted in the mapped form.
    bits: u32,
}

/// A range that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no range of addresses: write 10.0.0.0/8, fd00::/8 or an address")]
pub struct CidrError(String);

impl Cidr {
    /// Whether an address is in it.
    pub fn contains(&self, addr: IpAddr) -> bool {
        mapped(addr) & mask(self.bits) == self.network
    }
}

fn mapped(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => u128::from(addr.to_ipv6_mapped()),
        IpAddr::V6(addr) => u128::from(addr),
    }
}

fn mask(bits: u32) -> u128 {
    u128::MAX.checked_shl(128 - bits).unwrap_or(0)
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let bad = || CidrError(text.chars().take(64).collect());
        let (addr, bits) = match text.split_once('/') {
            Some((addr, bits)) => (addr, Some(bits.parse::<u32>().map_err(|_| bad())?)),
            None => (text, None),
        };
        let addr: IpAddr = addr.trim().parse().map_err(|_| bad())?;
        let (own, before) = if addr.is_ipv4() { (32, 96) } else { (128, 0) };
        let bits = bits.unwrap_or(own);
        if bits > own {
            return Err(bad());
        }
        Ok(Self { network: mapped(addr) & mask(bits + before), bits: bits + before })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addr = std::net::Ipv6Addr::from(self.network);
        match addr.to_ipv4_mapped() {
            Some(addr) if self.bits >= 96 => write!(f, "{addr}/{}", self.bits - 96),
            _ => write!(f, "{addr}/{}", self.bits),
        }
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The client: the peer, or, when that is trusted, the last address in the chain that is not.
///
/// What stands further left in the chain was written by the client itself, and says nothing.
pub(crate) fn client(peer: IpAddr, headers: &HeaderMap, chain: &HeaderName, trusted: &[Cidr]) -> IpAddr {
    let is_trusted = |addr: IpAddr| trusted.iter().any(|range| range.contains(addr));
    let mut client = peer.to_canonical();
    if trusted.is_empty() || !is_trusted(client) {
        return client;
    }
    let values: Vec<_> = headers.get_all(chain).iter().collect();
    let hops = values.iter().rev().flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
    for hop in hops.take(MOST_HOPS) {
        let Some(addr) = std::str::from_utf8(hop).ok().and_then(|hop| address(hop.trim())) else { break };
        client = addr.to_canonical();
        if !is_trusted(client) {
            break;
        }
    }
    client
}

/// With or without a port; IPv6 in brackets when with one.
fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().or_else(|| text.parse::<std::net::SocketAddr>().ok().map(|addr| addr.ip()))
}

/// More than that are no proxies in a row.
const MOST_HOPS: usize = 32;

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges() {
        let inside = |range: &str, addr: &str| cidr(range).contains(addr.parse().unwrap());
        assert!(inside("10.0.0.0/8", "10.255.0.1") && !inside("10.0.0.0/8", "11.0.0.1"));
        assert!(inside("10.0.0.0/8", "::ffff:10.1.1.1"), "the same address in another form");
        assert!(inside("fd00::/8", "fd12::1") && !inside("fd00::/8", "10.0.0.1"));
        assert!(inside("192.0.2.1", "192.0.2.1") && !inside("192.0.2.1", "192.0.2.2"));
        assert!(inside("0.0.0.0/0", "1.2.3.4") && !inside("0.0.0.0/0", "fd00::1"));
        assert!(inside("::/0", "1.2.3.4"));
        assert_eq!(cidr("10.1.2.3/8").to_string(), "10.0.0.0/8");
        for bad in ["", "10.0.0.0/33", "x/8", "10.0.0.0/", "fd00::/129"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_client_is_the_last_that_is_not_ours() {
        let trusted = [cidr("10.0.0.0/8")];
        let name = HeaderName::from_static("x-forwarded-for");
        let find = |peer: &str, lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(&name, HeaderValue::from_static(line));
            }
            client(peer.parse().unwrap(), &headers, &name, &trusted).to_string()
        };
        assert_eq!(find("192.0.2.9", &["1.1.1.1"]), "192.0.2.9", "whoever comes from outside is who he is");
        assert_eq!(find("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(find("10.0.0.1", &["6.6.6.6, 192.0.2.7, 10.0.0.2"]), "192.0.2.7");
        assert_eq!(find("10.0.0.1", &["6.6.6.6", "192.0.2.7:4711"]), "192.0.2.7");
        assert_eq!(find("10.0.0.1", &["192.0.2.7, garbage"]), "10.0.0.1");
        assert_eq!(find("10.0.0.1", &["[2001:db8::1]:80"]), "2001:db8::1");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn any_bytes_are_a_chain(bytes in prop::collection::vec(any::<u8>(), 0..80), text in ".{0,20}") {
            let _ = text.parse::<Cidr>();
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            let name = HeaderName::from_static("x-forwarded-for");
            let headers = HeaderMap::from_iter([(name.clone(), value)]);
            let _ = client([10, 0, 0, 1].into(), &headers, &name, &[cidr("::/0")]);
        }
    }
}
