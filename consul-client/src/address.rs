//! Where the agent is: the forms of an address. Pure.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{
    HeaderValue, Uri,
    uri::{InvalidUri, PathAndQuery},
};

use crate::{Error, Result, escape};

/// A parsed address: where to connect to, and what comes before the path of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Where to connect to.
    root: Uri,
    /// The path prefix, escaped; empty or with a slash before it.
    prefix: String,
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
        let prefix = match prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("/{}", escape::path("address prefix", prefix)?),
        };
        let root = format!("{scheme}://{authority}");
        let shown = format!("{root}{prefix}");
        match root.parse() {
            Ok(root) => Ok(Self { root, prefix, unix: None, shown }),
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
        let root = Uri::from_static("http://localhost");
        Ok(Self { root, prefix: String::new(), unix: Some(path.into()), shown: value.to_owned() })
    }

    /// For messages.
    pub(crate) fn as_str(&self) -> &str {
        &self.shown
    }

    /// Scheme, host and port.
    pub(crate) fn root(&self) -> Uri {
        self.root.clone()
    }

    /// What the server is called in a request's head.
    pub(crate) fn host_header(&self) -> Result<HeaderValue> {
        let authority = self.root.authority().map_or("", |authority| authority.as_str());
        HeaderValue::from_str(authority)
            .map_err(|_| Error::setting("address", &self.shown, "the host does not fit a header"))
    }

    /// What stands in a request's first line: its escaped path and query behind the prefix.
    pub(crate) fn target(&self, path: &str, query: Option<&str>) -> Result<Uri, InvalidUri> {
        let length = self.prefix.len() + path.len() + query.map_or(0, |query| query.len() + 1);
        let mut text = String::with_capacity(length);
        text.push_str(&self.prefix);
        text.push_str(path);
        if let Some(query) = query {
            text.push('?');
            text.push_str(query);
        }
        Ok(PathAndQuery::from_maybe_shared(Bytes::from(text))?.into())
    }

    pub(crate) fn unix(&self) -> Option<&Path> {
        self.unix.as_deref()
    }

    #[cfg(any(feature = "tls", test))]
    pub(crate) fn is_https(&self) -> bool {
        self.root.scheme() == Some(&http::uri::Scheme::HTTPS)
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
        Address::parse("CONSUL_HTTP_ADDR", value, false).map(|address| address.shown)
    }

    #[test]
    fn the_forms_of_an_address() {
        assert_eq!(parse("127.0.0.1:8500").unwrap(), "http://127.0.0.1:8500");
        assert_eq!(parse("consul").unwrap(), "http://consul:8500");
        assert_eq!(parse("http://[::1]:9/").unwrap(), "http://[::1]:9");
        assert_eq!(parse("[::1]").unwrap(), "http://[::1]:8500");
        assert_eq!(parse("http://h:1/a/b/").unwrap(), "http://h:1/a/b");
        let target = |address: &str, query| {
            let address = Address::parse("a", address, false).unwrap();
            assert_eq!(
                (address.root().to_string().as_str(), address.host_header().unwrap()),
                ("http://h:1/", HeaderValue::from_static("h:1"))
            );
            address.target("/v1/kv/a%20%3F%23b", query).unwrap().to_string()
        };
        assert_eq!(target("h:1", None), "/v1/kv/a%20%3F%23b");
        // A prefix is text, escaped here.
        assert_eq!(target("http://h:1/a%b/", Some("x=%26&y")), "/a%25b/v1/kv/a%20%3F%23b?x=%26&y");
        assert!(Address::local(false).unwrap().target("/v1/<x>", None).is_err());
        assert_eq!(Address::local(false).unwrap().as_str(), "http://127.0.0.1:8500");
        let socket = Address::parse("a", "unix:///run/consul.sock", false).unwrap();
        assert_eq!(
            (socket.host_header().unwrap().to_str().unwrap(), socket.unix(), socket.as_str()),
            ("localhost", Some(Path::new("/run/consul.sock")), "unix:///run/consul.sock")
        );
    }

    #[cfg(feature = "tls")]
    #[test]
    fn tls_is_never_taken_back() {
        let secure = |value: &str| Address::parse("a", value, true).unwrap().shown;
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
                let target = address.target("/v1/x", None).unwrap();
                prop_assert!(target.path().ends_with("/v1/x") && target.query().is_none());
                prop_assert_eq!(target.path(), format!("{}/v1/x", address.prefix));
                prop_assert!(!secure || address.is_https() || address.unix().is_some());
                prop_assert!(address.host_header().unwrap().to_str().is_ok_and(|host| !host.contains('@')));
            }
        }
    }
}
