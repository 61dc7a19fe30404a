//! Network clients: the tracker and the server over HTTP, wake-up packets, and, on a terminal, links,
//! addresses and discovery. `nbd_server` lends a disk.
//!
//! Invariant: every answer is bounded, and every wait ends.

#[cfg(feature = "agent")]
pub mod api_client;
#[cfg(feature = "agent")]
pub(crate) mod credentials;
#[cfg(feature = "agent")]
pub mod dhcp;
#[cfg(feature = "agent")]
pub mod discovery;
#[cfg(feature = "server")]
pub(crate) mod interfaces;
#[cfg(feature = "agent")]
pub(crate) mod lldp;
pub mod nbd_server;
#[cfg(feature = "agent")]
pub(crate) mod netlink;
#[cfg(feature = "server")]
pub(crate) mod pxe_probe;
#[cfg(feature = "server")]
pub(crate) mod reverse_dns;
#[cfg(feature = "server")]
pub(crate) mod sockets;
pub(crate) mod token_file;
pub(crate) mod tracker_client;
pub mod wake;
