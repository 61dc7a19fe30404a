//! What the tracker's rules mean for connections: which peers are dialled and kept, which are asked and
//! served, and at which pace pieces cross from zone to zone.
//!
//! A gateway brings into its zone only what nobody there has, and others' share only when its own is there,
//! so that several gateways bring different pieces. Among peers of one zone nothing changes.
//!
//! Invariant: with rules, every peer's [`Standing`] follows from them and its address, and a peer that is
//! neither fetched from nor served is not connected. Without rules everybody is near.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use crate::rules::{Behind, Rules};
use crate::swarm::engine::Engine;
use crate::swarm::interface::{CloseReason, ConnId};
use crate::swarm::peers::peer::Peer;
use crate::swarm::wire::flashmob::Offered;
use crate::units::{Now, PieceIndex};

/// What we may do with one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// It is of another zone.
    pub beyond: bool,
    /// Behind which uplink it is, for a peer that knows uplinks of others.
    pub behind: Option<usize>,
    /// We may fetch from it.
    pub fetch: bool,
    /// We may serve it.
    pub serve: bool,
}

impl Standing {
    /// Where there are no rules.
    pub const FREE: Standing = Standing { beyond: false, behind: None, fetch: true, serve: true };

    fn by(rules: Option<&Rules>, ip: IpAddr) -> Self {
        let Some(rules) = rules else { return Standing::FREE };
        let ip = ip.to_canonical();
        let among = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&ip));
        // Where zones overlap the narrower network counts.
        let narrowest =
            |zone: &Behind| zone.networks.iter().filter(|net| net.contains(&ip)).map(IpNet::prefix_len).max();
        let behind = rules.behind.iter().enumerate().filter_map(|(at, zone)| Some((narrowest(zone)?, at)));
        let behind = behind.max_by_key(|(width, _)| *width).map(|(_, at)| at);
        let near = among(&rules.networks);
        Standing {
            beyond: !near || behind.is_some(),
            behind,
            fetch: rules.fetch.contains(&ip) || near && !rules.pinned,
            serve: rules.serve.contains(&ip) || near,
        }
    }

    fn allowed(self) -> bool {
        self.fetch || self.serve
    }

    /// Pieces cross to it.
    pub fn crosses(self) -> bool {
        self.beyond && self.serve
    }
}

/// When the next bytes may cross, each way.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    sends: Now,
    receives: Now,
    /// Into each zone of [`Rules::behind`].
    into: Vec<Now>,
}

impl Engine {
    /// From now on these rules hold.
    pub(in crate::swarm) fn follow(&mut self, rules: Rules) {
        if self.rules.as_ref() == Some(&rules) {
            return;
        }
        self.pace.into.resize(rules.behind.len(), Now::ZERO);
        self.rules = Some(rules);
        self.book.look_again();
        self.offers.wake();
        let conns: Vec<(ConnId, IpAddr)> =
            self.peers.iter().map(|(conn, peer)| (*conn, peer.addr.ip())).collect();
        for (conn, ip) in conns {
            let standing = self.standing(ip);
            if !standing.allowed() {
                self.close(conn, CloseReason::NotAllowed);
                continue;
            }
            if let Some(peer) = self.peers.get_mut(&conn) {
                peer.standing = standing;
            }
            self.update_interest(conn);
        }
        self.near.recount(&self.peers, self.geometry.pieces());
        self.crossing = self.peers.values().filter(|peer| peer.standing.crosses()).count();
        self.rechoke();
        self.wake = true;
    }

    /// What we may do with a peer at `ip`.
    pub(in crate::swarm) fn standing(&self, ip: IpAddr) -> Standing {
        Standing::by(self.rules.as_ref(), ip)
    }

    /// May `addr` be dialled?
    pub(in crate::swarm) fn may_dial(rules: Option<&Rules>, addr: SocketAddr) -> bool {
        Standing::by(rules, addr.ip()).allowed()
    }

    /// Of what `peer` offers, that which may be taken: from beyond our zone only what nobody near us has, and
    /// of our share as long as something of it is missing. So two gateways do not bring the same.
    pub(in crate::swarm) fn worth_crossing(&self, peer: &Peer, offered: &[Offered]) -> Vec<Offered> {
        let mut worth: Vec<Offered> = offered.to_vec();
        if peer.standing.beyond {
            let ours_is_missing = self.fetch.rarest_where(|p| self.is_ours(p) && !self.is_near(p)).is_some();
            worth.retain(|Offered { piece, .. }| {
                !self.is_near(*piece) && (self.is_ours(*piece) || !ours_is_missing)
            });
        }
        worth
    }

    /// A piece of `peer`, which is beyond our zone, that we would take.
    pub(in crate::swarm) fn wish_across(&self, peer: &Peer) -> Option<PieceIndex> {
        let missing = |piece: PieceIndex| peer.offers(piece, self.now) && !self.is_near(piece);
        self.fetch.rarest_where(|piece| self.is_ours(piece) && missing(piece))
    }

    /// Is it of the share that we bring into our zone?
    fn is_ours(&self, piece: PieceIndex) -> bool {
        let share = self.rules.as_ref().and_then(|rules| rules.share);
        share.is_none_or(|share| piece.0 % share.of == share.part)
    }

    /// Do we exchange pieces with other zones?
    pub(in crate::swarm) fn is_gateway(&self) -> bool {
        self.crossing > 0
    }

    /// Are we in no zone, and know of those of others?
    pub(in crate::swarm) fn is_outside(&self) -> bool {
        self.rules.as_ref().is_some_and(|rules| !rules.behind.is_empty())
    }

    /// Has a peer of our own zone this piece?
    fn is_near(&self, piece: PieceIndex) -> bool {
        self.near.copies(piece) > 0
    }

    /// Copies of a piece on the side of `peer`: in our zone, or beyond it.
    pub(in crate::swarm) fn copies_beside(&self, peer: &Peer, piece: PieceIndex) -> usize {
        let all = self.fetch.picker.availability(piece) as usize;
        match &self.rules {
            None => all,
            Some(rules) if !rules.behind.is_empty() => all,
            Some(_) if peer.standing.beyond => all.saturating_sub(self.near.copies(piece)),
            Some(_) => self.near.copies(piece),
        }
    }

    /// How long a peer must wait before the next bytes may cross to it.
    pub(in crate::swarm) fn sends_in(&self, peer: &Peer) -> Duration {
        let into = peer.standing.behind.and_then(|zone| self.pace.into.get(zone));
        match into {
            Some(into) => into.since(self.now),
            None if peer.standing.beyond => self.pace.sends.since(self.now),
            None => Duration::ZERO,
        }
    }

    /// How long until the next bytes may cross from `peer` to us.
    pub(in crate::swarm) fn receives_in(&self, peer: &Peer) -> Duration {
        if peer.standing.beyond { self.pace.receives.since(self.now) } else { Duration::ZERO }
    }

    /// `bytes` will cross to `conn`, or have.
    pub(in crate::swarm) fn sends_across(&mut self, conn: ConnId, bytes: u32) {
        let time = self.crossing_time(conn, bytes);
        let behind = self.peers.get(&conn).and_then(|peer| peer.standing.behind);
        let next = match behind {
            Some(zone) => self.pace.into.get_mut(zone),
            None => Some(&mut self.pace.sends),
        };
        let Some(next) = next else { return };
        *next = (*next).max(self.now) + time;
        let next = *next;
        // A peer that does not schedule is held back here.
        if time > Duration::ZERO && behind.is_some() {
            let there = |peer: &&mut Peer| peer.standing.behind == behind && peer.schedules.is_none();
            self.peers.values_mut().filter(there).for_each(|peer| peer.held_until = next);
        }
    }

    /// `bytes` will cross from `conn` to us.
    pub(in crate::swarm) fn receives_across(&mut self, conn: ConnId, bytes: u32) {
        let time = self.crossing_time(conn, bytes);
        self.pace.receives = self.pace.receives.max(self.now) + time;
    }

    /// How long `bytes` take between zones at the pace that the rules give.
    fn crossing_time(&self, conn: ConnId, bytes: u32) -> Duration {
        let Some((standing, rules)) =
            self.peers.get(&conn).map(|peer| peer.standing).zip(self.rules.as_ref())
        else {
            return Duration::ZERO;
        };
        let rate = match standing.behind {
            Some(zone) => rules.behind.get(zone).and_then(|zone| zone.rate),
            None => rules.rate.filter(|_| standing.beyond),
        };
        let rate = rate.filter(|rate| *rate > 0);
        rate.map_or(Duration::ZERO, |rate| Duration::from_micros(u64::from(bytes) * 1_000_000 / rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standing_follows_from_networks_lists_and_pins() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let rules = Rules {
            networks: vec!["10.1.0.0/24".parse().expect("a network")],
            fetch: vec![ip("10.2.0.1")],
            serve: vec![ip("10.3.0.1")],
            ..Rules::default()
        };
        let of = |rules: &Rules, at: &str| {
            let standing = Standing::by(Some(rules), ip(at));
            (standing.beyond, standing.fetch, standing.serve)
        };
        assert_eq!(of(&rules, "::ffff:10.1.0.9"), (false, true, true));
        assert_eq!(of(&rules, "10.2.0.1"), (true, true, false));
        assert_eq!(of(&rules, "10.3.0.1"), (true, false, true));
        assert_eq!(of(&rules, "10.3.0.2"), (true, false, false));
        let pinned = Rules { pinned: true, ..rules };
        assert_eq!(of(&pinned, "10.1.0.9"), (false, false, true));
        assert_eq!(of(&pinned, "10.2.0.1"), (true, true, false));
        let behind =
            |networks: &str| Behind { networks: vec![networks.parse().expect("a network")], rate: None };
        let outside = Rules {
            networks: vec!["0.0.0.0/0".parse().expect("a network")],
            behind: vec![behind("10.1.0.0/16"), behind("10.2.0.0/16")],
            ..Rules::default()
        };
        assert_eq!(of(&outside, "10.2.0.1"), (true, true, true));
        assert_eq!(of(&outside, "10.3.0.1"), (false, true, true));
        assert_eq!(Standing::by(Some(&outside), ip("10.2.0.1")).behind, Some(1));
        assert!(Standing::by(None, ip("10.3.0.2")).allowed());
    }
}
