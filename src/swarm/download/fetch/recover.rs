//! Recovery of pieces and requests whose peer is lost, slow or unwilling.
//!
//! Invariant: a request that is taken back is free to be asked of others and remembered, for its answer may
//! still come; a frame never outlives its owner: what came of it is dropped.

use std::time::Duration;

use super::Fetcher;
use crate::rng::Rng;
use crate::swarm::context::Context;
use crate::swarm::geometry::Block;
use crate::swarm::interface::ConnId;
use crate::swarm::pieces::active::slots_of;
use crate::swarm::wire::message::Message;
use crate::units::PieceIndex;

/// How long a scheduling peer may delay a piece that it offered: it had agreed to begin.
const GRANTED_STALL: Duration = Duration::from_secs(3);
/// How long a stalled peer is left alone.
const SNUB_REST: Duration = Duration::from_secs(5);

impl Fetcher {
    /// `owner` shall no longer send `piece`.
    pub(crate) fn take_back(&mut self, owner: ConnId, piece: PieceIndex, ctx: &mut Context) {
        self.recall(owner, ctx, |block| block.piece == piece);
        self.disown(owner, |other| other == piece);
    }

    /// The medium failed: gives everything up.
    pub(crate) fn halt(&mut self, ctx: &mut Context) {
        self.halted = true;
        for conn in ctx.conns() {
            self.recall(conn, ctx, |_| true);
        }
        while let Some((piece, _)) = self.active.pop_first() {
            self.inflight.close(piece);
        }
        self.storing.clear();
    }

    /// `conn` will not answer its requests, because it choked us or is gone.
    pub(crate) fn lose(&mut self, conn: ConnId, asked: impl IntoIterator<Item = Block>) {
        for block in asked {
            if let Some(active) = self.active.get_mut(&block.piece) {
                active.release(conn, block);
            }
        }
        self.disown(conn, |_| true);
    }

    /// `conn` will not send `block`.
    pub(crate) fn refused(&mut self, conn: ConnId, block: Block) {
        if let Some(active) = self.active.get_mut(&block.piece) {
            if block.in_frame() != active.frame().is_some() {
                return;
            }
            active.release(conn, block);
        }
        self.disown(conn, |piece| piece == block.piece);
    }

    /// Peers that were asked and send nothing lose their blocks to others.
    pub(crate) fn snub(&mut self, ctx: &mut Context) {
        let stall_after = ctx.config.stall_after;
        let stalled: Vec<ConnId> = ctx
            .peers
            .iter()
            .filter(|(_, peer)| {
                let patience =
                    if peer.scheduling.is_spoken() { stall_after.min(GRANTED_STALL) } else { stall_after };
                peer.download.has_requests() && ctx.now.since(peer.download.progress()) >= patience
            })
            .map(|(conn, _)| *conn)
            .collect();
        for conn in stalled {
            self.recall(conn, ctx, |_| true);
            self.disown(conn, |_| true);
            if let Some(peer) = ctx.peers.get_mut(&conn) {
                peer.download.snub(ctx.now + SNUB_REST);
            }
        }
    }

    /// Takes back from `conn` the requests that pass `test`.
    fn recall(&mut self, conn: ConnId, ctx: &mut Context, test: impl Fn(&Block) -> bool) {
        let Some(peer) = ctx.peers.get_mut(&conn) else { return };
        for block in peer.download.recall(test) {
            ctx.out.send(conn, Message::Cancel(block));
            if let Some(active) = self.active.get_mut(&block.piece) {
                active.release(conn, block);
            }
        }
    }

    /// Pieces of `conn` that pass `test` belong to nobody. A piece that only one peer may send and that it
    /// has begun starts again from nothing, with another peer; one that came as a frame is as if nothing had
    /// come: the next sender has another frame, or none.
    fn disown(&mut self, conn: ConnId, test: impl Fn(PieceIndex) -> bool) {
        let mut frames = Vec::new();
        for (piece, active) in self.active.iter_mut().filter(|(piece, _)| test(**piece)) {
            if active.owner() == Some(conn) {
                active.disown();
                frames.extend(active.frame().map(|_| *piece));
            }
        }
        for piece in frames {
            self.restart(piece, self.blocks_of(piece, 0));
        }
    }

    /// Fetches `piece` from the beginning, in other blocks.
    pub(super) fn restart(&mut self, piece: PieceIndex, blocks: Vec<Block>) {
        let Some(buf) = self.inflight.close(piece) else { return };
        let slots = slots_of(buf, &blocks);
        self.inflight.open(piece, slots.clone());
        if let Some(active) = self.active.get_mut(&piece) {
            self.dropped += active.restart(blocks, slots);
        }
    }

    /// Gives up pieces that may come from one peer only and whose peer is lost.
    pub(crate) fn restart_orphans(&mut self, rng: &mut Rng) {
        let orphans: Vec<PieceIndex> = self
            .active
            .iter()
            .filter(|(_, active)| active.is_solo() && active.owner().is_none() && !active.untouched())
            .map(|(piece, _)| *piece)
            .collect();
        for piece in orphans {
            self.active.remove(&piece);
            self.inflight.close(piece);
            self.picker.want(piece, rng);
        }
    }
}
