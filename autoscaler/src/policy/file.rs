//! Policies as TOML text: what is wrong is told with its line.

use std::fmt;

use toml::de::{DeTable, DeValue};

use super::{Policy, PolicyError};

impl Policy {
    /// Reads and checks a policy. Durations are numbers of seconds; what is left out has its default.
    ///
    /// ```
    /// # use autoscaler::Policy;
    /// let policy = Policy::from_toml(
    ///     r#"
    ///     min = 2
    ///     max = 20
    ///
    ///     [[signals]]
    ///     name = "in_flight"
    ///     target = { average_per_instance = 70 }
    ///
    ///     [behavior.down]
    ///     stabilization = 60
    ///     limits = [{ percent = { p = 50, period = 60 } }]
    ///     "#,
    /// )?;
    /// assert_eq!(policy.max, 20);
    ///
    /// let refused = Policy::from_toml("min = 5\nmax = 4\n").unwrap_err();
    /// assert_eq!(refused.to_string(), "line 1: min is 5, but it must not exceed max");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the text is no TOML, has a field that no policy has, or breaks a rule: everything that is wrong, each with
    /// line, field, value and rule.
    pub fn from_toml(text: &str) -> Result<Self, PolicyFileError> {
        let policy: Self = toml::from_str(text).map_err(|error| PolicyFileError::unread(text, &error))?;
        let Err(errors) = policy.validate() else { return Ok(policy) };
        let table = DeTable::parse(text).ok();
        let mistakes = errors.into_iter().map(|error| {
            let start = table.as_ref().and_then(|table| find(table.get_ref(), &error.field));
            PolicyMistake { line: start.map_or(1, |start| line_of(text, start)), error }
        });
        Err(PolicyFileError(mistakes.collect()))
    }
}

/// Everything that is wrong with the text of a policy; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFileError(Vec<PolicyMistake>);

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyMistake {
    /// The line, from 1.
    pub line: usize,
    /// The field, its value and the rule.
    pub error: PolicyError,
}

impl PolicyFileError {
    /// The mistakes, in the order of a policy's fields.
    pub fn iter(&self) -> std::slice::Iter<'_, PolicyMistake> {
        self.0.iter()
    }

    fn unread(text: &str, error: &toml::de::Error) -> Self {
        let start = error.span().map_or(0, |span| span.start);
        let line = line_of(text, start);
        let found = text.lines().nth(line - 1).unwrap_or_default().trim();
        let (field, value) = found.split_once('=').unwrap_or((found, "not a value"));
        let short = |text: &str| text.trim().chars().take(80).collect();
        let rule = error.message().lines().collect::<Vec<_>>().join(" ");
        let error = PolicyError { field: short(field), value: short(value), rule };
        Self(vec![PolicyMistake { line, error }])
    }
}

impl fmt::Display for PolicyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, PolicyMistake { line, error }) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}line {line}: {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyFileError {}

/// Where a field such as `behavior.up.limits[0].period` stands, or the nearest part of it that was written.
fn find(table: &DeTable<'_>, field: &str) -> Option<usize> {
    let parts = field.split(['.', '[']).map(|part| part.trim_end_matches(']'));
    let mut found = None;
    let mut here: Option<&DeValue<'_>> = None;
    for part in parts {
        let next = match here {
            None => table.get_key_value(part),
            Some(DeValue::Table(table)) => table.get_key_value(part).or_else(|| {
                // What is one of several kinds has the kind's name in between.
                let mut kinds = table.iter();
                match (kinds.next(), kinds.next()) {
                    (Some((_, kind)), None) => match kind.get_ref() {
                        DeValue::Table(inner) => inner.get_key_value(part),
                        _ => None,
                    },
                    _ => None,
                }
            }),
            Some(DeValue::Array(items)) => {
                let item = part.parse::<usize>().ok().and_then(|index| items.get(index));
                let Some(item) = item else { break };
                found = Some(item.span().start);
                here = Some(item.get_ref());
                continue;
            }
            Some(_) => None,
        };
        let Some((key, value)) = next else { break };
        found = Some(key.span().start);
        here = Some(value.get_ref());
    }
    found
}

fn line_of(text: &str, start: usize) -> usize {
    text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn says(text: &str) -> String {
        Policy::from_toml(text).unwrap_err().to_string()
    }

    #[test]
    fn what_breaks_a_rule_is_found_on_its_line() {
        let text = r#"
min = 1
max = 9

[[signals]]
name = "in_flight"
target = { average_per_instance = 70 }

[[signals]]
name = "cpu"
target = { utilization = 0 }

[behavior.up]
limits = [
  { count = { n = 4, period = 15 } },
  { percent = { p = 50, period = 0 } },
]

[burst]
threshold = 10
"#;
        assert_eq!(
            says(text),
            "line 11: signals[1].target is 0, but it must be 1 to 100000 percent\n\
             line 16: behavior.up.limits[1].period is 0 s, but it must be 1 to 1800 s\n\
             line 20: burst.threshold is 10, but it must be 110 to 1000 percent"
        );
        // A default breaks a rule together with what was written: the nearest that stands there.
        assert_eq!(says("max = 3\n\nmin = 4\n"), "line 3: min is 4, but it must not exceed max");
    }

    #[test]
    fn what_can_t_be_read_is_found_on_its_line() {
        assert!(
            says("min = 1\nminimum = 2\n").starts_with("line 2: minimum is 2, but unknown field `minimum`")
        );
        assert!(says("min = 1\nmax = \"many\"\n").starts_with("line 2: max is \"many\", but invalid type"));
        assert!(says("min = 1\n\nmax\n").starts_with("line 3: max is not a value, but "));
        let cron = "min = 1\n[[schedule]]\nstart = \"0 8 * *\"\nend = \"0 9 * * *\"\n";
        assert_eq!(
            says(cron),
            "line 3: start is \"0 8 * *\", but \"0 8 * *\" is no cron expression: it has 4 fields instead of five"
        );
    }

    #[test]
    fn every_preset_survives_its_own_text() {
        let text = toml_of(&Policy::balanced("in_flight", 70.0).guard("p95", 0.5));
        let policy = Policy::from_toml(&text).unwrap();
        assert_eq!(policy, Policy::balanced("in_flight", 70.0).guard("p95", 0.5));
    }

    /// TOML has no writer here; JSON's inline tables and arrays differ in `:` and `null` alone.
    fn toml_of(policy: &Policy) -> String {
        let json = serde_json::to_value(policy).unwrap();
        let fields = json.as_object().unwrap().iter();
        fields
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| format!("{key} = {}\n", inline(value)))
            .collect()
    }

    fn inline(value: &serde_json::Value) -> String {
        match value {
            serde_json::Value::Object(fields) => {
                let fields = fields.iter().filter(|(_, value)| !value.is_null());
                let fields: Vec<String> =
                    fields.map(|(key, value)| format!("{key} = {}", inline(value))).collect();
                format!("{{ {} }}", fields.join(", "))
            }
            serde_json::Value::Array(items) => {
                format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", "))
            }
            other => other.to_string(),
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(\\PC|\n|min = |max = |[0-9]|\\[signals\\]){0,60}") {
            if let Err(error) = Policy::from_toml(&text) {
                prop_assert!(!error.to_string().is_empty());
            }
        }
    }
}
