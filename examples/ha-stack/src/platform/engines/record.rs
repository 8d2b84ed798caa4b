//! What is wanted of a service on plain engines, and what its watchdog knows: kept in Consul, written by compare-and-set.
//!
//! Both hold the environments of containers, passwords in them included, as Swarm's own store does: let only the stack read
//! the prefix `ha-stack/engines/` (Consul's ACL).

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use consul_client::{KvPair, SharedWatch};
use serde::{Deserialize, Serialize};
use swarm_client::engines::labels::CONSTRAINTS;
use swarm_client::engines::{ContainerSpec, Roster, RosterStore, StoreError};

use crate::roles::leader::Leading;

/// A service on plain engines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// What each replica is made like.
    pub spec: ContainerSpec,
    /// How many are wanted.
    pub replicas: u32,
    /// Until when the scaler keeps off, in seconds since 1970.
    pub hold_until: Option<u64>,
    /// The term of the scaler that wrote the replicas last.
    pub term: Option<u64>,
    /// Hosts that a person keeps its replicas off.
    #[serde(default)]
    pub drained: BTreeSet<String>,
    /// Hosts that a test keeps them off besides.
    #[serde(default)]
    pub kept_off: BTreeSet<String>,
    /// The conditions that the service came with; those of the lists above are added to them.
    #[serde(default)]
    own: Vec<String>,
}

impl ServiceRecord {
    /// So many replicas of this kind, on any host.
    pub fn new(spec: ContainerSpec, replicas: u32) -> Self {
        let (drained, kept_off) = (BTreeSet::new(), BTreeSet::new());
        let own = own_conditions(&spec);
        Self { spec, replicas, hold_until: None, term: None, drained, kept_off, own }
    }

    /// Has the scheduler mind both lists of hosts, beside what the service itself asks for: the watchdog moves replicas off a host that they name.
    ///
    /// # Errors
    /// Never in practice: when the lists can't be written as JSON.
    pub fn place(&mut self) -> Result<()> {
        let hosts = self.drained.union(&self.kept_off);
        let kept_off = hosts.map(|host| format!("node!={host}"));
        let conditions: Vec<String> = self.own.iter().cloned().chain(kept_off).collect();
        self.spec = self.spec.clone().label(CONSTRAINTS, serde_json::to_string(&conditions)?);
        Ok(())
    }
}

/// The records of all services.
#[derive(Clone, Debug)]
pub struct Records {
    consul: consul_client::Client,
}

impl Records {
    /// Those in this Consul.
    pub fn new(consul: consul_client::Client) -> Self {
        Self { consul }
    }

    /// The record of a service, and the index for the next write; 0 where there is none.
    ///
    /// # Errors
    /// When Consul can't be read, or holds something else there.
    pub async fn read(&self, service: &str) -> Result<(Option<ServiceRecord>, u64)> {
        let found =
            self.consul.kv().get(&key(service)).await.context("the service's record can't be read")?;
        let Some(pair) = found.value else { return Ok((None, 0)) };
        Ok((Some(decode(&pair.key, &pair.value)?), pair.modify_index))
    }

    /// Every service's record, by name.
    ///
    /// # Errors
    /// As [`Records::read`].
    pub async fn all(&self) -> Result<Vec<(String, ServiceRecord)>> {
        let pairs =
            self.consul.kv().list(SERVICES).await.context("the services' records can't be read")?.value;
        pairs.iter().map(named).collect()
    }

    /// Follows every service's record.
    pub fn follow(&self) -> Followed {
        Followed(self.consul.kv().watch_prefix(SERVICES).share())
    }

    /// Writes, if nobody has since `index` was read.
    ///
    /// # Errors
    /// When Consul can't be written.
    pub async fn write(&self, service: &str, record: &ServiceRecord, index: u64) -> Result<bool> {
        let written = self.consul.kv().cas(&key(service), serde_json::to_vec(record)?, index).await;
        written.context("the service's record can't be written")
    }

    /// As [`Records::write`], by whoever leads; Consul refuses another.
    ///
    /// # Errors
    /// When it does not lead, or Consul can't be written.
    pub async fn write_as(
        &self,
        leading: &Leading,
        service: &str,
        record: &ServiceRecord,
        index: u64,
    ) -> Result<bool> {
        let value = serde_json::to_vec(record)?;
        let written = leading.write(|txn| txn.cas(key(service), value, index)).await;
        written.context("the service's record can't be written")
    }

    /// Changes a record until nobody comes between.
    ///
    /// # Errors
    /// When there is none; those of `change`, and Consul's.
    pub async fn modify(
        &self,
        service: &str,
        mut change: impl FnMut(&mut ServiceRecord) -> Result<()>,
    ) -> Result<()> {
        let changed = self.rewrite(service, |record| {
            let mut record =
                record.with_context(|| format!("no service {service} is kept on plain engines"))?;
            change(&mut record)?;
            Ok(record)
        });
        changed.await.map(drop)
    }

    /// Wants so many replicas more of a service, made like this from here on; says how many are wanted now. Without a record
    /// there is one afterwards, which counts those that are `there`.
    ///
    /// # Errors
    /// Consul's, and when others write the record all the time.
    pub async fn add(&self, service: &str, spec: &ContainerSpec, there: u32, more: u32) -> Result<u32> {
        let wanted = self.rewrite(service, |record| added(record, spec, there, more));
        Ok(wanted.await?.replicas)
    }

    /// Writes what `next` makes of a service's record, until nobody comes between.
    async fn rewrite(
        &self,
        service: &str,
        mut next: impl FnMut(Option<ServiceRecord>) -> Result<ServiceRecord>,
    ) -> Result<ServiceRecord> {
        for _ in 0..TRIES {
            let (record, index) = self.read(service).await?;
            let record = next(record)?;
            if self.write(service, &record, index).await? {
                return Ok(record);
            }
            tokio::time::sleep(std::time::Duration::from_millis(rand::random_range(10..100))).await;
        }
        bail!("the record of {service} is written by others all the time")
    }

    /// Forgets a service.
    ///
    /// # Errors
    /// When Consul can't be written.
    pub async fn delete(&self, service: &str) -> Result<()> {
        self.consul.kv().delete(&key(service)).await.context("the service's record can't be deleted")
    }

    /// Who leads the watchdogs; `None` while nobody does.
    ///
    /// # Errors
    /// When Consul can't be read.
    pub async fn leader(&self) -> Result<Option<String>> {
        let found = self.consul.kv().get(LEADER).await?.value;
        let held = found.filter(|pair| pair.session.is_some());
        Ok(held.map(|pair| String::from_utf8_lossy(&pair.value).into_owned()))
    }
}

/// The records of all services as Consul last told them, without asking each time.
#[derive(Clone, Debug)]
pub struct Followed(SharedWatch<KvPair>);

impl Followed {
    /// Every service's record, by name; `None` before Consul has told any. While it is away, the last good set.
    ///
    /// # Errors
    /// When Consul holds something else there.
    pub fn latest(&self) -> Result<Option<Vec<(String, ServiceRecord)>>> {
        self.0.latest().map(|snapshot| snapshot.items.iter().map(named).collect()).transpose()
    }
}

fn added(
    record: Option<ServiceRecord>,
    spec: &ContainerSpec,
    there: u32,
    more: u32,
) -> Result<ServiceRecord> {
    let Some(mut record) = record else {
        return Ok(ServiceRecord::new(spec.clone(), there.saturating_add(more)));
    };
    (record.own, record.spec) = (own_conditions(spec), spec.clone());
    record.replicas = record.replicas.saturating_add(more);
    record.place()?;
    Ok(record)
}

/// What a container itself asks of its engine; a label that is no list asks for nothing that could be added to.
fn own_conditions(spec: &ContainerSpec) -> Vec<String> {
    spec.label_value(CONSTRAINTS).and_then(|list| serde_json::from_str(list).ok()).unwrap_or_default()
}

fn named(pair: &KvPair) -> Result<(String, ServiceRecord)> {
    Ok((pair.key.trim_start_matches(SERVICES).to_owned(), decode(&pair.key, &pair.value)?))
}

/// A watchdog's roster in Consul. A value there may have 512 KiB: enough for a hundred containers.
#[derive(Clone, Debug)]
pub struct ConsulRoster {
    consul: consul_client::Client,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    term: u64,
    roster: Roster,
}

impl ConsulRoster {
    /// The roster in this Consul.
    pub fn new(consul: consul_client::Client) -> Self {
        Self { consul }
    }

    /// Forgets it.
    ///
    /// # Errors
    /// When Consul can't be written.
    pub async fn clear(&self) -> Result<()> {
        self.consul.kv().delete(ROSTER).await.context("the watchdog's roster can't be deleted")
    }

    async fn read(&self) -> Result<(Option<Saved>, u64)> {
        let Some(pair) = self.consul.kv().get(ROSTER).await?.value else { return Ok((None, 0)) };
        Ok((Some(decode(ROSTER, &pair.value)?), pair.modify_index))
    }

    async fn try_save(&self, roster: &Roster, term: u64) -> Result<()> {
        let (saved, index) = self.read().await?;
        ensure!(saved.is_none_or(|saved| saved.term <= term), "a watchdog of a later term has saved its own");
        let saved = Saved { term, roster: roster.clone() };
        let written = self.consul.kv().cas(ROSTER, serde_json::to_vec(&saved)?, index).await?;
        ensure!(written, "another one wrote it at the same time");
        Ok(())
    }
}

#[async_trait]
impl RosterStore for ConsulRoster {
    async fn load(&self) -> Result<Option<Roster>, StoreError> {
        Ok(self.read().await?.0.map(|saved| saved.roster))
    }

    async fn save(&self, roster: &Roster, term: u64) -> Result<(), StoreError> {
        Ok(self.try_save(roster, term).await?)
    }
}

fn key(service: &str) -> String {
    format!("{SERVICES}{service}")
}

fn decode<T: serde::de::DeserializeOwned>(key: &str, value: &[u8]) -> Result<T> {
    serde_json::from_slice(value).ok().with_context(|| format!("what Consul holds at {key} is not ours"))
}

/// The key of the watchdogs' lock.
pub const LEADER: &str = "ha-stack/engines/leader";
const SERVICES: &str = "ha-stack/engines/services/";
const ROSTER: &str = "ha-stack/engines/roster";
const TRIES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_replicas_of_a_service_keep_what_people_and_scalers_wrote() {
        let old = ContainerSpec::new("web", "web:1");
        let new = ContainerSpec::new("web", "web:2").constraint("storage==ssd");
        assert_eq!(added(None, &old, 1, 2).unwrap(), ServiceRecord::new(old.clone(), 3));
        let mut record = ServiceRecord::new(old, 2);
        (record.term, record.hold_until) = (Some(7), Some(9));
        record.drained.insert("h2".to_owned());
        let wanted = added(Some(record), &new, 5, 1).unwrap();
        assert_eq!((wanted.replicas, wanted.term, wanted.hold_until), (3, Some(7), Some(9)));
        let spec = serde_json::to_string(&wanted.spec).unwrap();
        assert!(spec.contains("web:2") && spec.contains("node!=h2"), "{spec}");
        assert!(
            spec.contains("storage==ssd"),
            "a drain takes no condition of the service's own away: {spec}"
        );
    }

    #[test]
    fn a_host_stays_out_until_both_lists_let_it_in() {
        let mut record = ServiceRecord::new(ContainerSpec::new("web", "web:1"), 2);
        let mut conditions = |drained: &[&str], kept_off: &[&str]| {
            record.drained = drained.iter().map(ToString::to_string).collect();
            record.kept_off = kept_off.iter().map(ToString::to_string).collect();
            record.place().unwrap();
            let spec = serde_json::to_value(&record.spec).unwrap();
            spec.to_string()
        };
        let names = |text: &str, host: &str| text.contains(&format!("node!={host}"));
        let both = conditions(&["h1"], &["h1", "h2"]);
        assert!(names(&both, "h1") && names(&both, "h2"), "{both}");
        let drained = conditions(&["h1"], &[]);
        assert!(names(&drained, "h1") && !names(&drained, "h2"), "{drained}");
        let free = conditions(&[], &[]);
        assert!(!free.contains("node!="), "{free}");
    }

    #[test]
    fn a_record_of_before_drains_is_read() {
        let mut old =
            serde_json::to_value(ServiceRecord::new(ContainerSpec::new("web", "web:1"), 2)).unwrap();
        let fields = old.as_object_mut().unwrap();
        fields.remove("drained");
        fields.remove("kept_off");
        let read: ServiceRecord = decode("k", old.to_string().as_bytes()).unwrap();
        assert!(read.drained.is_empty() && read.kept_off.is_empty());
    }
}
