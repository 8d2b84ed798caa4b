//! The rules of Consul's blocking queries as a state machine. Pure.
//!
//! From Consul's documentation of blocking queries: start at index 0, go back to 0 when the index goes back, take a zero for one,
//! expect spurious answers. On top, because empty answers around elections are real (hashicorp/consul issue 4103) and followers
//! disagree about indexes (issue 7939): what would empty the set, or comes from the past, is asked for once more with
//! `consistent` before it is passed on.

/// Where a watch stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cursor {
    /// The index to wait for; 0 asks for the present state.
    index: u64,
    /// The index of what was last passed on.
    shown: u64,
    confirming: bool,
}

/// What to ask next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The state now.
    Now,
    /// The state when it has passed this index.
    After(u64),
    /// The state now, by a quorum.
    Confirm,
}

/// What to do with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Pass it on.
    Show,
    /// Nothing new.
    Skip,
    /// Not yet to be believed: ask again ([`Ask::Confirm`]).
    Doubt,
}

impl Cursor {
    pub(crate) fn ask(&self) -> Ask {
        match (self.confirming, self.index) {
            (true, _) => Ask::Confirm,
            (false, 0) => Ask::Now,
            (false, index) => Ask::After(index),
        }
    }

    /// An answer to [`ask`](Self::ask). `changed`: its content differs from what was last shown, or nothing was shown yet.
    pub(crate) fn answered(&mut self, index: u64, empty: bool, changed: bool) -> Verdict {
        let index = index.max(1);
        let confirmed = std::mem::take(&mut self.confirming);
        if changed && !confirmed && (empty || index < self.shown) {
            self.confirming = true;
            return Verdict::Doubt;
        }
        self.index = if index < self.index { 0 } else { index };
        if changed {
            self.shown = index;
            Verdict::Show
        } else {
            Verdict::Skip
        }
    }

    /// The last question failed: another server may answer the next one, so its index means nothing there.
    pub(crate) fn failed(&mut self) {
        self.index = 0;
        self.confirming = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_quiet_life() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.ask(), Ask::Now);
        assert_eq!(cursor.answered(7, false, true), Verdict::Show);
        assert_eq!(cursor.ask(), Ask::After(7));
        assert_eq!(cursor.answered(7, false, false), Verdict::Skip);
        assert_eq!(cursor.answered(9, false, true), Verdict::Show);
        assert_eq!(cursor.ask(), Ask::After(9));
    }

    #[test]
    fn an_empty_answer_is_confirmed_once() {
        let mut cursor = Cursor::default();
        cursor.answered(7, false, true);
        assert_eq!(cursor.answered(8, true, true), Verdict::Doubt);
        assert_eq!(cursor.ask(), Ask::Confirm);
        assert_eq!(cursor.answered(9, false, false), Verdict::Skip);
        assert_eq!(cursor.answered(10, true, true), Verdict::Doubt);
        assert_eq!(cursor.answered(11, true, true), Verdict::Show);
        assert_eq!(cursor.ask(), Ask::After(11));
    }

    #[test]
    fn a_failed_confirmation_shows_nothing() {
        let mut cursor = Cursor::default();
        cursor.answered(7, false, true);
        cursor.answered(8, true, true);
        cursor.failed();
        assert_eq!(cursor.ask(), Ask::Now);
        assert_eq!(cursor.answered(8, true, true), Verdict::Doubt);
    }

    #[test]
    fn an_index_of_zero_does_not_spin_and_one_that_goes_back_starts_over() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.answered(0, false, true), Verdict::Show);
        assert_eq!(cursor.ask(), Ask::After(1));
        cursor.answered(50, false, true);
        assert_eq!(cursor.answered(3, false, false), Verdict::Skip);
        assert_eq!(cursor.ask(), Ask::Now);
        // Restored from a snapshot: other content at a lower index is believed once a quorum says so, and from then on as usual.
        assert_eq!(cursor.answered(4, false, true), Verdict::Doubt);
        assert_eq!(cursor.answered(4, false, true), Verdict::Show);
        assert_eq!(cursor.answered(5, false, true), Verdict::Show);
    }

    #[derive(Debug, Clone)]
    enum Event {
        Answer { index: u64, content: u8 },
        Failure,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => (0_u64..12, 0_u8..4).prop_map(|(index, content)| Event::Answer { index, content }),
            1 => Just(Event::Failure),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn whatever_servers_answer(events in proptest::collection::vec(event(), 0..80)) {
            let mut cursor = Cursor::default();
            let mut shown: Option<(u64, u8)> = None;
            for event in events {
                let asked = cursor.ask();
                match event {
                    Event::Failure => {
                        cursor.failed();
                        prop_assert_eq!(cursor.ask(), Ask::Now);
                    }
                    Event::Answer { index, content } => {
                        let changed = shown.is_none_or(|(_, last)| last != content);
                        let verdict = cursor.answered(index, content == 0, changed);
                        let index = index.max(1);
                        match verdict {
                            Verdict::Show => {
                                prop_assert!(changed, "a duplicate was shown");
                                let doubtful = content == 0 || shown.is_some_and(|(last, _)| index < last);
                                prop_assert!(!doubtful || asked == Ask::Confirm, "shown without confirmation");
                                shown = Some((index, content));
                            }
                            Verdict::Skip => prop_assert!(!changed, "a change was swallowed"),
                            Verdict::Doubt => {
                                prop_assert_ne!(asked, Ask::Confirm, "doubted twice");
                                prop_assert_eq!(cursor.ask(), Ask::Confirm);
                            }
                        }
                        if let (Ask::After(before), true) = (asked, verdict != Verdict::Doubt) {
                            let next = if index < before { Ask::Now } else { Ask::After(index) };
                            prop_assert_eq!(cursor.ask(), next);
                        }
                    }
                }
                prop_assert_ne!(cursor.ask(), Ask::After(0));
            }
        }
    }
}
