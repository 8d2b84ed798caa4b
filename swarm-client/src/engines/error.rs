//! Why the pool could not do something.

use std::fmt;

use super::filter::Filter;

/// An expression that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the expression {text:?} can't be used: {problem}; write key==value or key!=value, ~ before a value for a wish"
)]
#[non_exhaustive]
pub struct ExprError {
    /// The expression, cut short.
    pub text: String,
    /// What is wrong with it.
    pub problem: String,
}

/// No engine may take a container.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unplaceable {
    /// The container's name.
    pub container: String,
    /// Why each engine was left out, in the pool's order; empty for a pool of none.
    pub because: Vec<LeftOut>,
}

/// Why one engine was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftOut {
    /// The engine's name.
    pub engine: String,
    /// The filter that it failed; `None` where it has not the room.
    pub filter: Option<Filter>,
    /// The reason in words.
    pub reason: String,
}

impl fmt::Display for Unplaceable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.because.is_empty() {
            return write!(
                f,
                "no engine for the container {:?}: the pool has none; check what the discovery lists",
                self.container
            );
        }
        write!(f, "no engine for the container {:?}: ", self.container)?;
        for (at, left) in self.because.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            match left.filter {
                Some(filter) => write!(f, "{comma}{} ({filter}: {})", left.engine, left.reason)?,
                None => write!(f, "{comma}{} ({})", left.engine, left.reason)?,
            }
        }
        f.write_str("; relax what it asks for, or add an engine")
    }
}

impl std::error::Error for Unplaceable {}

/// A list of engines that can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// The text is no list of engines.
    #[error(
        "the engines {text:?} can't be used: {problem}; write HOST:PORT, with a range as in 10.0.0.[10:20]:2375"
    )]
    List {
        /// The entry, cut short.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The file can't be read.
    #[error("the list of engines {path:?} can't be read: {source}")]
    File {
        /// Its path.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The registry that knows the engines does not answer.
    #[error("the engines of {from} are not known: {source}")]
    Unavailable {
        /// Which registry.
        from: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why a verb of the pool failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// No engine fits.
    #[error(transparent)]
    Unplaceable(#[from] Unplaceable),
    /// An expression can't be read.
    #[error(transparent)]
    Expr(#[from] ExprError),
    /// The engines are not known.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// An engine refused, or did not answer.
    #[error(transparent)]
    Engine(#[from] crate::Error),
    /// The name is in use in the pool.
    #[error("the name {name:?} is taken by a container on {engine}; choose another, or remove that one")]
    NameTaken {
        /// The name.
        name: String,
        /// Where it is in use.
        engine: String,
    },
    /// No container of that name.
    #[error("no container {name:?} on the {reached} engines that answer{}", silent(*unreached))]
    NotFound {
        /// The name or id.
        name: String,
        /// How many engines were asked.
        reached: usize,
        /// How many did not answer: it may be there.
        unreached: usize,
    },
    /// Several containers go by that name.
    #[error("{name:?} is ambiguous: {}; say host/name", found.join(", "))]
    Ambiguous {
        /// The name or id.
        name: String,
        /// Each as host/name.
        found: Vec<String>,
    },
    /// The container's configuration can't be used.
    #[error("the container {name:?} can't be run: {problem}")]
    Spec {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

impl PoolError {
    /// Nothing of that name is in the pool, as far as engines answered.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. }) || matches!(self, Self::Engine(error) if error.is_not_found())
    }

    /// The same call may succeed later without a change: an engine did not answer, or had no room.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unplaceable(_) | Self::Discovery(DiscoveryError::Unavailable { .. }) => true,
            Self::Engine(error) => error.is_retryable(),
            _ => false,
        }
    }
}

fn silent(unreached: usize) -> String {
    if unreached == 0 { String::new() } else { format!("; {unreached} do not answer and may have it") }
}
