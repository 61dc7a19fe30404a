//! The terminal's network against real programs: dnsmasq for DHCP and DNS, another machine's mDNS; and a
//! swarm across a router.
//!
//! Needs root: each test makes network namespaces with cables between them. `lab` and `zones` make and remove
//! them.

#![cfg(feature = "agent")]
#![expect(clippy::unwrap_used, reason = "this whole program is tests")]

mod address;
mod cards;
mod discovery;
#[cfg(feature = "server")]
mod doctor;
mod lab;
#[cfg(feature = "server")]
mod netboot;
mod wake;
mod zones;
