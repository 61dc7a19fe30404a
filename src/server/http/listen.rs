//! The server's port: sockets → requests that know both ends of their connection.
//!
//! ```text
//!  accept loop ──permit (at most MAX_CONNECTIONS, MAX_OF_ONE for each address)──► one task each ──► router
//!       └─ no permit ─► connections ─► an idle one closes
//!       ▲ stop ────────────────────────────────────► each ends after its answer, or after GRACE
//! ```
//!
//! Invariant: one address never takes all connections, and no few addresses by doing nothing. A connection
//! that sends no request head for 30 s, or that takes no byte for two minutes, is closed. `router` chooses
//! the answer.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::connections::{Connections, Sent, UnderWay};

/// Connections at once; a thousand terminals have a few each.
const MAX_CONNECTIONS: usize = 8192;
/// Connections at once of one address, which may be a NAT with a whole lab behind it.
const MAX_OF_ONE: usize = MAX_CONNECTIONS / 2;
/// How long it takes until another idle connection is looked for.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
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
pub async fn serve(listener: TcpListener, router: Router, stop: watch::Receiver<bool>) {
    serve_at_most(listener, router, stop, (MAX_CONNECTIONS, MAX_OF_ONE)).await;
}

async fn serve_at_most(
    listener: TcpListener,
    router: Router,
    mut stop: watch::Receiver<bool>,
    (most, most_of_one): (usize, usize),
) {
    let room = Arc::new(Semaphore::new(most));
    let all = Connections::default();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &room, &all) => accepted,
            Some(_) = connections.join_next() => continue,
            () = stopped(&mut stop) => break,
        };
        match accepted {
            Ok((stream, ends, permit)) => {
                // Closed at once, because others need the rest.
                let Some(connection) = all.open(ends.remote.ip(), most_of_one) else { continue };
                let (router, stop) = (router.clone(), stop.clone());
                let requests = connection.requests();
                connections.spawn(async move {
                    tokio::select! {
                        () = converse((stream, ends), router, requests, stop) => {}
                        () = connection.closed() => log::debug!("a connection of {} gave way", ends.remote),
                    }
                    drop((connection, permit));
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

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
    all: &Connections,
) -> std::io::Result<Accepted> {
    let permit = loop {
        if room.available_permits() == 0 {
            all.close_an_idle_one();
        }
        let permit = Arc::clone(room).acquire_owned();
        if let Ok(permit) = tokio::time::timeout(LOOK_AGAIN, permit).await {
            break permit.map_err(std::io::Error::other)?;
        }
    };
    let (stream, remote) = listener.accept().await?;
    let ends = Ends { remote: canonical(remote), local: canonical(stream.local_addr()?) };
    stream.set_nodelay(true)?;
    setsockopt(&stream, sockopt::TcpUserTimeout, &USER_TIMEOUT_MILLIS)?;
    Ok((stream, ends, permit))
}

/// Answers the requests of one connection. They know both its ends, and say through `requests` that they are
/// under way.
async fn converse(
    (stream, ends): (TcpStream, Ends),
    router: Router,
    requests: impl Fn() -> UnderWay,
    mut stop: watch::Receiver<bool>,
) {
    let router = TowerToHyperService::new(router);
    // A layer for each connection would copy all routes: 50 KiB, and a quarter of the work while a lab
    // arrives.
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let under_way = requests();
        request.extensions_mut().insert(ends);
        let answer = router.call(request);
        async move {
            let answer = answer.await?;
            Ok::<_, Infallible>(answer.map(|body| Sent { body, _under_way: under_way }))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

    #[tokio::test]
    async fn two_addresses_that_hold_all_connections_keep_no_third_one_out() {
        let listener = bind(Some(SocketAddr::from(([127, 0, 0, 1], 0))), 0).expect("a port");
        let address = listener.local_addr().expect("its address");
        let router = Router::new().route("/", axum::routing::get(|| async { "here" }));
        let (_stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve_at_most(listener, router, stopped, (8, 4)));
        let connect = async |last: u8| {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).expect("bound");
            socket.connect(address).await.expect("connected")
        };
        let ask = async |stream: &mut TcpStream| {
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
            let mut answer = [0; 1000];
            let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut answer)).await;
            String::from_utf8_lossy(&answer[..read.expect("in time").expect("read")]).into_owned()
        };
        let mut held = Vec::new();
        for last in [66, 67, 66, 67, 66, 67, 66, 67] {
            held.push(connect(last).await);
        }
        for n in 0..2 {
            let mut real = connect(9).await;
            assert!(ask(&mut real).await.ends_with("here"), "connection {n} of another address");
            held.push(real);
        }
        assert!(ask(&mut held[8]).await.ends_with("here"), "it stays, because its address has few");
        server.abort();
    }
}
