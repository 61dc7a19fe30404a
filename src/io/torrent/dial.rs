//! Dials a peer and goes through both handshakes.
//!
//! Invariant: a dial ends within twice the handshake timeout, with a connection for this torrent or not at
//! all.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;

use super::handshake::{read_handshake, tune};
use super::limits::Permit;
use super::shared::Shared;
use crate::swarm::wire::Handshake;
use crate::units::InfoHash;

/// The result of a dial.
pub(super) struct Dialled {
    pub(super) address: SocketAddr,
    pub(super) outcome: Option<(TcpStream, Handshake, Permit)>,
}

/// Dials `address` when it is this torrent's turn, and tells the owner.
pub(super) async fn dial(
    shared: Arc<Shared>,
    address: SocketAddr,
    info_hash: InfoHash,
    dialled: mpsc::Sender<Dialled>,
) {
    let turn = shared.limits.dial().await;
    let limit = shared.config.handshake_timeout;
    let permit = shared.limits.admit(address.ip().to_canonical());
    let outcome = match permit {
        None => Err("there are too many connections".to_owned()),
        Some(permit) => match tokio::time::timeout(limit, connect(&shared, address, info_hash)).await {
            Ok(Ok((stream, handshake))) => Ok((stream, handshake, permit)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no connection within {limit:?}")),
        },
    };
    drop(turn);
    let outcome = outcome.inspect_err(|why| log::debug!("{address}: {why}")).ok();
    // Fails only when the torrent has been stopped.
    let _ = dialled.send(Dialled { address, outcome }).await;
}

async fn connect(
    shared: &Shared,
    address: SocketAddr,
    info_hash: InfoHash,
) -> std::io::Result<(TcpStream, Handshake)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(ip) = shared.outgoing_address().filter(|ip: &IpAddr| ip.is_ipv4() == address.is_ipv4()) {
        socket.bind(SocketAddr::new(ip, 0))?;
    }
    let mut stream = socket.connect(address).await?;
    tune(&stream)?;
    stream.write_all(&Handshake::ours(info_hash, shared.peer_id).encode()).await?;
    let theirs = read_handshake(&mut stream).await?;
    if theirs.info_hash != info_hash {
        return Err(std::io::Error::other("it answered for another torrent"));
    }
    Ok((stream, theirs))
}
