//! Pieces on their way between the engine, the disk threads and the memory in which they are kept for peers.
//!
//! Invariant: half of the engine's buffers stay free for pieces under way. A piece that cannot be read, or is
//! damaged, is refused to the peers that requested it; a piece that cannot be written ends the torrent.

use std::sync::Arc;

use bytes::Bytes;

use super::state::{Owner, WARMING};
use crate::buf::PieceBuf;
use crate::event::Failure;
use crate::io::torrent::cache::{Data, Wanted};
use crate::io::torrent::compressor::Job;
use crate::io::torrent::disk_threads::Done;
use crate::io::torrent::handle::{Ends, Phase};
use crate::io::torrent::report::Outgoing;
use crate::swarm::{Block, ConnId, FrameState, Input, StoreResult};
use crate::units::{Now, PieceIndex, Sha256};

impl Owner {
    pub(super) fn store(&mut self, piece: PieceIndex, buf: PieceBuf, frame: Option<u32>) {
        let hash = self.soundness.begin_write(piece);
        let len = self.geometry.len_of(piece) as usize;
        let start = self.geometry.start_of(piece);
        match frame {
            None => self.disk.store(piece, start, len, buf, hash),
            Some(frame) => self.disk.store_frame(piece, start, len, (buf, frame as usize), hash),
        }
    }

    /// Has a piece compressed, from memory if it is there.
    pub(super) fn make_frame(&mut self, piece: PieceIndex, at_most: u32) {
        let job = Job {
            piece,
            offset: self.geometry.start_of(piece),
            len: self.geometry.len_of(piece) as usize,
            at_most: at_most as usize,
            bytes: self.cache.peek(piece),
            hash: self.soundness.unproved(piece),
        };
        if !self.frame_maker.as_ref().is_some_and(|maker| maker.make(job)) {
            self.tell(Input::Frame { piece, state: FrameState::Gone });
        }
    }

    /// Keeps a frame for peers, as far as there is memory.
    fn keep_frame(&mut self, piece: PieceIndex, frame: Bytes) {
        for gone in self.frames.keep(piece, frame) {
            self.tell(Input::Frame { piece: gone, state: FrameState::Gone });
        }
        if let Some(len) = self.frames.len_of(piece).and_then(|len| u32::try_from(len).ok()) {
            self.tell(Input::Frame { piece, state: FrameState::Ready(len) });
        }
    }

    pub(super) fn disk_event(&mut self, done: Done, ends: &mut Ends) -> Result<(), Failure> {
        match done {
            Done::Stored(piece, bytes, frame) => {
                if let Some(frame) = frame {
                    self.keep_frame(piece, frame);
                }
                let data = if self.spec.storage.uses_page_cache() { Data::Kept } else { Data::Here(bytes) };
                if self.soundness.has_come(piece) {
                    ends.damage.send_replace(self.soundness.trouble());
                }
                // Where its hash has come meanwhile, it is read and checked before it is served.
                let is_sound = self.soundness.is_done(piece);
                let waited = if is_sound { self.cache.insert(piece, data) } else { Vec::new() };
                // Half of the pool is for pieces under way.
                while self.pool.available() < self.pool.capacity() / 2 && self.cache.evict() {}
                self.tell(Input::Stored { piece, result: StoreResult::Ok });
                self.serve_waiting(waited);
            }
            Done::WrongHash(piece) => {
                log::warn!("{piece} came with wrong content and is fetched again");
                self.soundness.came_wrong(piece);
                ends.damage.send_replace(self.soundness.trouble());
                self.tell(Input::Stored { piece, result: StoreResult::WrongHash });
            }
            Done::Framed(piece, Some(frame)) => self.keep_frame(piece, frame),
            Done::Framed(piece, None) => self.tell(Input::Frame { piece, state: FrameState::Useless }),
            Done::Loaded(piece, bytes) => self.was_read(piece, Data::Here(bytes), ends),
            Done::Prefetch(piece) => {
                self.warming = self.warming.saturating_sub(1);
                self.was_read(piece, Data::Kept, ends);
            }
            Done::Unreadable(piece, error) => {
                self.cannot_serve(piece, format!("{piece} cannot be read: {error}"), ends);
            }
            Done::Damaged(piece) => {
                let why = format!("{piece} is damaged where it lies: its bytes do not have its hash");
                self.cannot_serve(piece, why, ends);
            }
            Done::Synced => {
                self.complete = true;
                self.publish(ends);
                ends.phase.send_replace(Phase::Complete);
            }
            Done::Failed(error) => {
                return Err(error.into());
            }
        }
        self.drain_outputs();
        Ok(())
    }

    /// Refuses a piece to the peers that wait for it, and says why until it is in order again.
    fn cannot_serve(&mut self, piece: PieceIndex, why: String, ends: &Ends) {
        // Either kind of reading: one that carried a buffer was not counted.
        self.warming = self.warming.saturating_sub(1);
        if self.soundness.failed(piece, Now(self.started.elapsed()), why.clone()) {
            log::error!("{why}; it is not served");
            ends.damage.send_replace(self.soundness.trouble());
        }
        self.refuse(piece);
    }

    fn refuse(&mut self, piece: PieceIndex) {
        for (conn, block) in self.cache.give_up(piece) {
            self.tell(Input::BlockUnreadable { conn, block });
        }
    }

    fn was_read(&mut self, piece: PieceIndex, data: Data, ends: &Ends) {
        if !self.soundness.is_done(piece) {
            return self.refuse(piece);
        }
        if self.soundness.is_mended(piece) {
            log::info!("{piece} is in order again and is served");
            ends.damage.send_replace(self.soundness.trouble());
        }
        let waited = self.cache.insert(piece, data);
        self.serve_waiting(waited);
    }

    /// Takes hashes that come later. Unchecked pieces in memory must be read again before they are served.
    pub(super) fn learn(&mut self, hashes: Option<Arc<Vec<Sha256>>>) {
        if let Some(hashes) = hashes {
            self.soundness.learn(hashes);
            let soundness = &self.soundness;
            self.cache.forget_if(|piece| soundness.unproved(piece).is_some());
            for gone in self.frames.forget_if(|piece| soundness.unproved(piece).is_some()) {
                self.tell(Input::Frame { piece: gone, state: FrameState::Gone });
            }
        }
    }

    fn serve_waiting(&mut self, waited: Vec<(Wanted, Option<Data>)>) {
        for ((conn, block), data) in waited {
            self.serve_block(conn, block, data);
        }
    }

    pub(super) fn serve_block(&mut self, conn: ConnId, block: Block, data: Option<Data>) {
        match data {
            Some(data) => self.send(conn, Outgoing::Block(block, data)),
            None => self.tell(Input::BlockUnreadable { conn, block }),
        }
    }

    /// Begins to read the pieces that peers wait for, as far as there are buffers.
    pub(super) fn load_wanted(&mut self) {
        if self.spec.storage.uses_page_cache() {
            while self.warming < WARMING {
                let Some(piece) = self.next_load() else { return };
                let len = self.geometry.len_of(piece) as usize;
                let hash = self.soundness.begin_read(piece);
                self.disk.prefetch(piece, self.geometry.start_of(piece), len, hash);
                self.warming += 1;
            }
            return;
        }
        while self.cache.wants_load() {
            let buffer = loop {
                match self.load_pool.take() {
                    Some(buffer) => break Some(buffer),
                    None if self.cache.evict() => {}
                    None => break None,
                }
            };
            // Without a buffer all are on their way to peers; the next block sent brings us here again.
            let Some(buffer) = buffer else { return };
            let Some(piece) = self.next_load() else { return };
            let len = self.geometry.len_of(piece) as usize;
            let hash = self.soundness.begin_read(piece);
            self.disk.load(piece, self.geometry.start_of(piece), len, buffer, hash);
        }
    }

    /// The next piece that is worth reading: one that was damaged a moment ago is refused at once.
    fn next_load(&mut self) -> Option<PieceIndex> {
        loop {
            let piece = self.cache.next_load()?;
            if !self.soundness.rests(piece, Now(self.started.elapsed())) {
                return Some(piece);
            }
            self.refuse(piece);
        }
    }
}
