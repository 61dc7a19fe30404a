//! `flashmob plan`: how long a night will take and which link bounds it, as text and as a picture.
//!
//! Invariant: every figure comes from one run of the simulator (`sim`) with the seed that is named; nothing
//! is estimated beside it.

pub mod picture;
pub mod plan;
