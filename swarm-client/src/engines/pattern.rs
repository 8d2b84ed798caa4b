//! What a value of an expression matches: a glob, or a regular expression between slashes.

use std::fmt;

use regex::{Regex, RegexBuilder};

/// A compiled value. Compared by its text.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    /// Compiles `a*b`, where `*` stands for any characters and everything else for itself, or `/re/`, which matches anywhere.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let source = match text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/')) {
            Some(inner) if !inner.is_empty() => inner.to_owned(),
            Some(_) => return Err("there is nothing between the slashes".to_owned()),
            None => glob(text),
        };
        let regex = RegexBuilder::new(&source).size_limit(SIZE_LIMIT).nest_limit(NEST_LIMIT).build();
        let regex = regex.map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "the regular expression is too large".to_owned(),
            _ => "the regular expression can't be read".to_owned(),
        })?;
        Ok(Self { text: text.to_owned(), regex })
    }

    pub(super) fn matches(&self, candidate: &str) -> bool {
        self.regex.is_match(candidate)
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The classic manager left `.`, `+` and the rest alive here, so that `n.1` matched `nx1`: a pattern that looks like a name should
/// be one, and who wants a regular expression writes slashes.
fn glob(text: &str) -> String {
    let pieces: Vec<String> = text.split('*').map(regex::escape).collect();
    format!("^(?s:{})$", pieces.join(".*"))
}

/// Bytes of a compiled expression; a thousand labels joined by bars stay below it.
const SIZE_LIMIT: usize = 1 << 20;
const NEST_LIMIT: u32 = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_is_a_name_with_stars_and_nothing_else() {
        for (pattern, yes, no) in [
            ("h1", "h1", "h10"),
            ("n.1", "n.1", "nx1"),
            ("*", "", "\u{0}never"),
            ("ssd*", "ssd-fast", "a-ssd"),
            ("a*c", "abc", "abcd"),
            ("(x|y)", "(x|y)", "x"),
        ] {
            let pattern = Pattern::new(pattern).unwrap();
            assert!(pattern.matches(yes), "{pattern} {yes}");
            assert_eq!(pattern.matches(no), pattern.text() == "*", "{pattern} {no}");
        }
    }

    #[test]
    fn between_slashes_is_a_regular_expression_that_matches_anywhere() {
        let pattern = Pattern::new("/n.1|z$/").unwrap();
        assert!(pattern.matches("a nx1 b") && pattern.matches("xyz") && !pattern.matches("zx"));
        for bad in ["//", "/(/", "/a{1000}{1000}{1000}/"] {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
        // A single slash opens nothing.
        assert!(Pattern::new("/").unwrap().matches("/"));
    }
}
