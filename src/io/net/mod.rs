//! Network clients: the tracker and the server over HTTP, and, on a terminal, links, addresses and discovery.
//!
//! Invariant: every answer is bounded, and every wait ends.

#[cfg(feature = "agent")]
pub mod api_client;
#[cfg(feature = "agent")]
pub mod dhcp;
#[cfg(feature = "agent")]
pub mod discovery;
#[cfg(feature = "agent")]
pub mod lldp;
#[cfg(feature = "agent")]
pub mod netlink;
pub mod tracker_client;
