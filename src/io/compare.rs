//! What of an image lies on a disk already: an older version, a damaged one, an interrupted attempt.
//!
//! A few pieces spread over the image are looked at first. If none of them is there, the disk is one that never had
//! this image, and no more of it is read. Else every piece is read, on all cores, and the right ones need not travel.
//!
//! Invariant: a piece counts as there only if it was read from the device in this attempt, has the SHA-256 that
//! `pieces.sha256` gives, and neither the disarm nor the commit writes into it. Nothing is written. What cannot be read counts
//! as missing: it is written again, and the read-back shows whether the disk can still be used.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use sha2::Digest;

use crate::io::disk::{Aligned, Disk, STEP};
use crate::layout::grid::Grid;
use crate::layout::plan::LayoutPlan;
use crate::swarm::Bitfield;
use crate::units::{PieceIndex, Sha256};

/// Pieces that are looked at before all are.
const SAMPLES: u32 = 64;
const READERS: usize = 8;

/// How far a comparison is, and whether it shall end.
#[derive(Debug, Default)]
pub struct CompareProgress {
    /// Payload bytes looked at.
    pub bytes: AtomicU64,
    /// Set to end it: what was found until then counts.
    pub stop: AtomicBool,
}

/// The pieces of an image that are on `disk` where `plan` puts them. `hashes` is `pieces.sha256`.
pub fn compare(
    disk: &Disk,
    plan: &LayoutPlan,
    grid: &Grid,
    hashes: &[Sha256],
    progress: &CompareProgress,
) -> Bitfield {
    let looker = Looker { disk, plan, grid, hashes, progress };
    let step = (grid.pieces() / SAMPLES).max(1);
    // Not the first ones of partitions, which the disarm of an interrupted attempt has wiped.
    let samples: Vec<u32> = (step / 2..grid.pieces()).step_by(step as usize).collect();
    if looker.look(&samples).is_none() {
        return Bitfield::none(grid.pieces());
    }
    progress.bytes.store(0, Ordering::Relaxed);
    looker.look(&(0..grid.pieces()).collect::<Vec<_>>())
}

struct Looker<'a> {
    disk: &'a Disk,
    plan: &'a LayoutPlan,
    grid: &'a Grid,
    hashes: &'a [Sha256],
    progress: &'a CompareProgress,
}

impl Looker<'_> {
    /// Which of `pieces` are there.
    fn look(&self, pieces: &[u32]) -> Bitfield {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // A rotating disk reads fastest from one end to the other.
        let readers = if self.disk.rotational() { 1 } else { cores.min(READERS) };
        let (next, found) = (AtomicU32::new(0), Mutex::new(Bitfield::none(self.grid.pieces())));
        std::thread::scope(|scope| {
            for _ in 0..readers {
                scope.spawn(|| {
                    let mut buffer = Aligned::zeroed(STEP);
                    while let Some(piece) = pieces.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                        if self.progress.stop.load(Ordering::Relaxed) {
                            return;
                        }
                        let piece = PieceIndex(*piece);
                        if self.is_there(piece, &mut buffer) {
                            found.lock().unwrap_or_else(PoisonError::into_inner).insert(piece);
                        }
                        self.progress.bytes.fetch_add(self.grid.piece_length().bytes(), Ordering::Relaxed);
                    }
                });
            }
        });
        found.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_there(&self, piece: PieceIndex, buffer: &mut Aligned) -> bool {
        let Some(span) = self.grid.span(piece) else { return false };
        let Some(place) = self.plan.places().get(span.partition) else { return false };
        let (start, len) = (place.start.0.saturating_add(span.offset), u64::from(span.len));
        let touched = |from: u64, to: u64| from < start + len && start < to;
        let wiped = self.plan.wipes().iter().any(|wipe| touched(wipe.start, wipe.end));
        if !place.replaced || wiped || span.offset < place.held {
            return false;
        }
        let mut hasher = sha2::Sha256::new();
        let mut done = 0;
        while done < len {
            let step = usize::try_from(len - done).unwrap_or(STEP).min(STEP);
            let bytes = &mut buffer.bytes_mut()[..step];
            if let Err(error) = self.disk.read_at(start + done, bytes) {
                log::warn!("{piece} counts as missing: {error}");
                return false;
            }
            hasher.update(&*bytes);
            done += step as u64;
        }
        // What a partition's last piece lacks to full length is hashed as zeros.
        let beyond = self.grid.piece_length().bytes() - len;
        if beyond > 0 {
            buffer.bytes_mut().fill(0);
            let mut left = beyond;
            while left > 0 {
                let step = usize::try_from(left).unwrap_or(STEP).min(STEP);
                hasher.update(&buffer.bytes()[..step]);
                left -= step as u64;
            }
        }
        self.hashes.get(piece.get()) == Some(&Sha256(hasher.finalize().into()))
    }
}
