//! Keys and values.

use base64::Engine as _;
use bytes::Bytes;
use serde::{Deserialize, Deserializer};

use crate::{
    Client, Consistency, Error, Response, Result, Watch, escape,
    request::{Raw, Request},
    watch::Source,
};

/// See [`Client::kv`].
///
/// A key is any text without control characters that does not start with `/` and holds no `//` and no part `.` or `..`; others are
/// refused with [`Error::Invalid`], because Consul would redirect them to another key. A value is up to 512 KiB of bytes.
#[derive(Debug, Clone)]
pub struct Kv {
    client: Client,
}

impl Kv {
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// One key, from the leader.
    ///
    /// # Errors
    /// As any read; an absent key is `None`, not an error.
    pub async fn get(&self, key: &str) -> Result<Response<Option<KvPair>>> {
        self.get_with(key, Consistency::Leader).await
    }

    /// One key, as fresh as asked for. `Stale` can miss an acknowledged write for seconds during an election.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_with(&self, key: &str, consistency: Consistency) -> Result<Response<Option<KvPair>>> {
        let request = get_request(key)?.consistency(consistency);
        let pairs = decode_pairs(&request, &self.client.call(&request).await?)?;
        Ok(pairs.map(|mut pairs| pairs.pop()))
    }

    /// Writes, whatever is there. Writing what is there already changes no index and wakes no watch.
    ///
    /// # Errors
    /// As any write.
    pub async fn put(&self, key: &str, value: impl Into<Bytes>) -> Result<()> {
        let request = Request::put(path(key)?).repeatable().bytes(value.into());
        self.said_true(request).await
    }

    /// Writes if the key's `modify_index` is `index`; 0 means only if it is absent. False when it is not.
    ///
    /// # Errors
    /// As any write. After [`Error::Ambiguous`] read the key to learn the outcome; this call does not repeat itself then.
    pub async fn cas(&self, key: &str, value: impl Into<Bytes>, index: u64) -> Result<bool> {
        let request = Request::put(path(key)?).param("cas", index).bytes(value.into());
        Ok(self.client.read(request).await?.value)
    }

    /// Deletes this key and no other. An absent key is no error.
    ///
    /// # Errors
    /// As any write.
    pub async fn delete(&self, key: &str) -> Result<()> {
        self.said_true(Request::delete(path(key)?).repeatable()).await
    }

    /// Deletes if the key's `modify_index` is `index`. False when it is not; true when the key is absent.
    ///
    /// # Errors
    /// As [`cas`](Self::cas).
    pub async fn delete_cas(&self, key: &str, index: u64) -> Result<bool> {
        Ok(self.client.read(Request::delete(path(key)?).param("cas", index)).await?.value)
    }

    /// Every pair whose key starts with `prefix`; all pairs for an empty one.
    ///
    /// # Errors
    /// As any read; none is an empty list.
    pub async fn list(&self, prefix: &str) -> Result<Response<Vec<KvPair>>> {
        let request = prefix_request(prefix)?;
        decode_pairs(&request, &self.client.call(&request).await?)
    }

    /// Every key that starts with `prefix`, without values; all keys for an empty one.
    ///
    /// # Errors
    /// As any read; none is an empty list.
    pub async fn keys(&self, prefix: &str) -> Result<Response<Vec<String>>> {
        let path = format!("/v1/kv/{}", escape::prefix("prefix", prefix)?);
        let request = Request::get(path).flag("keys").absent_ok();
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
        let path = format!("/v1/kv/{}", escape::prefix("prefix", prefix)?);
        self.said_true(Request::delete(path).flag("recurse").repeatable()).await
    }

    /// One key now and after each change, for ever: one item while it exists, none while it does not. See [`Watch`].
    pub fn watch(&self, key: &str) -> Watch<KvPair> {
        self.watch_request(get_request(key))
    }

    /// The pairs of a prefix now and after each change, for ever. See [`Watch`].
    pub fn watch_prefix(&self, prefix: &str) -> Watch<KvPair> {
        self.watch_request(prefix_request(prefix))
    }

    fn watch_request(&self, base: Result<Request>) -> Watch<KvPair> {
        // A watcher of keys is often their writer too, and must not be shown a past that lacks its own writes.
        let source = Source { base, consistency: Consistency::Leader, decode: decode_pairs };
        Watch::new(self.client.clone(), source)
    }

    async fn said_true(&self, request: Request) -> Result<()> {
        if self.client.read::<bool>(request.clone()).await?.value {
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
    Ok(format!("/v1/kv/{}", escape::path("key", key)?))
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

fn base64_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
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
    use crate::Meta;

    fn decode(status: u16, body: &'static str) -> Result<Vec<KvPair>> {
        let raw = Raw { status, meta: Meta::default(), body: Bytes::from_static(body.as_bytes()) };
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
