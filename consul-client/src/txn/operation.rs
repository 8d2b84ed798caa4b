//! The operations of a transaction as Consul writes them.

use std::fmt;

use base64::Engine as _;
use serde::Serialize;

use crate::{ExternalService, Status};

/// One operation.
#[derive(Clone, Serialize)]
pub(super) enum Operation {
    #[serde(rename = "KV")]
    Kv(Kv),
    Node(NodeVerb),
    Service(ServiceVerb),
    Check(CheckVerb),
}

impl Operation {
    pub(super) fn kv(kv: Kv) -> Self {
        Self::Kv(kv)
    }

    pub(super) fn node(
        verb: &'static str,
        name: impl Into<String>,
        address: impl Into<String>,
        index: u64,
    ) -> Self {
        let node = NodeFields { node: name.into(), address: address.into(), modify_index: index };
        Self::Node(NodeVerb { verb, node })
    }

    pub(super) fn service(
        verb: &'static str,
        node: impl Into<String>,
        service: ExternalService,
        index: u64,
    ) -> Self {
        let service = ServiceFields { service, modify_index: index };
        Self::Service(ServiceVerb { verb, node: node.into(), service })
    }

    pub(super) fn check(
        verb: &'static str,
        node: impl Into<String>,
        id: impl Into<String>,
        status: Option<Status>,
        service_id: Option<&str>,
        index: u64,
    ) -> Self {
        let check_id = id.into();
        let check = CheckFields {
            node: node.into(),
            name: check_id.clone(),
            check_id,
            status,
            service_id: service_id.map(str::to_owned),
            modify_index: index,
        };
        Self::Check(CheckVerb { verb, check })
    }

    /// The key or node that must not be empty: Consul refuses even the reading of a tree with the empty prefix.
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Kv(kv) => &kv.key,
            Self::Node(node) => &node.node.node,
            Self::Service(service) => &service.node,
            Self::Check(check) => &check.check.node,
        }
    }

    /// Whether a second time finds and leaves what the first time did. Conditions that the operations themselves change do not.
    pub(super) fn may_happen_twice(&self) -> bool {
        let verb = match self {
            Self::Kv(kv) => kv.verb,
            Self::Node(node) => node.verb,
            Self::Service(service) => service.verb,
            Self::Check(check) => check.verb,
        };
        matches!(verb, "set" | "delete" | "delete-tree" | "get" | "get-tree" | "lock" | "check-session")
    }
}

/// Without values and sessions.
impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kv(kv) => write!(f, "{} {:?}", kv.verb, kv.key),
            Self::Node(node) => write!(f, "node {} {:?}", node.verb, node.node.node),
            Self::Service(service) => write!(f, "service {} on {:?}", service.verb, service.node),
            Self::Check(check) => write!(f, "check {} {:?}", check.verb, check.check.check_id),
        }
    }
}

/// An operation on a key.
#[derive(Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Kv {
    verb: &'static str,
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flags: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
}

impl Kv {
    pub(crate) fn new(verb: &'static str, key: impl Into<String>) -> Self {
        Self { verb, key: key.into(), value: None, flags: None, index: None, session: None }
    }

    pub(crate) fn value(mut self, value: impl AsRef<[u8]>) -> Self {
        self.value = Some(base64::engine::general_purpose::STANDARD.encode(value));
        self
    }

    pub(crate) fn flags(mut self, flags: u64) -> Self {
        self.flags = Some(flags);
        self
    }

    pub(crate) fn index(mut self, index: u64) -> Self {
        self.index = Some(index);
        self
    }

    pub(crate) fn session(mut self, session: impl Into<String>) -> Self {
        self.session = Some(session.into());
        self
    }
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NodeVerb {
    verb: &'static str,
    node: NodeFields,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NodeFields {
    node: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    address: String,
    #[serde(skip_serializing_if = "is_zero")]
    modify_index: u64,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ServiceVerb {
    verb: &'static str,
    node: String,
    service: ServiceFields,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceFields {
    #[serde(flatten)]
    service: ExternalService,
    #[serde(skip_serializing_if = "is_zero")]
    modify_index: u64,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CheckVerb {
    verb: &'static str,
    check: CheckFields,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct CheckFields {
    node: String,
    #[serde(rename = "CheckID")]
    check_id: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(rename = "ServiceID", skip_serializing_if = "Option::is_none")]
    service_id: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    modify_index: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use serde_json::{json, to_value};

    use super::*;

    #[test]
    fn operations_are_written_as_consul_reads_them() {
        let kv = Kv::new("cas", "a").value(b"x").index(0);
        assert_eq!(
            to_value(Operation::kv(kv)).unwrap(),
            json!({"KV": {"Verb": "cas", "Key": "a", "Value": "eA==", "Index": 0}})
        );
        assert_eq!(
            to_value(Operation::node("set", "n", "10.0.0.1", 0)).unwrap(),
            json!({"Node": {"Verb": "set", "Node": {"Node": "n", "Address": "10.0.0.1"}}})
        );
        assert_eq!(
            to_value(Operation::service("cas", "n", ExternalService::new("db", "db-1").port(1), 7)).unwrap(),
            json!({"Service": {"Verb": "cas", "Node": "n",
                "Service": {"Service": "db", "ID": "db-1", "Port": 1, "ModifyIndex": 7}}})
        );
        assert_eq!(
            to_value(Operation::check("set", "n", "c", Some(Status::Passing), Some("db-1"), 0)).unwrap(),
            json!({"Check": {"Verb": "set", "Check":
                {"Node": "n", "CheckID": "c", "Name": "c", "Status": "passing", "ServiceID": "db-1"}}})
        );
        let secret = Operation::kv(Kv::new("lock", "a").value(b"hunter2").session("hunter2"));
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
