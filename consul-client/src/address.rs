//! Where the agent is: the forms of an address, and the environment's variables. Pure.

use crate::{Error, Result, escape};

/// A parsed address: `http://host:port` and an optional path prefix, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address(String);

impl Address {
    /// `host:port`, `host`, or `http://host:port[/prefix]`. `name` is the setting that an error names.
    pub(crate) fn parse(name: &str, value: &str) -> Result<Self> {
        let refuse = |reason: &str| Err(Error::setting(name, &without_credentials(value), reason));
        let rest = match value.split_once("://") {
            Some(("http", rest)) => rest,
            Some(("https", _)) => return refuse("TLS is not built in yet; use http:// to a local agent"),
            Some(("unix", _)) => {
                return refuse("unix sockets are not built in yet; give the agent a TCP address");
            }
            Some(_) => return refuse("unknown scheme; write host:port or http://host:port"),
            None => value,
        };
        if rest.contains('@') {
            return refuse("no user and password in an address; use CONSUL_HTTP_AUTH");
        }
        if rest.contains(['?', '#', ' ']) {
            return refuse("no query, fragment or space in an address; write host:port or http://host:port");
        }
        let (authority, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let has_port = authority
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        let bare_host = !authority.is_empty() && (!authority.contains(':') || authority.ends_with(']'));
        let authority = match (has_port, bare_host) {
            (true, _) => authority.to_owned(),
            (false, true) => format!("{authority}:{DEFAULT_PORT}"),
            _ => return refuse("host or port is missing or wrong; write host:port or http://host:port"),
        };
        let url = match prefix.trim_matches('/') {
            "" => format!("http://{authority}"),
            prefix => format!("http://{authority}/{}", escape::path("address prefix", prefix)?),
        };
        match reqwest::Url::parse(&url) {
            Ok(_) => Ok(Self(url)),
            Err(error) => refuse(&format!("not an address: {error}")),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Address {
    fn default() -> Self {
        Self(format!("http://127.0.0.1:{DEFAULT_PORT}"))
    }
}

/// What the environment asks for. The token is already read from its file.
#[derive(Default)]
pub(crate) struct Environment {
    pub(crate) address: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) basic_auth: Option<String>,
}

impl Environment {
    /// Reads HashiCorp's variables through `var`, and files through `read`. An empty variable counts as unset, as in their tools.
    pub(crate) fn read(
        var: impl Fn(&str) -> Option<String>,
        read: impl Fn(&str) -> std::io::Result<String>,
    ) -> Result<Self> {
        let var = |name: &str| var(name).filter(|value| !value.is_empty());
        if let Some(value) = var("CONSUL_HTTP_SSL") {
            match value.as_str() {
                "0" | "f" | "F" | "false" | "False" | "FALSE" => {}
                "1" | "t" | "T" | "true" | "True" | "TRUE" => {
                    return Err(Error::setting(
                        "CONSUL_HTTP_SSL",
                        &value,
                        "TLS is not built in yet; unset it and use a local agent",
                    ));
                }
                _ => return Err(Error::setting("CONSUL_HTTP_SSL", &value, "must be true or false")),
            }
        }
        for name in ["CONSUL_NAMESPACE", "CONSUL_PARTITION"] {
            if let Some(value) = var(name) {
                // Ignoring it would read and write another namespace than the one that was asked for.
                return Err(Error::setting(name, &value, "not built in yet; unset it"));
            }
        }
        let token = match var("CONSUL_HTTP_TOKEN_FILE") {
            // The file wins over the variable, as in HashiCorp's own client.
            Some(path) => match read(&path) {
                Ok(text) if text.trim().is_empty() => {
                    return Err(Error::setting("CONSUL_HTTP_TOKEN_FILE", &path, "the file is empty"));
                }
                Ok(text) => Some(text.trim().to_owned()),
                Err(e) => {
                    return Err(Error::setting(
                        "CONSUL_HTTP_TOKEN_FILE",
                        &path,
                        format!("cannot be read: {e}"),
                    ));
                }
            },
            None => var("CONSUL_HTTP_TOKEN"),
        };
        Ok(Self { address: var("CONSUL_HTTP_ADDR"), token, basic_auth: var("CONSUL_HTTP_AUTH") })
    }
}

/// An address with `user:password@` cut out, fit for a message.
fn without_credentials(value: &str) -> String {
    let (scheme, rest) = value.split_once("://").map_or(("", value), |(scheme, rest)| (scheme, rest));
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if scheme.is_empty() { rest.to_owned() } else { format!("{scheme}://{rest}") }
}

const DEFAULT_PORT: u16 = 8500;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(value: &str) -> Result<String> {
        Address::parse("CONSUL_HTTP_ADDR", value).map(|address| address.0)
    }

    #[test]
    fn the_forms_of_an_address() {
        assert_eq!(parse("127.0.0.1:8500").unwrap(), "http://127.0.0.1:8500");
        assert_eq!(parse("consul").unwrap(), "http://consul:8500");
        assert_eq!(parse("http://[::1]:9/").unwrap(), "http://[::1]:9");
        assert_eq!(parse("[::1]").unwrap(), "http://[::1]:8500");
        assert_eq!(parse("http://h:1/a/b/").unwrap(), "http://h:1/a/b");
        assert_eq!(Address::default().as_str(), "http://127.0.0.1:8500");
    }

    #[test]
    fn an_unknown_form_is_an_error_that_names_the_value_and_no_secret() {
        for value in [
            "https://h:1",
            "unix:///s",
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

    #[test]
    fn the_token_file_wins_and_ssl_is_refused() {
        let env = |pairs: &'static [(&str, &str)]| {
            move |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        let both = env(&[("CONSUL_HTTP_TOKEN", "a"), ("CONSUL_HTTP_TOKEN_FILE", "/f")]);
        let read = Environment::read(both, |_| Ok(" b\n".to_owned())).ok().and_then(|e| e.token);
        assert_eq!(read.as_deref(), Some("b"));
        assert!(Environment::read(both, |_| Err(std::io::ErrorKind::NotFound.into())).is_err());
        assert!(Environment::read(env(&[("CONSUL_HTTP_SSL", "true")]), |_| Ok(String::new())).is_err());
        assert!(Environment::read(env(&[("CONSUL_HTTP_SSL", "perhaps")]), |_| Ok(String::new())).is_err());
        assert!(Environment::read(env(&[("CONSUL_NAMESPACE", "x")]), |_| Ok(String::new())).is_err());
        assert!(
            Environment::read(env(&[("CONSUL_HTTP_ADDR", "")]), |_| Ok(String::new()))
                .unwrap()
                .address
                .is_none()
        );
    }
}
