//! Which terminals need pieces of which others, by the lab's shape and its gateways.
//!
//! Invariant: a terminal with an unknown address counts as needed.

use crate::tracker::{Topology, ZoneId};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

/// Which terminals need pieces of which.
#[derive(Debug, Clone, Default)]
pub struct Ties {
    /// The lab's shape.
    pub topology: Arc<Topology>,
    /// Terminals through which their zones exchange pieces with others, in any swarm.
    pub gateways: BTreeSet<IpAddr>,
}

impl Ties {
    /// May the terminal at `other` still fetch from the one at `me`? Yes where an address is not known.
    pub fn needs(&self, other: Option<IpAddr>, me: Option<IpAddr>) -> bool {
        let (Some(other), Some(me)) = (other, me) else { return true };
        if let Some(from) = self.topology.pinned(other) {
            return from.contains(&me);
        }
        let (there, here) = (self.topology.zone_of(other), self.topology.zone_of(me));
        let crosses = here == ZoneId::Rest || self.gateways.contains(&me);
        there == here || crosses && self.topology.may_fetch(there, here)
    }

    /// The name of the zone of the terminal at `ip`; `None` if there are no zones.
    pub fn zone(&self, ip: Option<IpAddr>) -> Option<String> {
        let zone = self.topology.zone_of(ip?);
        (!self.topology.is_flat()).then(|| self.topology.name(zone).to_owned())
    }
}
