//! Keys and values.

use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use serde::{Deserialize, Deserializer};

use crate::{
    Answer, Client, Consistency, Error, Query, Response, Result, TxnOutcome, TxnResult, Watch,
    conditional::{self, Told},
    escape,
    request::{Raw, Request},
    txn,
};

/// See [`Client::kv`].
///
/// A key is any text of 1 to 8192 bytes. One that cannot stand in a path, because it starts with `/` or holds `//`, a part `.` or
/// `..`, or a control character, goes by a transaction, where any key works: Consul would redirect the plain call to another key.
/// A value is up to 512 KiB of bytes.
#[derive(Debug, Clone)]
pub struct Kv {
    client: Client,
}

impl Kv {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// One key, from the leader unless the client says otherwise.
    ///
    /// # Errors
    /// As any read; an absent key is `None`, not an error.
    pub async fn get(&self, key: &str) -> Result<Response<Option<KvPair>>> {
        let Ok(request) = get_request(key) else {
            return self.get_by_txn(key).await;
        };
        let pairs = decode_pairs(&request, &self.client.call(&request).await?)?;
        Ok(pairs.map(|mut pairs| pairs.pop()))
    }

    /// One key, as fresh as asked for. `Stale` can miss an acknowledged write for seconds during an election.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_with(&self, key: &str, consistency: Consistency) -> Result<Response<Option<KvPair>>> {
        self.client.with_consistency(consistency).kv().get(key).await
    }

    /// Writes, whatever is there. Writing what is there already changes no index and wakes no watch.
    ///
    /// # Errors
    /// As any write.
    pub async fn put(&self, key: &str, value: impl Into<Bytes>) -> Result<()> {
        self.put_with_flags(key, value, 0).await
    }

    /// As [`put`](Self::put), with flags.
    ///
    /// # Errors
    /// As any write.
    pub async fn put_with_flags(&self, key: &str, value: impl Into<Bytes>, flags: u64) -> Result<()> {
        let value = value.into();
        let Ok(path) = path(key) else {
            let outcome = self.client.txn().set_with_flags(key, &value, flags).commit().await?;
            return self.expect_done(&outcome);
        };
        self.said_true(flagged(Request::put(path), flags).repeatable().bytes(value)).await
    }

    /// Writes if the key's `modify_index` is `index`; 0 means only if it is absent. False when it is not.
    ///
    /// A lost answer is resolved by trying again, which is safe because only one write finds that index. When that finds the key
    /// changed, Consul keeps nothing that tells by whom, whatever the key holds: another writer may have written the same value. Where
    /// that matters, as for a counter, use [`cas_marked`](Self::cas_marked).
    ///
    /// # Errors
    /// As any write. [`Error::Ambiguous`] when an answer was lost and the key was changed meanwhile, by this write or by another.
    pub async fn cas(&self, key: &str, value: impl Into<Bytes>, index: u64) -> Result<bool> {
        self.cas_with_flags(key, value, index, 0).await
    }

    /// As [`cas`](Self::cas), with flags.
    ///
    /// # Errors
    /// As [`cas`](Self::cas).
    pub async fn cas_with_flags(
        &self,
        key: &str,
        value: impl Into<Bytes>,
        index: u64,
        flags: u64,
    ) -> Result<bool> {
        self.cas_told(key, &value.into(), index, flags).await?.or_unknown()
    }

    /// As [`cas`](Self::cas), with a mark of this very write, a random number, as the key's flags. So a lost answer can be resolved by
    /// reading: a key that bears the mark was written here, and one that holds the same value under another mark was not. It always
    /// counts as a change, also where the value stays the same.
    ///
    /// # Errors
    /// As any write. [`Error::Ambiguous`] when an answer was lost and the key bears another mark now, whose write may have come after
    /// this one, or cannot be read.
    pub async fn cas_marked(&self, key: &str, value: impl Into<Bytes>, index: u64) -> Result<bool> {
        // Never 0, which is everybody's.
        let (value, mark) = (value.into(), rand::random::<u64>().max(1));
        let told = self.cas_told(key, &value, index, mark).await?;
        if matches!(told, Told::RefusedAfterLoss(_)) {
            let pair = self.get_with(key, Consistency::Consistent).await;
            if pair.is_ok_and(|pair| pair.value.is_some_and(|pair| pair.flags == mark)) {
                return Ok(true);
            }
        }
        told.or_unknown()
    }

    async fn cas_told(&self, key: &str, value: &Bytes, index: u64, flags: u64) -> Result<Told> {
        conditional::until_told(self.client.deadline(), |left| self.cas_once(key, value, index, flags, left))
            .await
    }

    async fn cas_once(
        &self,
        key: &str,
        value: &Bytes,
        index: u64,
        flags: u64,
        left: Duration,
    ) -> Result<bool> {
        let Ok(path) = path(key) else {
            let operation = txn::Kv::new("cas", key).value(value).index(index).flags(flags);
            return Ok(self.client.txn().kv(operation).within(left).commit().await?.is_done());
        };
        let request = flagged(Request::put(path), flags).param("cas", index).bytes(value.clone());
        Ok(self.client.read(request.within(left)).await?.value)
    }

    /// Locks the key for a session and writes. True also when the session holds it already; false when another does, whatever the
    /// value, or the key is barred by its lock delay. For a lock that is renewed and fenced use [`Client::lock`].
    ///
    /// # Errors
    /// As any write; [`Error::Rejected`] for an unknown session.
    pub async fn acquire(&self, key: &str, value: impl Into<Bytes>, session: &str) -> Result<bool> {
        // May be repeated: a session may lock what it holds.
        let request = Request::put(path(key)?).param("acquire", session).repeatable().bytes(value.into());
        Ok(self.client.read(request).await?.value)
    }

    /// Unlocks the key and writes. False when the session did not hold it. Flags become 0.
    ///
    /// # Errors
    /// As any write. After a lost answer the key is read: it counts as released here if the session does not hold it any more.
    pub async fn release(&self, key: &str, value: impl Into<Bytes>, session: &str) -> Result<bool> {
        let request = Request::put(path(key)?).param("release", session).bytes(value.into());
        match self.client.read(request).await {
            Ok(released) => Ok(released.value),
            Err(error @ Error::Ambiguous { .. }) => {
                let pair = self.get_with(key, Consistency::Consistent).await.map(|pair| pair.value);
                match pair {
                    Ok(pair) if pair.as_ref().and_then(|pair| pair.session.as_deref()) != Some(session) => {
                        Ok(true)
                    }
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Deletes this key and no other. An absent key is no error.
    ///
    /// # Errors
    /// As any write.
    pub async fn delete(&self, key: &str) -> Result<()> {
        let Ok(path) = path(key) else {
            let outcome = self.client.txn().delete(key).commit().await?;
            return self.expect_done(&outcome);
        };
        self.said_true(Request::delete(path).repeatable()).await
    }

    /// Deletes if the key's `modify_index` is `index`. False when it is not; true when the key is absent.
    ///
    /// # Errors
    /// As any write. After a lost answer it is tried again; [`Error::Ambiguous`] when there is another key of that name by then.
    pub async fn delete_cas(&self, key: &str, index: u64) -> Result<bool> {
        conditional::until_told(self.client.deadline(), |left| self.delete_once(key, index, left))
            .await?
            .or_unknown()
    }

    async fn delete_once(&self, key: &str, index: u64, left: Duration) -> Result<bool> {
        let Ok(path) = path(key) else {
            return Ok(self.client.txn().delete_cas(key, index).within(left).commit().await?.is_done());
        };
        Ok(self.client.read(Request::delete(path).param("cas", index).within(left)).await?.value)
    }

    /// Every pair whose key starts with `prefix`; all pairs for an empty one.
    ///
    /// # Errors
    /// As any read; none is an empty list.
    pub async fn list(&self, prefix: &str) -> Result<Response<Vec<KvPair>>> {
        if !prefix.is_empty() && !escape::fits_a_path(prefix) {
            return self.list_by_txn(prefix).await;
        }
        let request = prefix_request(prefix)?;
        decode_pairs(&request, &self.client.call(&request).await?)
    }

    /// Every key that starts with `prefix`, without values; all keys for an empty one.
    ///
    /// # Errors
    /// As any read; none is an empty list.
    pub async fn keys(&self, prefix: &str) -> Result<Response<Vec<String>>> {
        self.keys_request(prefix, None).await
    }

    /// As [`keys`](Self::keys), but each only up to the first `separator` after the prefix, once: with `/` the entries of a folder.
    ///
    /// # Errors
    /// As [`keys`](Self::keys); [`Error::Invalid`] for a prefix that cannot stand in a path.
    pub async fn keys_up_to(&self, prefix: &str, separator: &str) -> Result<Response<Vec<String>>> {
        if separator.is_empty() {
            return Err(Error::invalid("separator", separator, "must not be empty"));
        }
        escape::prefix("prefix", prefix)?;
        self.keys_request(prefix, Some(separator)).await
    }

    async fn keys_request(&self, prefix: &str, separator: Option<&str>) -> Result<Response<Vec<String>>> {
        if !prefix.is_empty() && !escape::fits_a_path(prefix) {
            let pairs = self.list_by_txn(prefix).await?;
            return Ok(pairs.map(|pairs| pairs.into_iter().map(|pair| pair.key).collect()));
        }
        let path = format!("/v1/kv/{}", escape::prefix("prefix", prefix)?);
        let request = Request::get(path).flag("keys").maybe("separator", separator).absent_ok();
        let keys = request.decode_optional::<Vec<String>>(&self.client.call(&request).await?)?;
        Ok(keys.map(Option::unwrap_or_default))
    }

    /// Deletes every key that starts with `prefix` (`a` takes `ab` along: end it with `/` for a folder).
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty prefix, which would delete everything; otherwise as any write.
    pub async fn delete_tree(&self, prefix: &str) -> Result<()> {
        if prefix.is_empty() {
            return Err(Error::invalid("prefix", "", "would delete every key; name them"));
        }
        if !escape::fits_a_path(prefix) {
            let outcome = self.client.txn().delete_tree(prefix).commit().await?;
            return self.expect_done(&outcome);
        }
        let path = format!("/v1/kv/{}", escape::prefix("prefix", prefix)?);
        self.said_true(Request::delete(path).flag("recurse").repeatable()).await
    }

    /// One key now and after each change, for ever: one item while it exists, none while it does not. See [`Watch`].
    ///
    /// A key that cannot stand in a path cannot be watched: the watch says [`Failing`](crate::WatchState::Failing) from the start.
    pub fn watch(&self, key: &str) -> Watch<KvPair> {
        self.query(get_request(key)).watch()
    }

    /// The pairs of a prefix now and after each change, for ever. See [`Watch`], and [`watch`](Self::watch) for the limits.
    pub fn watch_prefix(&self, prefix: &str) -> Watch<KvPair> {
        self.query(prefix_request(prefix)).watch()
    }

    fn query(&self, request: Result<Request>) -> Query<KvPair> {
        // A watcher of keys is often their writer too, and must not be shown a past that lacks its own writes.
        Query::decoded_by(self.client.clone(), request, decode_pairs).watched_from(Consistency::Leader)
    }

    async fn get_by_txn(&self, key: &str) -> Result<Response<Option<KvPair>>> {
        // Through the tree: reading an absent key would refuse the transaction.
        let pairs = self.list_by_txn(key).await?;
        Ok(pairs.map(|pairs| pairs.into_iter().find(|pair| pair.key == key)))
    }

    async fn list_by_txn(&self, prefix: &str) -> Result<Response<Vec<KvPair>>> {
        escape::check_key("key", prefix)?;
        match self.client.txn().get_tree(prefix).commit().await? {
            TxnOutcome::Done(done) => Ok(done.map(|results| {
                let pairs = results.into_iter().filter_map(|result| match result {
                    TxnResult::Kv(pair) => Some(pair),
                    _ => None,
                });
                pairs.collect()
            })),
            refused @ TxnOutcome::Refused(_) => Err(self.unexpected(&refused)),
        }
    }

    fn expect_done(&self, outcome: &TxnOutcome) -> Result<()> {
        if outcome.is_done() { Ok(()) } else { Err(self.unexpected(outcome)) }
    }

    fn unexpected(&self, outcome: &TxnOutcome) -> Error {
        let why = outcome.refusals().and_then(<[_]>::first).map_or("refused", |refusal| refusal.why.as_str());
        Error::Rejected(Answer::new("PUT /v1/txn".to_owned(), 409, why, true))
    }

    async fn said_true(&self, request: Request) -> Result<()> {
        if request.decode(&self.client.call(&request).await?)?.value {
            return Ok(());
        }
        let reason = "`false` to a write without a condition".to_owned();
        Err(Error::Decode { endpoint: request.endpoint(), reason, write: true })
    }
}

/// A key with its value.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[non_exhaustive]
pub struct KvPair {
    /// The key.
    pub key: String,
    /// The value; may be empty.
    #[serde(default, deserialize_with = "base64_bytes")]
    pub value: Bytes,
    /// A number that clients may use as they like; recipes mark their keys with it.
    #[serde(default)]
    pub flags: u64,
    /// The index at which the key was created.
    pub create_index: u64,
    /// The index of the last change: the condition of a compare-and-set.
    pub modify_index: u64,
    /// How often it was locked since its last plain write.
    #[serde(default)]
    pub lock_index: u64,
    /// The session that holds it.
    #[serde(default)]
    pub session: Option<String>,
}

/// Without the value and the session, which are the user's.
impl std::fmt::Debug for KvPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KvPair")
            .field("key", &self.key)
            .field("value_bytes", &self.value.len())
            .field("modify_index", &self.modify_index)
            .field("locked", &self.session.is_some())
            .finish_non_exhaustive()
    }
}

pub(crate) fn path(key: &str) -> Result<String> {
    escape::path_after("/v1/kv/", "key", key)
}

fn flagged(request: Request, flags: u64) -> Request {
    request.maybe("flags", (flags != 0).then_some(flags))
}

pub(crate) fn get_request(key: &str) -> Result<Request> {
    Ok(Request::get(path(key)?).absent_ok())
}

fn prefix_request(prefix: &str) -> Result<Request> {
    Ok(Request::get(format!("/v1/kv/{}", escape::prefix("prefix", prefix)?)).flag("recurse").absent_ok())
}

pub(crate) fn decode_pairs(request: &Request, raw: &Raw) -> Result<Response<Vec<KvPair>>> {
    Ok(request.decode_optional::<Vec<KvPair>>(raw)?.map(Option::unwrap_or_default))
}

pub(crate) fn base64_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(Bytes::new());
    };
    // The decoder's own message would quote the value.
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    bytes.map(Bytes::from).map_err(|_| serde::de::Error::custom("value is not base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(status: u16, body: &'static str) -> Result<Vec<KvPair>> {
        let raw = Raw::of(status, body);
        decode_pairs(&get_request("a")?, &raw).map(Response::into_inner)
    }

    #[test]
    fn pairs_are_decoded_with_large_numbers_and_null_values() {
        let pairs = decode(200, r#"[{"LockIndex":0,"Key":"a","Flags":18446744073709551615,"Value":null,"CreateIndex":1,
            "ModifyIndex":15560390041262641985},{"Key":"b","Value":"AP8=","CreateIndex":1,"ModifyIndex":2,"Session":"s"}]"#).unwrap();
        assert_eq!(
            (pairs[0].flags, pairs[0].modify_index, pairs[0].value.len()),
            (u64::MAX, 15_560_390_041_262_641_985, 0)
        );
        assert_eq!((&pairs[1].value[..], pairs[1].session.as_deref()), (&[0, 255][..], Some("s")));
        assert!(decode(404, "").unwrap().is_empty());
    }

    #[test]
    fn a_value_that_is_not_base64_is_an_error() {
        assert!(matches!(
            decode(200, r#"[{"Key":"a","Value":"!","CreateIndex":1,"ModifyIndex":2}]"#),
            Err(Error::Decode { .. })
        ));
    }

    #[test]
    fn only_what_may_happen_twice_is_repeatable_and_recurse_is_never_implied() {
        assert_eq!(get_request("a/b c").unwrap().target(), "/v1/kv/a/b%20c");
        assert_eq!(prefix_request("").unwrap().target(), "/v1/kv/?recurse");
    }
}
