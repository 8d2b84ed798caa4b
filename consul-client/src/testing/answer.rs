//! From a request to an answer. Pure, but for the waiting: a read says what index it is of, and the server decides whether to wait.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::world::{CheckState, Instance, Live, NODE, World};
use crate::environment::go_duration;

/// A request, taken apart.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) method: String,
    /// With its escapes undone; `raw` is as it came.
    pub(super) path: String,
    pub(super) raw: String,
    pub(super) query: BTreeMap<String, Vec<String>>,
    pub(super) body: Vec<u8>,
}

impl Asked {
    pub(super) fn new(method: &str, target: &str, body: Vec<u8>) -> Self {
        let (raw, query) = target.split_once('?').unwrap_or((target, ""));
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            all.entry(unescape(name)).or_default().push(unescape(value));
        }
        Self { method: method.to_owned(), path: unescape(raw), raw: raw.to_owned(), query: all, body }
    }

    pub(super) fn one(&self, name: &str) -> Option<&str> {
        self.query.get(name).and_then(|values| values.first()).map(String::as_str)
    }

    /// Presence is enough: Consul takes `?recurse=false` for true.
    fn has(&self, name: &str) -> bool {
        self.query.contains_key(name)
    }

    /// The index to wait for, and how long; `wait=0s` means the default of five minutes.
    pub(super) fn waits(&self) -> Option<(u64, Duration)> {
        let index = self.one("index")?.parse::<u64>().ok().filter(|index| *index > 0)?;
        let wait = self.one("wait").and_then(go_duration).filter(|wait| !wait.is_zero());
        Some((index, wait.unwrap_or(Duration::from_secs(300)).min(Duration::from_secs(600))))
    }
}

fn unescape(text: &str) -> String {
    let (mut out, mut bytes) = (Vec::with_capacity(text.len()), text.bytes());
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match (byte, digit(ahead.next()), digit(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                bytes = ahead;
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// What the server says.
#[derive(Debug, Clone)]
pub(super) struct Said {
    pub(super) status: u16,
    pub(super) index: Option<u64>,
    pub(super) body: Vec<u8>,
    /// Whether `index=` makes it wait.
    pub(super) blocks: bool,
}

impl Said {
    fn text(status: u16, text: impl Into<String>) -> Self {
        Self { status, index: None, body: text.into().into_bytes(), blocks: false }
    }

    fn json(value: &Value) -> Self {
        Self { status: 200, index: None, body: value.to_string().into_bytes(), blocks: false }
    }

    fn read(index: u64, value: &Value) -> Self {
        Self { index: Some(index.max(1)), blocks: true, ..Self::json(value) }
    }
}

impl World {
    pub(super) fn answer(&mut self, asked: &Asked, now: Duration) -> Said {
        self.tick(now);
        // What Go's router does to such paths, escaped or not; it would write another key.
        let rest = asked.path.strip_prefix("/v1/").unwrap_or(&asked.path);
        if rest.contains("//") || rest.split('/').any(|part| matches!(part, "." | "..")) {
            return Said::text(301, "");
        }
        if asked.raw.to_ascii_lowercase().contains("%00") || asked.path.chars().any(char::is_control) {
            return Said::text(400, "Bad Request");
        }
        if asked.has("stale") && asked.has("consistent") {
            return Said::text(400, "Cannot specify ?stale with ?consistent, conflicting semantics.");
        }
        let local = rest.starts_with("agent/") || rest.starts_with("status/") || rest.starts_with("event/");
        if !local && asked.one("dc").is_some_and(|dc| dc != "dc1") {
            return Said::text(500, "No path to datacenter");
        }
        if !self.leader && !local && !asked.has("stale") {
            return Said::text(500, "No cluster leader");
        }
        let method = asked.method.as_str();
        if let Some(key) = rest.strip_prefix("kv/") {
            return match method {
                "GET" => self.read_key(key, asked),
                "PUT" => self.write_key(key, asked, now),
                "DELETE" => self.delete_key(key, asked),
                _ => Said::text(405, "method not allowed"),
            };
        }
        let parts: Vec<_> = rest.split('/').collect();
        match (method, parts.as_slice()) {
            ("PUT", ["txn"]) => {
                if asked.body.len() > MAX_VALUE * 2 {
                    return Said::text(413, "Request body too large");
                }
                let (status, value) = self.transact(&asked.body, now);
                let body = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                Said { status, ..Said::text(status, body) }
            }
            ("PUT", ["session", "create"]) => self.create_session(&asked.body, now),
            ("PUT", ["session", "renew", id]) => match self.sessions.get_mut(*id) {
                Some(live) => {
                    live.ends = live.ttl.map(|ttl| now + ttl * 2);
                    Said::json(&json!([self.session_json(id)]))
                }
                None => Said::text(404, format!("Session id '{id}' not found")),
            },
            ("PUT", ["session", "destroy", id]) => {
                self.end_session(id, now);
                Said::json(&json!(true))
            }
            ("GET", ["session", "info", id]) => {
                let found: Vec<_> = self.session_json(id).into_iter().collect();
                Said::read(self.index, &json!(found))
            }
            ("GET", ["session", "list"] | ["session", "node", _]) => {
                let all: Vec<_> = self.sessions.keys().filter_map(|id| self.session_json(id)).collect();
                Said::read(self.index, &json!(all))
            }
            ("GET", ["status", "leader"]) => {
                Said::json(&json!(if self.leader { "127.0.0.1:8300" } else { "" }))
            }
            ("GET", ["status", "peers"]) => Said::json(&json!(["127.0.0.1:8300"])),
            ("GET", ["agent", "self"]) => Said::json(&json!({"Config":
                {"Datacenter": "dc1", "NodeName": NODE, "NodeID": "", "Server": true, "Version": "1.8.7"}})),
            _ => self.answer_services(asked, parts.as_slice(), now),
        }
    }

    fn read_key(&self, key: &str, asked: &Asked) -> Said {
        if asked.has("keys") || asked.has("recurse") {
            let index = self.index_of_prefix(key);
            let under: Vec<_> = self.keys.iter().filter(|(name, _)| name.starts_with(key)).collect();
            let list = if asked.has("keys") {
                let separator = asked.one("separator").filter(|separator| !separator.is_empty());
                let mut names: Vec<String> = Vec::new();
                for (name, _) in &under {
                    let rest = name.get(key.len()..).unwrap_or_default();
                    let cut = separator.and_then(|s| rest.find(s).map(|at| key.len() + at + s.len()));
                    let name = cut.and_then(|end| name.get(..end)).unwrap_or(name).to_owned();
                    if names.last() != Some(&name) {
                        names.push(name);
                    }
                }
                json!(names)
            } else {
                json!(under.iter().map(|(name, pair)| self.pair_json(name, pair, true)).collect::<Vec<_>>())
            };
            if under.is_empty() {
                return Said { status: 404, body: Vec::new(), ..Said::read(index, &json!(null)) };
            }
            return Said::read(index, &list);
        }
        if key.is_empty() {
            return Said::text(400, "Missing key name");
        }
        let index = self.index_of_key(key);
        match self.keys.get(key) {
            Some(pair) => Said::read(index, &json!([self.pair_json(key, pair, true)])),
            None => Said { status: 404, body: Vec::new(), ..Said::read(index, &json!(null)) },
        }
    }

    fn write_key(&mut self, key: &str, asked: &Asked, now: Duration) -> Said {
        if key.is_empty() {
            return Said::text(400, "Missing key name");
        }
        if asked.body.len() > MAX_VALUE {
            return Said::text(
                413,
                format!("Request body({} bytes) too large, max size: {MAX_VALUE} bytes", asked.body.len()),
            );
        }
        let number = |name: &str| asked.one(name).map(str::parse::<u64>).transpose();
        let (Ok(flags), Ok(cas)) = (number("flags"), number("cas")) else {
            return Said::text(500, "strconv.ParseUint: parsing: invalid syntax");
        };
        let (flags, value) = (flags.unwrap_or(0), asked.body.clone());
        if let Some(index) = cas {
            return Said::json(&json!(self.cas(key, value, flags, index)));
        }
        if let Some(session) = asked.one("acquire") {
            return match self.lock(key, value, flags, session, now) {
                Err(why) if why.starts_with("invalid session") => Said::text(500, why),
                outcome => Said::json(&json!(outcome.is_ok())),
            };
        }
        if let Some(session) = asked.one("release") {
            return Said::json(&json!(self.unlock(key, value, flags, session).is_ok()));
        }
        self.set(key, value, flags);
        Said::json(&json!(true))
    }

    fn delete_key(&mut self, key: &str, asked: &Asked) -> Said {
        if asked.has("recurse") {
            self.delete_tree(key);
            return Said::json(&json!(true));
        }
        if key.is_empty() {
            return Said::text(400, "Missing key name");
        }
        match asked.one("cas").map(str::parse::<u64>) {
            // Deleting what is there on the condition that it is absent is refused.
            Some(Ok(0)) if self.keys.contains_key(key) => Said::json(&json!(false)),
            Some(Ok(index)) => Said::json(&json!(self.delete_cas(key, index))),
            Some(Err(_)) => Said::text(500, "strconv.ParseUint: parsing: invalid syntax"),
            None => {
                self.delete(key);
                Said::json(&json!(true))
            }
        }
    }

    fn create_session(&mut self, body: &[u8], now: Duration) -> Said {
        let wanted: Value =
            if body.is_empty() { json!({}) } else { serde_json::from_slice(body).unwrap_or(json!(null)) };
        let text = |name: &str| wanted.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        if !wanted.is_object() {
            return Said::text(400, "Request decode failed: invalid JSON");
        }
        let ttl_text = text("TTL");
        let ttl = go_duration(&ttl_text).filter(|ttl| !ttl.is_zero());
        let allowed = Duration::from_secs(10)..=Duration::from_secs(86_400);
        if (!ttl_text.is_empty() && ttl.is_none()) || ttl.is_some_and(|ttl| !allowed.contains(&ttl)) {
            return Said::text(
                500,
                format!("Invalid Session TTL '{ttl_text}', must be between [10s=24h0m0s]"),
            );
        }
        let lock_delay = match text("LockDelay") {
            unset if unset.is_empty() => Duration::from_secs(15),
            given => go_duration(&given).unwrap_or(Duration::from_secs(15)),
        };
        let (id, create) = (self.id(), self.bump());
        let delete = text("Behavior") == "delete";
        let ends = ttl.map(|ttl| now + ttl * 2);
        let live = Live { name: text("Name"), ttl_text, ttl, lock_delay, delete, create, ends };
        self.sessions.insert(id.clone(), live);
        Said::json(&json!({"ID": id}))
    }

    fn session_json(&self, id: &str) -> Option<Value> {
        self.sessions.get(id).map(|live| {
            json!({"ID": id, "Name": live.name, "Node": NODE, "TTL": live.ttl_text,
                "Behavior": if live.delete { "delete" } else { "release" },
                "LockDelay": u64::try_from(live.lock_delay.as_nanos()).unwrap_or(u64::MAX),
                "NodeChecks": ["serfHealth"], "ServiceChecks": null,
                "CreateIndex": live.create, "ModifyIndex": live.create})
        })
    }

    fn answer_services(&mut self, asked: &Asked, parts: &[&str], now: Duration) -> Said {
        match (asked.method.as_str(), parts) {
            ("PUT", ["agent", "service", "register"]) => self.register(&asked.body, now),
            ("PUT", ["agent", "service", "deregister", id]) => {
                if let Some(gone) = self.services.remove(*id) {
                    self.touch_service(&gone.name);
                }
                Said::text(200, "")
            }
            ("PUT", ["agent", "check", "update", id]) => {
                let update: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
                self.update_ttl(id, &update, now)
            }
            ("GET", ["agent", "services"]) => {
                let all = self.services.iter().map(|(id, one)| (id.clone(), one.body.clone()));
                Said::json(&Value::Object(all.collect()))
            }
            ("GET", ["agent", "service", id]) => match self.services.get(*id) {
                Some(one) => Said::json(&one.body),
                None => Said::text(404, format!("unknown service ID: {id}")),
            },
            ("GET", ["agent", "checks"]) => {
                let checks = self.services.iter().flat_map(|(id, one)| {
                    one.checks
                        .iter()
                        .map(move |(check, state)| (check.clone(), check_json(check, state, id, &one.name)))
                });
                Said::json(&Value::Object(checks.collect()))
            }
            ("GET", ["health", "service", name]) => self.health(name, asked),
            ("GET", ["catalog", "services"]) => {
                let mut all: BTreeMap<String, Vec<String>> =
                    BTreeMap::from([("consul".to_owned(), Vec::new())]);
                for one in self.services.values() {
                    let tags = all.entry(one.name.clone()).or_default();
                    for tag in one.body["Tags"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                        if !tags.iter().any(|known| known == tag) {
                            tags.push(tag.to_owned());
                        }
                    }
                }
                Said::read(self.catalog_index, &json!(all))
            }
            ("GET", ["catalog", "nodes"]) => Said::read(
                self.catalog_index,
                &json!([{"Node": NODE, "Address": "127.0.0.1", "Datacenter": "dc1"}]),
            ),
            ("GET", ["catalog", "datacenters"]) => Said::json(&json!(["dc1"])),
            ("PUT", ["event", "fire", name]) => {
                use base64::Engine as _;
                let payload = base64::engine::general_purpose::STANDARD.encode(&asked.body);
                let event = json!({"ID": self.id(), "Name": name, "Payload": payload, "NodeFilter": "",
                    "ServiceFilter": "", "TagFilter": "", "Version": 1, "LTime": self.events.len() + 1});
                self.events.push(event.clone());
                let excess = self.events.len().saturating_sub(256);
                self.events.drain(..excess);
                Said::json(&event)
            }
            ("GET", ["event", "list"]) => {
                let name = asked.one("name");
                let all: Vec<_> = self
                    .events
                    .iter()
                    .filter(|event| name.is_none_or(|name| event["Name"] == name))
                    .cloned()
                    .collect();
                // Made from the last event and not ordered, as Consul's: here by turning its bits round.
                let last = all.last().and_then(|event| event["LTime"].as_u64()).unwrap_or(0);
                Said::read(if last == 0 { 1 } else { last.reverse_bits() }, &json!(all))
            }
            _ => Said::text(404, ""),
        }
    }

    fn register(&mut self, body: &[u8], now: Duration) -> Said {
        let Ok(wanted) = serde_json::from_slice::<Value>(body) else {
            return Said::text(400, "Request decode failed: invalid JSON");
        };
        let fields = wanted.as_object().cloned().unwrap_or_default();
        if let Some(odd) = fields.keys().find(|field| !KNOWN_FIELDS.contains(&field.as_str())) {
            return Said::text(400, format!("Request decode failed: json: unknown field {odd:?}"));
        }
        let text = |name: &str| wanted[name].as_str().unwrap_or_default().to_owned();
        let name = text("Name");
        if name.is_empty() {
            return Said::text(400, "Missing service name");
        }
        let id = Some(text("ID")).filter(|id| !id.is_empty()).unwrap_or_else(|| name.clone());
        let list = |name: &str| wanted[name].as_array().cloned().unwrap_or_default();
        let weights = wanted.get("Weights").cloned().unwrap_or(json!({"Passing": 1, "Warning": 1}));
        let service = json!({"ID": id, "Service": name, "Tags": list("Tags"), "Meta": wanted.get("Meta"), "Weights": weights,
            "Port": wanted["Port"].as_u64().unwrap_or(0), "Address": text("Address")});
        let mut given = list("Checks");
        given.extend(wanted.get("Check").cloned());
        let several = given.len() > 1;
        let old = self.services.get(&id).cloned();
        let mut checks = BTreeMap::new();
        for (i, body) in given.into_iter().enumerate() {
            let numbered = if several { format!("service:{id}:{}", i + 1) } else { format!("service:{id}") };
            let check_id = body["CheckID"].as_str().map_or(numbered, str::to_owned);
            let kept =
                old.as_ref().and_then(|old| old.checks.get(&check_id)).filter(|check| check.body == body);
            let ttl = body["TTL"].as_str().and_then(go_duration);
            let fresh = || CheckState {
                name: body["Name"].as_str().map_or_else(|| format!("Service '{name}' check"), str::to_owned),
                status: body["Status"].as_str().unwrap_or("critical").to_owned(),
                output: String::new(),
                ends: ttl.map(|ttl| now + ttl),
                ttl,
                body: body.clone(),
            };
            checks.insert(check_id, kept.cloned().unwrap_or_else(fresh));
        }
        let states = |checks: &BTreeMap<String, CheckState>| {
            checks.iter().map(|(id, check)| (id.clone(), check.status.clone())).collect::<Vec<_>>()
        };
        let same =
            old.as_ref().is_some_and(|old| old.body == service && states(&old.checks) == states(&checks));
        self.services.insert(id, Instance { body: service, name: name.clone(), checks });
        if !same {
            self.touch_service(&name);
        }
        Said::text(200, "")
    }

    fn update_ttl(&mut self, id: &str, update: &Value, now: Duration) -> Said {
        let (status, output) =
            (update["Status"].as_str().unwrap_or("passing"), update["Output"].as_str().unwrap_or(""));
        let mut touched = None;
        for instance in self.services.values_mut() {
            if let Some(check) = instance.checks.get_mut(id).filter(|check| check.ttl.is_some()) {
                check.ends = check.ttl.map(|ttl| now + ttl);
                let changed = check.status != status || check.output != output;
                status.clone_into(&mut check.status);
                output.clone_into(&mut check.output);
                touched = Some((instance.name.clone(), changed));
            }
        }
        match touched {
            Some((name, true)) => self.touch_service(&name),
            Some(_) => {}
            None => return Said::text(500, format!("CheckID {id:?} does not have associated TTL")),
        }
        Said::text(200, "")
    }

    /// The filters apply after the waking: a change that they leave out wakes as well.
    fn health(&self, name: &str, asked: &Asked) -> Said {
        let tags = asked.query.get("tag").cloned().unwrap_or_default();
        let passing = asked.has("passing") && asked.one("passing") != Some("false");
        let (status, output) = if self.agent {
            ("passing", "Agent alive and reachable")
        } else {
            ("critical", "Agent not live or unreachable")
        };
        let serf = json!({"Node": NODE, "CheckID": "serfHealth", "Name": "Serf Health Status", "Status": status,
            "Output": output, "ServiceID": "", "ServiceName": ""});
        let entry = |(id, one): (&String, &Instance)| {
            let has =
                |tag: &String| one.body["Tags"].as_array().is_some_and(|all| all.iter().any(|t| t == tag));
            let well = self.agent && one.checks.values().all(|check| check.status == "passing");
            if one.name != name || !tags.iter().all(has) || (passing && !well) {
                return None;
            }
            let own = one.checks.iter().map(|(check, state)| check_json(check, state, id, &one.name));
            let checks: Vec<_> = std::iter::once(serf.clone()).chain(own).collect();
            let node = json!({"Node": NODE, "Address": "127.0.0.1", "Datacenter": "dc1"});
            Some(json!({"Node": node, "Service": one.body, "Checks": checks}))
        };
        let list: Vec<_> = self.services.iter().filter_map(entry).collect();
        Said::read(self.index_of_service(name), &json!(list))
    }
}

fn check_json(id: &str, check: &CheckState, service: &str, name: &str) -> Value {
    json!({"Node": NODE, "CheckID": id, "Name": check.name, "Status": check.status, "Output": check.output,
        "ServiceID": service, "ServiceName": name})
}

/// The server's limit.
const MAX_VALUE: usize = 512 * 1024;
/// What a registration may hold; Consul 1.8 refuses others.
const KNOWN_FIELDS: &[&str] = &[
    "ID",
    "Name",
    "Address",
    "Port",
    "Tags",
    "Meta",
    "Check",
    "Checks",
    "Weights",
    "EnableTagOverride",
    "Kind",
    "Proxy",
    "Connect",
    "TaggedAddresses",
    "Namespace",
];
