//! The core: its sentences, its properties, and its behaviour on a simulated service.

mod cases;
mod plant;
mod properties;
mod simulation;
