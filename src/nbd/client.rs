//! The client's side: the handshake, requests to read, headers of replies.
//!
//! Invariant: an answer of the server is bounded before it is kept.

use std::io::{self, Read, Write};

use super::{
    FIXED_NEWSTYLE, HAS_FLAGS, MAGIC, MAX_READ, NO_ZEROES, OPTION_MAGIC, OPTION_REPLY_MAGIC, REPLY,
    REPLY_MAGIC, REQUEST, REQUEST_MAGIC, ZEROES, answer, command, info, option, u16_at, u32_at, u64_at,
};

/// Most bytes of an answer to an option; texts and names are shorter.
const MAX_ANSWER: u32 = 16 << 10;
/// Answers to one option that are read.
const MAX_ANSWERS: usize = 64;

/// The facts of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// Bytes.
    pub size: u64,
    /// Reads are multiples of it.
    pub minimum: u32,
    /// Most bytes of one read.
    pub maximum: u32,
}

/// A handshake that did not lead to an export.
#[derive(Debug, thiserror::Error)]
pub enum Unopened {
    /// The connection failed.
    #[error("{0}")]
    Connection(#[from] io::Error),
    /// The other side is no NBD server.
    #[error("the other side is no NBD server that flashmob knows: {0}")]
    NotNbd(&'static str),
    /// It does not have the export.
    #[error("the server has no export of this name")]
    Unknown,
    /// It wants TLS.
    #[error("the server wants TLS")]
    Tls,
    /// It has a reason of its own.
    #[error("the server refuses: {0}")]
    Refused(String),
}

/// Opens the export `name` on a new connection.
pub fn open<S: Read + Write>(stream: &mut S, name: &str) -> Result<Exported, Unopened> {
    let greeting: [u8; 18] = receive(stream)?;
    if u64_at(&greeting, 0) != Some(MAGIC) {
        return Err(Unopened::NotNbd("it greets in another way"));
    }
    if u64_at(&greeting, 8) != Some(OPTION_MAGIC) {
        return Err(Unopened::NotNbd("it has the old style, without names"));
    }
    let theirs = u16_at(&greeting, 16).unwrap_or_default();
    let flags = theirs & (FIXED_NEWSTYLE | NO_ZEROES);
    stream.write_all(&u32::from(flags).to_be_bytes())?;
    if flags & FIXED_NEWSTYLE != 0
        && let Some(exported) = go(stream, name)?
    {
        return Ok(exported);
    }
    send_option(stream, option::EXPORT_NAME, name.as_bytes())?;
    let size_and_flags: [u8; 10] = receive(stream).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => Unopened::Unknown,
        _ => Unopened::Connection(e),
    })?;
    if flags & NO_ZEROES == 0 {
        let _: [u8; ZEROES] = receive(stream)?;
    }
    exported(&size_and_flags, None)
}

/// The export by option GO; `None` if the server does not know that option.
fn go<S: Read + Write>(stream: &mut S, name: &str) -> Result<Option<Exported>, Unopened> {
    let mut data = u32::try_from(name.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
    data.extend(name.as_bytes());
    data.extend(1u16.to_be_bytes());
    data.extend(info::BLOCK_SIZE.to_be_bytes());
    send_option(stream, option::GO, &data)?;
    let (mut export, mut sizes) = (None, None);
    for _ in 0..MAX_ANSWERS {
        let header: [u8; 20] = receive(stream)?;
        let kind = u32_at(&header, 12).unwrap_or_default();
        let length = u32_at(&header, 16).unwrap_or(u32::MAX);
        if u64_at(&header, 0) != Some(OPTION_REPLY_MAGIC) || u32_at(&header, 8) != Some(option::GO) {
            return Err(Unopened::NotNbd("it answers another question"));
        }
        if length > MAX_ANSWER {
            return Err(Unopened::NotNbd("an answer is too long"));
        }
        let mut data = vec![0; usize::try_from(length).unwrap_or_default()];
        stream.read_exact(&mut data)?;
        match kind {
            answer::ACK => {
                let export: [u8; 10] = export.ok_or(Unopened::NotNbd("it does not tell the size"))?;
                return exported(&export, sizes).map(Some);
            }
            answer::INFO => match u16_at(&data, 0) {
                Some(info::EXPORT) => export = data.get(2..12).and_then(|b| b.try_into().ok()),
                Some(info::BLOCK_SIZE) => sizes = u32_at(&data, 2).zip(u32_at(&data, 10)),
                _ => {}
            },
            answer::UNSUPPORTED => return Ok(None),
            answer::UNKNOWN => return Err(Unopened::Unknown),
            answer::TLS_REQUIRED => return Err(Unopened::Tls),
            kind if kind & answer::ERROR != 0 => {
                let said = String::from_utf8_lossy(&data);
                let said: String = said.chars().filter(|c| !c.is_control()).take(200).collect();
                return Err(Unopened::Refused(if said.is_empty() {
                    format!("error {kind:#x}")
                } else {
                    said
                }));
            }
            _ => return Err(Unopened::NotNbd("it answers in an unknown way")),
        }
    }
    Err(Unopened::NotNbd("it does not end its answer"))
}

fn exported(size_and_flags: &[u8; 10], sizes: Option<(u32, u32)>) -> Result<Exported, Unopened> {
    let size = u64_at(size_and_flags, 0).unwrap_or_default();
    if u16_at(size_and_flags, 8).unwrap_or_default() & HAS_FLAGS == 0 {
        return Err(Unopened::NotNbd("its export has no flags"));
    }
    let (minimum, maximum) = sizes.unwrap_or((1, MAX_READ));
    if !minimum.is_power_of_two() || minimum > 65536 || maximum < minimum {
        return Err(Unopened::NotNbd("its block sizes make no sense"));
    }
    let maximum = maximum.min(MAX_READ);
    Ok(Exported { size, minimum, maximum: maximum - maximum % minimum })
}

fn send_option<S: Write>(stream: &mut S, kind: u32, data: &[u8]) -> io::Result<()> {
    let mut bytes = OPTION_MAGIC.to_be_bytes().to_vec();
    bytes.extend(kind.to_be_bytes());
    bytes.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(data);
    stream.write_all(&bytes)
}

fn receive<S: Read, const N: usize>(stream: &mut S) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A request to read; `cookie` comes back with the reply.
pub fn read_request(cookie: u64, offset: u64, length: u32) -> [u8; REQUEST] {
    request_of(command::READ, cookie, offset, length)
}

/// A request to end the connection.
pub fn disconnect_request() -> [u8; REQUEST] {
    request_of(command::DISCONNECT, 0, 0, 0)
}

pub(crate) fn request_of(kind: u16, cookie: u64, offset: u64, length: u32) -> [u8; REQUEST] {
    let mut bytes = [0; REQUEST];
    bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
    bytes[6..8].copy_from_slice(&kind.to_be_bytes());
    bytes[8..16].copy_from_slice(&cookie.to_be_bytes());
    bytes[16..24].copy_from_slice(&offset.to_be_bytes());
    bytes[24..].copy_from_slice(&length.to_be_bytes());
    bytes
}

/// The cookie and the error (0 for none) of a reply's header; `None` if it is no such header.
pub fn parse_reply(header: &[u8; REPLY]) -> Option<(u64, u32)> {
    (u32_at(header, 0)? == REPLY_MAGIC).then_some((u64_at(header, 8)?, u32_at(header, 4)?))
}
