//! The sub-commands of `flashmob`: arguments in, a run of the program out.
//!
//! Invariant: each sub-command has one file or folder with its arguments and its `run`. A failure is printed
//! and becomes the exit code in one place, `bin/flashmob.rs`.

pub mod audit;
pub mod backup;
mod call;
pub mod capture;
pub mod doctor;
pub mod get;
pub mod helper;
mod history;
pub mod job;
pub mod logging;
pub mod make;
mod peers;
mod place;
pub mod plan;
pub mod pxe;
mod pxe_options;
mod pxe_service;
pub mod seed;
pub mod serve;
mod show;
mod systemd;
mod table;
pub mod terminal;
pub mod token;
