//! Keys: writes with their conditions, alone and in transactions. The rules are those of Consul 1.8's state store.

use std::time::Duration;

use base64::Engine as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::world::{Pair, World};

/// A write that was refused in words.
pub(super) type Refusal = String;

impl World {
    /// Writes. The same value and flags again change nothing, not even the index. A session stays, the lock index starts anew.
    pub(super) fn set(&mut self, key: &str, value: Vec<u8>, flags: u64) {
        let same = self
            .keys
            .get(key)
            .is_some_and(|pair| pair.value == value && pair.flags == flags && pair.lock == 0);
        if !same {
            let session = self.keys.get(key).and_then(|pair| pair.session.clone());
            self.write(key, Pair { value, flags, session, ..Pair::default() });
        }
    }

    /// `lock` and `session` are taken from `pair`.
    fn write(&mut self, key: &str, pair: Pair) {
        let index = self.bump();
        let create = self.keys.get(key).map_or(index, |old| old.create);
        self.keys_index = index;
        self.tombstones.remove(key);
        self.keys.insert(key.to_owned(), Pair { create, modify: index, ..pair });
    }

    pub(super) fn cas(&mut self, key: &str, value: Vec<u8>, flags: u64, index: u64) -> bool {
        if self.keys.get(key).map_or(0, |pair| pair.modify) != index {
            return false;
        }
        self.set(key, value, flags);
        true
    }

    pub(super) fn delete(&mut self, key: &str) {
        if self.keys.remove(key).is_some() {
            let index = self.bump();
            self.keys_index = index;
            self.tombstones.insert(key.to_owned(), index);
        }
    }

    /// An absent key counts as deleted.
    pub(super) fn delete_cas(&mut self, key: &str, index: u64) -> bool {
        match self.keys.get(key) {
            Some(pair) if pair.modify != index => false,
            _ => {
                self.delete(key);
                true
            }
        }
    }

    pub(super) fn delete_tree(&mut self, prefix: &str) {
        let under: Vec<_> = self.keys.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
        for key in under {
            self.delete(&key);
        }
    }

    /// The plain call answers `false` where a transaction says why.
    pub(super) fn lock(
        &mut self,
        key: &str,
        value: Vec<u8>,
        flags: u64,
        session: &str,
        now: Duration,
    ) -> Result<(), Refusal> {
        if !self.sessions.contains_key(session) {
            return Err(format!("invalid session {session:?}"));
        }
        if self.barred.get(key).is_some_and(|until| *until > now) {
            return Err(format!("failed to lock key {key:?} due to lock delay"));
        }
        let old = self.keys.get(key);
        let lock = match old.and_then(|pair| pair.session.as_deref()) {
            Some(holder) if holder != session => {
                return Err(format!("failed to lock key {key:?}, lock is already held"));
            }
            Some(_) => old.map_or(1, |pair| pair.lock),
            None => old.map_or(0, |pair| pair.lock) + 1,
        };
        self.write(key, Pair { value, flags, lock, session: Some(session.to_owned()), ..Pair::default() });
        Ok(())
    }

    pub(super) fn unlock(
        &mut self,
        key: &str,
        value: Vec<u8>,
        flags: u64,
        session: &str,
    ) -> Result<(), Refusal> {
        match self.keys.get(key) {
            Some(pair) if pair.session.as_deref() == Some(session) => {
                let lock = pair.lock;
                self.write(key, Pair { value, flags, lock, session: None, ..Pair::default() });
                Ok(())
            }
            Some(_) => {
                Err(format!("failed to unlock key {key:?}, lock isn't held, or is held by another session"))
            }
            None => Err(format!("failed to unlock key {key:?}, key doesn't exist")),
        }
    }

    /// All operations or none. The status and the body.
    pub(super) fn transact(&mut self, body: &[u8], now: Duration) -> (u16, Value) {
        let operations: Vec<Operation> = match serde_json::from_slice(body) {
            Ok(operations) => operations,
            Err(error) => return (400, json!(format!("Failed to parse body: {error}"))),
        };
        if operations.len() > MAX_OPERATIONS {
            let text =
                format!("Transaction contains too many operations ({} > {MAX_OPERATIONS})", operations.len());
            return (413, json!(text));
        }
        let before = (self.keys.clone(), self.tombstones.clone(), self.index, self.keys_index);
        let (mut results, mut errors) = (Vec::new(), Vec::new());
        for (i, operation) in operations.into_iter().enumerate() {
            match self.operate(operation.kv, now) {
                Ok(found) => results.extend(found.into_iter().map(|pair| json!({"KV": pair}))),
                Err(what) => errors.push(json!({"OpIndex": i, "What": what})),
            }
        }
        if errors.is_empty() {
            return (200, json!({"Results": results, "Errors": null}));
        }
        (self.keys, self.tombstones, self.index, self.keys_index) = before;
        (409, json!({"Results": null, "Errors": errors}))
    }

    fn operate(&mut self, kv: Kv, now: Duration) -> Result<Vec<Value>, Refusal> {
        let Kv { verb, key, value, flags, index, session } = kv;
        let session = session.unwrap_or_default();
        if key.is_empty() {
            return Err("Must provide key".to_owned());
        }
        let value = base64::engine::general_purpose::STANDARD.decode(value.unwrap_or_default());
        let value = value.map_err(|error| format!("invalid value: {error}"))?;
        let held = self.keys.get(&key).and_then(|pair| pair.session.clone());
        let modify = self.keys.get(&key).map(|pair| pair.modify);
        match verb.as_str() {
            "set" => self.set(&key, value, flags),
            "cas" => {
                if !self.cas(&key, value, flags, index) {
                    return Err(format!("failed to set key {key:?}, index is stale"));
                }
            }
            "lock" => self.lock(&key, value, flags, &session, now)?,
            "unlock" => self.unlock(&key, value, flags, &session)?,
            "get" => {
                let Some(pair) = self.keys.get(&key) else {
                    return Err(format!("key {key:?} doesn't exist"));
                };
                return Ok(vec![self.pair_json(&key, pair, true)]);
            }
            "get-tree" => {
                let under = self.keys.iter().filter(|(name, _)| name.starts_with(&key));
                return Ok(under.map(|(name, pair)| self.pair_json(name, pair, true)).collect());
            }
            "check-index" if modify.is_none() => return Err(format!("key {key:?} doesn't exist")),
            "check-index" if modify != Some(index) => {
                return Err(format!("current modify index {} does not match {index}", modify.unwrap_or(0)));
            }
            "check-session" if modify.is_none() => return Err(format!("key {key:?} doesn't exist")),
            "check-session" if held.as_deref() != Some(session.as_str()) => {
                return Err(format!(
                    "current session {:?} does not match {session:?}",
                    held.unwrap_or_default()
                ));
            }
            "check-not-exists" if modify.is_some() => return Err(format!("key {key:?} exists")),
            "check-not-exists" => return Ok(Vec::new()),
            "check-index" | "check-session" => {}
            "delete" => {
                self.delete(&key);
                return Ok(Vec::new());
            }
            "delete-tree" => {
                self.delete_tree(&key);
                return Ok(Vec::new());
            }
            "delete-cas" => {
                return match self.delete_cas(&key, index) {
                    true => Ok(Vec::new()),
                    false => Err(format!("failed to delete key {key:?}, index is stale")),
                };
            }
            other => return Err(format!("unknown KV verb {other:?}")),
        }
        Ok(self.keys.get(&key).map(|pair| self.pair_json(&key, pair, false)).into_iter().collect())
    }
}

#[derive(Deserialize)]
struct Operation {
    #[serde(rename = "KV")]
    kv: Kv,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kv {
    verb: String,
    key: String,
    #[serde(default)]
    value: Option<String>,
    #[serde(default)]
    flags: u64,
    #[serde(default)]
    index: u64,
    #[serde(default)]
    session: Option<String>,
}

const MAX_OPERATIONS: usize = 64;
