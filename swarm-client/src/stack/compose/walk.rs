//! Walking a file's values by their paths, and noting what is wrong on the way.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Problem;

/// What is wrong so far.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub(super) fn note(&self, path: &str, problem: impl Into<String>) {
        let mut all = self.0.borrow_mut();
        if all.len() < MAX_PROBLEMS {
            all.push(Problem { path: path.to_owned(), problem: problem.into() });
        }
    }

    pub(super) fn into_inner(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct At<'a> {
    pub(super) path: String,
    pub(super) value: &'a Value,
    problems: &'a Problems,
}

impl<'a> At<'a> {
    pub(super) fn top(value: &'a Value, problems: &'a Problems) -> Self {
        Self { path: String::new(), value, problems }
    }

    pub(super) fn note(&self, problem: impl Into<String>) {
        let path = if self.path.is_empty() { "the file" } else { &self.path };
        self.problems.note(path, problem);
    }

    fn child(&self, key: &str, value: &'a Value) -> Self {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Self { path, value, problems: self.problems }
    }

    /// The fields of an object; nothing of a null, and a problem of anything else.
    pub(super) fn fields(&self) -> Vec<(&'a str, At<'a>)> {
        match self.value {
            Value::Object(fields) => {
                fields.iter().map(|(key, value)| (key.as_str(), self.child(key, value))).collect()
            }
            Value::Null => Vec::new(),
            _ => {
                self.note("it must be a map of keys and values");
                Vec::new()
            }
        }
    }

    /// The fields, without those that begin with `x-`.
    pub(super) fn known_fields(&self) -> Vec<(&'a str, At<'a>)> {
        self.fields().into_iter().filter(|(key, _)| !key.starts_with("x-")).collect()
    }

    pub(super) fn get(&self, key: &str) -> Option<At<'a>> {
        let value = self.value.as_object().and_then(|fields: &Map<String, Value>| fields.get(key))?;
        (!value.is_null()).then(|| self.child(key, value))
    }

    pub(super) fn items(&self) -> Vec<At<'a>> {
        match self.value {
            Value::Array(items) => {
                let item = |(index, value): (usize, &'a Value)| At {
                    path: format!("{}[{index}]", self.path),
                    value,
                    problems: self.problems,
                };
                items.iter().enumerate().map(item).collect()
            }
            Value::Null => Vec::new(),
            _ => {
                self.note("it must be a list");
                Vec::new()
            }
        }
    }

    /// A text; numbers and truth values count as they are written.
    pub(super) fn text(&self) -> Option<String> {
        let text = scalar(self.value);
        if text.is_none() {
            self.note("it must be a text");
        }
        text
    }

    pub(super) fn texts(&self) -> Vec<String> {
        self.items().iter().filter_map(At::text).collect()
    }

    /// One text or a list of them.
    pub(super) fn text_or_texts(&self) -> Vec<String> {
        if self.value.is_array() { self.texts() } else { self.text().into_iter().collect() }
    }

    pub(super) fn parsed<T>(&self, rule: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.text()?;
        let value = read(text.trim());
        if value.is_none() {
            self.note(format!("{text:?} is not {rule}"));
        }
        value
    }

    pub(super) fn number(&self) -> Option<u64> {
        self.parsed("a whole number", |text| text.parse().ok())
    }

    pub(super) fn truth(&self) -> Option<bool> {
        self.parsed("true or false", |text| match text {
            "true" | "yes" | "on" => Some(true),
            "false" | "no" | "off" => Some(false),
            _ => None,
        })
    }

    /// A map, or a list of `key=value`.
    pub(super) fn pairs(&self) -> BTreeMap<String, Option<String>> {
        match self.value {
            Value::Array(_) => self
                .texts()
                .into_iter()
                .map(|text| match text.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (text, None),
                })
                .collect(),
            _ => {
                let read = |(key, at): (&str, At<'_>)| {
                    let value = if at.value.is_null() { None } else { at.text() };
                    (key.to_owned(), value)
                };
                self.fields().into_iter().map(read).collect()
            }
        }
    }

    /// The same, where no value is an empty one.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        self.pairs().into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect()
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

const MAX_PROBLEMS: usize = 50;
