//! Reads everything back from the device, which proves that the written bytes are the signed ones.
//!
//! ```text
//! disk threads ──written pieces──► coordinator ──batches──► readers (`io::disk::scan`), all gone after a batch
//! ```
//!
//! Invariant: an [`ImageVerified`] exists only after each written piece was read from the device (its
//! held-back head from memory, until the commit proves it) and had its SHA-256 of `pieces.sha256`, and each
//! written zero cell read as zero. [`Known`] covers the rest: read and right in this attempt, or believed
//! where the job says so. A piece is read only after a flush that followed its write. While pieces still
//! arrive, reading stays `LAG` bytes behind the writes, so that the medium answers and not its cache. On
//! rotating disks it waits for the end, because seeking would cost more than it gains.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::bitfield::Bitfield;
use crate::buf::is_zero;
use crate::event::Failure;
use crate::io::disk::disarm::disk_failed;
use crate::io::disk::scan::{Buffers, scan};
use crate::io::disk::target::ImageStorage;
use crate::io::hash::sha256;
use crate::layout::grid::Span;
use crate::layout::present::wanted;
use crate::storage::Storage;
use crate::sync;
use crate::units::{PieceIndex, Sha256};

/// Reading stays this many bytes behind the writes.
pub(crate) const LAG: u64 = 1 << 30;
/// Bytes of a batch: one flush of the device each.
const BATCH: u64 = 256 << 20;
const ROOM: usize = 16 << 20;
/// How often the coordinator checks for the order to stop.
const PATIENCE: Duration = Duration::from_millis(200);

/// All of an image was read back from its disk and is right.
pub(crate) struct ImageVerified {
    storage: Arc<ImageStorage>,
}

impl ImageVerified {
    /// The image that was proved, to look at.
    pub(crate) fn storage(&self) -> &Arc<ImageStorage> {
        &self.storage
    }

    /// The image that was proved.
    pub(crate) fn into_storage(self) -> Arc<ImageStorage> {
        self.storage
    }
}

/// Pieces and cells that need not be read back.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// Pieces that are on the disk without having been written (`io::disk::compare`), or were read back
    /// before.
    pub pieces: Bitfield,
    /// The same of zero cells, by their position.
    pub zeros: Bitfield,
    /// So many of the storage's writes are of these pieces, or will be written again.
    pub writes: usize,
}

/// The result of reading back.
pub(crate) enum Finding {
    /// Everything is right.
    Right(ImageVerified),
    /// These pieces are not.
    Wrong(Bitfield),
}

struct Shared {
    storage: Arc<ImageStorage>,
    hashes: Vec<Sha256>,
    known: Known,
    /// All pieces that are to be there.
    wanted: Bitfield,
    lag: u64,
    /// Pieces were not checked before they were written: wrong ones are gathered; else the first ends it.
    lenient: bool,
    wrong: Mutex<Vec<PieceIndex>>,
    /// Everything is written, zeros too.
    all_written: AtomicBool,
    stop: AtomicBool,
    /// The pieces found right so far.
    proved: Mutex<Proved>,
    failure: Mutex<Option<Failure>>,
}

/// Pieces and zero cells that are proved, each by its own check: a sum of bytes would let one that was read
/// twice stand for another.
#[derive(Debug)]
struct Proved {
    pieces: Bitfield,
    /// By their position among the zero cells.
    zeros: Bitfield,
    /// Bytes of the zero cells among them, for people.
    zero_bytes: u64,
}

/// A read-back under way. Dropping it ends it.
pub(crate) struct Readback {
    shared: Arc<Shared>,
    coordinator: Option<JoinHandle<()>>,
}

enum Work {
    Piece(PieceIndex),
    /// A cell and its position among the zero cells.
    Zero(PieceIndex, Span),
}

impl Readback {
    /// Begins to follow the writes to `storage`, `lag` bytes behind them (usually [`LAG`]). `hashes` is
    /// `pieces.sha256`, one for each piece. With `lenient`, pieces were not checked before they were written,
    /// so wrong ones are listed at the end; otherwise the first wrong piece is the disk's failure.
    pub(crate) fn start(
        storage: Arc<ImageStorage>,
        hashes: Vec<Sha256>,
        known: Known,
        lag: u64,
        lenient: bool,
    ) -> std::io::Result<Self> {
        let wanted = wanted(storage.plan(), storage.grid());
        let zeros = storage.zero_cells().filter(|(at, _)| known.zeros.has(*at));
        let zero_bytes = zeros.map(|(_, span)| u64::from(span.len)).sum();
        let proved = Proved { pieces: known.pieces.clone(), zeros: known.zeros.clone(), zero_bytes };
        let lag = if storage.disk().rotational() { u64::MAX } else { lag };
        let shared = Arc::new(Shared {
            storage,
            hashes,
            known,
            wanted,
            lag,
            lenient,
            wrong: Mutex::default(),
            all_written: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            proved: Mutex::new(proved),
            failure: Mutex::new(None),
        });
        let for_thread = Arc::clone(&shared);
        let coordinator =
            std::thread::Builder::new().name("read-back".into()).spawn(move || for_thread.coordinate())?;
        Ok(Readback { shared, coordinator: Some(coordinator) })
    }

    /// Payload bytes and bytes of zero pieces that were right so far.
    pub(crate) fn verified(&self) -> (u64, u64) {
        let proved = self.shared.proved();
        let piece_length = self.shared.storage.grid().piece_length().bytes();
        (u64::from(proved.pieces.count()) * piece_length, proved.zero_bytes)
    }

    /// The failure found so far, if any.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.shared.failure()
    }

    /// Everything is written: reading no longer stays behind.
    pub(crate) fn all_written(&self) {
        self.shared.all_written.store(true, Ordering::SeqCst);
    }

    /// Ends it without waiting for its thread, which may hang in the kernel with its disk.
    pub(crate) fn abandon(mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(self.coordinator.take());
    }

    /// Nothing is left to read (or something was wrong): `finish` will not block.
    pub(crate) fn is_through(&self) -> bool {
        self.coordinator.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Reads the remaining pieces (blocking) and returns whether everything is right.
    pub(crate) fn finish(mut self) -> Result<Finding, Failure> {
        self.all_written();
        let ended = self.coordinator.take().is_some_and(|thread| thread.join().is_ok());
        if let Some(failure) = self.shared.failure() {
            return Err(failure);
        }
        let mut wrong = Bitfield::none(self.shared.wanted.pieces());
        for piece in sync::lock(&self.shared.wrong).iter() {
            wrong.insert(*piece);
        }
        if !ended || !self.shared.is_all_proved(&wrong) {
            let message = "not all pieces of the image were read back";
            return Err(Failure::disk(message, "Run the job again."));
        }
        if !wrong.is_none() {
            return Ok(Finding::Wrong(wrong));
        }
        Ok(Finding::Right(ImageVerified { storage: Arc::clone(&self.shared.storage) }))
    }
}

impl Drop for Readback {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(coordinator) = self.coordinator.take()
            && coordinator.join().is_err()
        {
            log::error!("the read-back panicked");
        }
    }
}

/// Bytes of the cells that must be zero.
pub(crate) fn zero_bytes(storage: &ImageStorage) -> u64 {
    storage.zero_cells().map(|(_, span)| u64::from(span.len)).sum()
}

impl Shared {
    fn failure(&self) -> Option<Failure> {
        sync::lock(&self.failure).clone()
    }

    fn proved(&self) -> MutexGuard<'_, Proved> {
        sync::lock(&self.proved)
    }

    /// Whether each wanted piece that is not among the `wrong` ones, and each zero cell, was proved.
    fn is_all_proved(&self, wrong: &Bitfield) -> bool {
        let proved = self.proved();
        self.wanted.iter().all(|piece| proved.pieces.has(piece) || wrong.has(piece))
            && self.storage.zero_cells().all(|(at, _)| proved.zeros.has(at))
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.failure().is_some()
    }

    fn coordinate(&self) {
        let piece_length = self.storage.grid().piece_length().bytes();
        let batch = usize::try_from(BATCH / piece_length).unwrap_or(1).max(1);
        let lag = usize::try_from(self.lag / piece_length).unwrap_or(usize::MAX);
        let mut read = self.known.writes;
        while !self.stopped() {
            // Asked before looking, so that all pieces written before `all_written` are seen.
            let all_written = self.all_written.load(Ordering::SeqCst);
            let patience = if all_written { Duration::ZERO } else { PATIENCE };
            let new = self.storage.written_since(read, patience);
            let ready = if all_written { new.len() } else { new.len().saturating_sub(lag) };
            if ready == 0 && all_written {
                break;
            }
            // While pieces arrive, a flush is only worth a whole batch.
            if ready < batch && !all_written {
                std::thread::sleep(PATIENCE);
                continue;
            }
            let now = ready.min(batch);
            self.read(new[..now].iter().map(|piece| Work::Piece(*piece)).collect());
            read += now;
        }
        let unknown = self.storage.zero_cells().filter(|(at, _)| !self.known.zeros.has(*at));
        let zeros: Vec<(PieceIndex, Span)> = unknown.collect();
        for part in zeros.chunks(batch) {
            if !self.stopped() {
                self.read(part.iter().map(|(at, span)| Work::Zero(*at, *span)).collect());
            }
        }
    }

    /// Flushes, then reads a batch in the order of the disk.
    fn read(&self, mut work: Vec<Work>) {
        if let Err(error) = self.storage.sync() {
            return self.fail(disk_failed(&error));
        }
        work.sort_by_key(|work| match work {
            Work::Piece(piece) => u64::from(piece.0),
            Work::Zero(_, span) => self.storage.offset_of(span).unwrap_or(0),
        });
        let length = self.storage.grid().piece_length().get() as usize;
        let fill = |work: &Work, into: &mut [u8]| match work {
            Work::Piece(piece) => {
                self.storage.read_at(u64::from(piece.0) * length as u64, into).map(|()| length)
            }
            Work::Zero(_, span) => {
                let (start, len) = (self.storage.offset_of(span).unwrap_or(u64::MAX), span.len as usize);
                self.storage.disk().read_at(start, &mut into[..len]).map(|()| len)
            }
        };
        let buffers = Buffers { length, room: ROOM };
        scan(
            self.storage.disk(),
            buffers,
            &work,
            || !self.stopped(),
            fill,
            |work, bytes| {
                let checked = bytes.map_err(|e| disk_failed(&e)).and_then(|bytes| match work {
                    Work::Piece(piece) => self.check_piece(*piece, bytes),
                    Work::Zero(at, span) => self.check_zero(*at, span, bytes),
                });
                if let Err(failure) = checked {
                    self.fail(failure);
                }
            },
        );
    }

    fn fail(&self, failure: Failure) {
        sync::lock(&self.failure).get_or_insert(failure);
    }

    fn check_piece(&self, piece: PieceIndex, bytes: &[u8]) -> Result<(), Failure> {
        if self.hashes.get(piece.get()) != Some(&sha256(bytes)) {
            if self.lenient {
                sync::lock(&self.wrong).push(piece);
                return Ok(());
            }
            let span = self.storage.grid().span(piece);
            return Err(self.differs(&piece.to_string(), span.as_ref()));
        }
        self.proved().pieces.insert(piece);
        Ok(())
    }

    fn check_zero(&self, at: PieceIndex, span: &Span, bytes: &[u8]) -> Result<(), Failure> {
        if !is_zero(bytes) {
            return Err(self.differs("a piece of zeros", Some(span)));
        }
        let mut proved = self.proved();
        proved.zeros.insert(at);
        proved.zero_bytes += bytes.len() as u64;
        Ok(())
    }

    fn differs(&self, what: &str, span: Option<&Span>) -> Failure {
        let disk = self.storage.disk();
        let place = span.and_then(|span| {
            let offset = self.storage.offset_of(span)?;
            let number = self.storage.plan().places().get(span.partition)?.number;
            Some((number, offset, offset / u64::from(disk.sector().get()), span.len))
        });
        let place = place.map_or_else(String::new, |(number, offset, lba, len)| {
            format!(" (partition {number}, {len} bytes at byte {offset}, sector {lba})")
        });
        Failure::disk(
            format!("{what} reads back from {} differently than it was written{place}", disk.name()),
            "Replace the disk, or test the machine's memory; then run the job again.",
        )
    }
}
