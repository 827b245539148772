//! What has to hold of core for any input at all. Each module is a target of `hack/fuzz`; its
//! `holds` panics where something does not hold, and otherwise says whether the input came as far
//! as what the target is about.
//!
//! Inputs are text that people can write and read: `corpus/` holds what reaches the most code,
//! `regressions/` what has been found once.

pub mod guard;
pub mod keys;
pub mod wire;
