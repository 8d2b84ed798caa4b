//! Reading tasks, thousands at a time.
//!
//! Most of a task's JSON is the spec that it was made from and the networks that it is attached to, and both are the same in
//! each task of a service. What is the same text is read once and shared, which is what makes a long list cheap in time and
//! memory. The fields are read by hand because derived code cannot carry the shelf of what was read before.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::attachment::TaskNetwork;
use super::overlay::AttachedNetwork;
use super::scalar::{Rest, TaskId};
use super::task::{Task, TaskState, TaskStatus};
use super::task_spec::TaskSpec;

/// Reads an engine's list of tasks.
pub(crate) fn tasks(json: &[u8]) -> serde_json::Result<Vec<Task>> {
    let shelf = Shelf::default();
    let mut reader = serde_json::Deserializer::from_slice(json);
    let tasks = Tasks(&shelf).deserialize(&mut reader)?;
    reader.end()?;
    Ok(tasks)
}

/// Reads one task out of a list, sharing with those that were read with the same shelf.
pub(crate) fn task<'de>(json: &'de str, shelf: &Shelf<'de>) -> serde_json::Result<Task> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let task = Fields(Some(shelf)).deserialize(&mut reader)?;
    reader.end()?;
    Ok(task)
}

/// What was read before, by its text.
#[derive(Default)]
pub(crate) struct Shelf<'de> {
    specs: RefCell<HashMap<&'de str, Arc<TaskSpec>>>,
    networks: RefCell<HashMap<&'de str, Arc<AttachedNetwork>>>,
}

fn share<'de, T: DeserializeOwned, E: serde::de::Error>(
    shelf: &RefCell<HashMap<&'de str, Arc<T>>>,
    raw: &'de RawValue,
) -> Result<Arc<T>, E> {
    let mut shelf = shelf.borrow_mut();
    if let Some(known) = shelf.get(raw.get()) {
        return Ok(Arc::clone(known));
    }
    let read: Arc<T> = Arc::new(serde_json::from_str(raw.get()).map_err(E::custom)?);
    shelf.insert(raw.get(), Arc::clone(&read));
    Ok(read)
}

/// An object is written as if it were not shared.
pub(crate) fn shared<T: Serialize, S: Serializer>(value: &Arc<T>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().serialize(serializer)
}

pub(crate) fn unshared<'de, T: Deserialize<'de>, D: Deserializer<'de>>(d: D) -> Result<Arc<T>, D::Error> {
    T::deserialize(d).map(Arc::new)
}

struct Tasks<'a, 'de>(&'a Shelf<'de>);

impl<'de> DeserializeSeed<'de> for Tasks<'_, 'de> {
    type Value = Vec<Task>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Vec<Task>, D::Error> {
        d.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Tasks<'_, 'de> {
    type Value = Vec<Task>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of tasks")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Task>, A::Error> {
        let mut all = Vec::new();
        while let Some(task) = seq.next_element_seed(Fields(Some(self.0)))? {
            all.push(task);
        }
        Ok(all)
    }
}

/// One task, with or without a shelf.
struct Fields<'a, 'de>(Option<&'a Shelf<'de>>);

impl<'de> DeserializeSeed<'de> for Fields<'_, 'de> {
    type Value = Task;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Task, D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Fields<'_, 'de> {
    type Value = Task;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a task")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Task, A::Error> {
        let mut id: Option<TaskId> = None;
        let mut task = Task {
            id: TaskId::default(),
            version: super::Version::default(),
            service_id: super::ServiceId::default(),
            slot: None,
            node_id: None,
            spec: Arc::default(),
            status: TaskStatus::default(),
            desired_state: TaskState::default(),
            networks: Vec::new(),
            rest: Rest::default(),
        };
        while let Some(key) = map.next_key::<Key<'de>>()? {
            match key.0.as_ref() {
                "ID" => id = Some(map.next_value()?),
                "Version" => task.version = map.next_value()?,
                "ServiceID" => task.service_id = map.next_value()?,
                "Slot" => task.slot = map.next_value()?,
                "NodeID" => task.node_id = map.next_value()?,
                "Spec" => {
                    task.spec = match self.0 {
                        Some(shelf) => share(&shelf.specs, map.next_value::<&'de RawValue>()?)?,
                        None => Arc::new(map.next_value()?),
                    };
                }
                "Status" => task.status = map.next_value()?,
                "DesiredState" => task.desired_state = map.next_value()?,
                "NetworksAttachments" => {
                    task.networks = match self.0 {
                        Some(shelf) => map.next_value_seed(Networks(shelf))?,
                        None => map.next_value::<Option<Vec<TaskNetwork>>>()?.unwrap_or_default(),
                    };
                }
                _ => {
                    task.rest.insert(key.0.into_owned(), map.next_value()?);
                }
            }
        }
        task.id = id.ok_or_else(|| A::Error::missing_field("ID"))?;
        Ok(task)
    }
}

impl<'de> Deserialize<'de> for Task {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Fields(None).deserialize(d)
    }
}

/// A field's name, borrowed where the text allows it.
struct Key<'de>(std::borrow::Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Text<'de>(PhantomData<&'de ()>);
        impl<'de> Visitor<'de> for Text<'de> {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }

            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(text.to_owned().into()))
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(text.into()))
            }
        }
        d.deserialize_str(Text(PhantomData))
    }
}

/// A task's networks.
struct Networks<'a, 'de>(&'a Shelf<'de>);

impl<'de> DeserializeSeed<'de> for Networks<'_, 'de> {
    type Value = Vec<TaskNetwork>;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Vec<TaskNetwork>, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Networks<'_, 'de> {
    type Value = Vec<TaskNetwork>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a task's networks")
    }

    fn visit_unit<E>(self) -> Result<Vec<TaskNetwork>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<TaskNetwork>, A::Error> {
        let mut all = Vec::new();
        while let Some(network) = seq.next_element_seed(NetworkFields(self.0))? {
            all.push(network);
        }
        Ok(all)
    }
}

struct NetworkFields<'a, 'de>(&'a Shelf<'de>);

impl<'de> DeserializeSeed<'de> for NetworkFields<'_, 'de> {
    type Value = TaskNetwork;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<TaskNetwork, D::Error> {
        d.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for NetworkFields<'_, 'de> {
    type Value = TaskNetwork;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a task's network")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<TaskNetwork, A::Error> {
        let mut network = TaskNetwork::default();
        while let Some(key) = map.next_key::<Key<'de>>()? {
            match key.0.as_ref() {
                "Network" => {
                    network.network = share(&self.0.networks, map.next_value::<&'de RawValue>()?)?;
                }
                "Addresses" => {
                    network.addresses = map.next_value::<Option<Vec<String>>>()?.unwrap_or_default();
                }
                _ => {
                    network.rest.insert(key.0.into_owned(), map.next_value()?);
                }
            }
        }
        Ok(network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn task(id: &str, image: &str, address: &str) -> Value {
        json!({"ID": id, "Version": {"Index": 7}, "ServiceID": "s", "Slot": 1, "NodeID": "n", "DesiredState": "running",
            "Spec": {"ContainerSpec": {"Image": image}, "X": [1]}, "Status": {"State": "running", "T": 1},
            "NetworksAttachments": [{"Network": {"ID": "net", "Version": {"Index": 1},
                "Spec": {"Name": "back", "ingress": 1, "Ingress": false, "A": {}}, "B": 2}, "Addresses": [address], "C": 3}],
            "CreatedAt": "2026", "Labels": {"a": "b"}})
    }

    #[test]
    fn what_is_the_same_is_shared_and_nothing_is_lost() {
        let list = json!([task("a", "i", "10.0.0.2/24"), task("b", "i", "10.0.0.3/24"), task("c", "j", "x")]);
        let read = tasks(list.to_string().as_bytes()).unwrap();
        assert!(Arc::ptr_eq(&read[0].spec, &read[1].spec) && !Arc::ptr_eq(&read[1].spec, &read[2].spec));
        assert!(Arc::ptr_eq(&read[0].networks[0].network, &read[2].networks[0].network));
        assert_eq!(
            read[1].networks[0].ips().collect::<Vec<_>>(),
            ["10.0.0.3".parse::<std::net::IpAddr>().unwrap()]
        );
        assert_eq!(serde_json::to_value(&read).unwrap(), list);
        let one_by_one: Vec<Task> = serde_json::from_value(list).unwrap();
        assert_eq!(read, one_by_one);
    }

    #[test]
    fn what_is_no_list_of_tasks_is_refused() {
        for text in ["", "{}", "[1]", "[{}]", "[{\"ID\":1}]", "[] []", "[{\"ID\":\"a\",\"Spec\":3}]", "null"]
        {
            assert!(tasks(text.as_bytes()).is_err(), "{text}");
        }
        let bare = tasks(br#"[{"ID":"a","NetworksAttachments":null,"Slot":null}]"#).unwrap();
        assert_eq!(bare[0].slot, None);
    }
}
