//! Zones in the lab: announces to the server's tracker, and uplinks that packets between zones pass.
//!
//! Invariant: an uplink carries one frame at a time each way, in the order in which they came; what passes it
//! is counted.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Lab;
use super::event::Event;
use crate::sim::uplink::{INFO_HASH, Uplink};
use crate::swarm::Input;
use crate::tracker::{self, Announce, Seeder, Tracker};
use crate::units::Now;

impl Lab {
    /// Asks the tracker for peers to dial; again when it says.
    pub(super) fn announce(&mut self, node: usize) {
        let addr = self.address(node);
        let (id, home) = (self.id_of(node), Seeder { peer_id: self.id_of(0), address: self.address(0) });
        let home = self.nodes[0].engine.is_some().then_some(home);
        let Some(engine) = self.nodes[node].engine.as_ref() else { return };
        let stats = engine.stats();
        let announce = Announce {
            info_hash: INFO_HASH,
            peer_id: id,
            port: addr.port(),
            uploaded: stats.bytes_out,
            downloaded: stats.bytes_in,
            left: stats.bytes_total - stats.bytes_done,
            event: tracker::Event::Regular,
            compact: true,
            no_peer_id: false,
            numwant: Some(50),
            capacity: Some(stats.capacity).filter(|rate| *rate > 0),
            local: None,
        };
        let (rng, now) = (&mut self.rng, self.now.0);
        let answer = self
            .tracker
            .as_mut()
            .map(|tracker| tracker.announce(now, addr.ip(), &announce, home, &mut || rng.next_u64()));
        let Some(Ok(answer)) = answer else { return };
        self.at(self.now + answer.interval, Event::Announce(node));
        if let Some(mut policy) = answer.policy {
            let scale = u64::from(self.spec.scale);
            policy.rate = policy.rate.map(|rate| (rate / scale).max(1));
            self.tell(node, Input::Policy(policy));
        }
        self.tell(node, Input::Candidates(answer.peers.into_iter().map(|peer| peer.address).collect()));
    }

    /// The server's own seeder hears from the tracker what it must keep to.
    pub(super) fn guide_seeder(&mut self) {
        let scale = u64::from(self.spec.scale);
        if let Some(mut policy) = self.tracker.as_ref().and_then(Tracker::seeder_policy) {
            for zone in &mut policy.remote_zones {
                zone.rate = zone.rate.map(|rate| (rate / scale).max(1));
            }
            self.tell(0, Input::Policy(policy));
        }
    }

    /// Does what these nodes send each other pass uplinks?
    pub(super) fn crosses(&self, a: usize, b: usize) -> bool {
        self.spec.zones.is_some() && self.nodes[a].spec.zone != self.nodes[b].spec.zone
    }

    /// When `len` bytes of `node`, which left it at `now`, have passed its zone's uplink.
    pub(super) fn leave_zone(&mut self, node: usize, len: usize, now: Now) -> Now {
        let time = self.crossing(len);
        let Some(uplink) = self.uplink(node) else { return now };
        uplink.sent += len as u64;
        uplink.out_free = uplink.out_free.max(now) + time;
        uplink.out_free
    }

    /// When `len` bytes for `node` have passed its zone's uplink.
    pub(super) fn enter(&mut self, node: usize, len: usize) -> Now {
        let (now, time) = (self.now, self.crossing(len));
        let Some(uplink) = self.uplink(node) else { return now };
        uplink.received += len as u64;
        uplink.in_free = uplink.in_free.max(now) + time;
        uplink.in_free
    }

    pub(super) fn uplink(&mut self, node: usize) -> Option<&mut Uplink> {
        let zone = self.nodes[node].spec.zone;
        (zone != 0).then(|| self.uplinks.entry(zone).or_default())
    }

    pub(super) fn crossing(&self, len: usize) -> Duration {
        let rate = self.spec.zones.as_ref().map_or(u64::MAX, |zones| zones.uplink);
        Duration::from_nanos(len as u64 * 1_000_000_000 / rate)
    }

    /// The traffic of the uplinks, by zone.
    pub fn uplinks(&self) -> &BTreeMap<u8, Uplink> {
        &self.uplinks
    }
}
