//! What the fake knows: keys, sessions, services, and the index. Pure: `now` is an argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};

/// The node's name.
pub(super) const NODE: &str = "fake";

/// A key.
#[derive(Debug, Clone, Default)]
pub(super) struct Pair {
    pub(super) value: Vec<u8>,
    pub(super) flags: u64,
    pub(super) create: u64,
    pub(super) modify: u64,
    pub(super) lock: u64,
    pub(super) session: Option<String>,
}

/// A session.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) name: String,
    /// As it was given.
    pub(super) ttl_text: String,
    pub(super) ttl: Option<Duration>,
    pub(super) lock_delay: Duration,
    pub(super) delete: bool,
    pub(super) create: u64,
    /// When it ends unless it is renewed: after twice the TTL.
    pub(super) ends: Option<Duration>,
}

/// An instance at the agent, with its checks.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub(super) body: Value,
    pub(super) name: String,
    pub(super) checks: BTreeMap<String, CheckState>,
}

/// A check. `body` is what was registered, for telling an identical registration.
#[derive(Debug, Clone)]
pub(super) struct CheckState {
    pub(super) body: Value,
    pub(super) name: String,
    pub(super) status: String,
    pub(super) output: String,
    pub(super) ttl: Option<Duration>,
    pub(super) ends: Option<Duration>,
}

/// Everything.
#[derive(Debug)]
pub(super) struct World {
    pub(super) index: u64,
    pub(super) keys: BTreeMap<String, Pair>,
    /// Deleted keys with the index of the deletion. Never reaped.
    pub(super) tombstones: BTreeMap<String, u64>,
    /// The index of the last change to any key.
    pub(super) keys_index: u64,
    pub(super) sessions: BTreeMap<String, Live>,
    /// Until when a key is barred because its holder vanished.
    pub(super) barred: BTreeMap<String, Duration>,
    pub(super) services: BTreeMap<String, Instance>,
    /// By service name, while it has an instance.
    pub(super) service_index: BTreeMap<String, u64>,
    pub(super) catalog_index: u64,
    /// When a service last lost its last instance.
    pub(super) extinction: Option<u64>,
    pub(super) events: Vec<Value>,
    pub(super) leader: bool,
    /// Whether the others reach the services' agent by gossip.
    pub(super) agent: bool,
    serial: u64,
}

impl Default for World {
    fn default() -> Self {
        Self {
            // A real server has used some for itself.
            index: 10,
            keys: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            keys_index: 1,
            sessions: BTreeMap::new(),
            barred: BTreeMap::new(),
            services: BTreeMap::new(),
            service_index: BTreeMap::new(),
            catalog_index: 10,
            extinction: None,
            events: Vec::new(),
            leader: true,
            agent: true,
            serial: 0,
        }
    }
}

impl World {
    pub(super) fn bump(&mut self) -> u64 {
        self.index += 1;
        self.index
    }

    /// An id of the form that Consul's have.
    pub(super) fn id(&mut self) -> String {
        self.serial += 1;
        format!("{:08x}-0000-4000-8000-{:012x}", 0xfa4e_0000_u32, self.serial)
    }

    /// Ends what has run out, and says when the next thing does.
    pub(super) fn tick(&mut self, now: Duration) -> Option<Duration> {
        let over: Vec<_> =
            self.sessions.iter().filter(|(_, live)| live.ends.is_some_and(|at| at <= now)).collect();
        for id in over.into_iter().map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.end_session(&id, now);
        }
        let mut changed = BTreeSet::new();
        for instance in self.services.values_mut() {
            for check in instance.checks.values_mut().filter(|check| check.ends.is_some_and(|at| at <= now)) {
                check.ends = None;
                if check.status != "critical" {
                    "critical".clone_into(&mut check.status);
                    "TTL expired".clone_into(&mut check.output);
                    changed.insert(instance.name.clone());
                }
            }
        }
        for name in changed {
            self.touch_service(&name);
        }
        self.barred.retain(|_, until| *until > now);
        let sessions = self.sessions.values().filter_map(|live| live.ends);
        let checks =
            self.services.values().flat_map(|one| one.checks.values()).filter_map(|check| check.ends);
        sessions.chain(checks).min()
    }

    /// Ends a session: its keys are released or deleted, and barred for the lock delay, also when it was destroyed on purpose.
    pub(super) fn end_session(&mut self, id: &str, now: Duration) {
        let Some(live) = self.sessions.remove(id) else { return };
        let index = self.bump();
        let held: Vec<_> = self
            .keys
            .iter()
            .filter(|(_, pair)| pair.session.as_deref() == Some(id))
            .map(|(key, _)| key.clone())
            .collect();
        for key in held {
            if !live.lock_delay.is_zero() {
                self.barred.insert(key.clone(), now + live.lock_delay);
            }
            self.keys_index = index;
            if live.delete {
                self.keys.remove(&key);
                self.tombstones.insert(key, index);
            } else if let Some(pair) = self.keys.get_mut(&key) {
                pair.session = None;
                pair.modify = index;
            }
        }
    }

    pub(super) fn touch_service(&mut self, name: &str) {
        let index = self.bump();
        self.catalog_index = index;
        if self.services.values().any(|instance| instance.name == name) {
            self.service_index.insert(name.to_owned(), index);
        } else {
            self.service_index.remove(name);
            self.extinction = Some(index);
        }
    }

    /// A service without instances has the index of the whole table, until any service loses its last instance: from then on that one's.
    pub(super) fn index_of_service(&self, name: &str) -> u64 {
        self.service_index.get(name).copied().or(self.extinction).unwrap_or(self.catalog_index)
    }

    /// An absent key has the index of the whole table.
    pub(super) fn index_of_key(&self, key: &str) -> u64 {
        self.keys.get(key).map_or(self.keys_index.max(1), |pair| pair.modify)
    }

    /// Deletions count too.
    pub(super) fn index_of_prefix(&self, prefix: &str) -> u64 {
        let under = |key: &&String| key.starts_with(prefix);
        let living = self.keys.iter().filter(|(key, _)| under(key)).map(|(_, pair)| pair.modify);
        let dead = self.tombstones.iter().filter(|(key, _)| under(key)).map(|(_, index)| *index);
        living.chain(dead).max().unwrap_or(self.keys_index.max(1))
    }

    pub(super) fn pair_json(&self, key: &str, pair: &Pair, with_value: bool) -> Value {
        use base64::Engine as _;
        let value = (with_value && !pair.value.is_empty())
            .then(|| base64::engine::general_purpose::STANDARD.encode(&pair.value));
        let mut json = json!({"Key": key, "Value": value, "Flags": pair.flags, "LockIndex": pair.lock,
            "CreateIndex": pair.create, "ModifyIndex": pair.modify});
        if let (Some(session), Some(object)) = (&pair.session, json.as_object_mut()) {
            object.insert("Session".to_owned(), json!(session));
        }
        json
    }
}
