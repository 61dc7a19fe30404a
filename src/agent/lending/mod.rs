//! Lends a disk of this machine to the server, which captures it. Changes nothing.
//!
//! ```text
//! reports, once a second ◄──► server            accept task ──a thread for each connection──► nbd_server
//! ```
//!
//! Invariant: only the server's own addresses, which it names, get a connection, at most [`MOST_CLIENTS`] at
//! a time, and each has to know the random name of this lending. The lending ends when the server says so, no
//! longer knows it, or is away for [`AWAY`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::agent::hidden;
use crate::agent::status::Status;
use crate::api::{LendOffer, LendReport};
use crate::event::{Failure, Stage};
use crate::io::disk::lend::{self, LentDisk};
use crate::io::disk::list;
use crate::io::host::devices;
use crate::io::net::api_client::{Api, CallError};
use crate::io::net::nbd_server;
use crate::nbd::SILENCE;
use crate::nbd::server::Export;
use crate::sync;

/// One reads; the others are connections that were cut and are not known to be gone.
const MOST_CLIENTS: usize = 4;
/// Between two reports.
const TELL: Duration = Duration::from_secs(1);
/// A server that is away for so long does not come back for this capture.
const AWAY: Duration = Duration::from_secs(600);
/// How often a failure is reported to a server that does not answer.
const TRIES: u32 = 5;

/// Lends the disk of `offer`, or `disk` instead, until the server has done with it.
pub(crate) async fn run(
    api: &Api,
    offer: &LendOffer,
    disk: Option<&str>,
    status: &Status,
) -> Result<(), Failure> {
    status.begin_attempt(title(offer));
    status.stage(Stage::Lend);
    let rule = disk.unwrap_or(&offer.disk).to_owned();
    let lending = async {
        let opened = tokio::task::spawn_blocking(move || lend::open(&rule)).await;
        let disk = opened.unwrap_or_else(|e| {
            Err(Failure::retry(format!("opening the disk: {e}"), "Begin the capture again."))
        });
        let disk = disk.map_err(|failure| {
            hidden::explain(failure, &devices::read(Path::new("/")), &list::all().unwrap_or_default())
        })?;
        status.disk(disk.title());
        Lending::begin(api, Arc::new(disk), &offer.readers).await
    };
    match lending.await {
        Ok(lending) => {
            lending.report(api, offer, status).await;
            Ok(())
        }
        Err(failure) => {
            status.note(failure.message.clone());
            report_failure(api, offer, &failure).await;
            Err(failure)
        }
    }
}

/// What the screen says as long as the disk is lent: the code first, because a screen cuts long lines.
pub(crate) fn title(offer: &LendOffer) -> String {
    let (image, code) = (&offer.image, &offer.code);
    match code.as_str() {
        "" => format!("{image} is made of this machine's disk"),
        _ => format!("code {code}: 'flashmob capture' asks for it, to make {image} of this machine's disk"),
    }
}

/// A disk that is being lent; it ends with this value.
struct Lending {
    disk: Arc<LentDisk>,
    port: u16,
    export: String,
    read: Arc<AtomicU64>,
    clients: Clients,
    accepting: AbortHandle,
}

impl Lending {
    async fn begin(api: &Api, disk: Arc<LentDisk>, readers: &[String]) -> Result<Self, Failure> {
        let cannot = |e: io::Error| Failure::retry(format!("lending the disk: {e}"), "Restart the terminal.");
        let mut allowed = addresses(api.base()).await.map_err(cannot)?;
        allowed.extend(readers.iter().filter_map(|text| text.parse::<IpAddr>().ok()));
        let mut random = [0u8; 16];
        getrandom::fill(&mut random).map_err(|e| cannot(io::Error::other(e.to_string())))?;
        let export: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).await {
            Ok(listener) => listener,
            // A kernel without IPv6.
            Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.map_err(cannot)?,
        };
        let port = listener.local_addr().map_err(cannot)?.port();
        let (read, clients) = (Arc::new(AtomicU64::new(0)), Clients::default());
        let lent = Lent { disk: Arc::clone(&disk), name: export.clone(), read: Arc::clone(&read) };
        let accepting = tokio::spawn(accept(listener, allowed, lent, clients.clone())).abort_handle();
        Ok(Lending { disk, port, export, read, clients, accepting })
    }

    /// Reports until the server releases the terminal.
    async fn report(&self, api: &Api, offer: &LendOffer, status: &Status) {
        let mut heard = Instant::now();
        let (mut before, mut since) = (0, Instant::now());
        loop {
            let read = self.read.load(Ordering::Relaxed);
            let seconds = since.elapsed().as_secs_f64();
            let rate = if seconds > 0.5 { (read - before) as f64 / seconds } else { 0.0 };
            (before, since) = (read, Instant::now());
            status.progress(|progress| {
                (progress.bytes_out, progress.bytes_total) = (read, self.disk.info.size);
                progress.rate_out = Duration::from_secs_f64(rate.max(0.0)).as_secs();
            });
            let report = LendReport {
                token: offer.token.clone(),
                port: self.port,
                export: self.export.clone(),
                disk: self.disk.title(),
                size: self.disk.info.size,
                sector_size: self.disk.info.sector_size,
                read,
                failure: None,
            };
            match api.lending(offer.capture, &report).await {
                Ok(orders) if orders.release => {
                    status.note("the capture is over; nothing was written");
                    return;
                }
                Ok(_) => heard = Instant::now(),
                Err(CallError::Refused(rejected)) => {
                    status.note(format!("the server no longer wants this disk: {rejected}"));
                    return;
                }
                Err(e) if heard.elapsed() >= AWAY => {
                    status.note(format!("{e}; nothing was written"));
                    return;
                }
                Err(e) => status.note(e.to_string()),
            }
            tokio::time::sleep(TELL).await;
        }
    }
}

impl Drop for Lending {
    fn drop(&mut self) {
        self.accepting.abort();
        self.clients.end();
    }
}

async fn report_failure(api: &Api, offer: &LendOffer, failure: &Failure) {
    let report = LendReport {
        token: offer.token.clone(),
        port: 0,
        export: String::new(),
        disk: String::new(),
        size: 0,
        sector_size: 0,
        read: 0,
        failure: Some(failure.clone()),
    };
    for _ in 0..TRIES {
        match api.lending(offer.capture, &report).await {
            Ok(_) | Err(CallError::Refused(_)) => return,
            Err(e) => log::warn!("cannot tell the server: {e}"),
        }
        tokio::time::sleep(TELL).await;
    }
}

/// The addresses of the server at this URL.
async fn addresses(base: &str) -> io::Result<Vec<IpAddr>> {
    let url = reqwest::Url::parse(base).map_err(io::Error::other)?;
    let port = url.port_or_known_default().unwrap_or_default();
    let host = url.host_str().ok_or_else(|| io::Error::other("the server's address has no host"))?;
    let host = host.trim_matches(['[', ']']);
    let found = tokio::net::lookup_host((host, port)).await?;
    Ok(found.map(|address| address.ip().to_canonical()).collect())
}

/// What connections are served from.
#[derive(Clone)]
struct Lent {
    disk: Arc<LentDisk>,
    name: String,
    read: Arc<AtomicU64>,
}

/// Open connections, by a number.
#[derive(Clone, Default)]
struct Clients(Arc<Mutex<Vec<(u64, TcpStream)>>>);

impl Clients {
    /// Keeps a handle of a connection; `None` if there are enough.
    fn add(&self, number: u64, stream: &TcpStream) -> Option<()> {
        let mut open = sync::lock(&self.0);
        (open.len() < MOST_CLIENTS).then_some(())?;
        open.push((number, stream.try_clone().ok()?));
        Some(())
    }

    fn remove(&self, number: u64) {
        sync::lock(&self.0).retain(|(other, _)| *other != number);
    }

    fn end(&self) {
        for (_, stream) in sync::lock(&self.0).drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

async fn accept(listener: TcpListener, allowed: Vec<IpAddr>, lent: Lent, clients: Clients) {
    for number in 0.. {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                log::warn!("accepting a connection to the lent disk: {e}");
                tokio::time::sleep(TELL).await;
                continue;
            }
        };
        if !allowed.contains(&from.ip().to_canonical()) {
            log::warn!("{from} is not the server, and may not read the lent disk");
            continue;
        }
        let (lent, clients) = (lent.clone(), clients.clone());
        let started = ready(stream).and_then(|stream| {
            clients.add(number, &stream).ok_or_else(|| io::Error::other("too many connections"))?;
            let name = "lending".to_owned();
            std::thread::Builder::new().name(name).spawn(move || {
                if let Err(e) = serve(stream, &lent) {
                    log::info!("the connection of {from} to the lent disk ends: {e}");
                }
                clients.remove(number);
            })
        });
        if let Err(e) = started {
            log::warn!("the connection of {from} to the lent disk: {e}");
        }
    }
}

/// A connection for a thread; one whose other end is gone ends by itself.
fn ready(stream: tokio::net::TcpStream) -> io::Result<TcpStream> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(SILENCE))?;
    let keepalive = TcpKeepalive::new().with_time(SILENCE / 2).with_interval(SILENCE / 4);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}

fn serve(stream: TcpStream, lent: &Lent) -> io::Result<()> {
    let info = &lent.disk.info;
    let export = Export { name: lent.name.clone(), size: info.size, sector_size: info.sector_size };
    let sender = stream.try_clone()?;
    nbd_server::serve(stream, sender, export, |offset, into| {
        lent.disk.read(offset, into)?;
        lent.read.fetch_add(into.len() as u64, Ordering::Relaxed);
        Ok(())
    })
}

#[cfg(test)]
mod tests;
