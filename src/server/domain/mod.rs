//! The server's decisions and their subjects, without I/O: time, chance and the database's answers come in as
//! arguments.
//!
//! `config` is what the administrator wrote, `catalog` the images there are, `identity` who a terminal is,
//! `target` what a terminal is to become, `attempt` one try, `jobs` what an attempt may do next, `lab` all
//! terminals, `zones` where they are, `ties` which of them need which, `ipxe` the scripts that boot them,
//! `doubts` what a person should look at.
//!
//! Invariant: the same state and the same arguments give the same decision.

pub mod attempt;
pub mod catalog;
pub mod config;
pub mod doubts;
pub mod identity;
pub mod ipxe;
pub mod jobs;
pub mod lab;
pub mod target;
pub mod ties;
pub mod zones;
