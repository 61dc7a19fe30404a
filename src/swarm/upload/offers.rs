//! Which peer gets which piece from us next, agreed before our uplink is free: the sender's half of the
//! scheduling between flashmob peers. The receiver's half is in `download::grants`.
//!
//! ```text
//!          uplink nearly free          grant             requests
//!   quiet ────────────────────► offered ─────► granted ────────────► quiet (a turn of `queue` follows)
//!     ▲                            │              │
//!     └── declined, or nothing heard for PATIENCE ┘ : the receiver rests
//! ```
//!
//! To finish one piece for one peer is better than halves for two, and a link that waits for an agreement is
//! wasted. So there is one offer at a time, made while the piece before it is still being sent.
//!
//! A receiver whose cable was pulled never answers and always looks free. So another receiver is asked as
//! soon as an answer takes several times as long as answers do. A receiver that was silent, or that granted a
//! piece and never requested it, rests for a time that doubles each time.
//!
//! The piece is the one with the fewest copies among our peers; a piece that we gave and that its receiver
//! has not announced yet counts as a copy. So a seeder repeats nothing while a piece is missing from the
//! swarm. The receiver is the one whose downlink becomes free just when our uplink does, as all receivers
//! keep saying, with a little chance.
//!
//! When no peer could be asked, no other is looked for until a receiver's time comes or a change could make
//! one: a new piece, or a message from a peer.
//!
//! Invariant: at most [`AT_ONCE`] offers are open, each to another receiver and each with a deadline; the
//! work for an offer is bounded, whatever the number of pieces.

use std::time::Duration;

use crate::bitfield::Bitfield;
use crate::swarm::context::Context;
use crate::swarm::geometry::Block;
use crate::swarm::interface::ConnId;
use crate::swarm::peers::peer::Peer;
use crate::swarm::peers::reliance::PATIENCE;
use crate::swarm::peers::zone_policy::ZonePolicy;
use crate::swarm::pieces::compressed::CompressedPieces;
use crate::swarm::pieces::picker::Picker;
use crate::swarm::rate::{Capacity, slack};
use crate::swarm::ratio::Ratio;
use crate::swarm::upload::ledger::Ledger;
use crate::swarm::upload::queue::UploadQueue;
use crate::swarm::wire::flashmob::MAX_OFFERED;
use crate::units::{Now, PieceIndex};

/// Offers and grants that wait at a time.
const AT_ONCE: usize = 3;
/// Another receiver is asked after this many round trips without an answer: the first one's link may have a
/// fuller queue than the others.
const PATIENCE_ROUND_TRIPS: u32 = 4;
/// The soonest that another receiver is asked. Where a piece takes longer than this, it is after a piece's
/// time: two pieces that are agreed at once wait for each other.
const SOONEST_BESIDE: Duration = Duration::from_millis(20);
/// How soon another round is tried when nobody could be asked and nothing changed.
const RETRY: Duration = Duration::from_millis(100);
/// The soonest of these, when a receiver's time is about to come.
const SOONEST: Duration = Duration::from_micros(200);
/// The next piece is agreed when this part of a piece is left to send of those before it.
const LEAD: Ratio = Ratio(1, 8);
/// The same where pieces cross from zone to zone: there are few to agree with, and messages wait at the
/// uplinks.
const LEAD_ACROSS: Ratio = Ratio(1, 3);
/// A receiver in another zone is asked this part of a piece's time before its downlink is free, because its
/// report is older by the time it arrives.
const SLACK_ACROSS: Ratio = Ratio(8, 20);
/// The part of a piece's time that chance adds in the choice of a receiver: which peer is asked first must
/// not follow from the order in which peers came.
const JITTER: Ratio = Ratio(1, 32);
/// Longest time that a peer may say its downlink is taken.
const LONGEST_BUSY: Duration = Duration::from_secs(10);
/// Pieces that are looked at for one offer.
const LOOKED_AT: usize = 1024;
/// The pieces that can be offered, and the links that carry them.
pub(crate) struct Supply<'a> {
    /// The pieces that are here.
    pub have: &'a Bitfield,
    /// How many peers have each piece.
    pub picker: &'a Picker,
    pub zones: &'a ZonePolicy,
    pub compressed: &'a CompressedPieces,
    /// Requests that wait for the uplink.
    pub queue: &'a UploadQueue,
    pub uplink: &'a Capacity,
}

/// An offer to be sent.
pub(crate) struct Proposal {
    pub conn: ConnId,
    /// When our uplink will be free for it.
    pub start_in: Duration,
    /// The best piece first.
    pub pieces: Vec<PieceIndex>,
}

/// The offers that we made, and when the next one is due.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    ledger: Ledger,
    /// When it was last looked whether there is something to offer.
    looked: Now,
    /// How long one receiver is waited for before another one is asked beside it.
    impatience: Duration,
    /// No peer could be asked, and nothing has changed since.
    resting: bool,
    /// Try again then all the same.
    retry: Option<Now>,
}

impl Offers {
    /// No offers yet of a torrent of this many pieces.
    pub(crate) fn new(pieces: u32) -> Self {
        Offers { ledger: Ledger::new(pieces), ..Offers::default() }
    }

    /// A change may have made a receiver: look for one again.
    pub(crate) fn wake(&mut self) {
        self.resting = false;
    }

    /// When [`next`](Self::next) has something to do at the latest.
    pub(crate) fn deadline(&self) -> Option<Now> {
        let waiting = || self.ledger.waiting();
        let expiry = waiting().min().map(|since| since + PATIENCE);
        let beside = waiting().max().filter(|_| waiting().count() < AT_ONCE);
        let beside = beside.map(|since| since + self.impatience).filter(|at| *at > self.looked);
        let next = if self.resting { self.retry } else { beside };
        [expiry, next].into_iter().flatten().min()
    }

    /// Whether another receiver may be asked now, where a piece takes `piece_time` on our uplink.
    fn may_ask(&mut self, piece_time: Duration, now: Now) -> bool {
        let answers = self.ledger.round_trip() * PATIENCE_ROUND_TRIPS;
        self.impatience = answers.max(piece_time + piece_time / 4).max(SOONEST_BESIDE).min(PATIENCE);
        let fresh = self.ledger.waiting().any(|since| now.since(since) < self.impatience);
        !fresh && self.ledger.waiting().count() < AT_ONCE
    }

    /// `conn` takes `piece`, and will ask for `bytes` of it. False if it was not offered that.
    pub(crate) fn granted(&mut self, conn: ConnId, piece: PieceIndex, bytes: u32, now: Now) -> bool {
        self.ledger.granted(conn, piece, bytes, now)
    }

    /// `conn` asks for `block`. True if it granted that piece.
    pub(crate) fn requested(&mut self, conn: ConnId, block: Block) -> bool {
        self.ledger.requested(conn, block)
    }

    /// `conn` has `piece` now.
    pub(crate) fn announced(&mut self, conn: ConnId, piece: PieceIndex) {
        self.ledger.announced(conn, piece);
    }

    /// `conn` is gone.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        self.ledger.forget(conn);
        self.wake();
    }

    /// Lets receivers rest that did not answer, or did not request the piece that they granted.
    fn give_up(&mut self, ctx: &mut Context) {
        let now = ctx.now;
        let (silent, unasked) = self.ledger.expire(now);
        for conn in &silent {
            if let Some(peer) = ctx.peers.get_mut(conn) {
                peer.scheduling.gave_no_answer(now);
            }
        }
        for conn in &unasked {
            if let Some(peer) = ctx.peers.get_mut(conn) {
                peer.scheduling.asked_for_nothing(now);
            }
        }
        if !silent.is_empty() || !unasked.is_empty() {
            self.wake();
        }
    }

    /// The next offer, if the uplink will soon be free for one. It counts as made.
    pub(crate) fn next(&mut self, supply: &Supply<'_>, ctx: &mut Context) -> Option<Proposal> {
        self.give_up(ctx);
        let piece_time = supply.uplink.time_of(u64::from(ctx.config.piece_length)).min(PATIENCE);
        if !self.may_ask(piece_time, ctx.now) {
            return None;
        }
        self.looked = ctx.now;
        if self.resting && self.retry.is_none_or(|retry| ctx.now < retry) {
            return None;
        }
        (self.resting, self.retry) = (false, None);
        let lead = if supply.zones.is_gateway() { LEAD_ACROSS } else { LEAD };
        let start_in = self.free_in(lead, supply, ctx)?;
        let anybody =
            ctx.peers.values().any(|peer| peer.scheduling.is_spoken() && peer.upload.is_interested());
        if supply.have.is_none() || !anybody {
            self.resting = true;
            return None;
        }
        let (ranked, soonest) = self.receivers(start_in, supply, ctx);
        let Some((conn, pieces)) = self.best_offer(ranked, supply, ctx) else {
            (self.resting, self.retry) = (true, Some(soonest));
            return None;
        };
        self.ledger.offered(conn, pieces.clone(), ctx.now);
        Some(Proposal { conn, start_in, pieces })
    }

    /// How long our uplink is busy with promised blocks. `None` while more than the part `lead` of a piece is
    /// left, and more than leaves while an answer comes: then the next piece need not be agreed yet.
    fn free_in(&self, lead: Ratio, supply: &Supply<'_>, ctx: &Context) -> Option<Duration> {
        let answer = self.ledger.expected_round_trip();
        let near = lead.of(u64::from(ctx.config.piece_length)).max(supply.uplink.bytes_in(answer));
        let committed = supply.queue.committed(supply.uplink, near, ctx);
        (committed <= near).then(|| supply.uplink.time_of(committed))
    }

    /// Of the peers that might take a piece, the first that lacks one. A gateway looks at all of them: pieces
    /// that its own zone lacks altogether go first, then pieces that other zones lack, and last copies for
    /// its own zone, which other peers there can make.
    fn best_offer(
        &self,
        ranked: Vec<ConnId>,
        supply: &Supply<'_>,
        ctx: &mut Context,
    ) -> Option<(ConnId, Vec<PieceIndex>)> {
        let gateway = supply.zones.is_gateway();
        let mut best = None;
        let mut least = u8::MAX;
        for conn in ranked {
            let start = ctx.rng.below(supply.have.pieces() as usize);
            let start = PieceIndex(u32::try_from(start).unwrap_or(0));
            let Some(peer) = ctx.peers.get(&conn) else { continue };
            let (copies, pieces) = self.candidates(peer, start, supply, ctx.now);
            if pieces.is_empty() {
                continue;
            }
            let class = match (peer.link.access().remote_zone, copies) {
                _ if !gateway || supply.zones.is_outside() => 0,
                (false, 0) => 0,
                (true, _) => 1,
                (false, _) => 2,
            };
            if class < least {
                best = Some((conn, pieces));
                least = class;
            }
            if class == 0 {
                break;
            }
        }
        best
    }

    /// Peers that might take a piece that we begin to send after `start_in`: first those whose downlink
    /// becomes free just then. Also, when to look again if none of them takes one.
    fn receivers(&self, start_in: Duration, supply: &Supply<'_>, ctx: &mut Context) -> (Vec<ConnId>, Now) {
        let (now, begin) = (ctx.now, ctx.now + start_in);
        let piece_time = supply.uplink.time_of(u64::from(ctx.config.piece_length));
        let (latest, across) = (begin + slack(piece_time), begin + SLACK_ACROSS.of_time(piece_time));
        let jitter = usize::try_from(JITTER.of_time(piece_time).as_micros()).unwrap_or(usize::MAX);
        let mut soonest = now + RETRY;
        let mut ranked: Vec<(bool, Duration, ConnId)> = Vec::new();
        let able = |(conn, peer): &(&ConnId, &Peer)| peer.takes_offers() && !self.ledger.waits_for(**conn);
        for (conn, peer) in ctx.peers.iter().filter(able) {
            let free = peer.scheduling.busy_until().max(now + supply.zones.sends_in(peer, now));
            let latest = if peer.link.access().remote_zone { across } else { latest };
            if free > latest {
                soonest = soonest.min(now + free.since(latest).max(SOONEST));
                continue;
            }
            let mismatch = free.since(begin).max(begin.since(free));
            let chance = u64::try_from(ctx.rng.below(jitter)).unwrap_or(0);
            // One that let us down is asked when nobody else is free.
            ranked.push((peer.scheduling.is_doubtful(), mismatch + Duration::from_micros(chance), *conn));
        }
        ranked.sort_unstable();
        (ranked.into_iter().map(|(.., conn)| conn).collect(), soonest)
    }

    /// The pieces to offer to `peer`, the best first: the piece that it wants, then those with the fewest
    /// copies, of equals first those with a frame. A piece with copies is not offered beside one without.
    /// Also, how many copies the rarest has.
    fn candidates(
        &self,
        peer: &Peer,
        start: PieceIndex,
        supply: &Supply<'_>,
        now: Now,
    ) -> (usize, Vec<PieceIndex>) {
        let have = supply.have;
        let mut best: Vec<(usize, PieceIndex)> = Vec::with_capacity(MAX_OFFERED + 1);
        let framed =
            supply.compressed.around(start).take(if peer.scheduling.takes_frames() { LOOKED_AT } else { 0 });
        let framed = framed.filter(|piece| have.has(*piece));
        for piece in framed.chain(have.beyond(peer.link.have(), start).take(LOOKED_AT)) {
            let copies =
                supply.zones.copies_beside(peer, piece, supply.picker) + self.ledger.copies_given(piece);
            let full = best.len() == MAX_OFFERED;
            if full && best.last().is_some_and(|(worst, _)| *worst <= copies) {
                continue;
            }
            if peer.may_take(piece, now) && !best.iter().any(|(_, other)| *other == piece) {
                let at = best.partition_point(|(other, _)| *other <= copies);
                best.insert(at, (copies, piece));
                best.truncate(MAX_OFFERED);
            }
            if best.len() == MAX_OFFERED && best.last().is_some_and(|(worst, _)| *worst == 0) {
                break;
            }
        }
        let rarest = best.first().map_or(0, |(copies, _)| *copies);
        if rarest == 0 {
            best.retain(|(copies, _)| *copies == 0);
        } else if let Some(want) =
            peer.scheduling.want().filter(|want| have.has(*want) && peer.may_take(*want, now))
        {
            best.retain(|(_, piece)| *piece != want);
            best.insert(0, (0, want));
            best.truncate(MAX_OFFERED);
        }
        (rarest, best.into_iter().map(|(_, piece)| piece).collect())
    }

    /// The downlink of `conn` is busy for `free_in`.
    pub(crate) fn busy(&mut self, conn: ConnId, free_in: Duration, ctx: &mut Context) {
        if let Some(peer) = ctx.peers.get_mut(&conn) {
            peer.scheduling.set_busy(ctx.now + free_in.min(LONGEST_BUSY));
        }
        // It may be free sooner than it said before.
        self.wake();
        self.ledger.declined(conn, ctx.now);
    }

    /// `conn` has no use for the pieces that it was offered, but perhaps for `want`.
    pub(crate) fn declined(&mut self, conn: ConnId, want: Option<PieceIndex>, ctx: &mut Context) {
        self.wake();
        let Some(pieces) = self.ledger.declined(conn, ctx.now) else { return };
        let Some(peer) = ctx.peers.get_mut(&conn) else { return };
        pieces.into_iter().for_each(|piece| peer.scheduling.decline(piece, ctx.now));
        peer.scheduling.set_want(want);
    }
}
