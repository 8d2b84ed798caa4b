//! The rules of a lease in a register, without I/O and without a clock: who may claim it, and until when a holder may
//! believe in it.
//!
//! Every time is the contender's own: nobody's clock is compared with another's, they only have to run equally fast. A
//! holder believes for two thirds of the time to live after it *began* to write; another one takes over when it saw the
//! same version for the whole time to live. So there is a third of it between the two, whatever was slow on the way: a
//! write that took long, an answer that came late, a process that was stopped before it read the answer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What stands in the register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim {
    /// Empty when it was given back.
    pub(super) holder: String,
    pub(super) term: u64,
    pub(super) beat: u64,
}

/// What is to be put into the register, if its version is still this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Put {
    pub(super) claim: Claim,
    pub(super) expected: Option<u64>,
}

/// Somebody who wants to hold the lease, or holds it.
#[derive(Clone, Debug)]
pub(super) struct Contender {
    holder: String,
    ttl: Duration,
    /// The version that was seen last, and since when.
    seen: Option<(u64, Duration)>,
    tenure: Option<Tenure>,
}

#[derive(Clone, Debug)]
struct Tenure {
    claim: Claim,
    /// When the last write that is known to be stored began.
    renewed: Duration,
}

impl Contender {
    pub(super) fn new(holder: impl Into<String>, ttl: Duration) -> Self {
        Self { holder: holder.into(), ttl, seen: None, tenure: None }
    }

    /// What to put to become the holder, after a look that began at `now`; `None` to look again later. The term is above
    /// the register's and above `floor`.
    pub(super) fn seek(&mut self, found: Option<(&Claim, u64)>, floor: u64, now: Duration) -> Option<Put> {
        let expected = found.map(|(_, version)| version);
        let last = found.map_or(0, |(claim, _)| claim.term);
        if let Some((claim, version)) = found
            && !claim.holder.is_empty()
        {
            let since = match self.seen {
                Some((same, since)) if same == version => since,
                _ => self.seen.insert((version, now)).1,
            };
            if now.saturating_sub(since) < self.ttl {
                return None;
            }
        }
        // Above the highest there is none: whoever is there may go on, and nobody follows.
        let term = last.max(floor).checked_add(1)?;
        Some(Put { claim: Claim { holder: self.holder.clone(), term, beat: 0 }, expected })
    }

    /// A put that began at `began` was stored, as is known at `now`. Returns whether the lease is held now: an answer
    /// that comes too late is worth nothing, since another may have taken over.
    pub(super) fn stored(&mut self, claim: Claim, began: Duration, now: Duration) -> bool {
        self.tenure = Some(Tenure { claim, renewed: began });
        self.holds(now)
    }

    /// Whether the holder may believe in its lease.
    pub(super) fn holds(&self, now: Duration) -> bool {
        self.until().is_some_and(|until| now < until)
    }

    /// Until when the holder may believe in its lease.
    pub(super) fn until(&self) -> Option<Duration> {
        self.tenure.as_ref().map(|tenure| tenure.renewed.saturating_add(self.ttl * 2 / 3))
    }

    /// What to put to go on; `None` if what stands there is not ours. A renewal that was stored though its answer was
    /// lost is ours too.
    pub(super) fn renew(&self, found: Option<(&Claim, u64)>) -> Option<Put> {
        self.replace(found, |ours| Claim { beat: ours.beat.wrapping_add(1), ..ours.clone() })
    }

    /// What to put so that another need not wait; `None` if what stands there is not ours.
    pub(super) fn give_back(&self, found: Option<(&Claim, u64)>) -> Option<Put> {
        self.replace(found, |ours| Claim { holder: String::new(), ..ours.clone() })
    }

    fn replace(&self, found: Option<(&Claim, u64)>, next: impl Fn(&Claim) -> Claim) -> Option<Put> {
        let (tenure, (claim, version)) = (self.tenure.as_ref()?, found?);
        let ours = claim.term == tenure.claim.term && claim.holder == tenure.claim.holder;
        ours.then(|| Put { claim: next(claim), expected: Some(version) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Contender {
        /// No longer the holder, whatever the register says.
        fn resign(&mut self) {
            self.tenure = None;
        }
    }

    const TTL: Duration = Duration::from_secs(9);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_answer_that_was_read_too_late_makes_nobody_the_leader() {
        let mut slow = Contender::new("slow", TTL);
        let put = slow.seek(None, 0, at(0)).unwrap();
        // Stored at once; then the process was stopped before it saw that, for as long as another needs to take over.
        assert!(slow.clone().stored(put.claim.clone(), at(0), at(5)));
        assert!(!slow.stored(put.claim, at(0), at(6)));
    }

    #[test]
    fn a_term_is_above_the_registers_and_above_what_the_target_has_seen() {
        let term = |found: Option<u64>, floor| {
            let claim = found.map(|term| Claim { holder: String::new(), term, beat: 4 });
            let found = claim.as_ref().map(|claim| (claim, 3));
            Contender::new("a", TTL).seek(found, floor, at(0)).map(|put| put.claim.term)
        };
        assert_eq!(term(None, 0), Some(1));
        assert_eq!(term(Some(7), 0), Some(8));
        // A register that was lost: the target remembers.
        assert_eq!(term(None, 41), Some(42));
        assert_eq!(term(Some(7), 41), Some(42));
        assert_eq!(term(Some(u64::MAX), 0), None, "it never falls");
    }

    /// Where one contender is, between its looks, its puts and its work.
    #[derive(Clone, Debug)]
    enum Stage {
        Looking,
        Found(Option<(Claim, u64)>),
        Putting(Put, Duration),
        Answered(Claim, Duration, bool),
    }

    #[derive(Clone, Debug)]
    struct Run {
        contender: Contender,
        stage: Stage,
        /// By how much its clock is ahead.
        ahead: Duration,
        /// A write to the target that it has decided on, under this term.
        writing: Option<u64>,
        holds_term: Option<u64>,
    }

    #[derive(Default)]
    struct World {
        register: Option<(Claim, u64)>,
        versions: u64,
        /// Terms under which the target was written, in their order.
        target: Vec<u64>,
        terms: Vec<u64>,
    }

    impl World {
        /// One step of one contender. `luck` decides what may go either way.
        fn step(&mut self, run: &mut Run, time: Duration, luck: u8) {
            let now = time + run.ahead;
            // A write that was decided on before comes to pass whenever it does: the target alone stops a late one.
            if let Some(term) = run.writing.take() {
                if self.target.last().is_none_or(|last| *last <= term) {
                    self.target.push(term);
                }
                return;
            }
            if luck.is_multiple_of(3) && run.contender.holds(now) {
                run.writing = run.holds_term;
                return;
            }
            run.stage = match std::mem::replace(&mut run.stage, Stage::Looking) {
                Stage::Looking => Stage::Found(self.register.clone()),
                Stage::Found(found) => {
                    let found = found.as_ref().map(|(claim, version)| (claim, *version));
                    let put = if run.contender.holds(now) && luck > 250 {
                        let put = run.contender.give_back(found);
                        // It ends before it says so.
                        run.contender.resign();
                        put
                    } else if run.contender.holds(now) {
                        run.contender.renew(found)
                    } else {
                        run.contender.resign();
                        run.contender.seek(found, 0, now)
                    };
                    put.map_or(Stage::Looking, |put| Stage::Putting(put, now))
                }
                Stage::Putting(put, began) => {
                    let stored = self.register.as_ref().map(|(_, version)| *version) == put.expected;
                    if stored {
                        self.versions += 1;
                        self.register = Some((put.claim.clone(), self.versions));
                    }
                    // The answer may be lost.
                    Stage::Answered(put.claim, began, stored && luck < 200)
                }
                Stage::Answered(claim, began, true) if !claim.holder.is_empty() => {
                    let term = claim.term;
                    if run.contender.stored(claim, began, now) && run.holds_term != Some(term) {
                        run.holds_term = Some(term);
                        self.terms.push(term);
                    }
                    Stage::Looking
                }
                Stage::Answered(..) => Stage::Looking,
            };
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        /// Contenders that stop anywhere, for any time, with clocks of their own and answers that get lost.
        #[test]
        fn no_two_believe_at_once_and_nobody_writes_past_a_higher_term(
            ahead in prop::collection::vec(0_u64..100_000, 2..4),
            steps in prop::collection::vec((any::<prop::sample::Index>(), 0_u64..7_000, any::<u8>()), 1..400),
        ) {
            let mut runs: Vec<Run> = ahead.iter().enumerate().map(|(at, ahead)| Run {
                contender: Contender::new(format!("c{at}"), TTL),
                stage: Stage::Looking,
                ahead: Duration::from_millis(*ahead),
                writing: None,
                holds_term: None,
            }).collect();
            let (mut world, mut time) = (World::default(), Duration::ZERO);
            for (who, pause, luck) in steps {
                // Most steps follow at once, so that things happen within one time to live.
                time += Duration::from_millis(if pause < 3_000 { pause / 10 } else { pause });
                let who = who.index(runs.len());
                world.step(&mut runs[who], time, luck);
                let believers = runs.iter().filter(|run| run.contender.holds(time + run.ahead)).count();
                prop_assert!(believers <= 1, "{believers} believe at {time:?}");
            }
            prop_assert!(world.target.is_sorted(), "{:?}", world.target);
            prop_assert!(world.terms.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", world.terms);
        }
    }

    /// The property says nothing where nobody ever leads.
    #[test]
    fn the_lease_goes_round() {
        let run = |at: u64| Run {
            contender: Contender::new(format!("c{at}"), TTL),
            stage: Stage::Looking,
            ahead: Duration::ZERO,
            writing: None,
            holds_term: None,
        };
        let (mut world, mut runs, mut time) = (World::default(), [run(0), run(1)], Duration::ZERO);
        for turn in 0..3 {
            // The other one is stopped; this one takes over, and writes.
            for step in 0..60 {
                time += Duration::from_millis(500);
                world.step(&mut runs[turn % 2], time, if step % 7 == 0 { 3 } else { 1 });
            }
        }
        assert_eq!(world.terms, [1, 2, 3]);
        assert!(world.target.is_sorted() && world.target.contains(&3), "{:?}", world.target);
    }
}
