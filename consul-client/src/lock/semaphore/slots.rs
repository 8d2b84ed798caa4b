//! Who holds a slot. Pure: from what is under the prefix to what shall be written.
//!
//! The layout is that of HashiCorp's Go client (`api/semaphore.go`): a contender's key `<prefix>/<session>`, locked by its session,
//! and `<prefix>/.lock` with the limit and the holders, changed by compare-and-set.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::KvPair;

/// The content of `<prefix>/.lock`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Slots {
    limit: u64,
    #[serde(default)]
    holders: BTreeMap<String, bool>,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Write this if the index is still that one.
    Write { body: Vec<u8>, index: u64 },
    /// It is so already.
    Nothing,
    /// All slots are taken.
    Full,
    /// Not a semaphore, or one with another limit.
    Conflict(String),
}

/// Adds `session` to the holders, and takes out those whose contender's key is not locked any more.
pub(super) fn take(pairs: &[KvPair], prefix: &str, session: &str, limit: u64) -> Step {
    change(pairs, prefix, Some(limit), |slots| {
        if slots.holders.contains_key(session) {
            return Some(false);
        }
        if slots.holders.len() as u64 >= limit {
            return None;
        }
        slots.holders.insert(session.to_owned(), true);
        Some(true)
    })
}

/// Takes `session` out of the holders.
pub(super) fn give_back(pairs: &[KvPair], prefix: &str, session: &str) -> Step {
    change(pairs, prefix, None, |slots| Some(slots.holders.remove(session).is_some()))
}

/// Whether `session` is among the holders, and its contender's key is still locked by it.
pub(super) fn holds(pairs: &[KvPair], prefix: &str, session: &str) -> bool {
    let listed = find(pairs, prefix)
        .and_then(|pair| serde_json::from_slice::<Slots>(&pair.value).ok())
        .is_some_and(|slots| slots.holders.contains_key(session));
    listed && live(pairs, prefix, session)
}

/// `edit` says whether it changed something; `None` when there is no room.
fn change(
    pairs: &[KvPair],
    prefix: &str,
    limit: Option<u64>,
    edit: impl FnOnce(&mut Slots) -> Option<bool>,
) -> Step {
    let found = find(pairs, prefix);
    let (mut slots, index) = match found {
        None => (Slots { limit: limit.unwrap_or_default(), ..Slots::default() }, 0),
        Some(pair) if pair.flags != FLAGS => {
            let flags = pair.flags;
            return Step::Conflict(format!(
                "the key is not a semaphore's: its flags are {flags:#x}, not {FLAGS:#x}"
            ));
        }
        Some(pair) => match serde_json::from_slice::<Slots>(&pair.value) {
            Ok(slots) => (slots, pair.modify_index),
            Err(_) => return Step::Conflict("the key does not hold a semaphore's JSON".to_owned()),
        },
    };
    if let Some(limit) = limit.filter(|limit| *limit != slots.limit) {
        return Step::Conflict(format!(
            "it has {} slots, not {limit}; all contenders must agree",
            slots.limit
        ));
    }
    slots.holders.retain(|session, _| live(pairs, prefix, session));
    match edit(&mut slots) {
        None => Step::Full,
        Some(false) => Step::Nothing,
        Some(true) => match serde_json::to_vec(&slots) {
            Ok(body) => Step::Write { body, index },
            Err(error) => Step::Conflict(error.to_string()),
        },
    }
}

fn find<'a>(pairs: &'a [KvPair], prefix: &str) -> Option<&'a KvPair> {
    let key = lock_key(prefix);
    pairs.iter().find(|pair| pair.key == key)
}

fn live(pairs: &[KvPair], prefix: &str, session: &str) -> bool {
    let key = contender_key(prefix, session);
    pairs.iter().any(|pair| pair.key == key && pair.session.as_deref() == Some(session))
}

pub(super) fn lock_key(prefix: &str) -> String {
    format!("{prefix}/.lock")
}

pub(super) fn contender_key(prefix: &str, session: &str) -> String {
    format!("{prefix}/{session}")
}

/// How HashiCorp's clients mark a semaphore's keys.
pub(super) const FLAGS: u64 = 0xe0f6_9a2b_aa41_4de0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair(key: &str, value: &[u8], session: Option<&str>, index: u64) -> KvPair {
        use base64::Engine as _;
        let value = base64::engine::general_purpose::STANDARD.encode(value);
        serde_json::from_value(
            serde_json::json!({"Key": key, "Value": value, "Flags": FLAGS, "CreateIndex": 1,
            "ModifyIndex": index, "Session": session}),
        )
        .unwrap()
    }

    #[test]
    fn the_json_is_the_go_clients() {
        let contender = pair("p/s", b"", Some("s"), 3);
        let Step::Write { body, index: 0 } = take(std::slice::from_ref(&contender), "p", "s", 2) else {
            panic!()
        };
        assert_eq!(body, br#"{"Limit":2,"Holders":{"s":true}}"#);
        let pairs = [contender, pair("p/.lock", &body, None, 7)];
        assert!(holds(&pairs, "p", "s"));
        assert_eq!(take(&pairs, "p", "s", 2), Step::Nothing);
        assert!(matches!(take(&pairs, "p", "s", 3), Step::Conflict(why) if why.contains("2 slots")));
        let Step::Write { body, index: 7 } = give_back(&pairs, "p", "s") else { panic!() };
        assert_eq!(body, br#"{"Limit":2,"Holders":{}}"#);
    }

    #[test]
    fn what_is_not_a_semaphore_is_left_alone() {
        let mut other = pair("p/.lock", b"precious", None, 7);
        assert!(matches!(take(std::slice::from_ref(&other), "p", "s", 2), Step::Conflict(_)));
        other.flags = 0;
        assert!(matches!(give_back(&[other], "p", "s"), Step::Conflict(_)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn never_more_holders_than_slots(limit in 1_u64..4, steps in proptest::collection::vec((0_u8..6, 0_u8..3), 0..60)) {
            let mut contenders: BTreeMap<String, bool> = BTreeMap::new();
            let (mut lock, mut index) = (None::<Vec<u8>>, 1);
            for (who, what) in steps {
                let session = format!("s{who}");
                let mut pairs: Vec<_> = contenders
                    .iter()
                    .map(|(id, alive)| pair(&format!("p/{id}"), b"", alive.then_some(id.as_str()), 1))
                    .collect();
                if let Some(body) = &lock {
                    pairs.push(pair("p/.lock", body, None, index));
                }
                let step = match what {
                    0 => {
                        contenders.insert(session.clone(), true);
                        pairs.retain(|pair| pair.key != format!("p/{session}"));
                        pairs.push(pair(&format!("p/{session}"), b"", Some(&session), 1));
                        take(&pairs, "p", &session, limit)
                    }
                    1 => give_back(&pairs, "p", &session),
                    // The session ended.
                    _ => {
                        contenders.remove(&session);
                        Step::Nothing
                    }
                };
                if let Step::Write { body, .. } = step {
                    index += 1;
                    lock = Some(body);
                }
                let slots: Slots = lock.as_deref().map_or_else(Slots::default, |body| serde_json::from_slice(body).unwrap());
                prop_assert!(slots.holders.len() as u64 <= limit);
            }
        }

        #[test]
        fn no_content_is_too_odd(body: Vec<u8>) {
            let pairs = [pair("p/.lock", &body, None, 1)];
            let _ = (take(&pairs, "p", "s", 1), give_back(&pairs, "p", "s"), holds(&pairs, "p", "s"));
        }
    }
}
