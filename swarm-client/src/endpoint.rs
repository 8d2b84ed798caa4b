//! Where an engine listens.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, Result};

/// The address of one engine's API: `unix:///run/docker.sock`, `tcp://HOST[:PORT]` (port 2375 unless given), or, with the feature
/// `tls`, `https://HOST[:PORT]` (port 2376 unless given).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// A socket in the file system.
    Unix(PathBuf),
    /// HTTP over TLS over TCP, with certificates on both sides: see [`ClientBuilder::tls`](crate::ClientBuilder::tls).
    #[cfg(feature = "tls")]
    Tls {
        /// A name, an IPv4 address, or an IPv6 address without brackets: what the engine's certificate must be for.
        host: String,
        /// The port.
        port: u16,
    },
    /// Plain HTTP over TCP. Whoever reaches it rules the machine, so it belongs on a trusted network only.
    Tcp {
        /// A name, an IPv4 address, or an IPv6 address without brackets.
        host: String,
        /// The port.
        port: u16,
    },
}

impl Endpoint {
    /// Reads an address; `setting` is named in the error.
    pub(crate) fn parse(setting: &'static str, value: &str) -> Result<Self> {
        Self::parse_as(setting, value, false)
    }

    /// The same where `tcp://` may mean TLS.
    pub(crate) fn parse_as(setting: &'static str, value: &str, tcp_is_tls: bool) -> Result<Self> {
        let bad = |problem: &str| Error::Config {
            setting,
            // An address can hold a password, and then it must not be repeated.
            value: if value.contains('@') {
                "(not shown: it holds credentials)".to_owned()
            } else {
                value.to_owned()
            },
            problem: problem.to_owned(),
            advice: "use unix:///path/to/docker.sock or tcp://host:2375",
        };
        let Some((scheme, rest)) = value.split_once("://") else {
            return Err(bad("it has no scheme"));
        };
        match if tcp_is_tls && scheme == "tcp" { "https" } else { scheme } {
            "unix" if rest.starts_with('/') => Ok(Self::Unix(PathBuf::from(rest))),
            "unix" => Err(bad("the socket's path is not absolute")),
            "tcp" | "http" => {
                let (host, port) = authority(rest.trim_end_matches('/'), DEFAULT_PORT).map_err(bad)?;
                Ok(Self::Tcp { host, port })
            }
            #[cfg(feature = "tls")]
            "https" => {
                let (host, port) = authority(rest.trim_end_matches('/'), DEFAULT_TLS_PORT).map_err(bad)?;
                Ok(Self::Tls { host, port })
            }
            #[cfg(not(feature = "tls"))]
            "https" => Err(bad("this build has no TLS: it lacks the feature `tls`")),
            "ssh" => Err(bad("ssh is not supported, but a forwarded socket is")),
            "npipe" => Err(bad("named pipes are not supported")),
            _ => Err(bad("the scheme is not known")),
        }
    }

    /// The endpoint that the environment names: `DOCKER_HOST`, or else the first local socket that exists.
    pub(crate) fn from_env(
        env: impl Fn(&str) -> Option<String>,
        exists: impl Fn(&Path) -> bool,
    ) -> Result<Self> {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        #[cfg(not(feature = "tls"))]
        if let Some(value) = set("DOCKER_TLS_VERIFY") {
            return Err(Error::Config {
                setting: "DOCKER_TLS_VERIFY",
                value,
                problem: "this build has no TLS: it lacks the feature `tls`".to_owned(),
                advice: "enable it, or unset this and reach the engine by its local socket or over a trusted network",
            });
        }
        if let Some(value) = set("DOCKER_HOST") {
            // With this setting docker's own command line speaks TLS to a tcp:// address.
            let verify = set("DOCKER_TLS_VERIFY").is_some();
            return Self::parse_as("DOCKER_HOST", &value, verify);
        }
        let rootless = set("XDG_RUNTIME_DIR").map(|dir| Path::new(&dir).join("docker.sock"));
        let desktop = set("HOME").map(|dir| Path::new(&dir).join(".docker/run/docker.sock"));
        let default = PathBuf::from("/var/run/docker.sock");
        let found =
            [Some(default.clone()), rootless, desktop].into_iter().flatten().find(|path| exists(path));
        Ok(Self::Unix(found.unwrap_or(default)))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            #[cfg(feature = "tls")]
            Self::Tls { host, port } if host.contains(':') => write!(f, "https://[{host}]:{port}"),
            #[cfg(feature = "tls")]
            Self::Tls { host, port } => write!(f, "https://{host}:{port}"),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(value: &str) -> Result<Self> {
        Self::parse("endpoint", value)
    }
}

fn authority(text: &str, default: u16) -> std::result::Result<(String, u16), &'static str> {
    if text.contains('@') {
        return Err("user and password are not supported");
    }
    if text.contains(['/', '?', '#', ' ']) {
        return Err("it has a path");
    }
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or("a bracket is missing")?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| "what stands in brackets is no IPv6 address")?;
        (
            host,
            if after.is_empty() {
                None
            } else {
                Some(after.strip_prefix(':').ok_or("the port is not readable")?)
            },
        )
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() {
        return Err("the host is missing");
    }
    let port = match port {
        None => default,
        Some(port) => port.parse::<u16>().ok().filter(|port| *port != 0).ok_or("the port is not readable")?,
    };
    Ok((host.to_owned(), port))
}

/// Docker's registered port for the API without TLS.
const DEFAULT_PORT: u16 = 2375;
/// The one for the API with TLS.
#[cfg(feature = "tls")]
const DEFAULT_TLS_PORT: u16 = 2376;

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn addresses_are_read_and_written() {
        for (text, endpoint) in [
            ("unix:///run/docker.sock", Endpoint::Unix("/run/docker.sock".into())),
            ("tcp://198.18.0.11:2375", tcp("198.18.0.11", 2375)),
            ("tcp://m1", tcp("m1", 2375)),
            ("http://m1:80/", tcp("m1", 80)),
            ("tcp://[::1]:99", tcp("::1", 99)),
            ("tcp://[::1]", tcp("::1", 2375)),
        ] {
            let read: Endpoint = text.parse().unwrap();
            assert_eq!(read, endpoint);
            assert_eq!(read.to_string().parse::<Endpoint>().unwrap(), endpoint);
        }
    }

    #[test]
    fn a_bad_address_names_setting_value_and_remedy() {
        for text in [
            "",
            "x",
            "unix://rel",
            "ssh://h",
            "npipe:////./pipe",
            "tcp://",
            "tcp://h:0",
            "tcp://h:x",
            "tcp://h/p",
        ] {
            let error = Endpoint::parse("DOCKER_HOST", text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("DOCKER_HOST is {text:?}: ")), "{error}");
            assert!(error.contains("use unix:///"), "{error}");
        }
        let error = Endpoint::parse("endpoint", "tcp://u:hunter2@h:1").unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn the_environment_is_read_in_order() {
        let from = |pairs: &[(&str, &str)], present: &str| {
            let pairs: Vec<(String, String)> =
                pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
            Endpoint::from_env(
                |name| pairs.iter().find(|p| p.0 == name).map(|p| p.1.clone()),
                |path| path == Path::new(present),
            )
        };
        assert_eq!(from(&[("DOCKER_HOST", "tcp://h:1")], "/var/run/docker.sock").unwrap(), tcp("h", 1));
        assert_eq!(from(&[("DOCKER_HOST", "")], "").unwrap(), Endpoint::Unix("/var/run/docker.sock".into()));
        let rootless = from(&[("XDG_RUNTIME_DIR", "/run/user/7")], "/run/user/7/docker.sock").unwrap();
        assert_eq!(rootless, Endpoint::Unix("/run/user/7/docker.sock".into()));
        let tls = from(&[("DOCKER_TLS_VERIFY", "1"), ("DOCKER_HOST", "tcp://h")], "");
        #[cfg(feature = "tls")]
        assert_eq!(tls.unwrap(), Endpoint::Tls { host: "h".into(), port: 2376 });
        #[cfg(not(feature = "tls"))]
        assert!(
            tls.unwrap_err().to_string().starts_with("DOCKER_TLS_VERIFY is \"1\": this build has no TLS")
        );
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(128))]
        #[test]
        fn no_text_makes_it_panic(text in "(tcp|unix|https?)?(://)?[\\[\\]:@/a-z0-9.]{0,20}") {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                proptest::prop_assert_eq!(endpoint.to_string().parse::<Endpoint>().unwrap(), endpoint);
            }
        }
    }
}
