//! From a manifest to places on a disk: ranges, pieces, and writes.
//!
//! Invariant: only pure arithmetic over values that other parts have read. Every impossible image is refused
//! here, before the first write.

pub mod blank;
pub mod extents;
pub mod grid;
pub mod hibernation;
pub mod identity;
pub mod image;
pub mod known;
pub mod lvm;
pub mod moves;
pub mod order;
pub mod personal;
pub mod plan;
pub mod present;
pub mod rule;
pub mod segments;
pub mod table;
pub mod traces;
