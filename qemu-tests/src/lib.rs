//! The virtual lab: a golden disk, a network of its own, machines with virtual disks, all owned by handle.
//!
//! Invariant: whatever a test starts ends with the test, and nothing outside its folder and namespace changes.

pub mod command;
pub mod golden;
