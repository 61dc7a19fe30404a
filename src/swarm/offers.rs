//! Who gets what from us next, agreed before our uplink is free: the sender's half of the scheduling between
//! flashmob peers. The receiver's half is in `grants`.
//!
//! ```text
//!          uplink nearly free          grant             requests
//!   quiet ────────────────────► offered ─────► granted ────────────► quiet (a turn of `serve` follows)
//!     ▲                            │              │
//!     └── declined, or nothing heard for PATIENCE ┘ : the next receiver is asked
//! ```
//!
//! Finishing one piece for one peer beats halves for two, and a link that waits for an agreement is lost: so there is one
//! offer at a time, made while the piece before it is still on its way. Which piece: the one with the fewest copies among our
//! peers, where a piece that we gave and that its receiver has not announced yet counts as a copy. So a seeder
//! repeats nothing while something is missing from the swarm. Which receiver: the one whose downlink becomes free just when
//! our uplink does, as all receivers keep saying, with a little chance.
//!
//! When nobody could be asked, nobody is looked for again before a receiver's time comes or something changed that could
//! make one: a new piece, another's word.
//!
//! Invariant: at most one offer is open, and each has a deadline; work for an offer is bounded whatever the
//! number of pieces.

use std::collections::BTreeMap;
use std::time::Duration;

use super::engine::Engine;
use super::geometry::Block;
use super::grants::slack;
use super::interface::ConnId;
use super::peer::Peer;
use super::wire::{MAX_OFFERED, Message, Schedule};
use crate::units::{Now, PieceIndex};

/// How long an offer waits for its answer.
const PATIENCE: Duration = Duration::from_millis(400);
/// How soon another round is tried when nobody could be asked and nothing changed.
const RETRY: Duration = Duration::from_millis(100);
/// The soonest of these, when a receiver's time is about to come.
const SOONEST: Duration = Duration::from_micros(200);
/// The next piece is agreed when this part of a piece is left of those before it.
const LEAD: u32 = 8;
/// The same where pieces cross from zone to zone: there are few to agree with, and messages wait at the uplinks.
const LEAD_ACROSS: u32 = 3;
/// A receiver in another zone is asked when its downlink becomes free within so many parts of a piece's time more, of
/// [`PARTS`]: it says what is true by now.
const SLACK_ACROSS: u32 = 8;
/// Parts of a piece's time.
const PARTS: u32 = 20;
/// The part of a piece's time that chance adds in the choice of a receiver: who is asked first must not follow from
/// the order in which peers came.
const JITTER: u32 = 32;
/// Longest time that a peer may say its downlink is taken.
const LONGEST_TAKEN: Duration = Duration::from_secs(10);
/// Pieces that are looked at for one offer.
const LOOKED_AT: usize = 1024;
/// Answers are taken to need at least so long.
const ROUND_TRIP: Duration = Duration::from_millis(3);
/// The part of what answers needed so far that one more counts for.
const SMOOTHED: u32 = 8;

/// An offer that waits for its answer.
#[derive(Debug)]
struct Open {
    conn: ConnId,
    pieces: Vec<PieceIndex>,
    since: Now,
}

/// A grant whose requests are on their way.
#[derive(Debug)]
struct Coming {
    conn: ConnId,
    piece: PieceIndex,
    bytes: u32,
    since: Now,
}

/// An offer or a grant waits for what follows it.
#[derive(Debug)]
struct StillOpen;

/// What we offered and gave.
#[derive(Debug, Default)]
pub struct Offers {
    open: Option<Open>,
    coming: Option<Coming>,
    /// Nobody could be asked, and nothing has changed since.
    resting: bool,
    /// Try again then all the same.
    retry: Option<Now>,
    /// Pieces that were granted to us to send and that their receivers have not announced yet.
    given: BTreeMap<PieceIndex, Vec<ConnId>>,
    /// Of each piece, how many these are.
    copies: Vec<u16>,
    /// How long answers take: the way there and back through full queues, and some work.
    round_trip: Duration,
}

impl Offers {
    /// Nothing given yet of so many pieces.
    pub fn new(pieces: u32) -> Self {
        Offers { copies: vec![0; pieces as usize], ..Offers::default() }
    }

    /// Something changed: there may be somebody to ask.
    pub fn wake(&mut self) {
        self.resting = false;
    }

    /// When [`Engine::offer`] has something to do at the latest.
    pub fn deadline(&self) -> Option<Now> {
        let open = self.open.as_ref().map(|open| open.since);
        let since = open.or(self.coming.as_ref().map(|coming| coming.since));
        since.map(|since| since + PATIENCE).or(self.retry)
    }

    /// `conn` takes `piece`, and will ask for `bytes` of it. False if it was not offered that.
    pub fn granted(&mut self, conn: ConnId, piece: PieceIndex, bytes: u32, now: Now) -> bool {
        self.answered(conn, now);
        let offered = self.open.take_if(|open| open.conn == conn && open.pieces.contains(&piece));
        if offered.is_some() {
            self.coming = Some(Coming { conn, piece, bytes, since: now });
        }
        offered.is_some()
    }

    /// `conn` says something; if that is its answer, it shows how long answers take.
    fn answered(&mut self, conn: ConnId, now: Now) {
        if let Some(open) = self.open.as_ref().filter(|open| open.conn == conn) {
            // Who is slow to answer is not the rule.
            let took = now.since(open.since).min(self.round_trip * 2 + ROUND_TRIP);
            self.round_trip = self.round_trip - self.round_trip / SMOOTHED + took / SMOOTHED;
        }
    }

    /// `conn` asks for `block`.
    pub fn requested(&mut self, conn: ConnId, block: Block) {
        let piece = block.piece;
        if let Some(coming) = self.coming.as_mut().filter(|of| of.conn == conn && of.piece == piece) {
            coming.bytes = coming.bytes.saturating_sub(block.len);
            self.coming.take_if(|coming| coming.bytes == 0);
        }
        let to = self.given.entry(piece).or_default();
        if !to.contains(&conn) {
            to.push(conn);
            self.count(piece);
        }
    }

    /// Counts to how many `piece` was given.
    fn count(&mut self, piece: PieceIndex) {
        let now = self.given.get(&piece).map_or(0, Vec::len);
        if let Some(copies) = self.copies.get_mut(piece.get()) {
            *copies = u16::try_from(now).unwrap_or(u16::MAX);
        }
    }

    /// `conn` has `piece` now.
    pub fn announced(&mut self, conn: ConnId, piece: PieceIndex) {
        if let Some(to) = self.given.get_mut(&piece) {
            to.retain(|other| *other != conn);
            if to.is_empty() {
                self.given.remove(&piece);
            }
            self.count(piece);
        }
    }

    /// `conn` is gone.
    pub fn forget(&mut self, conn: ConnId) {
        self.open.take_if(|open| open.conn == conn);
        self.coming.take_if(|coming| coming.conn == conn);
        let theirs: Vec<PieceIndex> =
            self.given.iter().filter(|(_, to)| to.contains(&conn)).map(|(piece, _)| *piece).collect();
        theirs.into_iter().for_each(|piece| self.announced(conn, piece));
        self.wake();
    }

    /// `conn` took nothing of what it was offered. Returns that, or `None` if it was offered nothing.
    fn declined(&mut self, conn: ConnId, now: Now) -> Option<Vec<PieceIndex>> {
        self.wake();
        self.answered(conn, now);
        self.open.take_if(|open| open.conn == conn).map(|open| open.pieces)
    }

    /// What is open: `Err` if it may still be answered, else it is closed and `Ok` says who was silent.
    fn silent(&mut self, now: Now) -> Option<Result<ConnId, StillOpen>> {
        let open = self.open.as_ref().map(|open| (open.conn, open.since));
        let (conn, since) = open.or(self.coming.as_ref().map(|coming| (coming.conn, coming.since)))?;
        if now.since(since) < PATIENCE {
            return Some(Err(StillOpen));
        }
        (self.open, self.coming) = (None, None);
        Some(Ok(conn))
    }

    fn copies_given(&self, piece: PieceIndex) -> usize {
        self.copies.get(piece.get()).map_or(0, |copies| usize::from(*copies))
    }
}

impl Engine {
    /// Offers a piece to a peer if the uplink will soon be free for it.
    pub(super) fn offer(&mut self) {
        if let Some(silent) = self.offers.silent(self.now) {
            let Ok(conn) = silent else { return };
            if let Some(peer) = self.peers.get_mut(&conn) {
                peer.taken_until = self.now + PATIENCE;
            }
            self.offers.wake();
        }
        if self.offers.resting && self.offers.retry.is_none_or(|retry| self.now < retry) {
            return;
        }
        (self.offers.resting, self.offers.retry) = (false, None);
        let lead = if self.is_gateway() { LEAD_ACROSS } else { LEAD };
        let Some(start_in) = self.free_in(lead) else { return };
        let anybody = self.peers.values().any(|peer| peer.schedules.is_some() && peer.interested);
        if self.holds.have().is_none() || !anybody {
            self.offers.resting = true;
            return;
        }
        let (ranked, soonest) = self.receivers(start_in);
        let Some((conn, id, pieces)) = self.best_offer(ranked) else {
            (self.offers.resting, self.offers.retry) = (true, Some(soonest));
            return;
        };
        let peer = self.peers.get(&conn);
        let offered = peer.map(|peer| self.with_frames(peer, &pieces)).unwrap_or_default();
        if peer.is_some_and(|peer| peer.takes_frames) {
            self.prepare_frames(&pieces);
        }
        let payload = Schedule::Offer { start_in, pieces: offered }.encode().into();
        self.send(conn, Message::Extended { id, payload });
        self.offers.open = Some(Open { conn, pieces, since: self.now });
    }

    /// How long our uplink is taken by what was promised; `None` while more than the part `lead` of a piece is left, and more
    /// than leaves while an answer comes: the next piece need not be agreed yet.
    fn free_in(&self, lead: u32) -> Option<Duration> {
        let answer = self.offers.round_trip.max(ROUND_TRIP);
        let near = u64::from(self.config.piece_length / lead).max(self.uplink.bytes_in(answer));
        let committed = self.serve.committed(&self.peers, &self.config, &self.uplink, near, self.now);
        (committed <= near).then(|| self.uplink.time_of(committed))
    }

    /// Of those who might take a piece the first that lacks one. A gateway looks at all of them: what its own zone lacks
    /// altogether goes first, then what other zones lack, and copies for its zone, which others there can make, last.
    fn best_offer(&mut self, ranked: Vec<ConnId>) -> Option<(ConnId, u8, Vec<PieceIndex>)> {
        let gateway = self.is_gateway();
        let mut best = None;
        let mut least = u8::MAX;
        for conn in ranked {
            let start = self.rng.below(self.geometry.pieces() as usize);
            let start = PieceIndex(u32::try_from(start).unwrap_or(0));
            let Some(peer) = self.peers.get(&conn) else { continue };
            let (Some(id), (copies, pieces)) = (peer.schedules, self.candidates(peer, start)) else {
                continue;
            };
            if pieces.is_empty() {
                continue;
            }
            let class = match (peer.standing.beyond, copies) {
                _ if !gateway || self.is_outside() => 0,
                (false, 0) => 0,
                (true, _) => 1,
                (false, _) => 2,
            };
            if class < least {
                best = Some((conn, id, pieces));
                least = class;
            }
            if class == 0 {
                break;
            }
        }
        best
    }

    /// Who might take a piece that we begin to send after `start_in`: first those whose downlink becomes free just
    /// then. Also, when to look again if none of them takes one.
    fn receivers(&mut self, start_in: Duration) -> (Vec<ConnId>, Now) {
        let begin = self.now + start_in;
        let piece_time = self.uplink.time_of(u64::from(self.config.piece_length));
        let (latest, across) = (begin + slack(piece_time), begin + piece_time * SLACK_ACROSS / PARTS);
        let jitter = usize::try_from((piece_time / JITTER).as_micros()).unwrap_or(usize::MAX);
        let mut soonest = self.now + RETRY;
        let mut ranked: Vec<(Duration, ConnId)> = Vec::new();
        for (conn, peer) in self.peers.iter().filter(|(_, peer)| peer.takes_offers()) {
            let free = peer.taken_until.max(self.now + self.sends_in(peer));
            let latest = if peer.standing.beyond { across } else { latest };
            if free > latest {
                soonest = soonest.min(self.now + free.since(latest).max(SOONEST));
                continue;
            }
            let mismatch = free.since(begin).max(begin.since(free));
            let chance = u64::try_from(self.rng.below(jitter)).unwrap_or(0);
            ranked.push((mismatch + Duration::from_micros(chance), *conn));
        }
        ranked.sort_unstable();
        (ranked.into_iter().map(|(_, conn)| conn).collect(), soonest)
    }

    /// The pieces to offer to `peer`, the best first: what it wished for, then what has the fewest copies, of equals first
    /// what has a frame for it. A piece that has copies is not offered beside one that has none. Also, how many copies the
    /// rarest has.
    fn candidates(&self, peer: &Peer, start: PieceIndex) -> (usize, Vec<PieceIndex>) {
        let have = self.holds.have();
        let mut best: Vec<(usize, PieceIndex)> = Vec::with_capacity(MAX_OFFERED + 1);
        let framed = self.frames.around(start).take(if peer.takes_frames { LOOKED_AT } else { 0 });
        let framed = framed.filter(|piece| have.has(*piece));
        for piece in framed.chain(have.beyond(&peer.have, start).take(LOOKED_AT)) {
            let copies = self.copies_beside(peer, piece) + self.offers.copies_given(piece);
            let full = best.len() == MAX_OFFERED;
            if full && best.last().is_some_and(|(worst, _)| *worst <= copies) {
                continue;
            }
            if peer.may_take(piece, self.now) && !best.iter().any(|(_, other)| *other == piece) {
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
        } else if let Some(wish) = peer.wish.filter(|wish| have.has(*wish) && peer.may_take(*wish, self.now))
        {
            best.retain(|(_, piece)| *piece != wish);
            best.insert(0, (0, wish));
            best.truncate(MAX_OFFERED);
        }
        (rarest, best.into_iter().map(|(_, piece)| piece).collect())
    }

    /// The downlink of `conn` is taken for `free_in`.
    pub(super) fn taken(&mut self, conn: ConnId, free_in: Duration) {
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.taken_until = self.now + free_in.min(LONGEST_TAKEN);
        }
        // It may be free sooner than it said before.
        self.offers.declined(conn, self.now);
    }

    /// `conn` has no use for what it was offered.
    pub(super) fn declined(&mut self, conn: ConnId, wish: Option<PieceIndex>) {
        let Some(pieces) = self.offers.declined(conn, self.now) else { return };
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        pieces.into_iter().for_each(|piece| peer.decline(piece, self.now));
        peer.wish = wish;
    }
}
