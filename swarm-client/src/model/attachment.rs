//! A task's place on a network.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::overlay::AttachedNetwork;
use super::scalar::{Rest, null_default};

/// A task's place on one network.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct TaskNetwork {
    /// The network. Tasks that were read together share it.
    #[serde(
        default,
        serialize_with = "super::task_read::shared",
        deserialize_with = "super::task_read::unshared"
    )]
    pub network: Arc<AttachedNetwork>,
    /// Address and prefix length each, such as `10.0.1.5/24`.
    #[serde(default, deserialize_with = "null_default")]
    pub addresses: Vec<String>,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Rest,
}

impl TaskNetwork {
    /// The addresses alone.
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().filter_map(|text| ip_of(text))
    }
}

/// `10.0.1.5/24` → `10.0.1.5`.
pub(crate) fn ip_of(text: &str) -> Option<IpAddr> {
    text.split('/').next()?.parse().ok()
}
