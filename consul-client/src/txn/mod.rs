//! Several operations at once: all happen, or none.

mod operation;

use serde::Deserialize;

use self::operation::Operation;
use crate::{
    AgentService, Answer, Client, Error, ExternalService, Fence, HealthCheck, KvPair, Meta, Node, Response,
    Result, Status, escape,
    request::{Raw, Request},
};

pub(crate) use self::operation::Kv;

/// A transaction under construction: see [`Client::txn`]. Operations happen in order; a refused one undoes all.
///
/// Any key works here, also one with `//` or a leading `/`. Consul takes up to 64 operations and 512 KiB.
///
/// ```no_run
/// # async fn run(consul: consul_client::Client) -> consul_client::Result<()> {
/// let moved = consul.txn().check_index("a", 42).set("b", "x").delete("a").commit().await?;
/// if let Some(refusals) = moved.refusals() {
///     println!("not moved: {refusals:?}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing happens until `commit`"]
pub struct Txn {
    client: Client,
    operations: Vec<Operation>,
}

impl Txn {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, operations: Vec::new() }
    }

    /// Writes, whatever is there.
    pub fn set(self, key: impl Into<String>, value: impl AsRef<[u8]>) -> Self {
        self.kv(Kv::new("set", key).value(value))
    }

    /// As [`set`](Self::set), with flags.
    pub fn set_with_flags(self, key: impl Into<String>, value: impl AsRef<[u8]>, flags: u64) -> Self {
        self.kv(Kv::new("set", key).value(value).flags(flags))
    }

    /// Writes if the key's `modify_index` is `index`; 0 means only if it is absent.
    pub fn cas(self, key: impl Into<String>, value: impl AsRef<[u8]>, index: u64) -> Self {
        self.kv(Kv::new("cas", key).value(value).index(index))
    }

    /// Writes and locks for a session.
    pub fn lock(self, key: impl Into<String>, value: impl AsRef<[u8]>, session: impl Into<String>) -> Self {
        self.kv(Kv::new("lock", key).value(value).session(session))
    }

    /// Writes and unlocks, if the session holds it.
    pub fn unlock(self, key: impl Into<String>, value: impl AsRef<[u8]>, session: impl Into<String>) -> Self {
        self.kv(Kv::new("unlock", key).value(value).session(session))
    }

    /// Reads; an absent key refuses the whole transaction.
    pub fn get(self, key: impl Into<String>) -> Self {
        self.kv(Kv::new("get", key))
    }

    /// Reads every key with this prefix, which must not be empty.
    pub fn get_tree(self, prefix: impl Into<String>) -> Self {
        self.kv(Kv::new("get-tree", prefix))
    }

    /// Refuses unless the key's `modify_index` is `index`.
    pub fn check_index(self, key: impl Into<String>, index: u64) -> Self {
        self.kv(Kv::new("check-index", key).index(index))
    }

    /// Refuses unless the session holds the key.
    pub fn check_session(self, key: impl Into<String>, session: impl Into<String>) -> Self {
        self.kv(Kv::new("check-session", key).session(session))
    }

    /// Refuses if the key is there.
    pub fn check_not_exists(self, key: impl Into<String>) -> Self {
        self.kv(Kv::new("check-not-exists", key))
    }

    /// Deletes; an absent key is no refusal.
    pub fn delete(self, key: impl Into<String>) -> Self {
        self.kv(Kv::new("delete", key))
    }

    /// Deletes every key with this prefix.
    pub fn delete_tree(self, prefix: impl Into<String>) -> Self {
        self.kv(Kv::new("delete-tree", prefix))
    }

    /// Deletes if the key's `modify_index` is `index`.
    pub fn delete_cas(self, key: impl Into<String>, index: u64) -> Self {
        self.kv(Kv::new("delete-cas", key).index(index))
    }

    /// Refuses unless the lock with this fence is still held as it was got: its key untouched, by anybody.
    ///
    /// Stricter than [`Lock::txn`](crate::Lock::txn), and possible without the lock at hand.
    pub fn check_fence(self, key: impl Into<String>, fence: Fence) -> Self {
        self.check_index(key, fence.0)
    }

    /// Reads a node; an absent one refuses the whole transaction.
    pub fn node_get(self, name: impl Into<String>) -> Self {
        self.add(Operation::node("get", name, "", 0))
    }

    /// Writes a node.
    pub fn node_set(self, name: impl Into<String>, address: impl Into<String>) -> Self {
        self.add(Operation::node("set", name, address, 0))
    }

    /// Writes a node if its `ModifyIndex` is `index`; 0 means only if it is absent.
    pub fn node_cas(self, name: impl Into<String>, address: impl Into<String>, index: u64) -> Self {
        self.add(Operation::node("cas", name, address, index))
    }

    /// Deletes a node with everything on it.
    pub fn node_delete(self, name: impl Into<String>) -> Self {
        self.add(Operation::node("delete", name, "", 0))
    }

    /// Reads a service of a node; an absent one refuses the whole transaction.
    pub fn service_get(self, node: impl Into<String>, name: &str, id: &str) -> Self {
        self.add(Operation::service("get", node, ExternalService::new(name, id), 0))
    }

    /// Writes a service of a node.
    pub fn service_set(self, node: impl Into<String>, service: ExternalService) -> Self {
        self.add(Operation::service("set", node, service, 0))
    }

    /// Writes a service of a node if its `ModifyIndex` is `index`; 0 means only if it is absent.
    pub fn service_cas(self, node: impl Into<String>, service: ExternalService, index: u64) -> Self {
        self.add(Operation::service("cas", node, service, index))
    }

    /// Deletes a service of a node.
    pub fn service_delete(self, node: impl Into<String>, name: &str, id: &str) -> Self {
        self.add(Operation::service("delete", node, ExternalService::new(name, id), 0))
    }

    /// Reads a check of a node; an absent one refuses the whole transaction.
    pub fn check_get(self, node: impl Into<String>, id: impl Into<String>) -> Self {
        self.add(Operation::check("get", node, id, None, None, 0))
    }

    /// Writes a check's result: of the node, or of the service with `service_id`.
    pub fn check_set(
        self,
        node: impl Into<String>,
        id: impl Into<String>,
        status: Status,
        service_id: Option<&str>,
    ) -> Self {
        self.add(Operation::check("set", node, id, Some(status), service_id, 0))
    }

    /// As [`check_set`](Self::check_set), if the check's `ModifyIndex` is `index`.
    pub fn check_cas(
        self,
        node: impl Into<String>,
        id: impl Into<String>,
        status: Status,
        service_id: Option<&str>,
        index: u64,
    ) -> Self {
        self.add(Operation::check("cas", node, id, Some(status), service_id, index))
    }

    /// Deletes a check of a node.
    pub fn check_delete(self, node: impl Into<String>, id: impl Into<String>) -> Self {
        self.add(Operation::check("delete", node, id, None, None, 0))
    }

    /// Carries it out.
    ///
    /// # Errors
    /// As any write; [`Error::TooLarge`] beyond the server's limits; [`Error::Denied`] when the token may not do one of the
    /// operations. A refusal is no error but an outcome. After [`Error::Ambiguous`] all of it may have happened, or nothing.
    pub async fn commit(self) -> Result<TxnOutcome> {
        let request = self.request()?;
        decode(&request, &self.client.call(&request).await?)
    }

    pub(crate) fn within(self, deadline: std::time::Duration) -> Committing {
        Committing { txn: self, deadline }
    }

    fn request(&self) -> Result<Request> {
        for operation in &self.operations {
            escape::check_key("key", operation.key())?;
        }
        if self.operations.is_empty() {
            return Err(Error::invalid("transaction", "", "has no operation"));
        }
        let mut request = Request::put("/v1/txn").also_ok(&[409]).json(&self.operations)?;
        if self.operations.iter().all(Operation::may_happen_twice) {
            request = request.repeatable();
        }
        Ok(request)
    }

    pub(crate) fn kv(self, kv: Kv) -> Self {
        self.add(Operation::kv(kv))
    }

    fn add(mut self, operation: Operation) -> Self {
        self.operations.push(operation);
        self
    }
}

/// A transaction with a deadline of its own.
pub(crate) struct Committing {
    txn: Txn,
    deadline: std::time::Duration,
}

impl Committing {
    pub(crate) async fn commit(self) -> Result<TxnOutcome> {
        let request = self.txn.request()?.within(self.deadline);
        decode(&request, &self.txn.client.call(&request).await?)
    }
}

/// What became of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "a transaction can be refused"]
pub enum TxnOutcome {
    /// All of it happened. One result for each operation that has one: reads of trees have several, deletions none.
    Done(Response<Vec<TxnResult>>),
    /// None of it happened.
    Refused(Vec<TxnRefusal>),
}

impl TxnOutcome {
    /// Whether all of it happened.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }

    /// The results, when all of it happened.
    pub fn results(&self) -> Option<&[TxnResult]> {
        match self {
            Self::Done(response) => Some(&response.value),
            Self::Refused(_) => None,
        }
    }

    /// The refused operations, when none of it happened.
    pub fn refusals(&self) -> Option<&[TxnRefusal]> {
        match self {
            Self::Done(_) => None,
            Self::Refused(refusals) => Some(refusals),
        }
    }

    /// The pairs among the results; without values where they were written.
    pub fn pairs(&self) -> impl Iterator<Item = &KvPair> {
        self.results().unwrap_or_default().iter().filter_map(|result| match result {
            TxnResult::Kv(pair) => Some(pair),
            _ => None,
        })
    }
}

/// The result of one operation.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub enum TxnResult {
    /// A key. Written ones come without their value, and with the new indexes.
    #[serde(rename = "KV")]
    Kv(KvPair),
    /// A node.
    Node(Indexed<Node>),
    /// A service.
    Service(Indexed<AgentService>),
    /// A check.
    Check(Indexed<HealthCheck>),
}

/// Something with the index of its last change: the condition of a compare-and-set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct Indexed<T> {
    /// The thing.
    #[serde(flatten)]
    pub value: T,
    /// The index of its last change.
    #[serde(rename = "ModifyIndex", default)]
    pub modify_index: u64,
}

/// Why an operation was refused.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct TxnRefusal {
    /// Which operation, from 0.
    #[serde(rename = "OpIndex")]
    pub operation: usize,
    /// Why, in Consul's words; session ids left out.
    #[serde(rename = "What", deserialize_with = "without_ids")]
    pub why: String,
}

impl TxnRefusal {
    /// The key is barred for a while because its last holder vanished.
    pub fn is_lock_delay(&self) -> bool {
        self.why.contains("lock delay")
    }
}

fn without_ids<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<String, D::Error> {
    Ok(crate::error::without_ids(&String::deserialize(deserializer)?))
}

pub(crate) fn decode(request: &Request, raw: &Raw) -> Result<TxnOutcome> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Wire {
        results: Option<Vec<TxnResult>>,
        errors: Option<Vec<TxnRefusal>>,
        /// Transactions that only read say their freshness here too.
        index: Option<u64>,
    }
    let Response { value: wire, meta } = request.decode::<Wire>(raw)?;
    let refusals = wire.errors.unwrap_or_default();
    if let Some(denied) =
        refusals.iter().find(|refusal| refusal.why.to_lowercase().contains("permission denied"))
    {
        return Err(Error::Denied(Answer::new(request.endpoint(), raw.status, &denied.why, true)));
    }
    match (raw.status, wire.results) {
        (409, _) if !refusals.is_empty() => Ok(TxnOutcome::Refused(refusals)),
        (200, results) if refusals.is_empty() => {
            let meta = Meta { index: meta.index.or(wire.index.filter(|index| *index > 0)), ..meta };
            Ok(TxnOutcome::Done(Response::new(results.unwrap_or_default(), meta)))
        }
        _ => Err(Error::Decode {
            endpoint: request.endpoint(),
            reason: "neither results nor errors".to_owned(),
            write: true,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request::put("/v1/txn").also_ok(&[409])
    }

    #[test]
    fn results_and_refusals_are_told_apart() {
        let done = r#"{"Results":[{"KV":{"LockIndex":1,"Key":"a","Flags":1,"Value":null,"CreateIndex":5,"ModifyIndex":9}},
            {"Node":{"Node":"n","Address":"x"}}],"Errors":null}"#;
        let outcome = decode(&request(), &Raw::of(200, done)).unwrap();
        assert_eq!(outcome.pairs().map(|pair| pair.modify_index).collect::<Vec<_>>(), [9]);
        assert_eq!(outcome.results().unwrap().len(), 2);
        let refused = r#"{"Results":null,"Errors":[{"OpIndex":1,"What":"current session \"88e0b175-6559-c1b8-c352-14dc942640d4\" no"}]}"#;
        let outcome = decode(&request(), &Raw::of(409, refused)).unwrap();
        let refusal = &outcome.refusals().unwrap()[0];
        assert_eq!((refusal.operation, refusal.why.as_str()), (1, "current session \"<id>\" no"));
        let denied = r#"{"Results":null,"Errors":[{"OpIndex":0,"What":"Permission denied"}]}"#;
        assert!(decode(&request(), &Raw::of(409, denied)).unwrap_err().is_denied());
        assert!(decode(&request(), &Raw::of(409, "{}")).is_err());
        assert!(decode(&request(), &Raw::of(200, "<html>")).is_err());
    }

    #[test]
    fn only_what_may_happen_twice_is_repeatable() {
        let client = Client::builder().build().unwrap();
        let repeatable = |txn: Txn| txn.request().unwrap().repeatable;
        assert!(repeatable(client.txn().set("a", "x").delete("b").get_tree("c")));
        assert!(repeatable(client.txn().check_session("a", "s").set("b", "x")));
        assert!(!repeatable(client.txn().check_index("a", 3).set("a", "x")));
        assert!(!repeatable(client.txn().cas("a", "x", 0)));
        assert!(!repeatable(client.txn().check_not_exists("a").set("a", "x")));
        assert!(client.txn().request().is_err());
        assert!(client.txn().set("", "x").request().is_err());
    }
}
