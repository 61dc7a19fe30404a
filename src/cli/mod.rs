//! The sub-commands of `flashmob`: what was typed → what is run.
//!
//! Invariant: each sub-command has its arguments and its `run` in a file of its own; a failure is printed and
//! becomes the exit code in one place, `bin/flashmob.rs`.

pub mod get;
pub mod job;
pub mod make;
mod peers;
mod place;
pub mod plan;
pub mod seed;
pub mod serve;
mod show;
