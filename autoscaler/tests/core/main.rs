//! The core: its sentences, its properties, and its behaviour on a simulated service.
// Helpers of tests may stop at the first surprise, as tests may.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod cases;
mod examples;
mod originals;
mod plant;
mod properties;
mod rich;
mod simulation;
