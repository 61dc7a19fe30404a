//! A connection to an NBD server with several requests under way, which survives its loss.
//!
//! Invariant: a read returns the bytes of its own range or an error. Each request stays in `asked` until a
//! reader took its bytes, so a new connection asks for exactly those that did not come. The export's size is
//! the same on each connection. A reader holds `state` while it waits for the server, for minutes where the
//! connection is lost; `received` and `gone` can be asked meanwhile.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use flashmob::event::Failure;
use flashmob::nbd::client::{Exported, Unopened, disconnect_request, open, parse_reply, read_request};
use flashmob::nbd::{MAX_READ, REPLY, SILENCE, errno};

use super::address::Address;

/// Bytes that are asked for before a reader wants them: 10 Gbit/s for 13 ms.
const AHEAD: u64 = 16 << 20;
/// How long a connection may take to come up.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a lost connection is tried again: a cable is found, a switch restarts.
const PATIENCE: Duration = Duration::from_secs(180);
/// Time between two tries.
const PAUSE: Duration = Duration::from_secs(1);

/// An export that is read.
#[derive(Debug)]
pub(crate) struct Client {
    address: Address,
    exported: Exported,
    state: Mutex<State>,
    received: AtomicU64,
    /// The export can no longer be read.
    gone: OnceLock<Failure>,
}

#[derive(Debug)]
struct State {
    stream: TcpStream,
    next: u64,
    asked: BTreeMap<u64, Asked>,
    /// Since when no reply has come, once the connection was lost.
    lost: Option<Instant>,
}

/// A request that was sent.
#[derive(Debug)]
struct Asked {
    offset: u64,
    length: u32,
    /// The reply, once it came; the inner error is the server's number.
    reply: Option<Result<Vec<u8>, u32>>,
}

impl Client {
    pub(crate) fn open(address: Address) -> Result<Self, Failure> {
        let (stream, exported) = connect(&address).map_err(|e| failure(&address, &e))?;
        let state = Mutex::new(State { stream, next: 1, asked: BTreeMap::new(), lost: None });
        Ok(Client { address, exported, state, received: AtomicU64::new(0), gone: OnceLock::new() })
    }

    pub(crate) fn exported(&self) -> Exported {
        self.exported
    }

    /// Bytes that came over the network.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Why the export can no longer be read, if the connection is lost for good.
    pub(crate) fn gone(&self) -> Option<Failure> {
        self.gone.get().cloned()
    }

    /// Asks for `offset..offset + length`, which a later [`Client::read`] of the same range takes. At most
    /// [`MAX_READ`] long. False: enough is under way.
    pub(crate) fn ask(&self, offset: u64, length: u64) -> bool {
        let mut state = self.state();
        let under_way: u64 = state.asked.values().map(|asked| u64::from(asked.length)).sum();
        if under_way >= AHEAD || self.gone.get().is_some() {
            return false;
        }
        for (offset, length) in self.parts(offset, length) {
            self.send(&mut state, offset, length);
        }
        true
    }

    /// Fills `into` from `offset`.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(into.len() as u64).filter(|end| *end <= self.exported.size);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut state = self.state();
        let parts: Vec<_> = self.parts(offset, end - offset);
        let cookies: Vec<u64> =
            parts.iter().map(|part| state.asked_for(*part)).map(|found| found.unwrap_or(0)).collect();
        let cookies: Vec<u64> = cookies
            .into_iter()
            .zip(&parts)
            .map(|(cookie, (offset, length))| match cookie {
                0 => self.send(&mut state, *offset, *length),
                cookie => cookie,
            })
            .collect();
        // All of them are taken, also behind an error, so that none stays.
        let mut result = Ok(());
        for (cookie, (part, _)) in cookies.into_iter().zip(parts) {
            match self.take(&mut state, cookie) {
                Ok(bytes) => copy(part, &bytes, offset, into),
                Err(e) => result = result.and(Err(e)),
            }
        }
        result
    }

    /// The requests for a range, in its order: whole blocks of the server, the same ones for the same range.
    fn parts(&self, offset: u64, length: u64) -> Vec<(u64, u32)> {
        let block = u64::from(self.exported.minimum);
        let step = u64::from(largest_part(self.exported.maximum));
        let mut parts = Vec::new();
        for from in (offset..offset + length).step_by(usize::try_from(MAX_READ).unwrap_or(usize::MAX)) {
            let first = from - from % block;
            let until = (from + u64::from(MAX_READ)).min(offset + length).next_multiple_of(block);
            let mut at = first;
            while at < until {
                let part = step.min(until - at);
                parts.push((at, u32::try_from(part).unwrap_or(MAX_READ)));
                at += part;
            }
        }
        parts
    }

    /// Sends a request. What cannot be sent now is sent with the next connection.
    fn send(&self, state: &mut State, offset: u64, length: u32) -> u64 {
        let cookie = state.next;
        state.next += 1;
        state.asked.insert(cookie, Asked { offset, length, reply: None });
        if let Err(e) = state.stream.write_all(&read_request(cookie, offset, length)) {
            log::debug!("sending a request to {}: {e}", self.address.host);
        }
        cookie
    }

    /// Waits for the reply to one request.
    fn take(&self, state: &mut State, cookie: u64) -> io::Result<Vec<u8>> {
        loop {
            if state.asked.get(&cookie).is_none_or(|asked| asked.reply.is_some()) {
                let reply = state.asked.remove(&cookie).and_then(|asked| asked.reply);
                return match reply {
                    Some(Ok(bytes)) => Ok(bytes),
                    Some(Err(number)) => Err(server_error(number)),
                    None => Err(io::Error::other("no such request")),
                };
            }
            if let Some(gone) = self.gone.get() {
                return Err(io::Error::other(gone.message.clone()));
            }
            match state.receive() {
                Ok(bytes) => {
                    state.lost = None;
                    self.received.fetch_add(bytes, Ordering::Relaxed);
                }
                Err(e) => self.connect_again(state, &e),
            }
        }
    }

    fn connect_again(&self, state: &mut State, lost: &io::Error) {
        let host = &self.address.host;
        eprintln!(
            "note: the connection to {host} is lost ({lost}); trying again for {} s",
            PATIENCE.as_secs()
        );
        // A server that takes connections and answers nothing is lost since the first of them.
        if state.lost.is_some() {
            std::thread::sleep(PAUSE);
        }
        let begun = *state.lost.get_or_insert_with(Instant::now);
        loop {
            let ended = match connect(&self.address) {
                Ok((_, exported)) if exported == self.exported && begun.elapsed() >= PATIENCE => {
                    Some(Failure::retry(
                        format!("{host} takes connections and answers no request ({lost})"),
                        "Look at the server's log, and capture the disk again.",
                    ))
                }
                Ok((stream, exported)) if exported == self.exported => {
                    state.stream = stream;
                    if state.ask_again().is_ok() {
                        eprintln!("note: {host} is there again; the capture goes on");
                        return;
                    }
                    None
                }
                Ok(_) => Some(Failure::retry(
                    format!("{host} lends another disk now"),
                    "Capture it again from the beginning.",
                )),
                // A server that is there and no longer knows the export.
                Err(e @ Unopened::Unknown) => Some(failure(&self.address, &e)),
                Err(e) if begun.elapsed() >= PATIENCE => Some(failure(&self.address, &e)),
                Err(_) => None,
            };
            if let Some(ended) = ended {
                // Nobody connects again after that, so it is the first.
                let _ = self.gone.set(ended);
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.state().stream.write_all(&disconnect_request());
    }
}

impl State {
    /// The request for exactly this part that nobody took yet.
    fn asked_for(&self, (offset, length): (u64, u32)) -> Option<u64> {
        let found = self.asked.iter().find(|(_, asked)| asked.offset == offset && asked.length == length);
        found.map(|(cookie, _)| *cookie)
    }

    /// Receives one reply, to whichever request, and returns its number of bytes.
    fn receive(&mut self) -> io::Result<u64> {
        let mut header = [0; REPLY];
        self.stream.read_exact(&mut header)?;
        let (cookie, error) = parse_reply(&header).ok_or_else(|| io::Error::other("it sends no NBD"))?;
        let open = self.asked.get_mut(&cookie).filter(|asked| asked.reply.is_none());
        let asked = open.ok_or_else(|| io::Error::other("it answers what was not asked"))?;
        match error {
            0 => {
                let mut bytes = vec![0; usize::try_from(asked.length).unwrap_or_default()];
                self.stream.read_exact(&mut bytes)?;
                asked.reply = Some(Ok(bytes));
                Ok(u64::from(asked.length))
            }
            errno::SHUTDOWN => Err(io::Error::other("the server ends")),
            error => {
                asked.reply = Some(Err(error));
                Ok(0)
            }
        }
    }

    /// Asks on a new connection for everything that did not come.
    fn ask_again(&mut self) -> io::Result<()> {
        let open = self.asked.iter().filter(|(_, asked)| asked.reply.is_none());
        let requests: Vec<u8> =
            open.flat_map(|(cookie, a)| read_request(*cookie, a.offset, a.length)).collect();
        self.stream.write_all(&requests)
    }
}

/// The largest power of two that a server takes, so that parts of equal ranges are equal.
fn largest_part(maximum: u32) -> u32 {
    1 << maximum.max(1).ilog2()
}

/// Copies what `bytes`, which lie at `from`, have of `into`, which lies at `at`.
fn copy(from: u64, bytes: &[u8], at: u64, into: &mut [u8]) {
    let skip = usize::try_from(at.saturating_sub(from)).unwrap_or(usize::MAX);
    let place = usize::try_from(from.saturating_sub(at)).unwrap_or(usize::MAX);
    let (Some(bytes), Some(into)) = (bytes.get(skip..), into.get_mut(place..)) else { return };
    let length = bytes.len().min(into.len());
    into[..length].copy_from_slice(&bytes[..length]);
}

fn server_error(number: u32) -> io::Error {
    match i32::try_from(number) {
        Ok(number) => io::Error::from_raw_os_error(number),
        Err(_) => io::Error::other(format!("the server answers with error {number}")),
    }
}

fn connect(address: &Address) -> Result<(TcpStream, Exported), Unopened> {
    let mut last = io::Error::other("its name has no address");
    for place in (address.host.as_str(), address.port).to_socket_addrs()? {
        let mut stream = match TcpStream::connect_timeout(&place, CONNECT) {
            Ok(stream) => stream,
            Err(e) => {
                last = e;
                continue;
            }
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        let exported = open(&mut stream, &address.export)?;
        return Ok((stream, exported));
    }
    Err(Unopened::Connection(last))
}

fn failure(address: &Address, why: &Unopened) -> Failure {
    let Address { host, port, export } = address;
    let message = format!("opening export '{export}' of {host}, port {port}: {why}");
    match why {
        Unopened::Connection(_) => {
            Failure::retry(message, "Check that the server runs, its address, the port and the firewall.")
        }
        Unopened::Unknown => Failure::refused(
            message,
            "Check the export's name (nbdinfo --list); an agent that started again has a new one.",
        ),
        Unopened::Tls => {
            Failure::refused(message, "Let it serve this export without TLS, to this machine only.")
        }
        Unopened::NotNbd(_) | Unopened::Refused(_) => {
            Failure::refused(message, "Check address and port, and the server's log.")
        }
    }
}
