//! The NBD protocol (fixed newstyle, simple replies, reading only): numbers and messages that both sides use.
//!
//! The specification is doc/proto.md of <https://github.com/NetworkBlockDevice/nbd>. All numbers are
//! big-endian. `server` is what an agent lends its disk with, `client` reads any server's export.

pub mod client;
pub mod server;

use std::time::Duration;

/// The port that IANA gave the protocol.
pub const PORT: u16 = 10809;
/// Most bytes of one read, in this client and this server.
pub const MAX_READ: u32 = 1 << 20;
/// A connection without an answer for so long is given up.
pub const SILENCE: Duration = Duration::from_secs(60);

const MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

/// Flags of the handshake, the same bits in both directions.
const FIXED_NEWSTYLE: u16 = 1;
const NO_ZEROES: u16 = 2;
/// What follows the answer to the oldest option unless both sides leave it out.
const ZEROES: usize = 124;

/// Flags of an export.
const HAS_FLAGS: u16 = 1;
const READ_ONLY: u16 = 1 << 1;
const CAN_MULTI_CONN: u16 = 1 << 8;

/// Options of the handshake.
mod option {
    pub(super) const EXPORT_NAME: u32 = 1;
    pub(super) const ABORT: u32 = 2;
    pub(super) const LIST: u32 = 3;
    pub(super) const INFO: u32 = 6;
    pub(super) const GO: u32 = 7;
}

/// Answers to them.
mod answer {
    pub(super) const ACK: u32 = 1;
    pub(super) const INFO: u32 = 3;
    pub(super) const UNSUPPORTED: u32 = ERROR + 1;
    pub(super) const POLICY: u32 = ERROR + 2;
    pub(super) const INVALID: u32 = ERROR + 3;
    pub(super) const TLS_REQUIRED: u32 = ERROR + 5;
    pub(super) const UNKNOWN: u32 = ERROR + 6;
    pub(super) const ERROR: u32 = 1 << 31;
}

/// Kinds of information about an export.
mod info {
    pub(super) const EXPORT: u16 = 0;
    pub(super) const BLOCK_SIZE: u16 = 3;
}

/// Requests.
mod command {
    pub(super) const READ: u16 = 0;
    pub(super) const WRITE: u16 = 1;
    pub(super) const DISCONNECT: u16 = 2;
    pub(super) const TRIM: u16 = 4;
    pub(super) const WRITE_ZEROES: u16 = 6;
}

/// Errors of a reply, the numbers of Linux on x86.
pub mod errno {
    /// Writing is not allowed.
    pub const PERM: u32 = 1;
    /// The disk cannot be read there.
    pub const IO: u32 = 5;
    /// The request is not one that the server knows, or its range is not on the export.
    pub const INVALID: u32 = 22;
    /// The server is ending.
    pub const SHUTDOWN: u32 = 108;
}

/// Bytes of a request.
pub const REQUEST: usize = 28;
/// Bytes of a reply's header.
pub const REPLY: usize = 16;

/// The header of a reply: `error` is 0, and then the bytes follow, or a number of [`errno`].
pub fn reply(error: u32, cookie: u64) -> [u8; REPLY] {
    let mut bytes = [0; REPLY];
    bytes[..4].copy_from_slice(&REPLY_MAGIC.to_be_bytes());
    bytes[4..8].copy_from_slice(&error.to_be_bytes());
    bytes[8..].copy_from_slice(&cookie.to_be_bytes());
    bytes
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    number(bytes, at).map(u16::from_be_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    number(bytes, at).map(u32::from_be_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    number(bytes, at).map(u64::from_be_bytes)
}
