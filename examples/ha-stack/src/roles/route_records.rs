//! What registrars note of services' routes in Consul's KV, so that a route outlives its service's last replica.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use consul_client::KvPair;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::labels;
use super::routes::{self, Labels, Record};

/// The records of one Swarm. Every registrar keeps all of them: what one has written the others find as it should be.
pub(super) struct Records {
    consul: consul_client::Client,
    swarm: String,
    /// What was found or made so, and when.
    kept: Mutex<Option<(BTreeMap<String, Labels>, Instant)>>,
}

/// What to change; each only if the key is still as it was read.
#[derive(Debug, Default, PartialEq)]
struct Plan {
    put: Vec<(String, Record, u64)>,
    remove: Vec<(String, u64)>,
}

impl Records {
    /// Of the Swarm with this id.
    pub(super) fn new(consul: consul_client::Client, swarm: String) -> Self {
        Self { consul, swarm, kept: Mutex::default() }
    }

    /// Makes the records say this: the routing labels of all services that there are.
    ///
    /// # Errors
    /// As any read or write of Consul.
    pub(super) async fn keep(&self, wanted: &BTreeMap<String, Labels>) -> Result<()> {
        let mut kept = self.kept.lock().await;
        if kept.as_ref().is_some_and(|(is, when)| is == wanted && when.elapsed() < LOOK_AGAIN) {
            return Ok(());
        }
        let kv = self.consul.kv();
        let plan = plan(wanted, &kv.list(labels::ROUTES).await?.value, &self.swarm);
        // Whoever was faster wrote the same.
        for (service, record, index) in plan.put {
            let key = format!("{}{service}", labels::ROUTES);
            if kv.cas(&key, serde_json::to_vec(&record)?, index).await? {
                tracing::info!(%service, "its routes are noted");
            }
        }
        for (key, index) in plan.remove {
            if kv.delete_cas(&key, index).await? {
                tracing::info!(%key, "the service is gone, and so are its routes");
            }
        }
        *kept = Some((wanted.clone(), Instant::now()));
        Ok(())
    }
}

fn plan(wanted: &BTreeMap<String, Labels>, there: &[KvPair], swarm: &str) -> Plan {
    let there: BTreeMap<&str, (&KvPair, Option<Record>)> = there
        .iter()
        .filter_map(|pair| {
            Some((routes::service_of(&pair.key)?, (pair, serde_json::from_slice(&pair.value).ok())))
        })
        .collect();
    let mut plan = Plan::default();
    for (service, labels) in wanted {
        let record = Record { swarm: swarm.to_owned(), labels: labels.clone() };
        match there.get(service.as_str()) {
            Some((_, Some(is))) if *is == record => {}
            // A service of the same name in another Swarm: the first one's stays.
            Some((_, Some(is))) if is.swarm != swarm => {}
            Some((pair, _)) => plan.put.push((service.clone(), record, pair.modify_index)),
            None => plan.put.push((service.clone(), record, 0)),
        }
    }
    for (service, (pair, record)) in there {
        let ours = record.is_some_and(|record| record.swarm == swarm);
        if ours && !wanted.contains_key(service) {
            plan.remove.push((pair.key.clone(), pair.modify_index));
        }
    }
    plan
}

/// Somebody may have taken a record away.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pair(key: &str, value: &str, index: u64) -> KvPair {
        use std::fmt::Write;
        // The smallest base64 that there is.
        const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut coded = String::new();
        for chunk in value.as_bytes().chunks(3) {
            let bits =
                chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
            for place in 0..4 {
                let sign = SIGNS[(bits >> (18 - 6 * place) & 63) as usize] as char;
                let _ = write!(coded, "{}", if place <= chunk.len() { sign } else { '=' });
            }
        }
        let pair = json!({"Key": key, "Value": coded, "CreateIndex": 1, "ModifyIndex": index, "LockIndex": 0, "Flags": 0});
        serde_json::from_value(pair).unwrap()
    }

    fn host(name: &str) -> Labels {
        Labels::from([("balancer.host".to_owned(), name.to_owned())])
    }

    fn wanted() -> BTreeMap<String, Labels> {
        BTreeMap::from([("shop".to_owned(), host("a"))])
    }

    #[test]
    fn only_differences_are_written_and_only_our_own_are_removed() {
        let record = |swarm: &str, name: &str| {
            serde_json::to_string(&Record { swarm: swarm.into(), labels: host(name) }).unwrap()
        };
        let right = [pair("ha-stack/routes/shop", &record("s1", "a"), 7)];
        assert_eq!(plan(&wanted(), &right, "s1"), Plan::default());
        let put = |index| vec![("shop".to_owned(), Record { swarm: "s1".into(), labels: host("a") }, index)];
        assert_eq!(plan(&wanted(), &[], "s1").put, put(0));
        let old = [
            pair("ha-stack/routes/shop", &record("s1", "b"), 8),
            pair("ha-stack/routes/gone", &record("s1", "c"), 9),
        ];
        let found = plan(&wanted(), &old, "s1");
        assert_eq!((found.put, found.remove), (put(8), vec![("ha-stack/routes/gone".to_owned(), 9)]));
        assert_eq!(plan(&wanted(), &[pair("ha-stack/routes/shop", "nonsense", 3)], "s1").put, put(3));
        let others = [
            pair("ha-stack/routes/shop", &record("s2", "z"), 4),
            pair("ha-stack/routes/x", &record("s2", "z"), 5),
        ];
        assert_eq!(plan(&wanted(), &others, "s1"), Plan::default());
    }
}
