//! Rules in order, and the first that matches.

use std::collections::HashMap;

use super::Rule;

/// Routes by host and path. Of those that match, the one with the highest priority wins; of equal ones the first.
#[derive(Clone, Debug)]
pub struct Table<T> {
    routes: Vec<(Rule, T)>,
    /// For each host that a rule names: routes that may match it, in order, those for any host included.
    by_host: HashMap<String, Vec<usize>>,
    /// Routes that may match any host, in order.
    any_host: Vec<usize>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { routes: Vec::new(), by_host: HashMap::new(), any_host: Vec::new() }
    }
}

impl<T> Table<T> {
    /// What a request for this host (as in `Host`, port and case do not matter) and path belongs to.
    pub fn find(&self, host: &str, path: &str) -> Option<&T> {
        let host = bare(host);
        let lower;
        let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = host.to_ascii_lowercase();
            &lower
        } else {
            host
        };
        let candidates = self.by_host.get(host).unwrap_or(&self.any_host);
        let routes = candidates.iter().filter_map(|index| self.routes.get(*index));
        routes.into_iter().find(|(rule, _)| rule.matches(host, path)).map(|(_, target)| target)
    }

    /// The routes, in the order in which they are tried.
    pub fn iter(&self) -> impl Iterator<Item = (&Rule, &T)> {
        self.routes.iter().map(|(rule, target)| (rule, target))
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

/// From rules, their priorities (the rule's own length when `None`), and what they lead to.
impl<T> FromIterator<(Rule, Option<u32>, T)> for Table<T> {
    fn from_iter<I: IntoIterator<Item = (Rule, Option<u32>, T)>>(routes: I) -> Self {
        let mut routes: Vec<_> = routes.into_iter().collect();
        routes.sort_by_key(|(rule, priority, _)| {
            std::cmp::Reverse(priority.unwrap_or_else(|| rule.priority()))
        });
        let mut by_host: HashMap<String, Vec<usize>> = HashMap::new();
        for (rule, ..) in &routes {
            for host in rule.hosts().into_iter().flatten() {
                by_host.entry(host.to_owned()).or_default();
            }
        }
        let mut any_host = Vec::new();
        for (index, (rule, ..)) in routes.iter().enumerate() {
            match rule.hosts() {
                Some(mut hosts) => {
                    hosts.sort_unstable();
                    hosts.dedup();
                    hosts
                        .iter()
                        .filter_map(|host| by_host.get_mut(*host).map(|list| list.push(index)))
                        .count();
                }
                None => {
                    any_host.push(index);
                    by_host.values_mut().for_each(|list| list.push(index));
                }
            }
        }
        Self {
            routes: routes.into_iter().map(|(rule, _, target)| (rule, target)).collect(),
            by_host,
            any_host,
        }
    }
}

/// Without the port, and without the dot at the end.
fn bare(host: &str) -> &str {
    let host = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(rules: &[&str]) -> Table<String> {
        rules.iter().map(|rule| (rule.parse().unwrap(), None, (*rule).to_owned())).collect()
    }

    #[test]
    fn the_most_special_rule_wins() {
        let (api, site) = ("Host(`site.example`) && PathPrefix(`/api`)", "Host(`site.example`)");
        let table = table(&[site, api, "PathPrefix(`/`)"]);
        let find = |host, path| table.find(host, path).map(String::as_str);
        assert_eq!(find("site.example", "/api/x"), Some(api));
        assert_eq!(find("SITE.example:8080", "/x"), Some(site));
        assert_eq!(find("site.example.", "/x"), Some(site));
        assert_eq!(find("b", "/x"), Some("PathPrefix(`/`)"));
        assert_eq!(find("[::1]:80", "/x"), Some("PathPrefix(`/`)"));
        assert_eq!((table.len(), table.is_empty()), (3, false));
    }

    #[test]
    fn a_priority_outweighs_the_length() {
        let rules = [("Host(`a`) && PathPrefix(`/x`)", None), ("Host(`a`)", Some(1000))];
        let table: Table<usize> = rules
            .iter()
            .enumerate()
            .map(|(n, (rule, priority))| (rule.parse().unwrap(), *priority, n))
            .collect();
        assert_eq!(table.find("a", "/x"), Some(&1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        /// The index by host finds what a walk over all rules finds.
        #[test]
        fn the_index_is_no_filter(picks in prop::collection::vec((0usize..4, 0usize..3, any::<bool>()), 0..12), host in 0usize..5, path in 0usize..4) {
            let hosts = ["a", "b", "*.a", "x.a", "c"];
            let paths = ["/", "/x", "/x/y", "/z"];
            let rules: Vec<Rule> = picks.iter().map(|(h, p, any)| {
                let host = format!("Host(`{}`) && ", hosts[*h]);
                format!("{}PathPrefix(`{}`)", if *any { "" } else { &host }, paths[*p]).parse().unwrap()
            }).collect();
            let table: Table<usize> = rules.iter().enumerate().map(|(n, rule)| (rule.clone(), None, n)).collect();
            let walked = table.iter().find(|(rule, _)| rule.matches(hosts[host], paths[path])).map(|(_, n)| n);
            prop_assert_eq!(table.find(hosts[host], paths[path]), walked);
        }
    }
}
