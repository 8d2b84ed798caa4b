//! HashiCorp's environment variables. Pure: the variables come through a function.

use std::{path::PathBuf, time::Duration};

use crate::{Error, Result};

/// What the environment asks for.
#[derive(Default)]
pub(crate) struct Environment {
    pub(crate) address: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) basic_auth: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) partition: Option<String>,
    pub(crate) tls: TlsEnvironment,
}

/// What of it is about TLS.
#[derive(Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    not(feature = "tls"),
    allow(dead_code, reason = "read, so that what is wrong is told, and not used")
)]
pub(crate) struct TlsEnvironment {
    pub(crate) on: bool,
    /// `CONSUL_HTTP_SSL_VERIFY=false`.
    pub(crate) unverified: bool,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) ca_dir: Option<PathBuf>,
    /// Certificate and key.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    pub(crate) server_name: Option<String>,
}

impl Environment {
    /// An empty variable counts as unset, as in HashiCorp's tools.
    pub(crate) fn read(var: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let var = |name: &str| var(name).filter(|value| !value.is_empty());
        let identity = match (var("CONSUL_CLIENT_CERT"), var("CONSUL_CLIENT_KEY")) {
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            (None, None) => None,
            (Some(value), None) => {
                return Err(Error::setting("CONSUL_CLIENT_CERT", &value, "needs CONSUL_CLIENT_KEY as well"));
            }
            (None, Some(value)) => {
                return Err(Error::setting("CONSUL_CLIENT_KEY", &value, "needs CONSUL_CLIENT_CERT as well"));
            }
        };
        Ok(Self {
            address: var("CONSUL_HTTP_ADDR"),
            token: var("CONSUL_HTTP_TOKEN"),
            token_file: var("CONSUL_HTTP_TOKEN_FILE").map(PathBuf::from),
            basic_auth: var("CONSUL_HTTP_AUTH"),
            namespace: var("CONSUL_NAMESPACE"),
            partition: var("CONSUL_PARTITION"),
            tls: TlsEnvironment {
                on: boolean("CONSUL_HTTP_SSL", var("CONSUL_HTTP_SSL"))?.unwrap_or(false),
                unverified: boolean("CONSUL_HTTP_SSL_VERIFY", var("CONSUL_HTTP_SSL_VERIFY"))? == Some(false),
                ca_file: var("CONSUL_CACERT").map(PathBuf::from),
                ca_dir: var("CONSUL_CAPATH").map(PathBuf::from),
                identity,
                server_name: var("CONSUL_TLS_SERVER_NAME"),
            },
        })
    }
}

/// The words that Go's `strconv.ParseBool` knows.
fn boolean(name: &str, value: Option<String>) -> Result<Option<bool>> {
    match value.as_deref() {
        None => Ok(None),
        Some("0" | "f" | "F" | "false" | "False" | "FALSE") => Ok(Some(false)),
        Some("1" | "t" | "T" | "true" | "True" | "TRUE") => Ok(Some(true)),
        Some(other) => Err(Error::setting(name, other, "must be true or false")),
    }
}

/// A duration in Go's notation, such as `1h2m3.5s` or `15ms`, as Consul writes TTLs and intervals. `None` for anything else, a
/// negative one included.
pub(crate) fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, Duration::ZERO);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at_checked(digits)?;
        let unit_ends = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at_checked(unit_ends)?;
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let number = number.parse::<f64>().ok()?;
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = next;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(pairs: &'static [(&str, &str)]) -> Result<Environment> {
        Environment::read(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn every_variable_arrives() {
        let env = read(&[
            ("CONSUL_HTTP_ADDR", "h:1"),
            ("CONSUL_HTTP_TOKEN", "t"),
            ("CONSUL_HTTP_TOKEN_FILE", "/f"),
            ("CONSUL_HTTP_AUTH", "u:p"),
            ("CONSUL_HTTP_SSL", "true"),
            ("CONSUL_HTTP_SSL_VERIFY", "0"),
            ("CONSUL_CACERT", "/ca"),
            ("CONSUL_CAPATH", "/cas"),
            ("CONSUL_CLIENT_CERT", "/cert"),
            ("CONSUL_CLIENT_KEY", "/key"),
            ("CONSUL_TLS_SERVER_NAME", "server.dc1.consul"),
            ("CONSUL_NAMESPACE", "ns"),
            ("CONSUL_PARTITION", "part"),
        ])
        .ok()
        .unwrap();
        assert_eq!((env.address.as_deref(), env.token.as_deref()), (Some("h:1"), Some("t")));
        assert_eq!(env.token_file, Some("/f".into()));
        assert_eq!((env.namespace.as_deref(), env.partition.as_deref()), (Some("ns"), Some("part")));
        assert_eq!(env.basic_auth.as_deref(), Some("u:p"));
        let tls = TlsEnvironment {
            on: true,
            unverified: true,
            ca_file: Some("/ca".into()),
            ca_dir: Some("/cas".into()),
            identity: Some(("/cert".into(), "/key".into())),
            server_name: Some("server.dc1.consul".into()),
        };
        assert_eq!(env.tls, tls);
    }

    #[test]
    fn empty_is_unset_and_wrong_is_an_error() {
        let env = read(&[("CONSUL_HTTP_ADDR", ""), ("CONSUL_HTTP_SSL", "")]).ok().unwrap();
        assert!(env.address.is_none() && env.tls == TlsEnvironment::default());
        for wrong in [
            &[("CONSUL_HTTP_SSL", "perhaps")][..],
            &[("CONSUL_HTTP_SSL_VERIFY", "no")][..],
            &[("CONSUL_CLIENT_CERT", "/c")][..],
            &[("CONSUL_CLIENT_KEY", "/k")][..],
        ] {
            let error = read(wrong).err().unwrap().to_string();
            assert!(error.contains(wrong[0].0), "{error}");
        }
    }

    #[test]
    fn durations_in_gos_notation() {
        let ms = Duration::from_millis;
        for (text, wanted) in [
            ("15s", ms(15_000)),
            ("1m30s", ms(90_000)),
            ("1.5s", ms(1500)),
            ("200ms", ms(200)),
            ("72h0m0s", Duration::from_secs(72 * 3600)),
            ("0", ms(0)),
            ("0s", ms(0)),
        ] {
            assert_eq!(go_duration(text), Some(wanted), "{text}");
        }
        for wrong in ["", "5", "-1s", "1x", "s", "1s2", ".s", "1..2s", "9999999999999999999999h", "ä"] {
            assert_eq!(go_duration(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn no_text_is_too_odd(text in "[0-9.hmsnuµä -]{0,16}") {
            let _ = go_duration(&text);
        }
    }
}
