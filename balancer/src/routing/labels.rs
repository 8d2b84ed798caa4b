//! Routes from labels of a Swarm service, or from tags in Consul.
//!
//! Our own:
//!
//! | label | meaning |
//! |---|---|
//! | `balancer.host` | hosts, separated by commas |
//! | `balancer.path` | path prefixes, separated by commas |
//! | `balancer.rule` | instead of both: a rule as in [`Rule`] |
//! | `balancer.priority` | a number; the length of the rule by default |
//! | `balancer.port` | the port of the replicas |
//! | `balancer.sticky` | the name of a cookie that keeps a client on its replica |
//! | `balancer.enable` | `false`: no route |
//!
//! Of Traefik's: `traefik.enable`, `traefik.http.routers.NAME.rule`, `.priority`, `.service`, and of
//! `traefik.http.services.NAME.loadbalancer` `.server.port`, `.sticky.cookie` and `.sticky.cookie.name`. Others of
//! Traefik's are told by [`ignored`], so that nobody believes that they work. A tag is a label when it contains `=`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Rule, RuleError};

/// A route as labels say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Route {
    /// The router's name; for our own labels the service's.
    pub name: String,
    /// Which requests are for it.
    pub rule: Rule,
    /// Beside other routes; the rule's length when `None`.
    pub priority: Option<u32>,
    /// The port of the replicas, if said.
    pub port: Option<u16>,
    /// The cookie that keeps a client on its replica, if wanted.
    pub sticky: Option<String>,
}

/// A label that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// The rule.
    #[error("label {label}: {source}")]
    Rule {
        /// The name of the label.
        label: String,
        /// Why.
        source: RuleError,
    },
    /// A value.
    #[error("label {label} = {value:?} can't be used: {rule}")]
    Value {
        /// The name of the label.
        label: String,
        /// Its value.
        value: String,
        /// What would be accepted.
        rule: &'static str,
    },
}

/// Reads the routes of a service; none when it has no such labels, or is not to be routed.
///
/// # Errors
/// The first label that can't be used. The others may be as bad.
pub fn read<'a>(
    service: &str,
    labels: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Vec<Route>, LabelError> {
    // Traefik compares names without regard to case.
    let labels: BTreeMap<String, (&str, &str)> =
        labels.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), (name, value.trim()))).collect();
    let mut routes = Vec::new();
    if !is_off(&labels, "balancer.enable")? {
        routes.extend(own(service, &labels)?);
    }
    if !is_off(&labels, "traefik.enable")? {
        routes.extend(traefik(service, &labels)?);
    }
    Ok(routes)
}

/// The labels in a list of tags such as `traefik.enable=true`.
pub fn of_tags<'a>(tags: impl IntoIterator<Item = &'a str>) -> impl Iterator<Item = (&'a str, &'a str)> {
    tags.into_iter().filter_map(|tag| tag.split_once('='))
}

/// Names of Traefik's labels that have no effect here: middlewares, TLS options, entry points and others.
pub fn ignored<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let known = |name: &str| {
        let name = name.to_ascii_lowercase();
        let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        name == "traefik.enable"
            || (name.starts_with("traefik.http.routers.") && ends(&[".rule", ".priority", ".service"]))
            || (name.starts_with("traefik.http.services.")
                && ends(&[".server.port", ".sticky.cookie", ".sticky.cookie.name"]))
    };
    let traefik = |name: &&str| name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("traefik."));
    names.into_iter().filter(traefik).filter(|name| !known(name)).collect()
}

type Labels<'a> = BTreeMap<String, (&'a str, &'a str)>;

fn own(service: &str, labels: &Labels<'_>) -> Result<Option<Route>, LabelError> {
    let value = |name: &str| labels.get(name).map(|(_, value)| *value).filter(|value| !value.is_empty());
    let list = |name: &str| -> Vec<String> {
        value(name)
            .map(|value| value.split(',').map(|part| part.trim().to_owned()).collect())
            .unwrap_or_default()
    };
    let rule = match value("balancer.rule") {
        Some(rule) => {
            rule.parse().map_err(|source| LabelError::Rule { label: "balancer.rule".into(), source })?
        }
        None if value("balancer.host").is_none() && value("balancer.path").is_none() => return Ok(None),
        None => Rule::of(list("balancer.host"), list("balancer.path"))
            .map_err(|source| LabelError::Rule { label: "balancer.host or balancer.path".into(), source })?,
    };
    Ok(Some(Route {
        name: service.to_owned(),
        rule,
        priority: number(labels, "balancer.priority", "a whole number")?,
        port: number(labels, "balancer.port", PORT)?,
        sticky: value("balancer.sticky").map(|name| cookie("balancer.sticky", name)).transpose()?,
    }))
}

fn traefik(service: &str, labels: &Labels<'_>) -> Result<Vec<Route>, LabelError> {
    const ROUTERS: &str = "traefik.http.routers.";
    let mut routes = Vec::new();
    let rules = labels.iter().filter_map(|(name, (label, rule))| {
        Some((name.strip_prefix(ROUTERS)?.strip_suffix(".rule")?, *label, *rule))
    });
    for (name, label, rule) in rules {
        let rule = rule.parse().map_err(|source| LabelError::Rule { label: label.to_owned(), source })?;
        let named =
            labels.get(&format!("{ROUTERS}{name}.service")).map(|(_, value)| value.to_ascii_lowercase());
        let target = named.or_else(|| only_service(labels)).unwrap_or_else(|| service.to_ascii_lowercase());
        let server = format!("traefik.http.services.{target}.loadbalancer.");
        let on = |end: &str| -> Result<bool, LabelError> {
            let label = format!("{server}{end}");
            labels.get(&label).map_or(Ok(false), |(label, value)| boolean(label, value))
        };
        let cookie_name = labels.get(&format!("{server}sticky.cookie.name"));
        let sticky = match cookie_name {
            Some((label, name)) => Some(cookie(label, name)?),
            None if on("sticky.cookie")? => Some(STICKY.to_owned()),
            None => None,
        };
        routes.push(Route {
            name: name.to_owned(),
            rule,
            priority: number(labels, &format!("{ROUTERS}{name}.priority"), "a whole number")?
                .filter(|n| *n > 0),
            port: number(labels, &format!("{server}server.port"), PORT)?,
            sticky,
        });
    }
    Ok(routes)
}

/// A router without a service belongs to the only one that the labels define.
fn only_service(labels: &Labels<'_>) -> Option<String> {
    let mut names = labels.keys().filter_map(|name| {
        name.strip_prefix("traefik.http.services.")?.split_once(".loadbalancer").map(|(name, _)| name)
    });
    let first = names.next()?;
    names.all(|name| name == first).then(|| first.to_owned())
}

fn is_off(labels: &Labels<'_>, name: &str) -> Result<bool, LabelError> {
    labels.get(name).map_or(Ok(false), |(label, value)| boolean(label, value).map(|on| !on))
}

fn boolean(label: &str, value: &str) -> Result<bool, LabelError> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(LabelError::Value { label: label.into(), value: value.into(), rule: "true or false" }),
    }
}

fn number<T: std::str::FromStr>(
    labels: &Labels<'_>,
    name: &str,
    rule: &'static str,
) -> Result<Option<T>, LabelError> {
    let Some((label, value)) = labels.get(name) else { return Ok(None) };
    let parsed = value.parse().map(Some);
    parsed.map_err(|_| LabelError::Value { label: (*label).into(), value: (*value).into(), rule })
}

fn cookie(label: &str, name: &str) -> Result<String, LabelError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
        let rule = "a cookie's name: 1 to 64 letters, digits and signs such as - and _";
        return Err(LabelError::Value { label: label.into(), value: name.into(), rule });
    }
    Ok(name.to_owned())
}

const PORT: &str = "a port from 0 to 65535";
/// The cookie when a stack file asks for one without naming it.
const STICKY: &str = "balancer-sticky";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn our_own_labels() {
        let labels = [
            ("balancer.host", "a.example, b.example"),
            ("balancer.path", "/shop"),
            ("balancer.port", "8080"),
            ("balancer.sticky", "home"),
        ];
        let routes = read("shop", labels).unwrap();
        assert_eq!(routes.len(), 1);
        assert_eq!(
            (routes[0].name.as_str(), routes[0].port, routes[0].sticky.as_deref()),
            ("shop", Some(8080), Some("home"))
        );
        assert!(routes[0].rule.matches("b.example", "/shop/1"));
        assert_eq!(read("shop", labels.into_iter().chain([("balancer.enable", "false")])).unwrap(), []);
        assert_eq!(read("shop", [("com.docker.stack.namespace", "x")]).unwrap(), []);
    }

    #[test]
    fn a_stack_file_for_traefik_works_as_it_is() {
        let tags = [
            "traefik.enable=true",
            "traefik.http.routers.shop.rule=Host(`shop.example`) && PathPrefix(`/api`)",
            "traefik.http.routers.shop.entrypoints=websecure",
            "traefik.http.routers.shop.tls.certresolver=letsencrypt",
            "traefik.http.services.Backend.loadbalancer.server.port=3000",
            "traefik.http.services.Backend.loadbalancer.sticky.cookie=true",
            "just-a-tag",
        ];
        let routes = read("stack_shop", of_tags(tags)).unwrap();
        assert_eq!(routes.len(), 1);
        let route = &routes[0];
        assert_eq!(
            (route.name.as_str(), route.port, route.sticky.as_deref()),
            ("shop", Some(3000), Some("balancer-sticky"))
        );
        let names = of_tags(tags).map(|(name, _)| name);
        assert_eq!(
            ignored(names),
            ["traefik.http.routers.shop.entrypoints", "traefik.http.routers.shop.tls.certresolver"]
        );
    }

    #[test]
    fn two_routers_may_lead_to_two_ports() {
        let labels = [
            ("traefik.http.routers.a.rule", "Host(`a`)"),
            ("traefik.http.routers.a.service", "one"),
            ("traefik.http.routers.b.rule", "Host(`b`)"),
            ("traefik.http.routers.b.service", "two"),
            ("traefik.http.services.one.loadbalancer.server.port", "1"),
            ("traefik.http.services.two.loadbalancer.server.port", "2"),
        ];
        let ports: Vec<_> = read("x", labels).unwrap().into_iter().map(|route| route.port).collect();
        assert_eq!(ports, [Some(1), Some(2)]);
    }

    #[test]
    fn what_can_not_be_used_is_named() {
        let why = |name, value| read("x", [("balancer.host", "a"), (name, value)]).unwrap_err().to_string();
        assert_eq!(
            why("balancer.port", "http"),
            "label balancer.port = \"http\" can't be used: a port from 0 to 65535"
        );
        assert!(why("balancer.sticky", "a b").contains("a cookie's name"));
        assert!(why("balancer.enable", "maybe").contains("true or false"));
        assert!(
            why("traefik.http.routers.x.rule", "Query(`a`)")
                .starts_with("label traefik.http.routers.x.rule: the matcher")
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn any_labels_are_routes_or_an_error(values in prop::collection::vec(".{0,30}", 9)) {
            let names = ["balancer.host", "balancer.path", "balancer.rule", "balancer.priority", "balancer.port", "balancer.sticky", "balancer.enable", "traefik.http.routers.a.rule", "traefik.http.services.a.loadbalancer.sticky.cookie.name"];
            for at in 0..names.len() {
                let labels = names.iter().zip(&values).skip(at).map(|(name, value)| (*name, value.as_str()));
                let _ = read("x", labels);
            }
        }
    }
}
