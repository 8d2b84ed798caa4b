//! `${VARIABLE}` and its forms, in every text of a file.

use serde_json::Value;

use super::walk::Problems;

/// Replaces variables in all texts below.
pub(super) fn value(
    value: &mut Value,
    path: String,
    variable: &dyn Fn(&str) -> Option<String>,
    problems: &Problems,
) {
    match value {
        Value::String(text) => match replaced(text, variable) {
            Ok(new) => *text = new,
            Err(problem) => problems.note(&path, problem),
        },
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                self::value(item, format!("{path}[{index}]"), variable, problems);
            }
        }
        Value::Object(fields) => {
            for (key, field) in fields.iter_mut() {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                self::value(field, path, variable, problems);
            }
        }
        _ => {}
    }
}

/// `$VAR`, `${VAR}`, `${VAR:-default}`, `${VAR-default}`, `${VAR:?message}`, `${VAR?message}`, and `$$` for a dollar.
fn replaced(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let end = after.find('}').ok_or("a } is missing; write $$ for a dollar sign")?;
            out.push_str(&braced(&after[..end], variable)?);
            rest = &after[end + 1..];
        } else {
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            if end == 0 || rest.starts_with(|c: char| c.is_ascii_digit()) {
                return Err("a $ begins no variable's name; write $$ for a dollar sign".to_owned());
            }
            out.push_str(&found(&rest[..end], variable)?);
            rest = &rest[end..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn braced(inside: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let end = inside.find(|c| !is_name(c)).unwrap_or(inside.len());
    let (name, rest) = inside.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("${…} holds no variable's name".to_owned());
    }
    let value = variable(name);
    let filled = value.clone().filter(|value| !value.is_empty());
    if rest.is_empty() {
        found(name, variable)
    } else if let Some(default) = rest.strip_prefix(":-") {
        Ok(filled.unwrap_or_else(|| default.to_owned()))
    } else if let Some(default) = rest.strip_prefix('-') {
        Ok(value.unwrap_or_else(|| default.to_owned()))
    } else if let Some(message) = rest.strip_prefix(":?") {
        filled.ok_or_else(|| format!("the variable {name} is not set or empty: {message}"))
    } else if let Some(message) = rest.strip_prefix('?') {
        value.ok_or_else(|| format!("the variable {name} is not set: {message}"))
    } else {
        Err(format!("what follows the variable {name} in ${{…}} is not known"))
    }
}

/// `docker stack deploy` takes an unset variable for empty, with a warning; here it is a problem, for few services work with an
/// empty image or password.
fn found(name: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    variable(name)
        .ok_or_else(|| format!("the variable {name} is not set; set it or write ${{{name}:-default}}"))
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_in_all_their_forms() {
        let variable = |name: &str| match name {
            "A" => Some("x".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        for (text, expected) in [
            ("plain", Ok("plain")),
            ("$A-$A", Ok("x-x")),
            ("${A}b", Ok("xb")),
            ("$$A", Ok("$A")),
            ("${EMPTY:-d}${EMPTY-d}${NONE:-d}${NONE-d}", Ok("ddd")),
            ("${A:?m}${EMPTY?m}", Ok("x")),
            ("${NONE:?why}", Err("the variable NONE is not set or empty: why")),
            ("$NONE", Err("the variable NONE is not set; set it or write ${NONE:-default}")),
            ("${A", Err("a } is missing; write $$ for a dollar sign")),
            ("5$", Err("a $ begins no variable's name; write $$ for a dollar sign")),
            ("${A!}", Err("what follows the variable A in ${…} is not known")),
        ] {
            assert_eq!(
                replaced(text, &variable).as_deref(),
                expected.map_err(str::to_owned).as_ref().map(|s| *s),
                "{text}"
            );
        }
    }
}
