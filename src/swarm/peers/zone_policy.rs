//! What the tracker's rules mean for connections: which peers are dialled and kept, which are asked and
//! served, and at which pace pieces cross from zone to zone.
//!
//! A gateway fetches from other zones only pieces that no peer of its own zone has, and pieces of other
//! gateways' share only when it has all of its own share: so several gateways fetch different pieces. Among
//! peers of one zone nothing changes.
//!
//! Invariant: with rules, every peer's [`PeerAccess`] follows from them and its address, and a peer that is
//! neither fetched from nor served is not connected. Without rules every peer counts as of our own zone.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::bitfield::Bitfield;
use crate::peer_policy::PeerPolicy;
use crate::swarm::interface::ConnId;
use crate::swarm::peers::access::PeerAccess;
use crate::swarm::peers::availability::ZoneAvailability;
use crate::swarm::peers::peer::{Peer, Peers};
use crate::swarm::pieces::picker::Picker;
use crate::swarm::wire::flashmob::Offered;
use crate::units::{Now, PieceIndex};

/// When the next bytes may cross, each way.
#[derive(Debug, Clone, Default)]
struct Pace {
    sends: Now,
    receives: Now,
    /// Into each zone of [`PeerPolicy::behind`].
    into: Vec<Now>,
}

/// The tracker's policy, and the counts that are needed to follow it.
#[derive(Debug, Default)]
pub(crate) struct ZonePolicy {
    policy: Option<PeerPolicy>,
    pace: Pace,
    /// Copies of pieces in our own zone.
    availability: ZoneAvailability,
    /// Connected peers of other zones that we may serve.
    remote_receivers: usize,
}

impl ZonePolicy {
    /// From now on these rules hold. False if they are the old ones. Peers' access must be looked up again,
    /// and then [`recount`](Self::recount) called.
    pub(crate) fn follow(&mut self, policy: PeerPolicy) -> bool {
        if self.policy.as_ref() == Some(&policy) {
            return false;
        }
        self.pace.into.resize(policy.remote_zones.len(), Now::ZERO);
        self.policy = Some(policy);
        true
    }

    /// Counts peers and their pieces again.
    pub(crate) fn recount(&mut self, peers: &Peers, pieces: u32) {
        self.availability.recount(peers, pieces);
        self.remote_receivers = peers.values().filter(|peer| peer.link.access().is_remote_receiver()).count();
    }

    /// Our access to a peer at `ip`.
    pub(crate) fn access(&self, ip: IpAddr) -> PeerAccess {
        PeerAccess::by(self.policy.as_ref(), ip)
    }

    /// Whether `addr` may be dialled, and a connection from there be kept.
    pub(crate) fn may_meet(&self, addr: SocketAddr) -> bool {
        self.access(addr.ip()).allowed()
    }

    /// A peer with this access has connected.
    pub(crate) fn connected(&mut self, access: PeerAccess) {
        self.remote_receivers += usize::from(access.is_remote_receiver());
    }

    /// `peer` is gone.
    pub(crate) fn disconnected(&mut self, peer: &Peer) {
        self.remote_receivers -= usize::from(peer.link.access().is_remote_receiver());
        if !peer.link.access().remote_zone {
            self.availability.went(peer.link.have());
        }
    }

    /// A peer with this access has `piece` as well.
    pub(crate) fn gained(&mut self, access: PeerAccess, piece: PieceIndex) {
        if !access.remote_zone {
            self.availability.gained(piece);
        }
    }

    /// A peer with this access has the pieces of `field`.
    pub(crate) fn came(&mut self, access: PeerAccess, field: &Bitfield) {
        if !access.remote_zone {
            self.availability.came(field);
        }
    }

    /// The pieces of `offered` that may be fetched from `peer`: from another zone only pieces that no peer of
    /// our zone has, and only of our share while a piece of it is missing. So two gateways do not fetch the
    /// same.
    pub(crate) fn worth_crossing(&self, peer: &Peer, offered: &[Offered], picker: &Picker) -> Vec<Offered> {
        let mut worth: Vec<Offered> = offered.to_vec();
        if peer.link.access().remote_zone {
            let ours_is_missing = picker.rarest_few(|p| self.is_ours(p) && !self.is_in_our_zone(p)).is_some();
            worth.retain(|Offered { piece, .. }| {
                !self.is_in_our_zone(*piece) && (self.is_ours(*piece) || !ours_is_missing)
            });
        }
        worth
    }

    /// A piece of `peer`, which is of another zone, that we would take.
    pub(crate) fn want_across(&self, peer: &Peer, picker: &Picker, now: Now) -> Option<PieceIndex> {
        let missing = |piece: PieceIndex| peer.offers(piece, now) && !self.is_in_our_zone(piece);
        picker.rarest_few(|piece| self.is_ours(piece) && missing(piece))
    }

    /// Whether `piece` is of the share that we fetch into our zone.
    fn is_ours(&self, piece: PieceIndex) -> bool {
        let share = self.policy.as_ref().and_then(|policy| policy.share);
        share.is_none_or(|share| piece.0 % share.of == share.part)
    }

    /// Whether we exchange pieces with other zones.
    pub(crate) fn is_gateway(&self) -> bool {
        self.remote_receivers > 0
    }

    /// Whether we are in no zone and know those of others.
    pub(crate) fn is_outside(&self) -> bool {
        self.policy.as_ref().is_some_and(|policy| !policy.remote_zones.is_empty())
    }

    /// Whether a peer of our own zone has this piece.
    fn is_in_our_zone(&self, piece: PieceIndex) -> bool {
        self.availability.copies(piece) > 0
    }

    /// Copies of a piece on the side of `peer`: in our zone, or in the other ones.
    pub(crate) fn copies_beside(&self, peer: &Peer, piece: PieceIndex, picker: &Picker) -> usize {
        let all = picker.availability(piece) as usize;
        match &self.policy {
            None => all,
            Some(policy) if !policy.remote_zones.is_empty() => all,
            Some(_) if peer.link.access().remote_zone => all.saturating_sub(self.availability.copies(piece)),
            Some(_) => self.availability.copies(piece),
        }
    }

    /// How long until the next bytes may cross to `peer`.
    pub(crate) fn sends_in(&self, peer: &Peer, now: Now) -> Duration {
        let into = peer.link.access().zone.and_then(|zone| self.pace.into.get(zone));
        match into {
            Some(into) => into.since(now),
            None if peer.link.access().remote_zone => self.pace.sends.since(now),
            None => Duration::ZERO,
        }
    }

    /// How long until the next bytes may cross from `peer` to us.
    pub(crate) fn receives_in(&self, peer: &Peer, now: Now) -> Duration {
        if peer.link.access().remote_zone { self.pace.receives.since(now) } else { Duration::ZERO }
    }

    /// Counts `bytes` that cross, or will cross, to `conn`.
    pub(crate) fn charge_sent(&mut self, conn: ConnId, bytes: u32, peers: &mut Peers, now: Now) {
        let access = peers.get(&conn).map_or(PeerAccess::FREE, |peer| peer.link.access());
        let time = self.crossing_time(access, bytes);
        let next = match access.zone {
            Some(zone) => self.pace.into.get_mut(zone),
            None => Some(&mut self.pace.sends),
        };
        let Some(next) = next else { return };
        *next = (*next).max(now) + time;
        // A peer that does not schedule is held back here.
        if time > Duration::ZERO && access.zone.is_some() {
            let there =
                |peer: &&mut Peer| peer.link.access().zone == access.zone && !peer.scheduling.is_spoken();
            peers.values_mut().filter(there).for_each(|peer| peer.upload.hold(*next));
        }
    }

    /// Counts `bytes` that will cross from a peer with this access to us.
    pub(crate) fn charge_received(&mut self, access: PeerAccess, bytes: u32, now: Now) {
        let time = self.crossing_time(access, bytes);
        self.pace.receives = self.pace.receives.max(now) + time;
    }

    /// How long `bytes` take between zones at the pace that the rules give.
    fn crossing_time(&self, access: PeerAccess, bytes: u32) -> Duration {
        let Some(policy) = &self.policy else { return Duration::ZERO };
        let rate = match access.zone {
            Some(zone) => policy.remote_zones.get(zone).and_then(|zone| zone.rate),
            None => policy.rate.filter(|_| access.remote_zone),
        };
        let rate = rate.filter(|rate| *rate > 0);
        rate.map_or(Duration::ZERO, |rate| Duration::from_micros(u64::from(bytes) * 1_000_000 / rate))
    }
}
