//! The balanced policy on shapes of load.

use autoscaler::Policy;

use crate::plant::{Plant, play};

const PLANT: Plant = Plant { capacity: 100.0, start: 20, tick: 5 };

fn policy() -> Policy {
    Policy::balanced("rate", 70.0).bounds(2, 50)
}

#[test]
fn a_step_is_followed_without_a_turn() {
    let load = |second| (if second < 100 { 140.0 } else { 1400.0 }, true);
    let outcome = play(&PLANT, &policy(), load, 2, 600);
    assert_eq!(outcome.last(), 20);
    assert_eq!(outcome.turns(2), 0, "{:?}", outcome.actions);
    // Two steps of 15 s to reach the 14 that can do the load, one start of 20 s, and a tick.
    assert!(outcome.overload <= 60, "{} s of overload: {:?}", outcome.overload, outcome.actions);
}

#[test]
fn a_ramp_is_followed_up_and_down_without_overload() {
    let load = |second: u64| {
        let distance = second.abs_diff(1_800).min(1_800);
        (140.0 + 1260.0 * (1_800 - distance) as f64 / 1_800.0, true)
    };
    let outcome = play(&PLANT, &policy(), load, 2, 3_600);
    assert_eq!(outcome.overload, 0, "{:?}", outcome.actions);
    assert_eq!(outcome.turns(2), 1, "{:?}", outcome.actions);
}

#[test]
fn what_recurs_is_met_with_one_change_each_way() {
    let load = |second: u64| (200.0 + 5.0 * (second % 240) as f64, true);
    let outcome = play(&PLANT, &policy(), load, 3, 2_400);
    let known: Vec<_> = outcome.actions.iter().filter(|(second, _)| *second > 720).collect();
    assert_eq!(known.len(), 14, "seven teeth from the fourth on: {:?}", outcome.actions);
    // In the first tooth, before any three steps have risen.
    assert!(outcome.overload <= 15, "{} s", outcome.overload);
    // Not by keeping the crest: that would be 20 * 2400.
    assert!(outcome.instance_seconds < 16 * 2_400, "{}", outcome.instance_seconds);
}

#[test]
fn a_steady_rise_is_met_with_few_changes_and_what_was_added_stays() {
    let load = |second: u64| (200.0 + 5.0 * second.min(240) as f64, true);
    let outcome = play(&PLANT, &policy(), load, 3, 300);
    assert_eq!(outcome.turns(3), 0, "{:?}", outcome.actions);
    assert!(outcome.actions.len() <= 7, "17 instances in at most 7 changes: {:?}", outcome.actions);
}

#[test]
fn a_load_that_flaps_within_the_window_makes_it_go_up_and_stay() {
    let load = |second: u64| (if (second / 20).is_multiple_of(2) { 280.0 } else { 700.0 }, true);
    let outcome = play(&PLANT, &policy(), load, 4, 1_800);
    assert_eq!(outcome.last(), 10);
    assert_eq!(outcome.turns(4), 0, "{:?}", outcome.actions);
}

#[test]
fn an_outage_of_the_signal_removes_nothing_and_neither_does_its_end() {
    let load = |second| (if second < 300 { 700.0 } else { 140.0 }, !(200..600).contains(&second));
    let outcome = play(&PLANT, &policy(), load, 10, 900);
    assert_eq!(outcome.wrong_way, 0);
    let (first, _) = outcome.actions[0];
    assert!(first >= 660, "removed {} s after the signal came back", first - 600);
    assert_eq!(outcome.last(), 2);
}

#[test]
fn the_end_of_a_load_is_followed_down_to_the_minimum() {
    let load = |second| (if second < 100 { 700.0 } else { 0.0 }, true);
    let outcome = play(&PLANT, &policy(), load, 10, 600);
    assert_eq!(outcome.actions, [(155, 2)], "a window after the last tick under load");
    assert!(outcome.instance_seconds < 600 * 10);
}
