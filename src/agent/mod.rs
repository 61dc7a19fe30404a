//! The terminal's program: from the first instruction of PID 1 to the start of what comes next.
//!
//! Invariant: PID 1 (`init`) never does work that can fail; the worker is a child whose crash is an outcome.

pub mod cmdline;
pub mod console;
pub mod imaging;
pub mod status;
