//! The disk threads of one swarm: hashing, writing, reading, away from the network.
//!
//! ```text
//!   owner task ──jobs (bounded, by piece number)──► disk thread 0..n ──► storage
//!       ▲                                                │
//!       └──────────── Done (one for each job) ◄──────────┘
//! ```
//!
//! Invariant: a piece always goes to the same thread, so that its write and a read after it are ordered
//! without a lock. Compressed pieces are decompressed into the thread's spare buffer, and the two buffers
//! then swap roles. Most jobs carry a buffer of a bounded pool, and the owner counts the others, so queues as
//! long as both never make the owner wait, and the way back needs no bound of its own. Threads end when the
//! queue is dropped, after all queued jobs; [`DiskQueue::finish`] waits for that. A job whose thread panics
//! is answered with [`Done::Failed`], and so is each job for that thread afterwards.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SendError, SyncSender, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::sync::mpsc::UnboundedSender;

use super::codec::Unpacker;
use crate::buf::{BufPool, PieceBuf};
use crate::io::hash::PieceHash;
use crate::storage::{Storage, StorageError};
use crate::units::PieceIndex;

/// Work for a disk thread.
struct Job {
    piece: PieceIndex,
    offset: u64,
    len: usize,
    kind: Kind,
}

enum Kind {
    /// Write these bytes, or the piece from this frame of the given length, if their hash is right (`None`:
    /// unchecked).
    Store(PieceBuf, Option<PieceHash>, Option<usize>),
    /// Fill this buffer with bytes that must have this hash.
    Load(PieceBuf, Option<PieceHash>),
    /// Read these bytes, which must have this hash, into the page cache.
    Prefetch(Option<PieceHash>),
    Sync,
}

/// The result of a job.
#[derive(Debug)]
pub(super) enum Done {
    /// The piece is written (not yet synced); its bytes, to be served while they are fresh, and the frame
    /// that it came as.
    Stored(PieceIndex, Bytes, Option<Bytes>),
    /// The bytes do not have the piece's hash, or are not a frame of the piece. Nothing was written.
    WrongHash(PieceIndex),
    /// The piece was to be compressed: its frame, if that was of use.
    Framed(PieceIndex, Option<Bytes>),
    /// The piece was read.
    Loaded(PieceIndex, Bytes),
    /// The system keeps the piece in memory.
    Prefetch(PieceIndex),
    /// Everything that was stored before is durable.
    Synced,
    /// The piece could not be read.
    Unreadable(PieceIndex, StorageError),
    /// The piece was read and does not have its hash.
    Damaged(PieceIndex),
    /// A write or a sync failed.
    Failed(StorageError),
}

/// The way to the disk threads of one swarm.
pub(crate) struct DiskQueue {
    threads: Vec<(SyncSender<Job>, JoinHandle<()>)>,
    done: UnboundedSender<Done>,
}

impl DiskQueue {
    /// Starts `threads` threads for `storage`. `depth` is how many jobs can be outstanding: as many as there
    /// are buffers. Where frames may come, each thread takes a buffer of `frames`, the pool that they come
    /// in. Results go to `done`.
    pub(super) fn start(
        storage: Arc<dyn Storage>,
        threads: usize,
        depth: usize,
        frames: Option<&BufPool>,
        done: UnboundedSender<Done>,
    ) -> std::io::Result<Self> {
        let to_owner = done.clone();
        let threads = (0..threads.max(1)).map(|index| {
            let (sender, receiver) = sync_channel(depth + 1);
            let done = to_owner.clone();
            let unpacking = frames.map(Unpacking::new).transpose()?;
            let mut worker = Worker { storage: Arc::clone(&storage), unpacking };
            let name = format!("disk-{index}");
            let handle =
                std::thread::Builder::new().name(name).spawn(move || worker.work(&receiver, &done))?;
            Ok((sender, handle))
        });
        Ok(DiskQueue { threads: threads.collect::<std::io::Result<_>>()?, done })
    }

    /// Checks and writes the first `len` bytes of `buf` at `offset`.
    pub(super) fn store(
        &self,
        piece: PieceIndex,
        offset: u64,
        len: usize,
        buf: PieceBuf,
        hash: Option<PieceHash>,
    ) {
        self.send(Job { piece, offset, len, kind: Kind::Store(buf, hash, None) });
    }

    /// The same for `len` bytes that come as a frame: the first `frame` bytes of `buf`.
    pub(crate) fn store_frame(
        &self,
        piece: PieceIndex,
        offset: u64,
        len: usize,
        (buf, frame): (PieceBuf, usize),
        hash: Option<PieceHash>,
    ) {
        self.send(Job { piece, offset, len, kind: Kind::Store(buf, hash, Some(frame)) });
    }

    /// Reads `len` bytes at `offset` into `buf`, and checks them.
    pub(super) fn load(
        &self,
        piece: PieceIndex,
        offset: u64,
        len: usize,
        buf: PieceBuf,
        hash: Option<PieceHash>,
    ) {
        self.send(Job { piece, offset, len, kind: Kind::Load(buf, hash) });
    }

    /// Has the system keep `len` bytes at `offset`, and checks them.
    pub(crate) fn prefetch(&self, piece: PieceIndex, offset: u64, len: usize, hash: Option<PieceHash>) {
        self.send(Job { piece, offset, len, kind: Kind::Prefetch(hash) });
    }

    /// Syncs the storage. To be called when no store is outstanding.
    pub(super) fn sync(&self) {
        self.send(Job { piece: PieceIndex(0), offset: 0, len: 0, kind: Kind::Sync });
    }

    /// Waits (blocking) until everything queued is done and the threads have let go of the storage.
    pub(super) fn finish(self) {
        for (sender, handle) in self.threads {
            drop(sender);
            if handle.join().is_err() {
                log::error!("a disk thread panicked");
            }
        }
    }

    fn send(&self, job: Job) {
        let index = job.piece.get() % self.threads.len();
        if let Err(SendError(job)) = self.threads[index].0.send(job) {
            log::error!("a disk thread is gone");
            // Fails only if the owner is gone.
            let _ = self.done.send(Done::Failed(lost(job.offset, job.len)));
        }
    }
}

/// The error of a job whose thread panicked.
fn lost(offset: u64, len: usize) -> StorageError {
    StorageError {
        action: "handling",
        target: "the payload".to_owned(),
        offset,
        length: len as u64,
        source: std::io::Error::other("the disk thread panicked"),
    }
}

/// Answers a job that nothing else answers, because its thread panics.
struct Unanswered<'a> {
    done: Option<&'a UnboundedSender<Done>>,
    offset: u64,
    len: usize,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(done) = self.done {
            let _ = done.send(Done::Failed(lost(self.offset, self.len)));
        }
    }
}

/// A piece's bytes, lent to the network.
struct Lent {
    buf: PieceBuf,
    len: usize,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buf[..self.len]
    }
}

/// A thread's means to decompress frames.
struct Unpacking {
    unpacker: Unpacker,
    /// The buffer for the next decompressed frame.
    spare: PieceBuf,
}

impl Unpacking {
    fn new(pool: &BufPool) -> std::io::Result<Self> {
        let spare = pool.take().ok_or_else(|| std::io::Error::other("there is no memory for pieces"))?;
        Ok(Unpacking { unpacker: Unpacker::new()?, spare })
    }

    /// Replaces the frame in `buf` by its piece of `len` bytes, and returns a copy of the frame; `None` if it
    /// is not a valid frame.
    fn unpack(&mut self, buf: &mut PieceBuf, frame: usize, len: usize) -> Option<Bytes> {
        let bytes = buf.get(..frame)?;
        if !self.unpacker.unpack(bytes, self.spare.get_mut(..len)?) {
            return None;
        }
        let frame = Bytes::copy_from_slice(bytes);
        std::mem::swap(buf, &mut self.spare);
        Some(frame)
    }
}

struct Worker {
    storage: Arc<dyn Storage>,
    unpacking: Option<Unpacking>,
}

impl Worker {
    fn work(&mut self, jobs: &Receiver<Job>, done: &UnboundedSender<Done>) {
        for job in jobs {
            let mut unanswered = Unanswered { done: Some(done), offset: job.offset, len: job.len };
            let result = self.run(job).unwrap_or_else(Done::Failed);
            unanswered.done = None;
            // Fails only if the owner is gone, and then the result does not matter.
            let _ = done.send(result);
        }
    }

    fn run(&mut self, job: Job) -> Result<Done, StorageError> {
        let Job { piece, offset, len, kind } = job;
        match kind {
            Kind::Store(mut buf, hash, frame) => {
                let mut came_as = None;
                if let Some(frame) = frame {
                    came_as = self.unpacking.as_mut().and_then(|with| with.unpack(&mut buf, frame, len));
                    if came_as.is_none() {
                        return Ok(Done::WrongHash(piece));
                    }
                }
                if hash.is_some_and(|hash| !hash.fits(&buf[..len])) {
                    return Ok(Done::WrongHash(piece));
                }
                self.storage.write_at(offset, &buf[..len])?;
                Ok(Done::Stored(piece, Bytes::from_owner(Lent { buf, len }), came_as))
            }
            Kind::Load(mut buf, hash) => Ok(match self.storage.read_at(offset, &mut buf[..len]) {
                Ok(()) if hash.is_some_and(|hash| !hash.fits(&buf[..len])) => Done::Damaged(piece),
                Ok(()) => Done::Loaded(piece, Bytes::from_owner(Lent { buf, len })),
                Err(error) => Done::Unreadable(piece, error),
            }),
            Kind::Prefetch(hash) => Ok(match self.prefetch(offset, len, hash) {
                Ok(true) => Done::Prefetch(piece),
                Ok(false) => Done::Damaged(piece),
                Err(error) => Done::Unreadable(piece, error),
            }),
            Kind::Sync => self.storage.sync().map(|()| Done::Synced),
        }
    }

    /// False if the bytes there do not have the hash.
    fn prefetch(&self, offset: u64, len: usize, hash: Option<PieceHash>) -> Result<bool, StorageError> {
        self.storage.prefetch(offset, len as u64)?;
        match hash {
            Some(hash) => hash.fits_stored(&*self.storage, offset, len),
            None => Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::BufPool;
    use crate::io::hash::{sha1, sha256};
    use crate::io::storage::{FileStorage, Resize};
    use crate::io::torrent::codec::Packer;
    use crate::storage::Attributes;

    fn next(done: &mut tokio::sync::mpsc::UnboundedReceiver<Done>) -> Done {
        done.blocking_recv().expect("one result for each job")
    }

    #[test]
    fn a_right_piece_is_written_and_a_wrong_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let storage = Arc::new(FileStorage::create(&path, 20, Resize::Refuse).unwrap().storage);
        let pool = BufPool::new(10, 2);
        let (sender, mut done) = tokio::sync::mpsc::unbounded_channel();
        let queue = DiskQueue::start(storage, 2, 2, None, sender).unwrap();
        let mut buf = pool.take().unwrap();
        buf.copy_from_slice(b"0123456789");
        queue.store(PieceIndex(1), 10, 10, buf, Some(PieceHash::Sha1(sha1(b"0123456789"))));
        assert!(
            matches!(next(&mut done), Done::Stored(PieceIndex(1), bytes, None) if &bytes[..] == b"0123456789")
        );
        let mut buf = pool.take().unwrap();
        buf.copy_from_slice(b"abcdefghij");
        queue.store(PieceIndex(0), 0, 10, buf, Some(PieceHash::Sha1(sha1(b"0123456789"))));
        assert!(matches!(next(&mut done), Done::WrongHash(PieceIndex(0))));
        queue.load(PieceIndex(1), 10, 10, pool.take().unwrap(), None);
        assert!(matches!(next(&mut done), Done::Loaded(PieceIndex(1), bytes) if &bytes[..] == b"0123456789"));
        let right = Some(PieceHash::Sha256(sha256(b"0123456789")));
        let wrong = Some(PieceHash::Sha256(sha256(b"abcdefghij")));
        queue.load(PieceIndex(1), 10, 10, pool.take().unwrap(), right);
        assert!(matches!(next(&mut done), Done::Loaded(PieceIndex(1), _)));
        queue.prefetch(PieceIndex(1), 10, 10, right);
        assert!(matches!(next(&mut done), Done::Prefetch(PieceIndex(1))));
        queue.load(PieceIndex(1), 10, 10, pool.take().unwrap(), wrong);
        assert!(matches!(next(&mut done), Done::Damaged(PieceIndex(1))), "it is not lent to peers");
        queue.prefetch(PieceIndex(1), 10, 10, wrong);
        assert!(matches!(next(&mut done), Done::Damaged(PieceIndex(1))));
        queue.sync();
        assert!(matches!(next(&mut done), Done::Synced));
        queue.finish();
        assert_eq!(std::fs::read(&path).unwrap(), b"\0\0\0\0\0\0\0\0\0\x000123456789");
        assert_eq!(pool.available(), 2, "all buffers came back");
    }

    /// A storage with a bug.
    struct Panics;

    impl Storage for Panics {
        fn len(&self) -> u64 {
            10
        }
        fn read_at(&self, _: u64, _: &mut [u8]) -> Result<(), StorageError> {
            panic!("a bug")
        }
        fn write_at(&self, _: u64, _: &[u8]) -> Result<(), StorageError> {
            panic!("a bug")
        }
        fn sync(&self) -> Result<(), StorageError> {
            Ok(())
        }
        fn attributes(&self) -> Attributes {
            Attributes { alignment: 1, rotational: false, read_only: false }
        }
    }

    #[test]
    fn each_job_of_a_thread_that_panicked_has_failed() {
        let pool = BufPool::new(10, 2);
        let (sender, mut done) = tokio::sync::mpsc::unbounded_channel();
        let queue = DiskQueue::start(Arc::new(Panics), 1, 2, None, sender).unwrap();
        queue.store(PieceIndex(0), 0, 10, pool.take().unwrap(), None);
        let Done::Failed(error) = next(&mut done) else { panic!("it was stored") };
        assert!(
            error.to_string().contains("10 bytes at 0 of the payload: the disk thread panicked"),
            "{error}"
        );
        while !queue.threads[0].1.is_finished() {
            std::thread::yield_now();
        }
        queue.sync();
        assert!(matches!(next(&mut done), Done::Failed(_)));
        queue.finish();
    }

    #[test]
    fn a_frame_becomes_its_piece_and_one_that_is_none_a_wrong_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let storage = Arc::new(FileStorage::create(&path, 100_000, Resize::Refuse).unwrap().storage);
        let pool = BufPool::new(50_000, 3);
        let (sender, mut done) = tokio::sync::mpsc::unbounded_channel();
        let queue = DiskQueue::start(storage, 1, 3, Some(&pool), sender).unwrap();
        let bytes: Vec<u8> = (0..50_000u32).map(|i| (i / 100 % 251) as u8).collect();
        let frame = Packer::new().unwrap().pack(&bytes, 45_000).expect("it is no noise");
        let framed = |frame: &[u8]| {
            let mut buf = pool.take().expect("a buffer");
            buf[..frame.len()].copy_from_slice(frame);
            (buf, frame.len())
        };
        // Twice: the second is decompressed into the first one's buffer.
        for piece in [1, 0] {
            let hash = Some(PieceHash::Sha1(sha1(&bytes)));
            queue.store_frame(PieceIndex(piece), u64::from(piece) * 50_000, 50_000, framed(&frame), hash);
            let Done::Stored(_, stored, Some(came_as)) = next(&mut done) else { panic!("not stored") };
            assert!(stored == bytes && came_as == frame);
        }
        let hash = Some(PieceHash::Sha1(sha1(b"others")));
        queue.store_frame(PieceIndex(0), 0, 50_000, framed(&frame), hash);
        assert!(matches!(next(&mut done), Done::WrongHash(PieceIndex(0))), "another piece's");
        for wrong in [&frame[1..], &frame[..frame.len() - 1], &bytes[..40_000]] {
            queue.store_frame(PieceIndex(1), 50_000, 50_000, framed(wrong), None);
            assert!(matches!(next(&mut done), Done::WrongHash(PieceIndex(1))), "unchecked, and no frame");
        }
        queue.finish();
        assert!(std::fs::read(&path).unwrap() == [bytes.clone(), bytes].concat());
        assert_eq!(pool.available(), 3, "all buffers came back");
    }
}
