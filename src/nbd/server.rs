//! One connection of a server that lends one disk, read-only: bytes go in, actions come out.
//!
//! Invariant: whatever a client sends, the session holds at most [`HELD`] bytes of it, lets it read within
//! the export only, and writes nothing. Bytes that are no NBD end the session. An export is shown to clients
//! that know its name, and to no others.

use std::mem;

use super::{
    CAN_MULTI_CONN, FIXED_NEWSTYLE, HAS_FLAGS, MAGIC, MAX_READ, NO_ZEROES, OPTION_MAGIC, OPTION_REPLY_MAGIC,
    READ_ONLY, REQUEST, REQUEST_MAGIC, ZEROES, answer, command, errno, info, option, reply, u16_at, u32_at,
    u64_at,
};

/// Most bytes of an option: a name may have 4096.
const MAX_OPTION: usize = 4096 + 64;
/// Most bytes that a session holds between two inputs.
pub const HELD: usize = OPTION_HEADER + MAX_OPTION;
/// Options of one client: the usual ones send fewer than ten.
const MAX_OPTIONS: u32 = 32;
/// Most bytes of a refused write that are skipped: no client sends more in one request.
const MAX_WRITE: u32 = 32 << 20;
const OPTION_HEADER: usize = 16;

/// What is lent.
#[derive(Debug, Clone)]
pub struct Export {
    /// Clients have to know it.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Bytes of a sector; reads are multiples of it.
    pub sector_size: u32,
}

/// An action that the session asks for, in this order.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Send these bytes.
    Send(Vec<u8>),
    /// Read these bytes, which are on the export, and send [`reply`] and them.
    Read {
        /// For the reply.
        cookie: u64,
        /// Byte of the export.
        offset: u64,
        /// Bytes, at most [`MAX_READ`].
        length: u32,
    },
    /// Close the connection: the client is done.
    End,
}

/// The client sent what no NBD client sends; the connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no NBD: {0}")]
pub struct Garbage(&'static str);

#[derive(Debug)]
enum Phase {
    /// The client's flags are awaited.
    Flags,
    Options {
        zeroes: bool,
        seen: u32,
    },
    Requests,
    /// The rest of a refused write.
    Skip {
        left: usize,
        cookie: u64,
    },
    Ended,
}

/// A connection.
#[derive(Debug)]
pub struct Session {
    export: Export,
    phase: Phase,
    held: Vec<u8>,
}

impl Session {
    /// A new connection, and the bytes that greet the client.
    pub fn new(export: Export) -> (Self, Vec<u8>) {
        let mut greeting = MAGIC.to_be_bytes().to_vec();
        greeting.extend(OPTION_MAGIC.to_be_bytes());
        greeting.extend((FIXED_NEWSTYLE | NO_ZEROES).to_be_bytes());
        (Session { export, phase: Phase::Flags, held: Vec::new() }, greeting)
    }

    /// True once the client named the export.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Requests | Phase::Skip { .. })
    }

    /// Takes the next bytes of the client.
    pub fn input(&mut self, mut bytes: &[u8]) -> Result<Vec<Action>, Garbage> {
        let mut actions = Vec::new();
        loop {
            if let Phase::Skip { left, cookie } = &mut self.phase {
                let skipped = bytes.len().min(*left);
                bytes = &bytes[skipped..];
                *left -= skipped;
                if *left > 0 {
                    return Ok(actions);
                }
                actions.push(Action::Send(reply(errno::PERM, *cookie).to_vec()));
                self.phase = Phase::Requests;
            }
            if matches!(self.phase, Phase::Ended) {
                return Ok(actions);
            }
            let needed = self.needed()?;
            let missing = needed.saturating_sub(self.held.len());
            let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
            self.held.extend_from_slice(taken);
            bytes = rest;
            if self.held.len() < needed {
                return Ok(actions);
            }
            // An option's header tells how many bytes follow it.
            if self.needed()? == needed {
                let message = mem::take(&mut self.held);
                self.message(&message, &mut actions)?;
            }
        }
    }

    /// Bytes of the message that is awaited, as far as it is known.
    fn needed(&self) -> Result<usize, Garbage> {
        match self.phase {
            Phase::Flags => Ok(4),
            Phase::Options { .. } => match u32_at(&self.held, 12) {
                None => Ok(OPTION_HEADER),
                Some(length) => match usize::try_from(length) {
                    Ok(length) if length <= MAX_OPTION => Ok(OPTION_HEADER + length),
                    _ => Err(Garbage("an option is too long")),
                },
            },
            Phase::Requests | Phase::Skip { .. } | Phase::Ended => Ok(REQUEST),
        }
    }

    fn message(&mut self, message: &[u8], actions: &mut Vec<Action>) -> Result<(), Garbage> {
        const SHORT: Garbage = Garbage("a message is short");
        match &mut self.phase {
            Phase::Flags => {
                let flags = u32_at(message, 0).ok_or(SHORT)?;
                if flags & !u32::from(FIXED_NEWSTYLE | NO_ZEROES) != 0 {
                    return Err(Garbage("the client has unknown flags"));
                }
                self.phase = Phase::Options { zeroes: flags & u32::from(NO_ZEROES) == 0, seen: 0 };
                Ok(())
            }
            Phase::Options { zeroes, seen } => {
                let zeroes = *zeroes;
                *seen += 1;
                if u64_at(message, 0) != Some(OPTION_MAGIC) {
                    return Err(Garbage("an option has another magic number"));
                }
                if *seen > MAX_OPTIONS {
                    return Err(Garbage("the client has too many options"));
                }
                let kind = u32_at(message, 8).ok_or(SHORT)?;
                self.option(kind, message.get(OPTION_HEADER..).unwrap_or_default(), zeroes, actions)
            }
            Phase::Requests => self.request(message, actions),
            Phase::Skip { .. } | Phase::Ended => Ok(()),
        }
    }

    fn option(
        &mut self,
        kind: u32,
        data: &[u8],
        zeroes: bool,
        actions: &mut Vec<Action>,
    ) -> Result<(), Garbage> {
        let answered = |answer, data: &[u8]| Action::Send(option_reply(kind, answer, data));
        match kind {
            option::EXPORT_NAME => {
                // This option has no answer that refuses.
                if data != self.export.name.as_bytes() {
                    return Err(Garbage("the client does not know the export's name"));
                }
                let mut bytes = self.export.size.to_be_bytes().to_vec();
                bytes.extend(FLAGS.to_be_bytes());
                bytes.resize(bytes.len() + if zeroes { ZEROES } else { 0 }, 0);
                actions.push(Action::Send(bytes));
                self.phase = Phase::Requests;
            }
            option::ABORT => {
                actions.push(answered(answer::ACK, &[]));
                actions.push(Action::End);
                self.phase = Phase::Ended;
            }
            option::GO | option::INFO => match named(data) {
                None => actions.push(answered(answer::INVALID, &[])),
                Some(name) if name != self.export.name.as_bytes() => {
                    actions.push(answered(answer::UNKNOWN, b"there is no such export"));
                }
                Some(_) => {
                    let mut export = info::EXPORT.to_be_bytes().to_vec();
                    export.extend(self.export.size.to_be_bytes());
                    export.extend(FLAGS.to_be_bytes());
                    let mut sizes = info::BLOCK_SIZE.to_be_bytes().to_vec();
                    for size in [self.export.sector_size, self.export.sector_size.max(4096), MAX_READ] {
                        sizes.extend(size.to_be_bytes());
                    }
                    actions.push(answered(answer::INFO, &export));
                    actions.push(answered(answer::INFO, &sizes));
                    actions.push(answered(answer::ACK, &[]));
                    if kind == option::GO {
                        self.phase = Phase::Requests;
                    }
                }
            },
            option::LIST => actions.push(answered(answer::POLICY, b"exports are not listed here")),
            _ => actions.push(answered(answer::UNSUPPORTED, &[])),
        }
        Ok(())
    }

    fn request(&mut self, message: &[u8], actions: &mut Vec<Action>) -> Result<(), Garbage> {
        const SHORT: Garbage = Garbage("a request is short");
        if u32_at(message, 0) != Some(REQUEST_MAGIC) {
            return Err(Garbage("a request has another magic number"));
        }
        let flags = u16_at(message, 4).ok_or(SHORT)?;
        let kind = u16_at(message, 6).ok_or(SHORT)?;
        let cookie = u64_at(message, 8).ok_or(SHORT)?;
        let offset = u64_at(message, 16).ok_or(SHORT)?;
        let length = u32_at(message, 24).ok_or(SHORT)?;
        let refused = |error| Action::Send(reply(error, cookie).to_vec());
        match kind {
            command::READ => actions.push(match self.is_lent(offset, length) && flags == 0 {
                true => Action::Read { cookie, offset, length },
                false => refused(errno::INVALID),
            }),
            command::WRITE if length > MAX_WRITE => return Err(Garbage("a write is too long")),
            command::WRITE => {
                self.phase = Phase::Skip { left: usize::try_from(length).unwrap_or(usize::MAX), cookie };
            }
            command::DISCONNECT => {
                actions.push(Action::End);
                self.phase = Phase::Ended;
            }
            command::TRIM | command::WRITE_ZEROES => actions.push(refused(errno::PERM)),
            _ => actions.push(refused(errno::INVALID)),
        }
        Ok(())
    }

    /// Whether these bytes are on the export, whole sectors, and not too many.
    fn is_lent(&self, offset: u64, length: u32) -> bool {
        let sector = u64::from(self.export.sector_size.max(1));
        let inside = offset.checked_add(u64::from(length)).is_some_and(|end| end <= self.export.size);
        let whole = offset.is_multiple_of(sector) && u64::from(length).is_multiple_of(sector);
        inside && whole && (1..=MAX_READ).contains(&length)
    }
}

const FLAGS: u16 = HAS_FLAGS | READ_ONLY | CAN_MULTI_CONN;

fn option_reply(kind: u32, answer: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
    bytes.extend(kind.to_be_bytes());
    bytes.extend(answer.to_be_bytes());
    bytes.extend(u32::try_from(data.len()).unwrap_or(0).to_be_bytes());
    bytes.extend(data);
    bytes
}

/// The name in the data of `GO` and `INFO`: its length, itself, a count, and that many kinds of information.
fn named(data: &[u8]) -> Option<&[u8]> {
    let length = usize::try_from(u32_at(data, 0)?).ok()?;
    let name = data.get(4..4usize.checked_add(length)?)?;
    let kinds = usize::from(u16_at(data, 4 + length)?);
    (data.len() == 4 + length + 2 + 2 * kinds).then_some(name)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
