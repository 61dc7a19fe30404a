//! A lab in virtual time: the tests of the swarm run in it, and `forecast` plans by it.
//!
//! Real engines run on modelled links (rates, latency, uplinks of zones), disks and peers that leave, stall
//! or lie, and the real tracker names the peers to dial; time is a number and chance comes from a seed, so
//! that a run can be repeated exactly. Invariant: a piece is `Ok` for an engine only if its bytes are those
//! of the payload.

mod agenda;
#[cfg(test)]
mod frame_tests;
mod frames;
mod lab;
#[cfg(test)]
mod limit_tests;
mod link;
#[cfg(test)]
mod schedule_tests;
mod spec;
#[cfg(test)]
mod tests;
mod uplink;
#[cfg(test)]
mod zone_tests;

pub use lab::{Lab, Node, yardstick};
pub use spec::{Character, LabSpec, NodeSpec, Zones};
