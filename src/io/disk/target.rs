//! An image on its disk: payload pieces ↔ their places on the whole disk.
//!
//! Invariant: a piece is one write at the place that plan and grid give, and nothing is written outside of
//! replaced partitions. The head of each (its first MiB) stays in memory until the commit, so that the disk
//! cannot be started or mounted before. Reading returns the written bytes: held-back heads from memory, the
//! rest from the device. Memory is 1 MiB for each replaced partition.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::bitfield::Bitfield;
use crate::io::disk::claim::ClaimedDisk;
use crate::io::disk::compare::Whole;
use crate::io::disk::disarm::DisarmedDisk;
use crate::io::storage::device::Disk;
use crate::layout::grid::{Grid, Span};
use crate::layout::plan::{LayoutPlan, Place};
use crate::layout::present;
use crate::storage::{Attributes, Storage, StorageError};
use crate::sync;
use crate::units::PieceIndex;

/// Neighbouring zero pieces are written together up to about this many bytes, between two looks at whether
/// the attempt was cancelled.
const ZERO_AT_ONCE: u64 = 64 << 20;

/// The image's storage for the swarm.
pub struct ImageStorage {
    claim: ClaimedDisk,
    plan: LayoutPlan,
    grid: Arc<Grid>,
    /// By the partition's position: its head, while it is held back.
    heads: Mutex<Vec<Option<Vec<u8>>>>,
    /// Pieces in the order in which they were written.
    written: Mutex<Vec<PieceIndex>>,
    more: Condvar,
}

impl ImageStorage {
    /// A disarmed disk, ready for the pieces of `grid`, which is of the plan's manifest.
    pub fn new(disarmed: DisarmedDisk, grid: Arc<Grid>) -> Self {
        let (claim, plan) = disarmed.into_parts();
        let heads = plan.places().iter().enumerate().map(|(i, place)| {
            // A head of which nothing travels is zero already: the disarm wiped it.
            let pieces = (0..place.held).step_by(grid.piece_length().get() as usize);
            let travels = pieces.filter_map(|offset| grid.piece_at(i, offset)).next().is_some();
            travels.then(|| vec![0u8; usize::try_from(place.held).unwrap_or(0)])
        });
        let heads = Mutex::new(heads.collect());
        ImageStorage { claim, plan, grid, heads, written: Mutex::default(), more: Condvar::new() }
    }

    /// A disk that has all of the image: nothing is held back.
    pub fn whole(claim: ClaimedDisk, plan: LayoutPlan, grid: Arc<Grid>, _: Whole) -> Self {
        let heads = Mutex::new(vec![None; plan.places().len()]);
        ImageStorage { claim, plan, grid, heads, written: Mutex::default(), more: Condvar::new() }
    }

    pub fn disk(&self) -> &Disk {
        self.claim.disk()
    }

    pub fn claim(&self) -> &ClaimedDisk {
        &self.claim
    }

    pub fn plan(&self) -> &LayoutPlan {
        &self.plan
    }

    pub fn grid(&self) -> &Arc<Grid> {
        &self.grid
    }

    /// Where `span` begins on the disk.
    pub fn offset_of(&self, span: &Span) -> Option<u64> {
        Some(self.place(span)?.start.0 + span.offset)
    }

    fn place(&self, span: &Span) -> Option<&Place> {
        self.plan.places().get(span.partition)
    }

    /// The held-back head of the partition at this position of the plan.
    pub fn head(&self, position: usize) -> Option<Vec<u8>> {
        sync::lock(&self.heads).get(position).cloned().flatten()
    }

    /// From now on the disk itself has the head of this partition.
    pub(crate) fn release_head(&self, position: usize) {
        if let Some(head) = sync::lock(&self.heads).get_mut(position) {
            *head = None;
        }
    }

    /// Pieces written after the first `known` ones; waits up to `patience` for one.
    pub(crate) fn written_since(&self, known: usize, patience: Duration) -> Vec<PieceIndex> {
        let guard = sync::lock(&self.written);
        let written = sync::wait_while(&self.more, guard, patience, |written| written.len() <= known);
        written.get(known..).map(<[PieceIndex]>::to_vec).unwrap_or_default()
    }

    /// How many pieces were written so far.
    pub fn written(&self) -> usize {
        sync::lock(&self.written).len()
    }

    /// The cells that must be zero, with their positions.
    pub fn zero_cells(&self) -> impl Iterator<Item = (PieceIndex, Span)> + '_ {
        (0..).map(PieceIndex).zip(present::zero_cells(&self.plan, &self.grid))
    }

    /// Makes every zero cell zero except those in `known`, neighbours in one request. `go_on` gets the bytes
    /// done and may stop it.
    pub(crate) fn write_zeros(
        &self,
        known: &Bitfield,
        mut go_on: impl FnMut(u64) -> bool,
    ) -> Result<(), StorageError> {
        let mut pending: Option<(u64, u64)> = None;
        let unknown = self.zero_cells().filter(|(at, _)| !known.has(*at));
        for (start, length) in unknown.filter_map(|(_, s)| Some((self.offset_of(&s)?, u64::from(s.len)))) {
            pending = match pending {
                Some((from, so_far)) if from + so_far == start && so_far < ZERO_AT_ONCE => {
                    Some((from, so_far + length))
                }
                Some((from, so_far)) => {
                    self.disk().zero(from, so_far)?;
                    if !go_on(so_far) {
                        return Ok(());
                    }
                    Some((start, length))
                }
                None => Some((start, length)),
            };
        }
        if let Some((from, length)) = pending {
            self.disk().zero(from, length)?;
            go_on(length);
        }
        Ok(())
    }

    /// The part of a call that lies in one piece: `(span, offset in the span, bytes of the call, those of
    /// them that are on the disk)`.
    fn part(&self, offset: u64, length: usize) -> Option<(Span, u64, usize, usize)> {
        let piece_length = self.grid.piece_length().bytes();
        let piece = PieceIndex(u32::try_from(offset / piece_length).ok()?);
        let span = self.grid.span(piece)?;
        let inside = offset % piece_length;
        let length = usize::try_from((piece_length - inside).min(length as u64)).ok()?;
        let on_disk = usize::try_from(u64::from(span.len).saturating_sub(inside).min(length as u64)).ok()?;
        Some((span, inside, length, on_disk))
    }

    fn refuse(&self, action: &'static str, offset: u64, length: usize, why: &str) -> StorageError {
        StorageError {
            action,
            target: format!("the payload on {}", self.disk().name()),
            offset,
            length: length as u64,
            source: std::io::Error::new(std::io::ErrorKind::InvalidInput, why.to_string()),
        }
    }

    /// Reads `into` from `inside` the span: held-back bytes from memory, the rest from the device.
    fn read_part(&self, span: &Span, inside: u64, into: &mut [u8]) -> Result<(), StorageError> {
        let mut from_memory = 0;
        if let Some(Some(head)) = sync::lock(&self.heads).get(span.partition) {
            let start = usize::try_from(span.offset + inside).unwrap_or(usize::MAX).min(head.len());
            from_memory = into.len().min(head.len() - start);
            into[..from_memory].copy_from_slice(&head[start..start + from_memory]);
        }
        let rest = &mut into[from_memory..];
        match self.offset_of(span) {
            Some(start) if !rest.is_empty() => self.disk().read_at(start + inside + from_memory as u64, rest),
            _ => Ok(()),
        }
    }
}

impl Storage for ImageStorage {
    fn len(&self) -> u64 {
        self.grid.payload_len()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), StorageError> {
        let mut done = 0;
        while done < into.len() {
            let at = offset + done as u64;
            let Some((span, inside, length, on_disk)) = self.part(at, into.len() - done) else {
                return Err(self.refuse("reading", at, into.len() - done, "beyond the payload's end"));
            };
            let (real, padding) = into[done..done + length].split_at_mut(on_disk);
            self.read_part(&span, inside, real)?;
            padding.fill(0);
            done += length;
        }
        Ok(())
    }

    /// Whole pieces only: one piece is one write, and only whole ones can be read back and proved.
    fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), StorageError> {
        let piece_length = self.grid.piece_length();
        if !offset.is_multiple_of(piece_length.bytes())
            || !(from.len() as u64).is_multiple_of(piece_length.bytes())
        {
            return Err(self.refuse("writing", offset, from.len(), "not whole pieces"));
        }
        for (at, piece) in
            (offset..).step_by(piece_length.get() as usize).zip(from.chunks(piece_length.get() as usize))
        {
            let part = self.part(at, piece.len()).and_then(|part| Some((self.offset_of(&part.0)?, part)));
            let Some((start, (span, _, _, on_disk))) = part else {
                return Err(self.refuse("writing", at, piece.len(), "beyond the payload's end"));
            };
            let mut held = 0;
            if let Some(Some(head)) = sync::lock(&self.heads).get_mut(span.partition) {
                let from = usize::try_from(span.offset).unwrap_or(usize::MAX).min(head.len());
                held = (head.len() - from).min(on_disk);
                head[from..from + held].copy_from_slice(&piece[..held]);
            }
            if held < on_disk {
                self.disk().write_at(start + held as u64, &piece[held..on_disk])?;
            }
            let index = PieceIndex(u32::try_from(at / piece_length.bytes()).unwrap_or(u32::MAX));
            sync::lock(&self.written).push(index);
            self.more.notify_all();
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StorageError> {
        self.disk().sync()
    }

    fn attributes(&self) -> Attributes {
        Attributes {
            alignment: self.disk().sector().get(),
            rotational: self.disk().rotational(),
            read_only: false,
        }
    }
}
