//! Swarms on the loopback interface: flashmob with itself, by its command line, and with aria2 and
//! libtorrent.
//!
//! `loopback` drives sessions in this process, `command` runs the program, `partitions` runs it on images'
//! partitions, `clients` runs the others.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "this whole program is tests, with payloads of a few MB"
)]

mod clients;
mod command;
mod frames;
mod loopback;
mod partitions;
