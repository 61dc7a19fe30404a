//! Accepts connections and finds out which torrent each is for.
//!
//! Invariant: at most [`MAX_WAITING`] strangers are listened to at once, each for the handshake timeout at
//! most; a connection reaches an owner task only after a handshake for a torrent of this session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::handshake::{Accepted, read_handshake, tune};
use super::limits::Permit;
use super::shared::Shared;
use crate::swarm::wire::Handshake;

/// Accepted connections whose handshake is awaited.
const MAX_WAITING: usize = 256;

/// Accepts until the task is aborted.
pub(super) async fn accept_peers(listener: TcpListener, shared: Arc<Shared>) {
    let waiting = Arc::new(Semaphore::new(MAX_WAITING));
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file handles, or a peer that was gone already: neither ends the session.
                log::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let Some(permit) = shared.limits.admit(address.ip()) else {
            log::debug!("{address}: too many connections");
            continue;
        };
        let Ok(turn) = Arc::clone(&waiting).acquire_owned().await else { return };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let limit = shared.config.handshake_timeout;
            match tokio::time::timeout(limit, greet(stream, address, permit, &shared)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => log::debug!("{address}: {error}"),
                Err(_) => log::debug!("{address}: no handshake within {} s", limit.as_secs()),
            }
            drop(turn);
        });
    }
}

/// Reads the peer's handshake, answers it and hands the connection to the torrent's owner.
async fn greet(
    mut stream: TcpStream,
    address: SocketAddr,
    permit: Permit,
    shared: &Shared,
) -> std::io::Result<()> {
    let theirs = read_handshake(&mut stream).await?;
    let incoming = shared.swarms().get(&theirs.info_hash).map(|entry| entry.incoming.clone());
    let Some(incoming) = incoming else {
        return Err(std::io::Error::other(format!("asks for {}, which is not here", theirs.info_hash)));
    };
    tune(&stream)?;
    stream.write_all(&Handshake::ours(theirs.info_hash, shared.peer_id).encode()).await?;
    let accepted = Accepted { stream, address, handshake: theirs, permit };
    incoming.send(accepted).await.map_err(|_| std::io::Error::other("its torrent has just been stopped"))
}
