//! Which offers we take: the receiver's half of the scheduling between flashmob peers (the sender's is in
//! `offers`).
//!
//! Our downlink should carry one piece at a time and never be idle. So an offer is granted if all pieces that
//! were granted before will be here when the new sender begins, give or take a part of a piece's time. Late
//! and slow senders do not count, so that they delay only their own piece; but they do count while our
//! downlink is full and they have their share of it, because one more sender would make all of them later.
//! When no other piece is missing, a faster peer may take over the piece of a slow one.
//!
//! Invariant: a granted piece has its buffer and one owner; a scheduling peer is asked only for pieces that
//! it offered.

use std::time::Duration;

use crate::swarm::context::Context;
use crate::swarm::download::fetch::Fetcher;
use crate::swarm::interface::{ConnId, EngineConfig};
use crate::swarm::peers::peer::Peer;
use crate::swarm::pieces::active::ActivePiece;
use crate::swarm::rate::{Capacity, Recent, slack};
use crate::swarm::ratio::Ratio;
use crate::swarm::wire::flashmob::Offered;
use crate::units::{Now, PieceIndex};

/// A sender that lets us wait longer than this for a block does not keep others from sending.
const LATE: Duration = Duration::from_millis(150);
/// How long a sender is told to wait while our downlink's rate is not known.
const UNKNOWN: Duration = Duration::from_millis(15);
/// How long a sender is told to wait when no buffer is free, or nothing more is fetched.
const NO_BUFFER: Duration = Duration::from_millis(20);
/// A piece is overdue after this many times the time it should take.
const OVERDUE_TIMES: u32 = 3;
/// After 2 times the time that its piece should take, a sender below 1/4 of our downlink's rate counts as
/// slow.
const CREEPING_TIMES: u32 = 2;
/// See [`CREEPING_TIMES`].
const CREEPING_RATE: Ratio = Ratio(1, 4);
/// Granted pieces that are on their way at most, those of late senders apart.
const AT_ONCE: usize = 3;
/// The downlink is full when less than this part of its capacity is unused.
const FULL_MARGIN: Ratio = Ratio(1, 6);

/// The decision about an offer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The sender may send this piece.
    Granted(PieceIndex),
    /// Our downlink is busy for this time.
    Busy(Duration),
    /// No piece of the offer is of use; this one of the sender's would be.
    Useless(Option<PieceIndex>),
}

/// Our downlink, as measured, and the decisions about it.
pub(crate) struct Grants {
    downlink: Capacity,
    inflow: Recent,
}

impl Grants {
    /// A downlink of which nothing is known.
    pub(crate) fn new(config: &EngineConfig) -> Self {
        let downlink = Capacity::of_scale(config.scale).within(config.limit.rate());
        Grants { downlink, inflow: Recent::default() }
    }

    /// Bytes a second that our downlink carries; zero until a piece was measured.
    pub(crate) fn downlink(&self) -> u64 {
        self.downlink.get()
    }

    /// A block of `bytes` came at `now`.
    pub(crate) fn received(&mut self, bytes: u64, now: Now) {
        self.inflow.add(now, bytes);
    }

    /// One peer sent `bytes` of a piece in `time`. True if that is less than half of what the downlink
    /// carries.
    pub(crate) fn measured(&mut self, bytes: u64, time: Duration) -> bool {
        self.downlink.run(bytes, time);
        time > self.downlink.time_of(bytes).saturating_mul(2)
    }

    /// Decides about an offer of `conn`, which would begin to send after `start_in`.
    pub(crate) fn decide(
        &mut self,
        conn: ConnId,
        offered: &[Offered],
        start_in: Duration,
        fetch: &mut Fetcher,
        ctx: &mut Context,
    ) -> Verdict {
        let start_in = start_in.min(ctx.config.stall_after);
        let busy_for = self.busy_for(Some(conn), fetch, ctx);
        let Some(peer) = ctx.peers.get(&conn) else { return Verdict::Busy(NO_BUFFER) };
        if fetch.is_halted() || !peer.download.is_open() {
            return Verdict::Busy(NO_BUFFER);
        }
        let busy_for = busy_for.max(ctx.receives_in());
        if busy_for > start_in + slack(self.piece_time(ctx)) {
            return Verdict::Busy(busy_for);
        }
        let start = ctx.now + start_in;
        for offered in offered {
            let sends = |peer: &Peer| peer.offers(offered.piece, ctx.now);
            if !ctx.peers.get(&conn).is_some_and(sends) {
                continue;
            }
            if fetch.adopt_piece(conn, *offered, start) || fetch.begin_piece(conn, *offered, start, ctx) {
                return granted(conn, offered.piece, start, ctx);
            }
            if fetch.is_starved() {
                return Verdict::Busy(NO_BUFFER);
            }
        }
        if let Some(offered) = self.relieve(conn, offered, start, fetch, ctx) {
            fetch.adopt_piece(conn, offered, start);
            return granted(conn, offered.piece, start, ctx);
        }
        Verdict::Useless(ctx.peers.get(&conn).and_then(|peer| want(peer, fetch, ctx.now)))
    }

    /// How long a whole piece takes on our downlink.
    fn piece_time(&self, ctx: &Context) -> Duration {
        self.downlink.time_of(u64::from(ctx.config.piece_length))
    }

    /// The downlink carries just now nearly all that it can.
    fn is_full(&mut self, now: Now) -> bool {
        let capacity = self.downlink.get();
        self.inflow.rate(now) > capacity - FULL_MARGIN.of(capacity)
    }

    /// How long our downlink is busy with pieces granted to others than `asker`, which sends one piece after
    /// another. Where it is full just now, late senders count: another one would only make all of them later.
    pub(crate) fn busy_for(&mut self, asker: Option<ConnId>, fetch: &Fetcher, ctx: &Context) -> Duration {
        let (now, full) = (ctx.now, self.is_full(ctx.now));
        let downlink = &self.downlink;
        let share = downlink.get() / (2 * fetch.active().max(1) as u64);
        let mut granted: Vec<(Now, u64)> = Vec::new();
        for active in fetch.pieces().filter(|active| asker.is_none() || active.owner() != asker) {
            let Some(peer) = active.owner().and_then(|owner| ctx.peers.get(&owner)) else { continue };
            let shares = || full && active.pace(now) >= share;
            let counts = !self.drags(active, peer, ctx) || shares();
            if peer.scheduling.is_spoken() && counts {
                granted.push((active.since(), active.missing_bytes()));
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
        if count >= AT_ONCE { end.max(self.piece_time(ctx)) } else { end }
    }

    /// Whether `owner` holds up nothing but its own piece: it is known to be slow, the piece should have been
    /// here, or its next block, or by now more of it.
    fn drags(&self, active: &ActivePiece, owner: &Peer, ctx: &Context) -> bool {
        let (now, piece_time) = (ctx.now, self.piece_time(ctx));
        let age = now.since(active.since());
        owner.download.is_slow()
            // On slow links and with large pieces the sender's word about when it begins is as coarse.
            || now.since(owner.download.progress()) > LATE.max(piece_time)
            || age > LATE.max(piece_time * OVERDUE_TIMES)
            || age > LATE.max(piece_time * CREEPING_TIMES)
                && active.pace(now) < CREEPING_RATE.of(self.downlink.get())
    }

    /// A piece of `offered` that another peer owns and that `conn` will bring sooner: only when nothing else
    /// is missing. The other peer no longer needs to send it.
    fn relieve(
        &self,
        conn: ConnId,
        offered: &[Offered],
        start: Now,
        fetch: &mut Fetcher,
        ctx: &mut Context,
    ) -> Option<Offered> {
        if fetch.picker().wanted() > 0 || ctx.peers.get(&conn).is_none_or(|peer| peer.download.is_slow()) {
            return None;
        }
        let piece_time = self.piece_time(ctx);
        let (offered, owner) = offered.iter().find_map(|offered| {
            let active = fetch.piece(offered.piece)?;
            let owner = active.owner().filter(|owner| *owner != conn && !active.is_solo())?;
            let other = ctx.peers.get(&owner)?;
            let waits = active.untouched() && other.download.begins() > start + piece_time / 4;
            (waits || self.drags(active, other, ctx)).then_some((*offered, owner))
        })?;
        fetch.take_back(owner, offered.piece, ctx);
        Some(offered)
    }
}

/// `conn` is to begin to send `piece` at `start`.
fn granted(conn: ConnId, piece: PieceIndex, start: Now, ctx: &mut Context) -> Verdict {
    if let Some(peer) = ctx.peers.get_mut(&conn) {
        peer.download.granted(start);
    }
    Verdict::Granted(piece)
}

/// A piece that `peer` has and that we would take.
fn want(peer: &Peer, fetch: &Fetcher, now: Now) -> Option<PieceIndex> {
    let lost = fetch.pieces_of_nobody().find(|piece| peer.offers(*piece, now));
    lost.or_else(|| fetch.picker().rarest_few(|piece| peer.offers(piece, now)))
}
