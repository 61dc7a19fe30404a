//! Serves one NBD connection from bytes that can be read at any place.
//!
//! ```text
//! this thread: parses requests, reads the disk ──(QUEUE replies)──► writer thread: sends them
//! ```
//!
//! Invariant: at most `QUEUE` + 2 replies of at most a MiB are in memory. A failed read answers this request
//! alone; a failed connection or garbage ends both threads.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;

use crate::nbd::server::{Action, Export, Session};
use crate::nbd::{REPLY, errno, reply};

/// Replies that wait for the connection: the disk is read while they travel.
const QUEUE: usize = 4;
/// Bytes that are received with one call: many requests, and less than a mebibyte of answers to them.
const RECEIVED: usize = 4096;

/// Serves `export` to the client on `receiver` and `sender`, both ends of one connection, until it leaves.
/// `read` fills a buffer from an offset of the disk.
pub fn serve<R: Read, W: Write + Send>(
    mut receiver: R,
    mut sender: W,
    export: Export,
    mut read: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    let (mut session, greeting) = Session::new(export);
    sender.write_all(&greeting)?;
    let (replies, queue) = sync_channel(QUEUE);
    thread::scope(|scope| {
        let writer = scope.spawn(move || send_all(&queue, &mut sender));
        let ended = (|| {
            let mut bytes = [0; RECEIVED];
            loop {
                let received = match receiver.read(&mut bytes) {
                    Ok(0) => return Ok(()),
                    Ok(received) => received,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(e) => return Err(e),
                };
                for action in session.input(&bytes[..received]).map_err(io::Error::other)? {
                    let bytes = match action {
                        Action::End => return Ok(()),
                        Action::Send(bytes) => bytes,
                        Action::Read { cookie, offset, length } => answer(cookie, offset, length, &mut read),
                    };
                    if replies.send(bytes).is_err() {
                        return Ok(());
                    }
                }
            }
        })();
        drop(replies);
        let sent = writer.join().unwrap_or_else(|_| Err(io::Error::other("the writing thread crashed")));
        ended.and(sent)
    })
}

fn answer(
    cookie: u64,
    offset: u64,
    length: u32,
    read: &mut impl FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> Vec<u8> {
    let mut bytes = vec![0; REPLY + usize::try_from(length).unwrap_or_default()];
    bytes[..REPLY].copy_from_slice(&reply(0, cookie));
    match read(offset, &mut bytes[REPLY..]) {
        Ok(()) => bytes,
        Err(e) => {
            log::warn!("{length} bytes at byte {offset} of a lent disk: {e}");
            reply(errno::IO, cookie).to_vec()
        }
    }
}

fn send_all(queue: &Receiver<Vec<u8>>, sender: &mut impl Write) -> io::Result<()> {
    for bytes in queue {
        sender.write_all(&bytes)?;
    }
    Ok(())
}
