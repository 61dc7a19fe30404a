//! The lab's shape: the zone of each address, and the zones from which peers may fetch.
//!
//! Invariant: a [`Topology`] that passed [`check`](Topology::check) has distinct names, and every name in it
//! is one of its zones or [`REST`]. `zoned` chooses peers by it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;

/// The zone of all addresses that lie in no other.
pub const REST: &str = "rest";
/// Most networks, and most switches, of a configured zone.
pub(crate) const MAX_NAMED: usize = 64;

/// Zones, and pinned terminals.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology {
    /// Terminals behind one switch or in one subnet.
    pub zones: Vec<Zone>,
    /// Terminals that fetch from named ones only.
    pub pins: Vec<Pin>,
    /// Addresses whose zone is known by name from the switch that was heard there. Takes precedence over
    /// networks.
    pub learned: BTreeMap<IpAddr, String>,
}

/// Terminals behind one switch or in one subnet.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// Its name for people.
    pub name: String,
    /// Its addresses; of two zones that name an address the narrower network counts.
    #[serde(default)]
    pub networks: Vec<IpNet>,
    /// Zones that it may fetch from; `None` means all.
    #[serde(default)]
    pub from: Option<Vec<String>>,
    /// Zones with which it exchanges nothing, in neither direction; overrides all other settings.
    #[serde(default)]
    pub never: Vec<String>,
    /// Names of its switches (LLDP chassis): a terminal that hears one is in this zone.
    #[serde(default)]
    pub switches: Vec<String>,
    /// How many of its terminals exchange pieces with other zones at the same time: its gateways.
    #[serde(default = "two")]
    pub links: usize,
    /// The rate at which its terminals together may send, and receive, through its uplink, in Mbit/s.
    #[serde(default)]
    pub limit_mbit: Option<u64>,
}

impl Zone {
    /// A zone that may fetch from everywhere.
    pub fn new(name: impl Into<String>, networks: Vec<IpNet>) -> Self {
        let (from, never, switches) = (None, Vec::new(), Vec::new());
        Zone { name: name.into(), networks, from, never, switches, links: two(), limit_mbit: None }
    }
}

/// A terminal that fetches from named ones only, across zones too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    pub terminal: IpAddr,
    /// The terminals it fetches from.
    pub from: Vec<IpAddr>,
}

/// A zone of a [`Topology`], or the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ZoneId {
    /// By its place in `Topology::zones`.
    Zone(usize),
    /// Addresses in no zone.
    Rest,
}

fn two() -> usize {
    2
}

impl Topology {
    /// Checks it; errors are for people.
    pub fn check(&self) -> Result<(), String> {
        for (i, zone) in self.zones.iter().enumerate() {
            let name = &zone.name;
            if name.is_empty() || name == REST {
                return Err(format!("a zone cannot be called '{name}'"));
            }
            if self.zones[..i].iter().any(|other| other.name == *name) {
                return Err(format!("zone '{name}' is there twice"));
            }
            let (networks, switches) = (zone.networks.len(), zone.switches.len());
            if networks + switches == 0 || networks.max(switches) > MAX_NAMED {
                return Err(format!("zone '{name}' needs 1 to {MAX_NAMED} networks or switches"));
            }
            if !(1..=64).contains(&zone.links) {
                return Err(format!("zone '{name}': links must be 1 to 64; to cut it off say from = []"));
            }
            if zone.limit_mbit.is_some_and(|limit| !(1..=1_000_000).contains(&limit)) {
                return Err(format!("zone '{name}': limit_mbit must be 1 to 1000000"));
            }
            let known = |from: &&String| *from == REST || self.zones.iter().any(|zone| zone.name == **from);
            if let Some(unknown) = zone.from.iter().flatten().chain(&zone.never).find(|other| !known(other)) {
                return Err(format!("zone '{name}' names '{unknown}', which is no zone"));
            }
            let heard =
                |switch: &&String| self.zones[..i].iter().any(|other| other.switches.contains(switch));
            if let Some(switch) = zone.switches.iter().find(heard) {
                return Err(format!("zone '{name}' has the switch {switch}, which another zone has"));
            }
            let twice = |net: &&IpNet| self.zones[..i].iter().any(|other| other.networks.contains(net));
            if let Some(net) = zone.networks.iter().find(twice) {
                return Err(format!("zone '{name}' has the network {net}, which another zone has"));
            }
        }
        for (i, pin) in self.pins.iter().enumerate() {
            let terminal = pin.terminal;
            if pin.from.is_empty() || pin.from.len() > 16 || pin.from.contains(&terminal) {
                return Err(format!("the pin of {terminal} needs 1 to 16 other terminals to fetch from"));
            }
            if self.pins[..i].iter().any(|other| other.terminal == terminal) {
                return Err(format!("{terminal} is pinned twice"));
            }
        }
        Ok(())
    }

    /// Does it say anything?
    pub(crate) fn is_flat(&self) -> bool {
        self.zones.is_empty() && self.pins.is_empty()
    }

    /// Where an address lies.
    pub(crate) fn zone_of(&self, ip: IpAddr) -> ZoneId {
        if let Some(name) = self.learned.get(&ip)
            && let Some(zone) = self.zones.iter().position(|zone| zone.name == *name)
        {
            return ZoneId::Zone(zone);
        }
        let lies_in =
            |zone: &Zone| zone.networks.iter().filter(|net| net.contains(&ip)).map(IpNet::prefix_len).max();
        let best = self.zones.iter().enumerate().filter_map(|(i, zone)| Some((lies_in(zone)?, i))).max();
        best.map_or(ZoneId::Rest, |(_, i)| ZoneId::Zone(i))
    }

    /// May terminals of `zone` fetch from those of `from`?
    pub(crate) fn may_fetch(&self, zone: ZoneId, from: ZoneId) -> bool {
        let allowed = self.zone(zone).and_then(|zone| zone.from.as_ref());
        let named = allowed.is_none_or(|names| names.iter().any(|name| name == self.name(from)));
        zone == from || named && !self.apart(zone, from)
    }

    /// Must nothing pass between them, not even by a pin?
    pub fn apart(&self, a: ZoneId, b: ZoneId) -> bool {
        let refuses = |one, other| {
            let name = self.name(other);
            self.zone(one).is_some_and(|zone| zone.never.iter().any(|never| never == name))
        };
        a != b && (refuses(a, b) || refuses(b, a))
    }

    /// The configured zone; `None` for the rest.
    pub fn zone(&self, zone: ZoneId) -> Option<&Zone> {
        let ZoneId::Zone(i) = zone else { return None };
        self.zones.get(i)
    }

    /// Addresses that were learned to be in `zone`.
    pub(crate) fn learned_in(&self, zone: ZoneId) -> impl Iterator<Item = IpAddr> {
        let name = self.zone(zone).map(|zone| zone.name.as_str());
        let there = move |(_, of): &(&IpAddr, &String)| Some(of.as_str()) == name;
        self.learned.iter().filter(there).map(|(ip, _)| *ip)
    }

    /// The zone's name for people.
    pub fn name(&self, zone: ZoneId) -> &str {
        self.zone(zone).map_or(REST, |zone| &zone.name)
    }

    /// The terminals that the one at `ip` is pinned to.
    pub(crate) fn pinned(&self, ip: IpAddr) -> Option<&[IpAddr]> {
        self.pins.iter().find(|pin| pin.terminal == ip).map(|pin| pin.from.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str, networks: &[&str]) -> Zone {
        Zone::new(name, networks.iter().map(|net| net.parse().expect("a network")).collect())
    }

    #[test]
    fn the_narrowest_network_counts() {
        let zones = vec![zone("all", &["10.0.0.0/8"]), zone("lab", &["10.1.0.0/24", "fd00::/64"])];
        let mut topology = Topology { zones, ..Topology::default() };
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let of = |topology: &Topology, text| topology.name(topology.zone_of(ip(text))).to_owned();
        for (text, zone) in
            [("10.1.0.9", "lab"), ("10.2.0.9", "all"), ("fd00::1", "lab"), ("192.168.0.1", REST)]
        {
            assert_eq!(of(&topology, text), zone);
        }
        topology.learned = [("10.2.0.9", "lab"), ("10.1.0.9", "gone")].map(|(a, z)| (ip(a), z.into())).into();
        assert_eq!([of(&topology, "10.2.0.9"), of(&topology, "10.1.0.9")], ["lab", "lab"]);
    }

    #[test]
    fn a_zone_fetches_from_itself_and_from_where_it_may() {
        let mut zones = vec![zone("a", &["10.1.0.0/24"]), zone("b", &["10.2.0.0/24"])];
        zones[0].from = Some(vec![REST.into()]);
        zones.push(Zone { never: vec!["a".into(), REST.into()], ..zone("c", &["10.3.0.0/24"]) });
        let topology = Topology { zones, ..Topology::default() };
        let (a, b) = (ZoneId::Zone(0), ZoneId::Zone(1));
        assert!(topology.may_fetch(a, a) && topology.may_fetch(a, ZoneId::Rest) && !topology.may_fetch(a, b));
        assert!(topology.may_fetch(b, a) && topology.may_fetch(ZoneId::Rest, a));
        let c = ZoneId::Zone(2);
        assert!(topology.apart(a, c) && topology.apart(c, ZoneId::Rest) && !topology.apart(b, c));
        assert!(
            !topology.may_fetch(ZoneId::Rest, c) && !topology.may_fetch(a, c) && topology.may_fetch(c, b)
        );
    }

    #[test]
    fn mistakes_are_named() {
        let check =
            |zones, pins| Topology { zones, pins, ..Topology::default() }.check().expect_err("a mistake");
        let net = ["10.0.0.0/8"];
        assert!(check(vec![zone("rest", &net)], vec![]).contains("rest"));
        assert!(check(vec![zone("a", &net), zone("a", &net)], vec![]).contains("twice"));
        assert!(check(vec![zone("a", &net), zone("b", &net)], vec![]).contains("another zone"));
        assert!(check(vec![zone("a", &[])], vec![]).contains("networks"));
        assert!(check(vec![Zone { links: 0, ..zone("a", &net) }], vec![]).contains("links"));
        assert!(check(vec![Zone { limit_mbit: Some(0), ..zone("a", &net) }], vec![]).contains("limit"));
        let from = Some(vec!["moon".into()]);
        assert!(check(vec![Zone { from, ..zone("a", &net) }], vec![]).contains("moon"));
        let never = vec!["mars".into()];
        assert!(check(vec![Zone { never, ..zone("a", &net) }], vec![]).contains("mars"));
        let with = |name| Zone { switches: vec!["s".into()], ..zone(name, &[]) };
        assert!(check(vec![with("a"), with("b")], vec![]).contains("switch s"));
        let ip = IpAddr::from([10, 0, 0, 1]);
        assert!(check(vec![], vec![Pin { terminal: ip, from: vec![ip] }]).contains("other terminals"));
    }
}
