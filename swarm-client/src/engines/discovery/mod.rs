//! Where the engines of a pool are: a fixed list, a file, or what implements [`Discovery`].

use std::fmt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::error::DiscoveryError;

pub mod list;

/// Tells which engines there are. Asked at each look at the pool, so an answer should be at hand.
///
/// An error is not an empty list: the pool then goes on with the engines that it knows.
#[async_trait]
pub trait Discovery: Send + Sync + fmt::Debug {
    /// Every engine as `HOST:PORT`.
    async fn engines(&self) -> Result<Vec<String>, DiscoveryError>;
}

/// A fixed list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticNodes(Vec<String>);

impl StaticNodes {
    /// Reads `h1:2375,10.0.0.[10:20]:2375`.
    ///
    /// # Errors
    /// When it is no list.
    pub fn new(text: &str) -> Result<Self, DiscoveryError> {
        list::comma_separated(text).map(Self)
    }
}

#[async_trait]
impl Discovery for StaticNodes {
    async fn engines(&self) -> Result<Vec<String>, DiscoveryError> {
        Ok(self.0.clone())
    }
}

/// A file with one entry a line, read anew each time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileNodes(PathBuf);

impl FileNodes {
    /// The file need not be there yet.
    #[must_use]
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self(path.as_ref().to_owned())
    }
}

#[async_trait]
impl Discovery for FileNodes {
    async fn engines(&self) -> Result<Vec<String>, DiscoveryError> {
        let failed = |source| DiscoveryError::File { path: self.0.clone(), source };
        let size = tokio::fs::metadata(&self.0).await.map_err(failed)?.len();
        if size > MAX_FILE {
            return Err(failed(std::io::Error::other(format!("it has {size} bytes, more than {MAX_FILE}"))));
        }
        list::lines(&tokio::fs::read_to_string(&self.0).await.map_err(failed)?)
    }
}

/// A discovery as it is written: `nodes://LIST` (or the list alone), `file:///PATH`, `consul://HOST[:PORT]/PREFIX`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiscoveryUrl {
    /// A fixed list.
    Nodes(StaticNodes),
    /// A file.
    File(FileNodes),
    /// Keys in Consul, below `PREFIX/docker/nodes/`. This crate reads the address; a client of Consul does the rest.
    Consul {
        /// `HOST` or `HOST:PORT`.
        host: String,
        /// The prefix, without slashes at its ends; may be empty.
        prefix: String,
    },
}

impl std::str::FromStr for DiscoveryUrl {
    type Err = DiscoveryError;

    fn from_str(text: &str) -> Result<Self, DiscoveryError> {
        let bad = |problem: &str| DiscoveryError::List {
            text: super::expr::shortened(text),
            problem: problem.to_owned(),
        };
        match text.split_once("://") {
            None | Some(("nodes", _)) => {
                let list = text.strip_prefix("nodes://").unwrap_or(text);
                Ok(Self::Nodes(StaticNodes::new(list)?))
            }
            Some(("file", path)) if path.starts_with('/') => Ok(Self::File(FileNodes::new(path))),
            Some(("file", _)) => Err(bad("the path is not absolute")),
            Some(("consul", rest)) => {
                let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                if host.is_empty() || host.contains('@') {
                    return Err(bad("it has no host, or a password"));
                }
                Ok(Self::Consul { host: host.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
            }
            Some(_) => Err(bad("the schemes are nodes, file and consul")),
        }
    }
}

/// A thousand entries with a comment each stay well below it.
const MAX_FILE: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_anew_each_time_and_a_missing_one_is_an_error() {
        let path = std::env::temp_dir().join(format!("swarm-client-engines-{}", std::process::id()));
        let file = FileNodes::new(&path);
        std::fs::write(&path, "a:1\n").unwrap();
        assert_eq!(file.engines().await.unwrap(), ["a:1"]);
        std::fs::write(&path, "b:1\n# none\n").unwrap();
        assert_eq!(file.engines().await.unwrap(), ["b:1"]);
        std::fs::write(&path, b"\xff").unwrap();
        assert!(file.engines().await.is_err());
        std::fs::remove_file(&path).unwrap();
        let error = file.engines().await.unwrap_err().to_string();
        assert!(error.contains("swarm-client-engines"), "{error}");
    }

    #[test]
    fn an_address_names_its_kind() {
        let read = |text: &str| text.parse::<DiscoveryUrl>();
        let nodes = DiscoveryUrl::Nodes(StaticNodes(vec!["h1:2375".into()]));
        assert_eq!((read("nodes://h1:2375").unwrap(), read("h1:2375").unwrap()), (nodes.clone(), nodes));
        assert_eq!(read("file:///etc/engines").unwrap(), DiscoveryUrl::File(FileNodes::new("/etc/engines")));
        let consul = DiscoveryUrl::Consul { host: "c:8500".into(), prefix: "a/b".into() };
        assert_eq!(read("consul://c:8500/a/b/").unwrap(), consul);
        for bad in ["zk://h/p", "file://rel", "consul:///p", "consul://u:hunter2@h/p", "nodes://h"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
