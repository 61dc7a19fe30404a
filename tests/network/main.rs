//! The terminal's network against real programs: dnsmasq for DHCP and DNS, another machine's mDNS.
//!
//! Needs root: each test makes two network namespaces with a cable between them. `lab` makes and removes them.

#![cfg(feature = "agent")]
#![expect(clippy::unwrap_used, reason = "this whole program is tests")]

mod address;
mod discovery;
mod lab;
