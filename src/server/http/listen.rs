//! The server's port: sockets → requests that know both ends of their connection.
//!
//! ```text
//!  accept loop ──permit (at most MAX_CONNECTIONS, MAX_OF_ONE for each address)──► one task each ──► router
//!       ▲ stop ────────────────────────────────────► each ends after its answer, or after GRACE
//! ```
//!
//! Invariant: one address never takes all connections. A connection that sends no request head for 30 s, or
//! that takes no byte for two minutes, is closed. `router` chooses the answer.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::server::domain::limits;
use crate::sync;

/// Connections at once; a thousand terminals have a few each.
const MAX_CONNECTIONS: usize = 8192;
/// Connections at once of one address, which may be a NAT with a whole lab behind it.
const MAX_OF_ONE: usize = MAX_CONNECTIONS / 2;
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

/// How many connections each address has.
#[derive(Debug, Clone, Default)]
struct Counts(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One connection of an address; it no longer counts once this is dropped.
struct Counted {
    counts: Counts,
    address: IpAddr,
}

impl Counts {
    /// Counts one more, unless the address has `most`.
    fn one_more(&self, address: IpAddr, most: usize) -> Option<Counted> {
        let address = limits::owner(address);
        let mut counts = sync::lock(&self.0);
        let count = counts.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Counted { counts: self.clone(), address })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = sync::lock(&self.counts.0);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Binds the port. Without an address it is every address of both families, or of IPv4 alone where the
/// machine has no IPv6.
pub fn bind(
    listen: Option<SocketAddr>,
    default_port: u16,
) -> Result<TcpListener, (SocketAddr, std::io::Error)> {
    if let Some(address) = listen {
        return listen_at(address).map_err(|e| (address, e));
    }
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, default_port));
    let four = SocketAddr::from((Ipv4Addr::UNSPECIFIED, default_port));
    match listen_at(both) {
        Ok(listener) => Ok(listener),
        Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => Err((both, e)),
        Err(_) => listen_at(four).map_err(|e| (four, e)),
    }
}

/// Listens with room for all connections of a lab that arrives at once. A connection that finds no room in
/// the kernel's queue is tried again by its kernel after 1, 2, 4, … 64 s. (The kernel gives at most
/// `net.core.somaxconn` places, 4096 unless changed.)
fn listen_at(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A server that starts again takes its port although connections of the last one linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX))
}

/// Answers connections until `stop` is true (or gone), then lets running answers finish for a moment.
pub async fn serve(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let counts = Counts::default();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            Some(_) = connections.join_next() => continue,
            () = stopped(&mut stop) => break,
        };
        match accepted {
            Ok((stream, ends, permit)) => {
                // Closed at once, because others need the rest.
                let Some(counted) = counts.one_more(ends.remote.ip(), MAX_OF_ONE) else { continue };
                let (router, stop) = (router.clone().layer(Extension(ends)), stop.clone());
                connections.spawn(async move {
                    converse(stream, router, stop).await;
                    drop((counted, permit));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lab_that_arrives_at_once_finds_room_before_anybody_is_accepted() {
        let places = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("a number");
        let places: usize = places.trim().parse().expect("a number");
        crate::io::host::handles::allow_all().expect("more files");
        let listener = bind(Some(SocketAddr::from(([127, 0, 0, 1], 0))), 0).expect("a port");
        let address = listener.local_addr().expect("its address");
        let mut lab = Vec::new();
        for n in 0..3000.min(places) {
            let connect = tokio::time::timeout(Duration::from_millis(900), TcpStream::connect(address));
            lab.push(connect.await.unwrap_or_else(|_| panic!("connection {n} waits")).expect("connected"));
        }
    }

    #[test]
    fn an_address_has_its_share_of_the_connections_and_gets_it_back() {
        let (counts, laptop, other) = (Counts::default(), [10, 0, 0, 66].into(), [10, 0, 0, 9].into());
        let mut held: Vec<Counted> = (0..3).filter_map(|_| counts.one_more(laptop, 3)).collect();
        assert_eq!(held.len(), 3);
        assert!(counts.one_more(laptop, 3).is_none());
        assert!(counts.one_more(other, 3).is_some());
        held.pop();
        assert!(counts.one_more(laptop, 3).is_some());
        held.clear();
        assert!(sync::lock(&counts.0).is_empty(), "nothing is remembered of those that are gone");
    }
}
