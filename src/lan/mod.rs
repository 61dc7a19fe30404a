//! Finding an address and the server on the lab's network: messages and state machines.
//!
//! Invariant: nothing here opens a socket or reads a clock; time, chance and received bytes come in as
//! arguments. A server that is found is not trusted for it: that needs a signature (`manifest`).

#[cfg(feature = "agent")]
pub mod dhcp;
#[cfg(feature = "agent")]
mod dhcp_message;
pub mod discovery;
#[cfg(feature = "agent")]
pub(crate) mod lldp;
#[cfg(feature = "server")]
pub(crate) mod pxe;
pub mod srv;
