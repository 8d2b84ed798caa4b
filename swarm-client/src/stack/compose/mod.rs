//! Reading compose files, version 3, as `docker stack deploy` does.
//!
//! What Swarm cannot honour is an error that names the key and what to do instead: `docker stack deploy` drops such keys without a
//! word, and a person finds out at 3 a.m. All problems of a file are reported at once. Keys that begin with `x-` are nobody's.

mod deploy;
mod interpolate;
mod service;
mod short;
mod top;
mod walk;

use std::fmt;
use std::io;

use serde_json::Value;

use super::Stack;
use walk::{At, Problems};

/// What a compose file may ask of its surroundings.
pub struct Context<'a> {
    /// The value of a variable, for `${VARIABLE}`.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The content of a file that is named by `file:` or `env_file:`, as the path is written.
    pub file: &'a dyn Fn(&str) -> io::Result<Vec<u8>>,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

/// What is wrong with a compose file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the compose file cannot be used:{}", listed(problems))]
#[non_exhaustive]
pub struct ComposeError {
    /// Each problem; never empty.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong with a compose file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The key: `services.web.deploy.replicas`.
    pub path: String,
    /// What is wrong and what to do.
    pub problem: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

impl Stack {
    /// Reads a compose file into a stack of this name.
    ///
    /// ```no_run
    /// # fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use swarm_client::stack::Stack;
    /// use swarm_client::stack::compose::Context;
    ///
    /// let text = std::fs::read_to_string("compose.yaml")?;
    /// let context = Context { variable: &|name| std::env::var(name).ok(), file: &|path| std::fs::read(path) };
    /// let stack = Stack::from_compose("shop", &text, &context)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// All problems of the file at once.
    pub fn from_compose(name: &str, text: &str, context: &Context<'_>) -> Result<Self, ComposeError> {
        let fatal =
            |problem: String| ComposeError { problems: vec![Problem { path: "the file".into(), problem }] };
        if text.len() > MAX_FILE {
            return Err(fatal(format!("it is longer than {MAX_FILE} bytes")));
        }
        // `mode: 0440` is octal, as in the YAML that compose files are written in.
        let options = serde_saphyr::options! { legacy_octal_numbers: true };
        let read = serde_saphyr::from_str_with_options(text, options);
        let mut value: Value = read.map_err(|error| {
            // The first line says where and what; the rest shows a piece of the file.
            let text = error.to_string();
            fatal(format!("it is no YAML that can be read: {}", text.lines().next().unwrap_or_default()))
        })?;
        let problems = Problems::default();
        interpolate::value(&mut value, String::new(), context.variable, &problems);
        let stack = top::read(name, &At::top(&value, &problems), context);
        let problems = problems.into_inner();
        if problems.is_empty() { Ok(stack) } else { Err(ComposeError { problems }) }
    }
}

/// Far more than anybody writes.
const MAX_FILE: usize = 4 << 20;

#[cfg(test)]
mod tests;
