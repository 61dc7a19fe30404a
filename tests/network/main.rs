//! The terminal's network against real programs: dnsmasq for DHCP and DNS, another machine's mDNS; and a
//! swarm across a router.
//!
//! Needs root: each test makes network namespaces with cables between them. `lab` and `zones` make and remove
//! them.

#![cfg(feature = "agent")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "this whole program is tests, with payloads of a few MB"
)]

mod address;
mod discovery;
mod lab;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../interop/tracker.rs"]
mod tracker;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../interop/world.rs"]
mod world;
mod zones;
