//! What a watch knows, and what a new list changes of it. Pure.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::WatchEvent;
use super::kind::Watched;
use super::quick;
use crate::model::Version;
use crate::model::task_read::Shelf;

/// What a watch knows.
#[doc(hidden)]
#[derive(Debug)]
pub struct Known<K> {
    objects: HashMap<String, Entry<K>>,
    /// The last object of each group, to share with.
    groups: HashMap<String, Arc<K>>,
    /// The number of lists, with those that could not be read.
    lists: u64,
    /// False until a list was taken.
    started: bool,
}

#[derive(Debug)]
struct Entry<K> {
    /// The object's version, or what stands for it.
    version: u64,
    /// The length of its text.
    length: usize,
    /// The list that it was seen in last.
    list: u64,
    object: Arc<K>,
}

impl<K> Default for Known<K> {
    fn default() -> Self {
        Self { objects: HashMap::new(), groups: HashMap::new(), lists: 0, started: false }
    }
}

impl<K: Watched> Known<K> {
    /// Takes a list as the engine wrote it and gives what it changes. After an error all is as before.
    ///
    /// # Errors
    /// If it is no list of such objects.
    pub fn take(&mut self, json: &[u8]) -> serde_json::Result<Vec<WatchEvent<K>>> {
        // Of a list that cannot be read some were seen in it; the next one has another number.
        self.lists += 1;
        let raw = match self.unknown(json) {
            Some(unknown) => unknown,
            None => serde_json::from_slice(json)?,
        };
        let shelf = Shelf::default();
        // Everything that can fail comes first.
        let mut changed = Vec::new();
        for raw in raw {
            let mut head = Head::read(raw.get())?;
            if K::BY_TEXT {
                head.version = fingerprint(raw.get());
            }
            match self.objects.get_mut(head.id.as_ref()) {
                Some(entry) if entry.version == head.version => {
                    (entry.list, entry.length) = (self.lists, raw.get().len());
                }
                _ => changed.push((head.version, raw.get().len(), K::read(raw.get(), &shelf)?)),
            }
        }
        let first = !std::mem::replace(&mut self.started, true);
        let mut events = Vec::with_capacity(changed.len());
        for (version, length, object) in changed {
            let object = self.shared(object);
            let entry = Entry { version, length, list: self.lists, object: Arc::clone(&object) };
            self.objects.insert(object.id().to_owned(), entry);
            events.push(WatchEvent::Apply(object));
        }
        if first {
            let all = self.objects.values().map(|entry| Arc::clone(&entry.object)).collect();
            return Ok(vec![WatchEvent::Init(all)]);
        }
        let lists = self.lists;
        self.objects.retain(|_, entry| {
            let stays = entry.list == lists;
            if !stays {
                events.push(WatchEvent::Delete(Arc::clone(&entry.object)));
            }
            stays
        });
        if self.groups.len() > self.objects.len() {
            let alive: std::collections::HashSet<&str> =
                self.objects.values().filter_map(|entry| entry.object.group()).collect();
            self.groups.retain(|group, _| alive.contains(group.as_str()));
        }
        Ok(events)
    }

    /// Those that are not known in their version, if the short way leads through the list; the others are noted as seen.
    fn unknown<'a>(&mut self, json: &'a [u8]) -> Option<Vec<&'a RawValue>> {
        if K::BY_TEXT {
            return None;
        }
        let list = self.lists;
        quick::unknown(json, |id, version| {
            let entry = self.objects.get_mut(id).filter(|entry| entry.version == version)?;
            entry.list = list;
            Some(entry.length)
        })
    }

    fn shared(&mut self, mut object: K) -> Arc<K> {
        let Some(group) = object.group().map(str::to_owned) else { return Arc::new(object) };
        if let Some(other) = self.groups.get(&group) {
            object.share(other);
        }
        let object = Arc::new(object);
        self.groups.insert(group, Arc::clone(&object));
        object
    }
}

/// The same within this process, and another one for another text as good as always.
fn fingerprint(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// What tells whether an object has changed.
struct Head<'a> {
    id: std::borrow::Cow<'a, str>,
    version: u64,
}

impl<'a> Head<'a> {
    fn read(json: &'a str) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Fields<'a> {
            #[serde(rename = "ID", borrow)]
            id: std::borrow::Cow<'a, str>,
            #[serde(rename = "Version", default)]
            version: Version,
        }
        // Which spares a look at all of the rest.
        if let Some((id, version)) = quick::head(json.as_bytes()) {
            return Ok(Self { id: id.into(), version });
        }
        let fields: Fields<'a> = serde_json::from_str(json)?;
        Ok(Self { id: fields.id, version: fields.version.index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Node, Service, Task};
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    fn task(id: &str, version: u64, state: &str) -> Value {
        json!({"ID": id, "Version": {"Index": version}, "ServiceID": "s", "Spec": {"ContainerSpec": {"Image": "i"}},
            "Status": {"State": state}, "DesiredState": "running"})
    }

    /// As the engine writes it, of different lengths.
    fn engine_text(list: &BTreeMap<String, u64>) -> String {
        let tasks: Vec<String> = list
            .iter()
            .map(|(id, version)| {
                let labels = "{\"ID\":\"a\"}".repeat(usize::try_from(version % 2).unwrap());
                format!("{{\"ID\":\"{id}\",\"Version\":{{\"Index\":{version}}},\"X\":[{labels}]}}")
            })
            .collect();
        format!("[{}]\n", tasks.join(","))
    }

    fn take(known: &mut Known<Task>, list: &Value) -> Vec<String> {
        let text = list.to_string();
        let mut events: Vec<String> = known
            .take(text.as_bytes())
            .unwrap()
            .iter()
            .map(|event| match event {
                WatchEvent::Init(all) => format!("init {}", all.len()),
                WatchEvent::Apply(task) => format!("apply {} {}", task.id, task.state()),
                WatchEvent::Delete(task) => format!("delete {}", task.id),
            })
            .collect();
        events.sort();
        events
    }

    #[test]
    fn a_list_becomes_what_it_changes() {
        let mut known = Known::default();
        assert_eq!(take(&mut known, &json!([task("a", 1, "new"), task("b", 1, "new")])), ["init 2"]);
        assert!(take(&mut known, &json!([task("b", 1, "new"), task("a", 1, "new")])).is_empty());
        let next = json!([task("a", 2, "running"), task("c", 5, "new")]);
        assert_eq!(take(&mut known, &next), ["apply a running", "apply c new", "delete b"]);
        assert!(known.take(b"[{\"ID\":1}]").is_err());
        assert!(known.take(b"null").is_err());
        assert!(take(&mut known, &next).is_empty(), "a list that cannot be read changes nothing");
        assert_eq!(take(&mut known, &json!([])), ["delete a", "delete c"]);
    }

    #[test]
    fn a_node_changes_without_its_version() {
        let node = |reachability: &str| {
            json!([{"ID": "n", "Version": {"Index": 7}, "ManagerStatus": {"Reachability": reachability}}])
                .to_string()
        };
        let mut known = Known::<Node>::default();
        known.take(node("unknown").as_bytes()).unwrap();
        assert!(known.take(node("unknown").as_bytes()).unwrap().is_empty());
        assert_eq!(known.take(node("reachable").as_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn an_empty_start_is_a_start() {
        let mut known = Known::<Service>::default();
        assert_eq!(known.take(b"[]").unwrap(), [WatchEvent::Init(Vec::new())]);
        assert_eq!(known.take(b"[]").unwrap(), []);
    }

    #[test]
    fn what_did_not_change_is_kept_once() {
        let mut known = Known::<Task>::default();
        let list = |version| json!([task("a", 1, "new"), task("b", version, "new")]).to_string();
        known.take(list(1).as_bytes()).unwrap();
        let before = Arc::clone(&known.objects["a"].object);
        let events = known.take(list(2).as_bytes()).unwrap();
        assert!(Arc::ptr_eq(&before, &known.objects["a"].object), "not decoded again");
        let [WatchEvent::Apply(b)] = &events[..] else { panic!("{events:?}") };
        assert!(Arc::ptr_eq(&b.spec, &before.spec), "its spec is that of its fellow");
    }

    #[test]
    fn the_short_way_reads_what_the_long_way_reads() {
        for (text, id, version) in [
            (r#"{"ID":"a","Version":{"Index":7},"X":1}"#, "a", 7),
            (r#"{"Version":{"Index":7},"ID":"a"}"#, "a", 7),
            (r#"{ "ID" : "a", "Version" : { "Index" : 7 } }"#, "a", 7),
            (r#"{"ID":"a\"b","Version":{"Index":7}}"#, "a\"b", 7),
            (r#"{"ID":"a"}"#, "a", 0),
        ] {
            let head = Head::read(text).unwrap();
            assert_eq!((head.id.as_ref(), head.version), (id, version), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        /// Whoever applies the events has what the list has.
        #[test]
        fn the_events_add_up_to_the_list(
            lists in proptest::collection::vec(proptest::collection::btree_map("[a-e]", 0_u64..3, 0..5), 1..8),
        ) {
            let mut known = Known::<Task>::default();
            let mut mine = BTreeMap::<String, u64>::new();
            for list in &lists {
                for event in known.take(engine_text(list).as_bytes()).unwrap() {
                    match event {
                        WatchEvent::Init(all) => {
                            prop_assert!(mine.is_empty());
                            mine.extend(all.iter().map(|task| (task.id.to_string(), task.version.index)));
                        }
                        WatchEvent::Apply(task) => {
                            prop_assert_ne!(mine.insert(task.id.to_string(), task.version.index), Some(task.version.index));
                        }
                        WatchEvent::Delete(task) => {
                            prop_assert_eq!(mine.remove(task.id.as_str()), Some(task.version.index));
                        }
                    }
                }
                prop_assert_eq!(&mine, list);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), text in "\\[(\\{\"ID\":\"[a-c]\",\"Version\":\\{\"Index\":[0-9]{0,3}\\}?,?\\}?,?){0,4}\\]?") {
            let _ = Known::<Task>::default().take(&bytes);
            let _ = Known::<Node>::default().take(text.as_bytes());
        }
    }
}
