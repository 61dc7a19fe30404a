//! Moves pieces that lie elsewhere on the disk: reads, checks and writes them to their places.
//!
//! Invariant: every written piece has its SHA-256. A piece that cannot be read or has another hash is fetched
//! from the swarm. At most [`PARKED`] bytes are held, or two pieces. There is no other writer meanwhile.
//! Ranges that the disarm wipes were read before ([`Saved`]).

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bitfield::Bitfield;
use crate::buf::AlignedBuf;
use crate::digest::sha256;
use crate::io::disk::target::ImageStorage;
use crate::io::storage::device::Disk;
use crate::layout::moves::{Move, Schedule, Step};
use crate::storage::{Storage, StorageError};
use crate::units::Sha256;

/// Most bytes of pieces that wait for their places.
const PARKED: u64 = 32 << 20;

/// The old content of the wiped ranges.
#[derive(Debug, Default)]
pub(crate) struct Saved {
    ranges: Vec<(u64, Vec<u8>)>,
}

impl Saved {
    /// Reads those of `wipes` that some of `moves` need: at most 1 MiB for each partition. Unreadable ranges
    /// are not saved.
    pub(crate) fn read(disk: &Disk, wipes: &[Range<u64>], moves: &[Move]) -> Self {
        let mut saved = Saved::default();
        for wipe in wipes {
            let needed = moves.iter().any(|one| one.from.start < wipe.end && wipe.start < one.from.end);
            let mut bytes = vec![0; usize::try_from(wipe.end - wipe.start).unwrap_or(0)];
            if needed && disk.read_at(wipe.start, &mut bytes).is_ok() {
                saved.ranges.push((wipe.start, bytes));
            }
        }
        saved
    }

    /// Puts the saved content over `bytes`, which were read at `offset`.
    fn restore(&self, offset: u64, bytes: &mut [u8]) {
        for (start, saved) in &self.ranges {
            let from = offset.max(*start);
            let to = (offset + bytes.len() as u64).min(start + saved.len() as u64);
            if from < to {
                let at = |position: u64, base: u64| usize::try_from(position - base).unwrap_or(0);
                bytes[at(from, offset)..at(to, offset)]
                    .copy_from_slice(&saved[at(from, *start)..at(to, *start)]);
            }
        }
    }
}

/// Carries out `moves` and gives the pieces that are at their places now. Fails when the disk refuses a
/// write.
pub(crate) fn carry_out(
    storage: &ImageStorage,
    moves: Vec<Move>,
    saved: &Saved,
    hashes: &[Sha256],
    stop: &AtomicBool,
) -> Result<Bitfield, StorageError> {
    let length = storage.grid().piece_length();
    let room = usize::try_from(PARKED / length.bytes()).unwrap_or(2).max(2);
    let mut there = Bitfield::none(storage.grid().pieces());
    let mut schedule = Schedule::new(moves, room);
    let mut buffer = AlignedBuf::zeroed(length.get() as usize);
    let mut parked: Vec<(usize, Option<AlignedBuf>)> = Vec::new();
    let mut place = |one: &Move, bytes: &[u8]| {
        storage.write_at(u64::from(one.piece.0) * length.bytes(), bytes)?;
        there.insert(one.piece);
        Ok(())
    };
    while let Some(step) = schedule.step() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        match step {
            Step::Copy(i) => {
                let one = &schedule.moves()[i];
                if read(storage.disk(), one, saved, hashes, &mut buffer) {
                    place(one, &buffer)?;
                }
            }
            Step::Park(i) => {
                let mut kept = AlignedBuf::zeroed(length.get() as usize);
                let good = read(storage.disk(), &schedule.moves()[i], saved, hashes, &mut kept);
                parked.push((i, good.then_some(kept)));
            }
            Step::Place(i) => {
                let at = parked.iter().position(|(parked, _)| *parked == i);
                if let Some((_, Some(bytes))) = at.map(|at| parked.swap_remove(at)) {
                    place(&schedule.moves()[i], &bytes)?;
                }
            }
            Step::GiveUp(_) => {}
        }
    }
    Ok(there)
}

/// Reads a whole piece; false if it is not there.
fn read(disk: &Disk, one: &Move, saved: &Saved, hashes: &[Sha256], buffer: &mut AlignedBuf) -> bool {
    let len = usize::try_from(one.from.end - one.from.start).unwrap_or(0).min(buffer.len());
    let (bytes, beyond) = buffer.split_at_mut(len);
    beyond.fill(0);
    if let Err(error) = disk.read_at(one.from.start, bytes) {
        log::warn!("{} is fetched: {error}", one.piece);
        return false;
    }
    saved.restore(one.from.start, bytes);
    hashes.get(one.piece.get()) == Some(&sha256(buffer))
}
