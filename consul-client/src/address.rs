//! Where the agent is: the forms of an address. Pure.

use std::path::{Path, PathBuf};

use reqwest::Url;

use crate::{Error, Result, escape};

/// A parsed address: what comes before the path of a request, and the socket's file for a unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// `http://host:port` or `https://host:port`, and an optional path prefix, without a slash at the end.
    base: String,
    /// The same, taken apart once and not again for each call.
    url: Url,
    unix: Option<PathBuf>,
    /// For messages.
    shown: String,
}

impl Address {
    /// `host:port`, `host`, `http://host:port[/prefix]`, `https://host:port[/prefix]` or `unix:///path/of/socket`. With `secure` the
    /// first three mean TLS too. `name` is the setting that an error names.
    pub(crate) fn parse(name: &str, value: &str, secure: bool) -> Result<Self> {
        let refuse = |reason: &str| Err(Error::setting(name, &without_credentials(value), reason));
        let (https, rest) = match value.split_once("://") {
            Some(("http", rest)) => (secure, rest),
            Some(("https", rest)) => (true, rest),
            Some(("unix", path)) => return Self::socket(name, value, path),
            Some(_) => {
                return refuse(
                    "unknown scheme; write host:port, http://host:port, https://host:port or unix:///path",
                );
            }
            None => (secure, value),
        };
        if https && !cfg!(feature = "tls") {
            return refuse("TLS needs the feature `tls` of consul-client; or use http:// to a local agent");
        }
        if rest.contains('@') {
            return refuse("no user and password in an address; use CONSUL_HTTP_AUTH");
        }
        if rest.contains(['?', '#', ' ', '\\']) {
            return refuse("no query, fragment or space in an address; write host:port or http://host:port");
        }
        let (authority, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        let bare_host = !authority.is_empty() && (!authority.contains(':') || authority.ends_with(']'));
        let authority = match (has_port, bare_host, https) {
            (true, _, _) => authority.to_owned(),
            (false, true, false) => format!("{authority}:{HTTP_PORT}"),
            (false, true, true) => format!("{authority}:{HTTPS_PORT}"),
            _ => return refuse("host or port is missing or wrong; write host:port or http://host:port"),
        };
        let scheme = if https { "https" } else { "http" };
        let base = match prefix.trim_matches('/') {
            "" => format!("{scheme}://{authority}"),
            prefix => format!("{scheme}://{authority}/{}", escape::path("address prefix", prefix)?),
        };
        match Url::parse(&base) {
            Ok(url) => Ok(Self { shown: base.clone(), base, url, unix: None }),
            Err(error) => refuse(&format!("not an address: {error}")),
        }
    }

    fn socket(name: &str, value: &str, path: &str) -> Result<Self> {
        if !cfg!(unix) {
            return Err(Error::setting(name, value, "unix sockets are not there on this system; use TCP"));
        }
        if !path.starts_with('/') || path.contains('\0') {
            return Err(Error::setting(name, value, "the path must be absolute: unix:///path/of/socket"));
        }
        let base = "http://localhost".to_owned();
        let url = Url::parse(&base).map_err(|error| Error::setting(name, value, error.to_string()))?;
        Ok(Self { base, url, unix: Some(path.into()), shown: value.to_owned() })
    }

    /// For messages.
    pub(crate) fn as_str(&self) -> &str {
        &self.shown
    }

    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The URL of a request's escaped path and query.
    pub(crate) fn url(&self, path: &str, query: Option<&str>) -> Url {
        let mut url = self.url.clone();
        match url.path() {
            "" | "/" => url.set_path(path),
            prefix => url.set_path(&format!("{prefix}{path}")),
        }
        url.set_query(query);
        url
    }

    pub(crate) fn unix(&self) -> Option<&Path> {
        self.unix.as_deref()
    }

    pub(crate) fn is_https(&self) -> bool {
        self.base.starts_with("https:")
    }

    /// The agent of this machine.
    pub(crate) fn local(secure: bool) -> Result<Self> {
        Self::parse("address", "127.0.0.1", secure)
    }
}

/// An address with `user:password@` cut out, fit for a message.
fn without_credentials(value: &str) -> String {
    let (scheme, rest) = value.split_once("://").map_or(("", value), |(scheme, rest)| (scheme, rest));
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if scheme.is_empty() { rest.to_owned() } else { format!("{scheme}://{rest}") }
}

/// Consul's own defaults for its two listeners.
const HTTP_PORT: u16 = 8500;
const HTTPS_PORT: u16 = 8501;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(value: &str) -> Result<String> {
        Address::parse("CONSUL_HTTP_ADDR", value, false).map(|address| address.base)
    }

    #[test]
    fn the_forms_of_an_address() {
        assert_eq!(parse("127.0.0.1:8500").unwrap(), "http://127.0.0.1:8500");
        assert_eq!(parse("consul").unwrap(), "http://consul:8500");
        assert_eq!(parse("http://[::1]:9/").unwrap(), "http://[::1]:9");
        assert_eq!(parse("[::1]").unwrap(), "http://[::1]:8500");
        assert_eq!(parse("http://h:1/a/b/").unwrap(), "http://h:1/a/b");
        let url = |address: &str, query| {
            Address::parse("a", address, false).unwrap().url("/v1/kv/a%20%3F%23b", query).to_string()
        };
        assert_eq!(url("h:1", None), "http://h:1/v1/kv/a%20%3F%23b");
        // A prefix is text, escaped here.
        assert_eq!(url("http://h:1/a%b/", Some("x=%26&y")), "http://h:1/a%25b/v1/kv/a%20%3F%23b?x=%26&y");
        assert_eq!(Address::local(false).unwrap().as_str(), "http://127.0.0.1:8500");
        let socket = Address::parse("a", "unix:///run/consul.sock", false).unwrap();
        assert_eq!(
            (socket.base(), socket.unix(), socket.as_str()),
            ("http://localhost", Some(Path::new("/run/consul.sock")), "unix:///run/consul.sock")
        );
    }

    #[cfg(feature = "tls")]
    #[test]
    fn tls_is_never_taken_back() {
        let secure = |value: &str| Address::parse("a", value, true).unwrap().base;
        assert_eq!(secure("h:1"), "https://h:1");
        assert_eq!(secure("http://h:1"), "https://h:1");
        assert_eq!(secure("h"), "https://h:8501");
        assert_eq!(parse("https://h:1/p").unwrap(), "https://h:1/p");
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn tls_without_its_feature_is_an_error_that_names_it() {
        assert!(parse("https://h:1").unwrap_err().to_string().contains("feature `tls`"));
        assert!(Address::parse("a", "h:1", true).is_err());
    }

    #[test]
    fn an_unknown_form_is_an_error_that_names_the_value_and_no_secret() {
        for value in [
            "unix://s",
            "unix://",
            "ftp://h:1",
            "h:port",
            "h:99999",
            ":8500",
            "",
            "http://",
            "a b:1",
            "h:1?x",
        ] {
            let error = parse(value).unwrap_err().to_string();
            assert!(error.contains("CONSUL_HTTP_ADDR") && error.contains(value), "{value:?}: {error}");
        }
        let error = parse("http://user:hunter2@h:1").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn whatever_is_written_there(value in "(http://|https://|unix://|)[ -~ä]{0,24}", secure: bool) {
            if let Ok(address) = Address::parse("a", &value, secure) {
                let url = Url::parse(&format!("{}/v1/x", address.base())).unwrap();
                prop_assert!(url.path().ends_with("/v1/x") && url.query().is_none());
                prop_assert!(!secure || address.is_https() || address.unix().is_some());
                prop_assert!(url.username().is_empty());
            }
        }
    }
}
