//! What a policy would have done with a load, beside another target.
//!
//! `cargo run -p autoscaler --example replay`

use autoscaler::Policy;
use autoscaler::replay::{PlantModel, Player, Trace, compare};

fn main() {
    // Quiet, then seven times as much, on instances that do 100 requests a second and need 20 s to start.
    let step = Trace::of(1_800, |second| if second < 600 { 200.0 } else { 1_400.0 });
    let player =
        |name: &str, target: f64| Player::new(name, Policy::balanced("rate", target).bounds(2, 50), 5);
    let reports = compare(&[player("roomy", 50.0), player("tight", 95.0)], &step, &PlantModel::default());
    for report in &reports {
        println!("{report}");
    }
    assert!(reports[0].cost_ratio > reports[1].cost_ratio, "room costs");
}
