//! The terminal's program: from the first instruction of PID 1 to the start of the next system.
//!
//! Invariant: PID 1 (`init`) never does work that can fail; the worker is a child whose crash is an outcome.

pub mod attempt;
mod checks;
pub mod cli;
pub mod cmdline;
pub mod console;
pub mod find;
mod hidden;
pub mod imaging;
pub mod init;
mod journal;
mod last_words;
pub mod leave;
mod lending;
mod log_lines;
mod logger;
pub mod netboot;
pub mod network;
pub mod screen;
pub mod status;
mod view;
pub mod worker;
