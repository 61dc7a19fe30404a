//! Which offers we take: the receiver's half of the scheduling between flashmob peers (the sender's is in
//! `offers`).
//!
//! Our downlink shall carry one piece at a time, and never none: an offer is taken if what was granted before
//! will be here by the time the new sender begins, give or take a part of a piece's time. Senders that are
//! late or slow do not count, so they hold up nothing but their own piece; unless our downlink is full and
//! they have their share of it, where one more would make all of them later. When nothing else is missing,
//! somebody faster may bring what a slow one was to bring.
//!
//! Invariant: a granted piece has its buffer, and one owner; nothing is asked of a scheduling peer that it
//! did not offer.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;

use crate::swarm::download::fetch::Fetcher;
use crate::swarm::engine::Engine;
use crate::swarm::interface::{ConnId, Fault, Output};
use crate::swarm::peers::peer::{Peer, Peers};
use crate::swarm::peers::rate::Capacity;
use crate::swarm::pieces::active::ActivePiece;
use crate::swarm::wire::flashmob::{Offered, Schedule};
use crate::swarm::wire::message::Message;
use crate::units::{Now, PieceIndex};

/// A sender that lets us wait longer than this for a block does not keep others from sending.
const LATE: Duration = Duration::from_millis(150);
/// What a sender is told to wait while our downlink's rate is not known.
const UNKNOWN: Duration = Duration::from_millis(15);
/// What a sender is told to wait when there is no buffer, or nothing more is fetched.
const FULL: Duration = Duration::from_millis(20);
/// The part of a piece's time by which two pieces may overlap on our downlink: less leaves gaps, more shares
/// it.
const SLACK: u32 = 5;
/// They overlap no longer than this.
const LONGEST_SLACK: Duration = Duration::from_millis(25);
/// A piece is overdue after so many times the time it should take.
const OVERDUE: u32 = 3;
/// After 2 times the time that its piece should take, a sender below 1/4 of our downlink's rate counts as
/// slow.
const CREEPING: (u32, u64) = (2, 4);
/// Granted pieces that are on their way at most, those of late senders apart.
const AT_ONCE: usize = 3;
/// Pieces that are looked at for a wish.
const LOOKED_AT: usize = 1024;

/// The downlink is full when less than this part of what it carries is left.
const FULL_PART: u64 = 6;

/// Our downlink.
struct Downlink {
    carries: Capacity,
    /// It carries that just now.
    full: bool,
}

/// What becomes of an offer.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Granted(PieceIndex),
    Busy(Duration),
    Useless(Option<PieceIndex>),
}

impl Engine {
    /// `conn` offers to send one of `pieces`, beginning after `start_in`.
    pub(in crate::swarm) fn offered(
        &mut self,
        conn: ConnId,
        start_in: Duration,
        pieces: &[Offered],
    ) -> Result<(), Fault> {
        for Offered { piece, .. } in pieces {
            self.geometry.check_piece(piece.0).ok_or(Fault::NoSuchPiece(*piece))?;
        }
        let Some(peer) = self.peers.get(&conn) else { return Ok(()) };
        let crosses_in = self.receives_in(peer);
        let takes_frames = self.takes_frames() && peer.fast;
        let mut pieces = self.worth_crossing(peer, pieces);
        pieces.iter_mut().filter(|_| !takes_frames).for_each(|offered| offered.frame = 0);
        let verdict = if crosses_in > start_in {
            Verdict::Busy(crosses_in)
        } else if pieces.is_empty() {
            Verdict::Useless(self.wish_across(peer))
        } else {
            let link = self.downlink_now();
            self.fetch.grant(
                conn,
                &pieces,
                start_in.min(self.config.stall_after),
                &link,
                &mut self.peers,
                self.now,
                &mut self.out,
            )
        };
        let answer = match verdict {
            Verdict::Granted(piece) => {
                let bytes = self.fetch.piece(piece).map_or(0, ActivePiece::free_bytes);
                self.receives_across(conn, bytes);
                Schedule::Grant { piece, bytes }
            }
            Verdict::Busy(free_in) => Schedule::Taken { free_in },
            Verdict::Useless(wish) => Schedule::Decline { wish },
        };
        if let Some(id) = self.peers.get(&conn).and_then(|peer| peer.schedules) {
            self.send(conn, Message::Extended { id, payload: answer.encode().into() });
        }
        if matches!(verdict, Verdict::Granted(_)) {
            self.fill(conn);
            self.tell_taken(conn);
        }
        Ok(())
    }

    /// What our downlink carries, and whether it does so just now.
    fn downlink_now(&mut self) -> Downlink {
        let carries = self.downlink.clone();
        let full = self.inflow.rate(self.now) > carries.get() - carries.get() / FULL_PART;
        Downlink { carries, full }
    }

    /// Tells every peer that might offer something, except `conn`, how long our downlink is busy.
    fn tell_taken(&mut self, conn: ConnId) {
        let link = self.downlink_now();
        let free_in = self.fetch.taken_for(None, &self.peers, &link, self.now);
        let payload: Bytes = Schedule::Taken { free_in }.encode().into();
        for (other, peer) in &self.peers {
            if let Some(id) = peer.schedules.filter(|_| *other != conn && peer.we_are_interested) {
                let message = Message::Extended { id, payload: payload.clone() };
                self.out.push_back(Output::Send { conn: *other, message });
            }
        }
    }
}

impl Fetcher {
    #[expect(clippy::too_many_arguments, reason = "the engine's parts that an offer touches")]
    fn grant(
        &mut self,
        conn: ConnId,
        offered: &[Offered],
        start_in: Duration,
        downlink: &Downlink,
        peers: &mut Peers,
        now: Now,
        out: &mut VecDeque<Output>,
    ) -> Verdict {
        let piece_time = self.piece_time(&downlink.carries);
        let taken = self.taken_for(Some(conn), peers, downlink, now);
        let Some(peer) = peers.get_mut(&conn) else { return Verdict::Busy(FULL) };
        if self.halted || peer.choking_us || !peer.we_are_interested {
            return Verdict::Busy(FULL);
        }
        if taken > start_in + slack(piece_time) {
            return Verdict::Busy(taken);
        }
        let start = now + start_in;
        for offered in offered.iter().filter(|offered| peer.offers(offered.piece, now)) {
            if self.adopt_piece(conn, *offered, start) || self.begin_piece(conn, *offered, start, out) {
                peer.begins = start;
                peer.progress = peer.progress.max(start);
                return Verdict::Granted(offered.piece);
            }
            if self.starved {
                return Verdict::Busy(FULL);
            }
        }
        if let Some(offered) = self.relieve(conn, offered, start, &downlink.carries, peers, now, out) {
            self.adopt_piece(conn, offered, start);
            if let Some(peer) = peers.get_mut(&conn) {
                peer.begins = start;
                peer.progress = peer.progress.max(start);
            }
            return Verdict::Granted(offered.piece);
        }
        Verdict::Useless(peers.get(&conn).and_then(|peer| self.wish(peer, now)))
    }

    /// How long a whole piece takes on `link`.
    fn piece_time(&self, link: &Capacity) -> Duration {
        link.time_of(u64::from(self.geometry().piece_length()))
    }

    /// How long our downlink is taken by what was granted to others than `asker`, which sends one piece after
    /// another. Where it is full just now, late senders count: another one would only make all of them later.
    fn taken_for(&self, asker: Option<ConnId>, peers: &Peers, link: &Downlink, now: Now) -> Duration {
        let Downlink { carries: downlink, full } = link;
        let piece_time = self.piece_time(downlink);
        let share = downlink.get() / (2 * self.active().max(1) as u64);
        let mut granted: Vec<(Now, u64)> = Vec::new();
        for active in self.pieces().filter(|active| asker.is_none() || active.owner != asker) {
            let Some(peer) = active.owner.and_then(|owner| peers.get(&owner)) else { continue };
            let shares = || *full && active.pace(now) >= share;
            let counts = !self.drags(active, peer, downlink, now) || shares();
            if peer.schedules.is_some() && counts {
                granted.push((active.since, active.missing_bytes()));
            }
        }
        if downlink.get() == 0 && !granted.is_empty() {
            return UNKNOWN;
        }
        granted.sort_unstable();
        let count = granted.len();
        let end = granted
            .into_iter()
            .fold(now, |end, (since, bytes)| end.max(since) + downlink.time_of(bytes))
            .since(now);
        if count >= AT_ONCE { end.max(piece_time) } else { end }
    }

    /// Whether `owner` holds up nothing but its own piece: it is known to be slow, the piece should have been
    /// here, or its next block, or by now more of it.
    fn drags(&self, active: &ActivePiece, owner: &Peer, downlink: &Capacity, now: Now) -> bool {
        let piece_time = self.piece_time(downlink);
        let (times, part) = CREEPING;
        let age = now.since(active.since);
        owner.slow_sender
            // On slow links and with large pieces the sender's word about when it begins is as coarse.
            || now.since(owner.progress) > LATE.max(piece_time)
            || age > LATE.max(piece_time * OVERDUE)
            || age > LATE.max(piece_time * times) && active.pace(now) < downlink.get() / part
    }

    /// A piece of `offered` that another peer owns and that `conn` will bring sooner: only when nothing else
    /// is missing. The other peer need not send it any more.
    #[expect(clippy::too_many_arguments, reason = "the engine's parts that an offer touches")]
    fn relieve(
        &mut self,
        conn: ConnId,
        offered: &[Offered],
        start: Now,
        downlink: &Capacity,
        peers: &mut Peers,
        now: Now,
        out: &mut VecDeque<Output>,
    ) -> Option<Offered> {
        if self.picker.wanted() > 0 || peers.get(&conn).is_none_or(|peer| peer.slow_sender) {
            return None;
        }
        let piece_time = self.piece_time(downlink);
        let (offered, owner) = offered.iter().find_map(|offered| {
            let active = self.piece(offered.piece)?;
            let owner = active.owner.filter(|owner| *owner != conn && !active.solo)?;
            let other = peers.get(&owner)?;
            let waits = active.untouched() && other.begins > start + piece_time / 4;
            (waits || self.drags(active, other, downlink, now)).then_some((*offered, owner))
        })?;
        self.take_back(owner, offered.piece, peers, out);
        Some(offered)
    }

    /// The rarest missing piece of those looked at that nobody owns and that `fits`.
    pub(in crate::swarm) fn rarest_where(&self, fits: impl Fn(PieceIndex) -> bool) -> Option<PieceIndex> {
        self.picker.rarest_of(LOOKED_AT, fits)
    }

    /// A piece that `peer` has and that we would take.
    fn wish(&self, peer: &Peer, now: Now) -> Option<PieceIndex> {
        let lost = self.pieces_of_nobody().find(|piece| peer.offers(*piece, now));
        lost.or_else(|| self.picker.rarest_of(LOOKED_AT, |piece| peer.offers(piece, now)))
    }
}

/// By how long two pieces may overlap on a downlink.
pub(in crate::swarm) fn slack(piece_time: Duration) -> Duration {
    (piece_time / SLACK).min(LONGEST_SLACK)
}
