//! Which block a peer is asked for next.

use std::time::Duration;

use super::Fetcher;
use crate::swarm::context::Context;
use crate::swarm::geometry::Block;
use crate::swarm::interface::ConnId;
use crate::swarm::pieces::active::ActivePiece;
use crate::swarm::wire::flashmob::Offered;

/// How long an owner may leave a piece untouched before a peer with nothing to do takes it over.
const WAIT_FOR_OWNER: Duration = Duration::from_secs(2);

impl Fetcher {
    /// The next block of a piece that `conn` owns.
    pub(super) fn own_block(&mut self, conn: ConnId) -> Option<Block> {
        let owned = |active: &&mut ActivePiece| active.owner() == Some(conn) && active.free() > 0;
        self.active.values_mut().find(owned)?.ask(conn, false)
    }

    /// Something else for `conn` to do.
    pub(super) fn find_block(&mut self, conn: ConnId, ctx: &mut Context) -> Option<Block> {
        self.adopt(conn, ctx)
            .or_else(|| self.begin(conn, ctx))
            .or_else(|| self.help(conn, ctx))
            .or_else(|| self.take_over(conn, ctx))
            .or_else(|| self.end_game(conn, ctx))
    }

    /// A piece whose owner was lost.
    fn adopt(&mut self, conn: ConnId, ctx: &Context) -> Option<Block> {
        let peer = ctx.peers.get(&conn)?;
        let (_, active) = self
            .active
            .iter_mut()
            .filter(|(piece, active)| {
                active.owner().is_none()
                    && active.free() > 0
                    && peer.offers(**piece, ctx.now)
                    && active.may_come_from(conn)
            })
            .min_by_key(|(_, active)| active.missing())?;
        active.assign(conn, ctx.now);
        active.ask(conn, false)
    }

    /// A new piece, if there is a buffer for it.
    fn begin(&mut self, conn: ConnId, ctx: &mut Context) -> Option<Block> {
        loop {
            let peer = ctx.peers.get(&conn)?;
            let piece = self.picker.rarest(|piece| peer.offers(piece, ctx.now))?;
            if self.begin_piece(conn, Offered { piece, frame: 0 }, ctx.now, ctx) {
                return self.active.get_mut(&piece)?.ask(conn, false);
            }
            if self.starved {
                return None;
            }
        }
    }

    /// A block of another peer's piece that no peer was asked for, from its end.
    fn help(&mut self, conn: ConnId, ctx: &Context) -> Option<Block> {
        let peer = ctx.peers.get(&conn)?;
        let (_, active) = self
            .active
            .iter_mut()
            .filter(|(piece, active)| {
                !active.has_one_source() && active.free() > 0 && peer.offers(**piece, ctx.now)
            })
            .max_by_key(|(_, active)| active.free())?;
        active.ask(conn, true)
    }

    /// A piece that nobody has begun to send, although it was asked for: from a seeder, whose time is
    /// the most precious, or from a peer that lets us wait.
    fn take_over(&mut self, conn: ConnId, ctx: &mut Context) -> Option<Block> {
        let peer = ctx.peers.get(&conn)?;
        if peer.download.has_requests() {
            return None;
        }
        let (piece, owner) = self.active.iter().find_map(|(piece, active)| {
            let owner = active.owner().filter(|owner| *owner != conn)?;
            let other = ctx.peers.get(&owner)?;
            let patient = ctx.now.since(active.since().max(other.download.progress())) < WAIT_FOR_OWNER;
            let relieve = other.link.is_seed() && !peer.link.is_seed();
            (active.untouched() && peer.offers(*piece, ctx.now) && (relieve || !patient))
                .then_some((*piece, owner))
        })?;
        self.take_back(owner, piece, ctx);
        let active = self.active.get_mut(&piece)?;
        active.assign(conn, ctx.now);
        active.ask(conn, false)
    }

    /// When every piece is under way: a block that another peer was asked for, from a peer with nothing else
    /// to do. A seeder repeats only what the other peer is slow to send.
    fn end_game(&mut self, conn: ConnId, ctx: &Context) -> Option<Block> {
        let peer = ctx.peers.get(&conn)?;
        if self.picker.wanted() > 0 {
            return None;
        }
        let slow = |other: ConnId| {
            ctx.peers.get(&other).is_none_or(|other| {
                ctx.now.since(other.download.progress()) > Duration::from_secs(1)
                    || (!peer.link.is_seed() || other.link.is_seed())
            })
        };
        let mut pieces: Vec<_> = self
            .active
            .iter_mut()
            .filter(|(piece, active)| !active.has_one_source() && peer.offers(**piece, ctx.now))
            .collect();
        pieces.sort_by_key(|(_, active)| std::cmp::Reverse(active.missing()));
        pieces.into_iter().find_map(|(_, active)| active.ask_again(conn, slow))
    }
}
