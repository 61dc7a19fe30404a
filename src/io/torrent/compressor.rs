//! The threads that compress pieces for peers.
//!
//! ```text
//!   owner task ──jobs (≤ frames_ahead)──► frame thread 0..n ──► storage (reads)
//!       ▲                                       │
//!       └────── Done::Framed (one for each) ◄───┘
//! ```
//!
//! Invariant: no peer waits for them: a piece that they cannot compress in time travels uncompressed.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

use super::codec::Packer;
use super::disk_threads::Done;
use crate::buf::AlignedBuf;
use crate::io::hash::PieceHash;
use crate::storage::Storage;
use crate::sync;
use crate::units::PieceIndex;

/// A piece to be compressed: `len` bytes at `offset` of the storage.
pub(super) struct Job {
    pub(super) piece: PieceIndex,
    pub(super) offset: u64,
    pub(super) len: usize,
    /// Longest frame that is of use, in bytes.
    pub(super) at_most: usize,
    /// Its bytes, where they are in memory.
    pub(super) bytes: Option<Bytes>,
    /// The hash that the bytes must have, if they were not checked yet.
    pub(super) hash: Option<PieceHash>,
}

/// The threads that compress for one swarm. They end when this is dropped.
pub(crate) struct FrameMaker {
    jobs: SyncSender<Job>,
    threads: Vec<JoinHandle<()>>,
}

impl FrameMaker {
    /// Starts `threads` threads that read from `storage`; at most `depth` jobs may be outstanding.
    pub(super) fn start(
        storage: &Arc<dyn Storage>,
        threads: usize,
        depth: usize,
        done: &UnboundedSender<Done>,
    ) -> io::Result<Self> {
        let (jobs, receiver) = sync_channel(depth);
        let receiver = Arc::new(Mutex::new(receiver));
        let threads = (0..threads).map(|index| {
            let (storage, receiver, done) = (Arc::clone(storage), Arc::clone(&receiver), done.clone());
            let name = format!("frames-{index}");
            std::thread::Builder::new().name(name).spawn(move || work(&*storage, &receiver, &done))
        });
        Ok(FrameMaker { threads: threads.collect::<io::Result<_>>()?, jobs })
    }

    /// Queues a job. False if too many are outstanding.
    pub(super) fn make(&self, job: Job) -> bool {
        self.jobs.try_send(job).is_ok()
    }

    /// Waits (blocking) until the threads have let go of the storage.
    pub(super) fn finish(self) {
        drop(self.jobs);
        for thread in self.threads {
            if thread.join().is_err() {
                log::error!("a thread that compresses panicked");
            }
        }
    }
}

fn work(storage: &dyn Storage, jobs: &Mutex<Receiver<Job>>, done: &UnboundedSender<Done>) {
    let mut packer = Packer::new().ok();
    let mut buffer: Option<AlignedBuf> = None;
    loop {
        let job = sync::lock(jobs).recv();
        let Ok(job) = job else { return };
        let frame = match (&mut packer, &job.bytes) {
            (Some(packer), Some(bytes)) => packer.pack(bytes, job.at_most),
            (Some(packer), None) => {
                read(storage, &job, &mut buffer).and_then(|bytes| packer.pack(bytes, job.at_most))
            }
            (None, _) => None,
        };
        // Fails only when the owner is gone.
        let _ = done.send(Done::Framed(job.piece, frame));
    }
}

/// The piece's bytes; `None` if they cannot be read or are wrong, and the peer that requests them will be
/// refused.
fn read<'a>(storage: &dyn Storage, job: &Job, buffer: &'a mut Option<AlignedBuf>) -> Option<&'a [u8]> {
    if buffer.as_ref().is_none_or(|buffer| buffer.len() < job.len) {
        *buffer = Some(AlignedBuf::zeroed(job.len));
    }
    let bytes = &mut buffer.as_mut()?[..job.len];
    storage.read_at(job.offset, bytes).ok()?;
    job.hash.is_none_or(|hash| hash.fits(bytes)).then_some(bytes)
}
