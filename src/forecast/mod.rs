//! `flashmob plan`: how long a distribution will take and which link limits it, as text and as a picture.
//!
//! Invariant: every figure comes from one run of the simulator (`sim`) with the given seed; nothing else is
//! estimated.

pub mod picture;
pub mod plan;
