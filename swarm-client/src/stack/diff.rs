//! Two JSON values, field by field. Pure.

use std::fmt;

use serde_json::Value;

/// A field that differs. Debug and Display show no value of an environment variable, argument or command.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct FieldChange {
    /// Where: `TaskTemplate.ContainerSpec.Image`.
    pub path: String,
    /// What is there; `None` if nothing.
    pub from: Option<Value>,
    /// What is wanted; `None` if nothing.
    pub to: Option<Value>,
}

impl fmt::Display for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<Value>| match value {
            None => "nothing".to_owned(),
            Some(_) if SECRET.iter().any(|part| self.path.contains(part)) => "(not shown)".to_owned(),
            Some(Value::String(text)) if text.len() <= MAX_SHOWN => text.clone(),
            Some(value) => {
                let text = value.to_string();
                if text.len() <= MAX_SHOWN { text } else { "(long)".to_owned() }
            }
        };
        write!(f, "{}: {} -> {}", self.path, show(&self.from), show(&self.to))
    }
}

impl fmt::Debug for FieldChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FieldChange({self})")
    }
}

/// What differs.
pub(crate) fn diff(from: &Value, to: &Value) -> Vec<FieldChange> {
    let mut changes = Vec::new();
    walk(String::new(), Some(from), Some(to), &mut changes);
    changes
}

fn walk(path: String, from: Option<&Value>, to: Option<&Value>, changes: &mut Vec<FieldChange>) {
    match (from, to) {
        (from, to) if from == to => {}
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                walk(path, a.get(key), b.get(key), changes);
            }
        }
        // Whole objects appear or go field by field too, so that a path names what a person would change.
        (None, Some(Value::Object(b))) if !b.is_empty() => {
            walk(path, Some(&Value::Object(serde_json::Map::new())), to, changes);
        }
        (Some(Value::Object(a)), None) if !a.is_empty() => {
            walk(path, from, Some(&Value::Object(serde_json::Map::new())), changes);
        }
        (from, to) => changes.push(FieldChange { path, from: from.cloned(), to: to.cloned() }),
    }
}

/// Parts of paths whose values can hold passwords.
const SECRET: [&str; 5] = [".Env", ".Args", ".Command", ".Test", ".Options"];
const MAX_SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_named_and_passwords_are_not_shown() {
        let changes = diff(
            &json!({"A": {"Image": "x:1", "Env": {"PW": "=old"}}, "Gone": {"Deep": 1}, "Same": [1]}),
            &json!({"A": {"Image": "x:2", "Env": {"PW": "=new"}}, "Same": [1], "New": {"B": [2]}}),
        );
        let texts: Vec<String> = changes.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "A.Env.PW: (not shown) -> (not shown)",
                "A.Image: x:1 -> x:2",
                "Gone.Deep: 1 -> nothing",
                "New.B: nothing -> [2]"
            ]
        );
        assert!(!format!("{changes:?}").contains("old"));
    }
}
