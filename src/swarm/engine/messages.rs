//! The engine's reactions to the messages of peers.
//!
//! Invariant: nothing that a peer says is believed before it was checked against the torrent and against our
//! requests; a peer that breaks the protocol gets a [`Fault`] and is closed, and never disturbs the others.

use std::time::Duration;

use bytes::Bytes;

use super::Engine;
use crate::bitfield::Bitfield;
use crate::swarm::download::fetch::Receipt;
use crate::swarm::download::grants::Verdict;
use crate::swarm::geometry::{Block, MAX_REQUEST_LEN};
use crate::swarm::interface::{ConnId, Fault};
use crate::swarm::peers::peer::Peer;
use crate::swarm::pieces::active::{ActivePiece, Delivery};
use crate::swarm::wire::extended::{ExtendedHandshake, OUR_EXTENSION_ID};
use crate::swarm::wire::flashmob::{Offered, SchedulingMessage};
use crate::swarm::wire::message::Message;
use crate::units::PieceIndex;

impl Engine {
    /// Takes one message; messages of connections that are gone mean nothing.
    pub(super) fn message(&mut self, conn: ConnId, message: Message) -> Result<(), Fault> {
        let Some(peer) = self.ctx.peers.get_mut(&conn) else { return Ok(()) };
        peer.hear(self.ctx.now);
        let fast_only = matches!(
            message,
            Message::HaveAll
                | Message::HaveNone
                | Message::Suggest(_)
                | Message::Reject(_)
                | Message::AllowedFast(_)
        );
        if fast_only && !peer.link.is_fast() {
            return Err(Fault::NotNegotiated);
        }
        match message {
            Message::KeepAlive | Message::Unknown(_) => {}
            Message::Choke => self.choked_by(conn),
            Message::Unchoke => {
                peer.download.unchoked();
                self.fetch.fill(conn, &mut self.ctx);
            }
            Message::Interested => {
                peer.upload.set_interested(true);
                self.offers.wake();
                if !is_settled(peer) {
                    self.rechoke();
                }
            }
            Message::NotInterested => {
                peer.upload.set_interested(false);
                if !is_settled(peer) {
                    self.rechoke();
                }
                self.close_if_idle(conn);
            }
            Message::Have(piece) => self.peer_has(conn, piece)?,
            Message::Bitfield(bytes) => {
                let field = Bitfield::from_wire(&bytes, self.geometry.pieces())?;
                self.bitfield(conn, field)?;
            }
            Message::HaveAll => self.bitfield(conn, Bitfield::all(self.geometry.pieces()))?,
            Message::HaveNone => self.bitfield(conn, Bitfield::none(self.geometry.pieces()))?,
            Message::Request(block) => self.requested(conn, block)?,
            Message::Cancel(block) => self.queue.cancel(conn, block, &mut self.ctx),
            Message::Piece { piece, offset, data } => {
                let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
                self.block_came(conn, Block { piece, offset, len }, Delivery::Bytes(&data))?;
            }
            Message::Reject(block) => self.rejected(conn, block)?,
            // Hints about requests: rarest first knows better.
            Message::Suggest(piece) | Message::AllowedFast(piece) => {
                self.geometry.check_piece(piece.0).ok_or(Fault::NoSuchPiece(piece))?;
            }
            Message::Extended { id, payload } => self.extended(conn, id, &payload)?,
        }
        Ok(())
    }

    fn choked_by(&mut self, conn: ConnId) {
        let Some(peer) = self.ctx.peers.get_mut(&conn) else { return };
        self.fetch.lose(conn, peer.download.choked());
        self.wake = true;
    }

    fn peer_has(&mut self, conn: ConnId, piece: PieceIndex) -> Result<(), Fault> {
        let piece = self.geometry.check_piece(piece.0).ok_or(Fault::NoSuchPiece(piece))?;
        let Some(peer) = self.ctx.peers.get_mut(&conn) else { return Ok(()) };
        if !peer.link.gained(piece, self.completion.lacks(piece)) {
            return Ok(());
        }
        self.offers.announced(conn, piece);
        self.fetch.picker_mut().gained(piece);
        self.zones.gained(peer.link.access(), piece);
        let schedules = peer.scheduling.is_spoken();
        if peer.link.have().is_all() {
            self.became_seed(conn);
        }
        self.update_interest(conn);
        self.close_if_idle(conn);
        if !schedules {
            self.fetch.fill(conn, &mut self.ctx);
        }
        Ok(())
    }

    /// The peer's pieces. BEP 3 wants a bitfield at the beginning; aria2 also sends one instead of many
    /// `have`s, so a later one adds to the known pieces.
    fn bitfield(&mut self, conn: ConnId, field: Bitfield) -> Result<(), Fault> {
        let Some(peer) = self.ctx.peers.get_mut(&conn) else { return Ok(()) };
        if !peer.link.is_first_bitfield() {
            return field.iter().try_for_each(|piece| self.peer_has(conn, piece));
        }
        let lacking = field.iter().filter(|piece| self.completion.lacks(*piece)).count();
        peer.link.set_have(field, lacking);
        self.zones.came(peer.link.access(), peer.link.have());
        let picker = self.fetch.picker_mut();
        if peer.link.have().is_all() {
            peer.link.became_seed();
            picker.count_seed(true);
        } else {
            peer.link.have().iter().for_each(|piece| picker.gained(piece));
        }
        self.update_interest(conn);
        self.close_if_idle(conn);
        Ok(())
    }

    /// A peer that had its pieces counted one by one has everything now.
    fn became_seed(&mut self, conn: ConnId) {
        let Some(peer) = self.ctx.peers.get_mut(&conn) else { return };
        peer.link.became_seed();
        let picker = self.fetch.picker_mut();
        picker.count_seed(true);
        peer.link.have().iter().for_each(|piece| picker.lost(piece));
    }

    fn requested(&mut self, conn: ConnId, block: Block) -> Result<(), Fault> {
        let Some(peer) = self.ctx.peers.get_mut(&conn) else { return Ok(()) };
        let of_frame =
            block.in_frame() && peer.scheduling.takes_frames() && peer.link.is_fast() && block.len > 0;
        let legal = if of_frame {
            self.geometry.check_piece(block.piece.0).is_some()
        } else {
            self.geometry.check_block(block)
        };
        if !legal || block.len > MAX_REQUEST_LEN {
            return Err(Fault::BadRequest(block));
        }
        let we_have_it =
            if of_frame { self.compressed.has(block) } else { self.completion.have().has(block.piece) };
        if !self.queue.request(conn, block, we_have_it, &mut self.ctx) {
            return Err(Fault::TooManyRequests);
        }
        if self.offers.requested(conn, block)
            && let Some(peer) = self.ctx.peers.get_mut(&conn)
        {
            peer.scheduling.asked();
        }
        Ok(())
    }

    /// A block came.
    pub(super) fn block_came(
        &mut self,
        conn: ConnId,
        block: Block,
        delivery: Delivery<'_>,
    ) -> Result<(), Fault> {
        let len = block.len;
        let Some(peer) = self.ctx.peers.get_mut(&conn) else { return Ok(()) };
        peer.hear(self.ctx.now);
        // A recalled block of a frame does not answer a newer request: that may be for another frame.
        let recalled = block.in_frame() && peer.download.take_recalled(block);
        if !recalled && !peer.download.take_asked(block) && !peer.download.take_recalled(block) {
            return Err(Fault::UnaskedBlock(block));
        }
        if recalled {
            self.wasted += u64::from(len);
            return Ok(());
        }
        peer.download.received(u64::from(len), self.ctx.now);
        self.grants.received(u64::from(len), self.ctx.now);
        match self.fetch.arrived(conn, block, delivery, &mut self.ctx) {
            Receipt::Wasted => self.wasted += u64::from(len),
            Receipt::Kept => self.bytes_in.add(self.ctx.now, u64::from(len)),
            Receipt::Measured { bytes, time } => {
                self.bytes_in.add(self.ctx.now, u64::from(len));
                let slow = self.grants.measured(bytes, time);
                // Most links are alike in both directions.
                self.uplink.suppose(self.grants.downlink());
                if let Some(peer) = self.ctx.peers.get_mut(&conn) {
                    peer.download.set_slow(slow);
                }
            }
        }
        if self.to_refill.last() != Some(&conn) {
            self.to_refill.push(conn);
        }
        Ok(())
    }

    fn rejected(&mut self, conn: ConnId, block: Block) -> Result<(), Fault> {
        let Some(peer) = self.ctx.peers.get_mut(&conn) else { return Ok(()) };
        if peer.download.take_recalled(block) {
            return Ok(());
        }
        if !peer.download.take_asked(block) {
            return Err(Fault::UnaskedBlock(block));
        }
        if !block.in_frame() {
            peer.download.refuse(block.piece, self.ctx.now);
        }
        self.fetch.refused(conn, block);
        self.wake = true;
        Ok(())
    }

    fn extended(&mut self, conn: ConnId, id: u8, payload: &[u8]) -> Result<(), Fault> {
        if id == OUR_EXTENSION_ID {
            if let Some(message) = SchedulingMessage::decode(payload) {
                self.scheduling(conn, message)?;
            }
            return Ok(());
        }
        if id != 0 {
            return Ok(());
        }
        let said = ExtendedHandshake::decode(payload).map_err(|_| Fault::Extension)?;
        let Some(peer) = self.ctx.peers.get_mut(&conn) else { return Ok(()) };
        peer.introduce(&said);
        let schedules = peer.scheduling.is_spoken();
        if let Some(addr) = peer.link.listen().filter(|_| said.port.is_some() && peer.link.is_incoming()) {
            // The peer says where it listens: it need not be dialled.
            self.address_book.connected(addr);
        }
        if schedules {
            self.rechoke();
            self.offers.wake();
        }
        self.close_if_idle(conn);
        Ok(())
    }

    /// A message of flashmob's own extension.
    fn scheduling(&mut self, conn: ConnId, message: SchedulingMessage) -> Result<(), Fault> {
        match message {
            SchedulingMessage::Offer { start_in, pieces } => self.offered(conn, start_in, &pieces)?,
            SchedulingMessage::Busy { free_in } => self.offers.busy(conn, free_in, &mut self.ctx),
            SchedulingMessage::Decline { want } => self.offers.declined(conn, want, &mut self.ctx),
            SchedulingMessage::Grant { piece, bytes } => {
                let agreed = self.offers.granted(conn, piece, bytes, self.ctx.now);
                let bytes = if agreed { bytes } else { 0 };
                self.zones.charge_sent(conn, bytes, &mut self.ctx.peers, self.ctx.now);
            }
        }
        Ok(())
    }

    /// `conn` offers to send one of `pieces`, beginning after `start_in`.
    fn offered(&mut self, conn: ConnId, start_in: Duration, pieces: &[Offered]) -> Result<(), Fault> {
        for Offered { piece, .. } in pieces {
            self.geometry.check_piece(piece.0).ok_or(Fault::NoSuchPiece(*piece))?;
        }
        let Some(peer) = self.ctx.peers.get(&conn) else { return Ok(()) };
        let (access, now) = (peer.link.access(), self.ctx.now);
        let crosses_in = self.zones.receives_in(peer, now);
        let takes_frames = self.ctx.config.accepts_frames() && peer.link.is_fast();
        let mut pieces = self.zones.worth_crossing(peer, pieces, self.fetch.picker());
        pieces.iter_mut().filter(|_| !takes_frames).for_each(|offered| offered.frame = 0);
        let verdict = if crosses_in > start_in {
            Verdict::Busy(crosses_in)
        } else if pieces.is_empty() {
            Verdict::Useless(self.zones.want_across(peer, self.fetch.picker(), now))
        } else {
            self.grants.decide(conn, &pieces, start_in, &mut self.fetch, &mut self.ctx)
        };
        match verdict {
            Verdict::Granted(piece) => {
                let bytes = self.fetch.piece(piece).map_or(0, ActivePiece::free_bytes);
                self.zones.charge_received(access, bytes, now);
                self.ctx.pay_received(bytes);
                self.ctx.send_scheduling(conn, &SchedulingMessage::Grant { piece, bytes });
                self.fetch.fill(conn, &mut self.ctx);
                self.tell_busy(conn);
            }
            Verdict::Busy(free_in) => self.ctx.send_scheduling(conn, &SchedulingMessage::Busy { free_in }),
            Verdict::Useless(want) => self.ctx.send_scheduling(conn, &SchedulingMessage::Decline { want }),
        }
        Ok(())
    }

    /// Tells every peer that might offer something, except `conn`, how long our downlink is busy.
    fn tell_busy(&mut self, conn: ConnId) {
        let free_in = self.grants.busy_for(None, &self.fetch, &self.ctx).max(self.ctx.receives_in());
        let payload: Bytes = SchedulingMessage::Busy { free_in }.encode().into();
        for (other, peer) in &self.ctx.peers {
            if let Some(id) = peer.scheduling.id().filter(|_| *other != conn && peer.download.is_interested())
            {
                self.ctx.out.send(*other, Message::Extended { id, payload: payload.clone() });
            }
        }
    }
}

/// Whether it needs no slot and is unchoked for good.
fn is_settled(peer: &Peer) -> bool {
    peer.scheduling.is_spoken() && !peer.upload.is_choked()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::buf::BufPool;
    use crate::swarm::wire::handshake::Handshake;
    use crate::swarm::{Engine, EngineConfig, Input, Output, WholePieces};
    use crate::units::{InfoHash, Now, PeerId};

    #[test]
    fn a_later_bitfield_adds_to_what_the_peer_has() {
        let (info_hash, none) = (InfoHash([1; 20]), Bitfield::none(9));
        let config = EngineConfig::new(info_hash, PeerId([2; 20]), 16384, 9 * 16384, none);
        let mut engine = Engine::new(config, BufPool::new(16384, 9), Arc::new(WholePieces)).unwrap();
        let conn = ConnId(7);
        let handshake = Handshake::ours(info_hash, PeerId(*b"A2-1-36-0-0123456789"));
        let addr = ([127, 0, 0, 1], 7).into();
        engine.handle(Now::ZERO, Input::Connected { conn, addr, incoming: true, handshake });
        for field in [&[0x80, 0x00], &[0xc0, 0x80]] {
            let message = Message::Bitfield(Bytes::from_static(field));
            engine.handle(Now::ZERO, Input::Message { conn, message });
        }
        engine.handle(Now::ZERO, Input::Message { conn, message: Message::Unchoke });
        let mut asked = Vec::new();
        while let Some(output) = engine.poll() {
            match output {
                Output::Close { why, .. } => panic!("{why}"),
                Output::Send { message: Message::Request(block), .. } => asked.push(block.piece.0),
                _ => {}
            }
        }
        asked.sort_unstable();
        assert_eq!(asked, [0, 1, 8]);
    }
}
