//! Test support: a lab of terminals in virtual time.
//!
//! Real engines run on modelled links (rates, latency), disks and peers that leave, stall or lie; time is a number
//! and chance comes from a seed, so that a run can be repeated exactly. Invariant: a piece is `Ok` for an engine
//! only if its bytes are those of the payload.

mod lab;
mod link;
mod schedule_tests;
mod tests;

pub(crate) use lab::{Character, Lab, LabSpec, NodeSpec, yardstick};
