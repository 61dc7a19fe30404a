//! The access that the tracker's policy gives us to one peer.
//!
//! Invariant: access follows from the rules and the peer's address alone.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::peer_policy::{PeerPolicy, RemoteZone};

/// Our access to one peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PeerAccess {
    /// It is of another zone.
    pub remote_zone: bool,
    /// Behind which uplink it is, for a peer that knows uplinks of others.
    pub zone: Option<usize>,
    /// We may fetch from it.
    pub fetch: bool,
    /// We may serve it.
    pub serve: bool,
}

impl PeerAccess {
    /// Where there are no rules.
    pub(crate) const FREE: PeerAccess =
        PeerAccess { remote_zone: false, zone: None, fetch: true, serve: true };

    /// Our access under `policy` to a peer at `ip`.
    pub(crate) fn by(policy: Option<&PeerPolicy>, ip: IpAddr) -> Self {
        let Some(policy) = policy else { return PeerAccess::FREE };
        let ip = ip.to_canonical();
        let among = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&ip));
        // Where zones overlap the narrower network counts.
        let narrowest = |zone: &RemoteZone| {
            zone.networks.iter().filter(|net| net.contains(&ip)).map(IpNet::prefix_len).max()
        };
        let zone =
            policy.remote_zones.iter().enumerate().filter_map(|(at, zone)| Some((narrowest(zone)?, at)));
        let zone = zone.max_by_key(|(width, _)| *width).map(|(_, at)| at);
        let near = among(&policy.networks);
        PeerAccess {
            remote_zone: !near || zone.is_some(),
            zone,
            fetch: policy.fetch.contains(&ip) || near && !policy.pinned,
            serve: policy.serve.contains(&ip) || near,
        }
    }

    /// Whether a connection is of use.
    pub(crate) fn allowed(self) -> bool {
        self.fetch || self.serve
    }

    /// Pieces cross to it.
    pub(crate) fn is_remote_receiver(self) -> bool {
        self.remote_zone && self.serve
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standing_follows_from_networks_lists_and_pins() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let policy = PeerPolicy {
            networks: vec!["10.1.0.0/24".parse().expect("a network")],
            fetch: vec![ip("10.2.0.1")],
            serve: vec![ip("10.3.0.1")],
            ..PeerPolicy::default()
        };
        let of = |policy: &PeerPolicy, at: &str| {
            let standing = PeerAccess::by(Some(policy), ip(at));
            (standing.remote_zone, standing.fetch, standing.serve)
        };
        assert_eq!(of(&policy, "::ffff:10.1.0.9"), (false, true, true));
        assert_eq!(of(&policy, "10.2.0.1"), (true, true, false));
        assert_eq!(of(&policy, "10.3.0.1"), (true, false, true));
        assert_eq!(of(&policy, "10.3.0.2"), (true, false, false));
        let pinned = PeerPolicy { pinned: true, ..policy };
        assert_eq!(of(&pinned, "10.1.0.9"), (false, false, true));
        assert_eq!(of(&pinned, "10.2.0.1"), (true, true, false));
        let behind =
            |networks: &str| RemoteZone { networks: vec![networks.parse().expect("a network")], rate: None };
        let outside = PeerPolicy {
            networks: vec!["0.0.0.0/0".parse().expect("a network")],
            remote_zones: vec![behind("10.1.0.0/16"), behind("10.2.0.0/16")],
            ..PeerPolicy::default()
        };
        assert_eq!(of(&outside, "10.2.0.1"), (true, true, true));
        assert_eq!(of(&outside, "10.3.0.1"), (false, true, true));
        assert_eq!(PeerAccess::by(Some(&outside), ip("10.2.0.1")).zone, Some(1));
        assert!(PeerAccess::by(None, ip("10.3.0.2")).allowed());
    }
}
