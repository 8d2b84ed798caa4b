//! A rule on host and path, in Traefik's notation.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Which requests belong to a route: `Host`, `PathPrefix` and `Path`, joined by `&&`, `||`, `!` and parentheses.
///
/// Hosts are compared without port and without regard to case; `*.example.org` stands for any one label in front.
/// A path prefix ends at a segment: `/api` covers `/api` and `/api/x`, and not `/apical` (Traefik's does cover that; a
/// prefix that ends with `/` says the same in both).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    expression: Expression,
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expression {
    Any,
    Host(Vec<String>),
    Prefix(Vec<String>),
    Path(Vec<String>),
    Not(Box<Self>),
    And(Vec<Self>),
    Or(Vec<Self>),
}

/// Why a rule can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// It is longer or deeper than a rule needs to be.
    #[error("the rule is too long or nested too deeply: at most {MOST_BYTES} bytes and {MOST_DEPTH} levels")]
    TooMuch,
    /// Something else should stand there.
    #[error("expected {expected} at byte {at} of the rule {rule:?}")]
    Unexpected {
        /// What should stand there.
        expected: &'static str,
        /// Where.
        at: usize,
        /// The rule.
        rule: String,
    },
    /// A matcher that is not supported.
    #[error("the matcher {name:?} is not supported: use Host, PathPrefix and Path")]
    Unsupported {
        /// Its name.
        name: String,
    },
    /// A host or path that can never match.
    #[error("{value:?} can never match: {rule}")]
    NeverMatches {
        /// The value.
        value: String,
        /// What would.
        rule: &'static str,
    },
}

impl Rule {
    /// Matches every request.
    pub fn any() -> Self {
        Self { expression: Expression::Any, text: String::new() }
    }

    /// Matches these hosts, with paths below these prefixes; no host is any host, no prefix any path.
    ///
    /// # Errors
    /// A host or prefix that can never match.
    pub fn of(
        hosts: impl IntoIterator<Item = impl Into<String>>,
        prefixes: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self, RuleError> {
        let quoted = |name: &str, values: Vec<String>| {
            let values: Vec<_> = values.into_iter().map(|value| format!("`{value}`")).collect();
            (!values.is_empty()).then(|| format!("{name}({})", values.join(", ")))
        };
        let hosts = quoted("Host", hosts.into_iter().map(Into::into).collect());
        let prefixes = quoted("PathPrefix", prefixes.into_iter().map(Into::into).collect());
        let parts: Vec<_> = hosts.into_iter().chain(prefixes).collect();
        if parts.is_empty() { Ok(Self::any()) } else { parts.join(" && ").parse() }
    }

    /// Whether a request for this host and path belongs to it. The host is in lower case and without port.
    pub fn matches(&self, host: &str, path: &str) -> bool {
        self.expression.matches(host, path)
    }

    /// The hosts that it may match; `None` when it may match any.
    pub(super) fn hosts(&self) -> Option<Vec<&str>> {
        self.expression.hosts()
    }

    /// The longer rule is the more special one, as in Traefik.
    pub fn priority(&self) -> u32 {
        self.text.len() as u32
    }
}

impl Expression {
    fn matches(&self, host: &str, path: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Host(hosts) => hosts.iter().any(|known| host_matches(known, host)),
            Self::Prefix(prefixes) => prefixes.iter().any(|prefix| is_below(prefix, path)),
            Self::Path(paths) => paths.iter().any(|known| known == path),
            Self::Not(inner) => !inner.matches(host, path),
            Self::And(all) => all.iter().all(|part| part.matches(host, path)),
            Self::Or(any) => any.iter().any(|part| part.matches(host, path)),
        }
    }

    fn hosts(&self) -> Option<Vec<&str>> {
        match self {
            Self::Host(hosts) if hosts.iter().all(|host| !host.starts_with('*')) => {
                Some(hosts.iter().map(String::as_str).collect())
            }
            Self::And(all) => all.iter().find_map(Self::hosts),
            Self::Or(any) => {
                let each: Option<Vec<_>> = any.iter().map(Self::hosts).collect();
                each.map(|hosts| hosts.concat())
            }
            _ => None,
        }
    }
}

fn host_matches(known: &str, host: &str) -> bool {
    match known.strip_prefix("*.") {
        Some(domain) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == domain),
        None => known == host,
    }
}

fn is_below(prefix: &str, path: &str) -> bool {
    let Some(rest) = path.strip_prefix(prefix) else { return false };
    rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/')
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.text.is_empty() { "any" } else { &self.text })
    }
}

impl Serialize for Rule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        if text.len() > MOST_BYTES {
            return Err(RuleError::TooMuch);
        }
        let mut parser = Parser { text, at: 0, depth: 0 };
        let expression = parser.any_of()?;
        parser.blanks();
        if parser.at < text.len() {
            return Err(parser.unexpected("&&, || or the end"));
        }
        Ok(Self { expression, text: text.trim().to_owned() })
    }
}

const MOST_BYTES: usize = 4096;
const MOST_DEPTH: usize = 16;

/// By recursive descent; `||` binds less than `&&`, `&&` less than `!`.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn any_of(&mut self) -> Result<Expression, RuleError> {
        self.depth += 1;
        if self.depth > MOST_DEPTH {
            return Err(RuleError::TooMuch);
        }
        let mut any = vec![self.all_of()?];
        while self.take("||") {
            any.push(self.all_of()?);
        }
        self.depth -= 1;
        Ok(if any.len() == 1 { any.remove(0) } else { Expression::Or(any) })
    }

    fn all_of(&mut self) -> Result<Expression, RuleError> {
        let mut all = vec![self.one()?];
        while self.take("&&") {
            all.push(self.one()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Expression::And(all) })
    }

    fn one(&mut self) -> Result<Expression, RuleError> {
        let mut negations = 0usize;
        while self.take("!") {
            negations += 1;
        }
        let inner = if self.take("(") {
            let inner = self.any_of()?;
            self.expect(")", "a closing parenthesis")?;
            inner
        } else {
            self.matcher()?
        };
        Ok(if negations % 2 == 1 { Expression::Not(Box::new(inner)) } else { inner })
    }

    fn matcher(&mut self) -> Result<Expression, RuleError> {
        self.blanks();
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        let name = rest.get(..end).unwrap_or_default().to_owned();
        if name.is_empty() {
            return Err(self.unexpected("Host, PathPrefix or Path"));
        }
        self.at += end;
        self.expect("(", "an opening parenthesis")?;
        let mut values = vec![self.value()?];
        while self.take(",") {
            values.push(self.value()?);
        }
        self.expect(")", "a closing parenthesis")?;
        match name.to_ascii_lowercase().as_str() {
            "host" => Ok(Expression::Host(values.into_iter().map(host).collect::<Result<_, _>>()?)),
            "pathprefix" => Ok(Expression::Prefix(values.into_iter().map(path).collect::<Result<_, _>>()?)),
            "path" => Ok(Expression::Path(values.into_iter().map(path).collect::<Result<_, _>>()?)),
            _ => Err(RuleError::Unsupported { name }),
        }
    }

    /// Between backticks or double quotes.
    fn value(&mut self) -> Result<String, RuleError> {
        self.blanks();
        let quote = match self.rest().chars().next() {
            Some(quote @ ('`' | '"')) => quote,
            _ => return Err(self.unexpected("a value between backticks")),
        };
        self.at += 1;
        let Some(end) = self.rest().find(quote) else { return Err(self.unexpected("the closing quote")) };
        let value = self.rest().get(..end).unwrap_or_default().to_owned();
        self.at += end + 1;
        Ok(value)
    }

    fn take(&mut self, token: &str) -> bool {
        self.blanks();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    fn expect(&mut self, token: &str, expected: &'static str) -> Result<(), RuleError> {
        if self.take(token) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn unexpected(&self, expected: &'static str) -> RuleError {
        RuleError::Unexpected { expected, at: self.at, rule: self.text.to_owned() }
    }
}

fn host(value: String) -> Result<String, RuleError> {
    let value = value.trim().to_ascii_lowercase();
    let name = value.strip_prefix("*.").unwrap_or(&value);
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
    if name.is_empty() || !name.chars().all(fits) {
        return Err(RuleError::NeverMatches { value, rule: "a host name, or *. and a host name" });
    }
    Ok(value)
}

fn path(value: String) -> Result<String, RuleError> {
    let fits = |c: char| c.is_ascii_graphic() && c != '?' && c != '#';
    if !value.starts_with('/') || !value.chars().all(fits) {
        return Err(RuleError::NeverMatches { value, rule: "a path that starts with / and has no query" });
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(rule: &str, host: &str, path: &str) -> bool {
        rule.parse::<Rule>().unwrap().matches(host, path)
    }

    #[test]
    fn traefiks_common_rules() {
        let both = "Host(`a.example`) && PathPrefix(`/api`)";
        assert!(matches(both, "a.example", "/api"));
        assert!(matches(both, "a.example", "/api/x"));
        assert!(!matches(both, "a.example", "/apical"));
        assert!(!matches(both, "b.example", "/api"));
        assert!(matches("Host(`a`, `B`)", "b", "/"));
        assert!(matches("Host(\"a\") || Host(`b`)", "b", "/"));
        assert!(matches("Host(`*.example`)", "x.example", "/"));
        assert!(!matches("Host(`*.example`)", "x.y.example", "/"));
        assert!(matches("Host(`a`) && !(Path(`/x`) || PathPrefix(`/y/`))", "a", "/z"));
        assert!(!matches("Host(`a`) && !(Path(`/x`) || PathPrefix(`/y/`))", "a", "/y/1"));
        assert!(matches("!!Host(`a`)", "a", "/"));
    }

    #[test]
    fn what_can_not_be_used_is_told_with_its_place() {
        let why = |rule: &str| rule.parse::<Rule>().unwrap_err().to_string();
        assert_eq!(
            why("Host(`a`) PathPrefix(`/`)"),
            "expected &&, || or the end at byte 10 of the rule \"Host(`a`) PathPrefix(`/`)\""
        );
        assert_eq!(
            why("Header(`a`)"),
            "the matcher \"Header\" is not supported: use Host, PathPrefix and Path"
        );
        assert!(why("Host(`a b`)").starts_with("\"a b\" can never match"));
        assert!(why("PathPrefix(`api`)").starts_with("\"api\" can never match"));
        assert!(why("Host(`a").contains("the closing quote"));
        assert!(why(&"(".repeat(100)).contains("nested too deeply"));
        assert!(why("").contains("expected Host"));
    }

    #[test]
    fn built_from_parts() {
        let rule = Rule::of(["a.example", "b.example"], ["/x"]).unwrap();
        assert_eq!(rule.to_string(), "Host(`a.example`, `b.example`) && PathPrefix(`/x`)");
        assert!(Rule::of([""], ["/"]).is_err());
        assert!(Rule::of([] as [&str; 0], [] as [&str; 0]).unwrap().matches("any", "/thing"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn any_text_is_a_rule_or_an_error(text in "[HostPathPrefix(`)/a&|! ,\"*.]{0,60}", host in "[a.]{0,5}") {
            if let Ok(rule) = text.parse::<Rule>() {
                // What it says of itself is the same rule.
                prop_assert_eq!(rule.to_string().parse::<Rule>().unwrap(), rule.clone());
                // It never matches a host that it does not list.
                if rule.matches(&host, "/a") && let Some(hosts) = rule.hosts() {
                    prop_assert!(hosts.contains(&host.as_str()));
                }
            }
        }
    }
}
