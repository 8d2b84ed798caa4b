//! Properties of the one rule of change, over random histories.

use proptest::prelude::*;
use session_store::{
    CommitId, Gone, Lifetime, Mode, Op, Outcome, Patch, Record, StoreKey, Value, apply_op, codec,
    rule::{REMEMBERED_COMMITS, REMEMBERED_OWN, Step},
};
use std::{collections::BTreeMap, time::Duration};

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

fn patches() -> impl Strategy<Value = Patch> {
    let change = (0..KEYS.len(), 0..3, -9_i64..9);
    prop::collection::vec(change, 1..4).prop_map(|changes| {
        changes.into_iter().fold(Patch::new(), |patch, (key, kind, number)| match kind {
            0 => patch.set(KEYS[key], number.to_string()),
            1 => patch.remove(KEYS[key]),
            _ => patch.add(KEYS[key], number),
        })
    })
}

fn ops() -> impl Strategy<Value = Op> {
    let commit = (patches(), prop::option::of(0_u64..6), any::<bool>(), prop::option::of(0_u8..8));
    prop_oneof![
        8 => commit.prop_map(|(patch, base, compare, id)| Op::Commit {
            base,
            patch,
            mode: if compare { Mode::CompareAndSet } else { Mode::Merge },
            id: id.map(|id| CommitId::of([id])),
        }),
        1 => Just(Op::Touch),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(to, login)| Op::Rotate {
            to: StoreKey::from_bytes([to; 32]),
            principal: login.then(|| "ada".into()),
            patch: Patch::new(),
            grace: Duration::from_secs(1),
            id: None,
        }),
        1 => Just(Op::Delete),
    ]
}

fn live() -> Record {
    Record::new(Lifetime::default(), None, 0)
}

fn step(record: &mut Record, op: &Op) -> Step {
    let step = apply_op(Some(record.clone()), op, 1);
    if let Some(write) = &step.write {
        *record = write.clone();
    }
    step
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Over any history: what is written can be read back, versions never fall, and what is over stays over.
    #[test]
    fn histories_are_sound(ops in prop::collection::vec(ops(), 1..20)) {
        let mut record = live();
        for op in &ops {
            let before = record.clone();
            let done = step(&mut record, op);
            prop_assert!(record.version >= before.version);
            if before.gone(1).is_some() {
                prop_assert!(record.gone(1).is_some(), "{op:?} brought a session back");
            }
            if !matches!(done.applied.outcome, Outcome::Saved { .. } | Outcome::Merged { .. } | Outcome::Gone(_)) {
                prop_assert_eq!(&record, &before, "a refused step changed something");
            }
            for written in done.write.iter().chain(done.create.as_ref().map(|(_, new)| new)) {
                let bytes = codec::encode(written, 3).unwrap();
                prop_assert_eq!(&codec::decode(&bytes).unwrap(), written);
            }
        }
    }

    /// Any step sent again right away changes nothing that a user sees.
    #[test]
    fn repeating_changes_nothing(ops in prop::collection::vec(ops(), 1..8), patch in patches()) {
        let mut record = live();
        for op in &ops {
            step(&mut record, op);
        }
        let op = Op::Commit { base: None, patch, mode: Mode::Merge, id: Some(CommitId::of("new")) };
        let first = step(&mut record, &op).applied.outcome;
        let after = record.clone();
        prop_assert_eq!(step(&mut record, &op).applied.outcome, first);
        prop_assert_eq!(record, after);
    }

    /// A merge that is taken ends as if the two had come one after the other; otherwise it says so and changes nothing.
    #[test]
    fn a_merge_never_overwrites_unseen(start in patches(), ours in patches(), theirs in patches()) {
        let mut record = live();
        if !step(&mut record, &start.commit()).applied.outcome.is_done() {
            return Ok(());
        }
        let base = record.version;
        let other = step(&mut record, &theirs.commit());
        let seen = values(&record);
        let mode = Mode::Merge;
        let outcome = step(&mut record, &Op::Commit { base: Some(base), patch: ours.clone(), mode, id: None });
        match outcome.applied.outcome {
            Outcome::Merged { .. } => {
                let mut second = live();
                for (key, value) in &seen {
                    let patch = match value {
                        Value::Bytes(bytes) => Patch::new().set(key, bytes.to_vec()),
                        Value::Counter(number) => Patch::new().add(key, *number),
                    };
                    step(&mut second, &patch.commit());
                }
                step(&mut second, &ours.commit());
                prop_assert_eq!(values(&record), values(&second));
            }
            Outcome::Saved { .. } => prop_assert!(!other.applied.outcome.is_done()),
            _ => prop_assert_eq!(values(&record), seen),
        }
    }
}

fn values(record: &Record) -> BTreeMap<String, Value> {
    record.keys().filter_map(|key| Some((key.to_owned(), record.get(key)?.clone()))).collect()
}

#[test]
fn a_record_stays_small_under_many_commits() {
    let mut record = live();
    for number in 0..10_000 {
        let key = format!("k{}", number % 100);
        let patch = Patch::new().set(key.clone(), *b"1").add("views", 1);
        let id = Some(CommitId::of(number.to_string()));
        let named = Op::Commit { base: None, patch, mode: Mode::Merge, id };
        assert!(step(&mut record, &named).applied.outcome.is_done());
        assert!(step(&mut record, &Patch::new().remove(key).commit()).applied.outcome.is_done());
    }
    assert_eq!(record.counter("views"), Some(10_000));
    let size = codec::encode(&record, 0).unwrap().len();
    assert!(size < REMEMBERED_COMMITS * 16 + 1024, "{size}");
    let later = apply_op(Some(record), &Patch::new().add("views", 1).commit(), 1 + 121_000).write.unwrap();
    let size = codec::encode(&later, 0).unwrap().len();
    assert!(size < 1024, "commits of long ago are remembered: {size}");
}

/// A commit that is sent again within the time is known, whatever came between.
#[test]
fn repeats_are_known_for_two_minutes() {
    let id = Some(CommitId::of("request 1"));
    let add = |id| Op::Commit { base: None, patch: Patch::new().add("views", 1), mode: Mode::Merge, id };
    let mut record = apply_op(Some(live()), &add(id), 1_000).write.unwrap();
    for second in 2..=60 {
        record = apply_op(Some(record), &add(Some(CommitId::of(second.to_string()))), second * 1_000)
            .write
            .unwrap();
        record = codec::decode(&codec::encode(&record, 0).unwrap()).unwrap();
    }
    let again = apply_op(Some(record), &add(id), 120_000);
    assert_eq!((again.write, again.applied.outcome), (None, Outcome::Saved { version: 1 }));
}

/// A commit that was not named is repeated by the store that sent it, as its next one: only the last few are remembered.
#[test]
fn commits_without_a_name_are_known_for_a_while() {
    let add = || Patch::new().add("views", 1).commit();
    let mut record = live();
    let mut sent = Vec::new();
    for _ in 0..20 {
        let op = add();
        step(&mut record, &op);
        sent.push(op);
    }
    for (number, op) in sent.iter().enumerate() {
        let known = apply_op(Some(record.clone()), op, 1).write.is_none();
        assert_eq!(known, number >= 20 - REMEMBERED_OWN, "{number}");
    }
    let named =
        Op::Commit { base: None, patch: Patch::new(), mode: Mode::Merge, id: Some(CommitId::of("a")) };
    step(&mut record, &named);
    (0..20).for_each(|_| drop(step(&mut record, &add())));
    assert!(apply_op(Some(record), &named, 1).write.is_none(), "a named one was forgotten for others");
}

#[test]
fn a_removal_that_was_forgotten_is_a_conflict_rather_than_a_surprise() {
    let mut record = live();
    for number in 0..40 {
        step(&mut record, &Patch::new().set(format!("k{number}"), *b"1").commit());
    }
    let base = record.version;
    for number in 0..40 {
        step(&mut record, &Patch::new().remove(format!("k{number}")).commit());
    }
    for key in ["k0", "k39"] {
        let op =
            Op::Commit { base: Some(base), patch: Patch::new().set(key, *b"2"), mode: Mode::Merge, id: None };
        assert!(matches!(step(&mut record, &op).applied.outcome, Outcome::Conflict { .. }), "{key}");
    }
}

#[test]
fn counters_stop_at_their_ends_and_numbers_count() {
    let mut record = live();
    step(&mut record, &Patch::new().set("n", *b"41").commit());
    step(&mut record, &Patch::new().add("n", 1).commit());
    assert_eq!(record.counter("n"), Some(42));
    step(&mut record, &Patch::new().add("n", i64::MAX).commit());
    assert_eq!(record.counter("n"), Some(i64::MAX));
}

#[test]
fn lifetimes_end_exactly_at_their_deadline() {
    let lifetime = Lifetime { idle: Duration::from_secs(10), absolute: Duration::from_secs(15) };
    let record = Record::new(lifetime, None, 1_000);
    let touched = apply_op(Some(record.clone()), &Op::Touch, 10_999).write.unwrap();
    assert_eq!(touched.deadline(), 16_000);
    for (record, end) in [(record, 11_000), (touched, 16_000)] {
        assert_eq!(record.gone(end - 1), None);
        let late = apply_op(Some(record), &Op::Touch, end);
        assert_eq!((late.applied.outcome, late.write), (Outcome::Gone(Gone::Expired), None));
    }
}
