//! The server's two ports, and the words for a port that cannot be had.
//!
//! Invariant: the advice names the option that chooses another port.

use std::io::ErrorKind;
use std::net::SocketAddr;

use crate::event::Failure;

/// The port for everything.
pub const DEFAULT_PORT: u16 = 6969;
/// The port of the server's own peer.
pub const DEFAULT_PEER_PORT: u16 = 6881;
/// The failure of listening at an address that `option` chooses.
pub(super) fn cannot_listen(option: &'static str) -> impl Fn((SocketAddr, std::io::Error)) -> Failure {
    move |(address, e)| {
        let advice = match e.kind() {
            ErrorKind::AddrInUse => {
                format!(
                    "Another program has this port (a second server?); choose another with {option} \
                     ADDR:PORT."
                )
            }
            _ => format!("Choose an address of this machine with {option} ADDR:PORT."),
        };
        Failure::refused(format!("listening on {address}: {e}"), advice)
    }
}
