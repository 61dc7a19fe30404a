//! The first 68 bytes of a connection, and how its socket is set up.
//!
//! Invariant: reading ends as soon as the bytes cannot become a handshake.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::limits::Permit;
use crate::swarm::wire::{HANDSHAKE_LEN, Handshake};

/// Bytes that may wait in a socket without having been sent.
const UNSENT: u32 = 64 * 1024;
/// How long the kernel repeats unacknowledged data: a peer whose cable was pulled closes no socket.
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// A connection that has been through both handshakes.
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
    pub(super) handshake: Handshake,
    pub(super) permit: Permit,
}

/// Small messages leave at once, and the socket keeps few unsent bytes: with megabytes in the socket, the
/// engine would believe a piece sent and begin the next one beside it.
pub(super) fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    socket.set_tcp_notsent_lowat(UNSENT)
}

/// Reads 68 bytes, and gives up as soon as they cannot become a handshake.
pub(super) async fn read_handshake(stream: &mut TcpStream) -> std::io::Result<Handshake> {
    let mut bytes = [0; HANDSHAKE_LEN];
    let mut have = 0;
    while have < HANDSHAKE_LEN {
        let read = stream.read(&mut bytes[have..]).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        have += read;
        if !Handshake::may_become(&bytes[..have]) {
            return Err(std::io::Error::other("it did not send a BitTorrent handshake"));
        }
    }
    Handshake::decode(&bytes).map_err(std::io::Error::other)
}
