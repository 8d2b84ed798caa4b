//! Expressions by which a container says where it wants to run: `node==h1`, `storage!=~hdd*`, `image==/redis:[67]/`.

use std::fmt;
use std::str::FromStr;

use super::error::ExprError;
use super::pattern::Pattern;

/// `key==value` or `key!=value`. A value that begins with `~` is a wish (soft), not a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expr {
    key: String,
    operator: Operator,
    soft: bool,
    pattern: Pattern,
}

/// How an expression compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// One of the candidates matches.
    Equal,
    /// None of the candidates matches.
    NotEqual,
}

impl Expr {
    /// What is looked at: `node`, `container`, `image`, or a label.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How it compares.
    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// The glob or regular expression, without the `~` of a wish.
    #[must_use]
    pub fn value(&self) -> &str {
        self.pattern.text()
    }

    /// True if it is a wish: ignored, together with every other wish, where no engine fulfils them all.
    #[must_use]
    pub fn is_soft(&self) -> bool {
        self.soft
    }

    /// Whether these candidates satisfy it: `==` wants a match among them, `!=` wants none.
    pub fn matches<'a>(&self, candidates: impl IntoIterator<Item = &'a str>) -> bool {
        let found = candidates.into_iter().any(|candidate| self.pattern.matches(candidate));
        (self.operator == Operator::Equal) == found
    }
}

impl FromStr for Expr {
    type Err = ExprError;

    /// Reads one expression of at most 1024 bytes. `==` is looked for before `!=`, and the first one splits.
    fn from_str(text: &str) -> Result<Self, ExprError> {
        let bad = |problem: String| ExprError { text: shortened(text), problem };
        if text.len() > MAX_LENGTH {
            return Err(bad(format!("it has {} bytes, more than {MAX_LENGTH}", text.len())));
        }
        let split = |operator: &str, kind| text.split_once(operator).map(|(key, value)| (key, kind, value));
        let (key, operator, value) = split("==", Operator::Equal)
            .or_else(|| split("!=", Operator::NotEqual))
            .ok_or_else(|| bad("it has neither == nor !=".to_owned()))?;
        if !is_key(key) {
            return Err(bad(format!(
                "the key {:?} must begin with a letter or underscore and go on with letters, digits, - _ or .",
                shortened(key)
            )));
        }
        let (soft, value) = value.strip_prefix('~').map_or((false, value), |rest| (true, rest));
        if value.is_empty() {
            return Err(bad("the value is missing".to_owned()));
        }
        if value.starts_with(['=', '!']) {
            return Err(bad("the operator is followed by another one".to_owned()));
        }
        if let Some(odd) = value.chars().find(|c| !is_value_char(*c)) {
            return Err(bad(format!("{odd:?} can't stand in a value")));
        }
        let pattern = Pattern::new(value).map_err(bad)?;
        Ok(Self { key: key.to_owned(), operator, soft, pattern })
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = if self.operator == Operator::Equal { "==" } else { "!=" };
        let soft = if self.soft { "~" } else { "" };
        write!(f, "{}{operator}{soft}{}", self.key, self.pattern)
    }
}

/// Names of engines, one of which must be chosen: `node==h1|h2`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whitelist(Vec<String>);

impl Whitelist {
    /// Whether this engine is on the list.
    #[must_use]
    pub fn allows(&self, engine: &str) -> bool {
        self.0.iter().any(|name| name == engine)
    }
}

impl FromStr for Whitelist {
    type Err = ExprError;

    fn from_str(text: &str) -> Result<Self, ExprError> {
        let bad = |problem: &str| ExprError { text: shortened(text), problem: problem.to_owned() };
        if text.len() > MAX_LENGTH {
            return Err(bad("it is too long"));
        }
        let names = text.strip_prefix("node==").ok_or_else(|| bad("a whitelist is node==NAME|NAME"))?;
        if names.split('|').any(str::is_empty) {
            return Err(bad("a name in it is empty"));
        }
        Ok(Self(names.split('|').map(str::to_owned).collect()))
    }
}

impl fmt::Display for Whitelist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node=={}", self.0.join("|"))
    }
}

fn is_key(key: &str) -> bool {
    let mut bytes = key.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    // At least two characters, as the classic manager had it.
    first && key.len() >= 2 && bytes.all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

fn is_value_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || ":-_.*/()?+[]\\^$|".contains(c)
}

/// The beginning of a text that somebody else wrote.
pub(super) fn shortened(text: &str) -> String {
    if text.chars().count() <= SHOWN {
        text.to_owned()
    } else {
        text.chars().take(SHOWN).chain(['…']).collect()
    }
}

const MAX_LENGTH: usize = 1024;
const SHOWN: usize = 80;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expr(text: &str) -> Expr {
        text.parse().unwrap()
    }

    #[test]
    fn an_expression_is_split_at_its_first_operator() {
        let read = expr("storage==ssd");
        assert_eq!((read.key(), read.operator(), read.value()), ("storage", Operator::Equal, "ssd"));
        assert!(expr("node!=~h1").is_soft());
        // `==` is looked for first, wherever it stands.
        assert!("ab!=c==d".parse::<Expr>().is_err());
        assert_eq!(expr("com.x-y_z==/a b/").key(), "com.x-y_z");
    }

    #[test]
    fn what_is_no_expression_is_refused_with_its_text() {
        for bad in [
            "", "x", "x==1", "1x==1", "ab=1", "ab==", "ab==~", "ab===c", "ab==!c", "ab==ü", "ab==a;b",
            "ab==/(/",
        ] {
            let error = bad.parse::<Expr>().unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
        let long = format!("ab=={}", "x".repeat(2000));
        assert!(long.parse::<Expr>().unwrap_err().to_string().len() < 300);
    }

    #[test]
    fn not_equal_means_that_no_candidate_matches() {
        assert!(expr("kk==a*").matches(["b", "ab"]));
        assert!(!expr("kk!=a*").matches(["b", "ab"]));
        assert!(!expr("kk==a").matches([]) && expr("kk!=a").matches([]));
        assert!(expr("kk==*").matches([""]));
    }

    #[test]
    fn a_whitelist_holds_exact_names() {
        let list: Whitelist = "node==h1|h2".parse().unwrap();
        assert!(list.allows("h2") && !list.allows("h") && !list.allows("h*"));
        for bad in ["h1", "node==", "node==a||b", "engine==a"] {
            assert!(bad.parse::<Whitelist>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_back_the_same(text in "[a-c_.~!=/*|h1-9()]{0,14}|\\PC{0,30}") {
            if let Ok(read) = text.parse::<Expr>() {
                prop_assert_eq!(read.to_string().parse::<Expr>().unwrap(), read.clone());
                prop_assert_eq!(read.to_string(), text.clone());
                let _ = read.matches([text.as_str()]);
            }
            let _ = text.parse::<Whitelist>();
        }
    }
}
