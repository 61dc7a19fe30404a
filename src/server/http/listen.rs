//! The server's port: sockets → requests that know both ends of their connection.
//!
//! ```text
//!  accept loop ──permit (at most MAX_CONNECTIONS)──► one task for each connection ──► router
//!       ▲ stop ────────────────────────────────────► each ends after its answer, or after GRACE
//! ```
//!
//! Invariant: a connection that sends no request head for 30 s, or that takes no byte for two minutes, is
//! closed. `router` chooses the answer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// Connections at once; a thousand terminals have a few each.
const MAX_CONNECTIONS: usize = 8192;
/// How long a request's head may take, and how long a connection may idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long sent bytes may stay unacknowledged, in milliseconds (RFC 5482).
const USER_TIMEOUT_MILLIS: u32 = 120_000;
/// How long answers may take once the server is to stop.
const GRACE: Duration = Duration::from_secs(3);

/// Both ends of a connection; IPv4 addresses as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub remote: SocketAddr,
    /// At which of our addresses.
    pub local: SocketAddr,
}

/// Binds the port. Without an address it is every address of both families, or of IPv4 alone where the
/// machine has no IPv6.
pub async fn bind(
    listen: Option<SocketAddr>,
    default_port: u16,
) -> Result<TcpListener, (SocketAddr, std::io::Error)> {
    if let Some(address) = listen {
        return TcpListener::bind(address).await.map_err(|e| (address, e));
    }
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, default_port));
    let four = SocketAddr::from((Ipv4Addr::UNSPECIFIED, default_port));
    match TcpListener::bind(both).await {
        Ok(listener) => Ok(listener),
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => Err((both, e)),
        Err(_) => TcpListener::bind(four).await.map_err(|e| (four, e)),
    }
}

/// Answers connections until `stop` is true (or gone), then lets running answers finish for a moment.
pub async fn serve(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            Some(_) = connections.join_next() => continue,
            () = stopped(&mut stop) => break,
        };
        match accepted {
            Ok((stream, ends, permit)) => {
                let (router, stop) = (router.clone().layer(Extension(ends)), stop.clone());
                connections.spawn(async move {
                    converse(stream, router, stop).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file descriptors, or a connection that was gone before it was accepted.
                log::warn!("accepting a connection: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let all_done = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all_done).await.is_err() {
        connections.shutdown().await;
    }
}

type Accepted = (TcpStream, Ends, tokio::sync::OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> std::io::Result<Accepted> {
    let permit = Arc::clone(room).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, remote) = listener.accept().await?;
    let ends = Ends { remote: canonical(remote), local: canonical(stream.local_addr()?) };
    stream.set_nodelay(true)?;
    setsockopt(&stream, sockopt::TcpUserTimeout, &USER_TIMEOUT_MILLIS)?;
    Ok((stream, ends, permit))
}

async fn converse(stream: TcpStream, router: Router, mut stop: watch::Receiver<bool>) {
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        log::debug!("connection ended: {error}");
    }
}

/// Returns when the server is to stop (or is gone).
pub async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the server was dropped without being stopped.
    drop(stop.wait_for(|stop| *stop).await);
}

fn canonical(address: SocketAddr) -> SocketAddr {
    let ip: IpAddr = address.ip().to_canonical();
    SocketAddr::new(ip, address.port())
}
