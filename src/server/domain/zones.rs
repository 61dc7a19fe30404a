//! The terminals' places: the lab's shape from the configuration and from the terminals' hellos.
//!
//! Invariant: the tracker's shape of the lab is the one that `App::topology` holds; it follows both. A
//! terminal is in the zone of the switch it hears; until it hears one, in the zone of its address. `tracker`
//! chooses the peers for a peer.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::api::{TerminalState, TerminalView};
use crate::server::domain::config::{Config, Who};
use crate::server::domain::lab::{Lab, Terminal};
use crate::tracker::{Pin, Topology, Zone, ZoneId};

/// Most zones that are made of switches.
const MAX_LEARNED: usize = 500;

/// The terminals that people call `label`.
pub fn called<'a>(config: &Config, lab: &'a Lab, label: &str) -> Vec<&'a Terminal> {
    lab.iter().filter(|t| lab.label(config, t) == Some(label)).collect()
}

/// The address of the terminal, if there is exactly one. A name that fits several pins no terminal, and
/// `doubts` informs people.
fn only(fitting: &[&Terminal]) -> Option<IpAddr> {
    match fitting {
        [terminal] => terminal.ip(),
        _ => None,
    }
}

/// The lab's present shape.
pub fn topology(config: &Config, lab: &Lab) -> Topology {
    let mut topology = Topology { zones: config.zones.clone(), ..Topology::default() };
    let address = |who: &Who| match who {
        Who::Address(ip) => Some(*ip),
        Who::Key(key) => only(&lab.fitting(key)),
        Who::Label(label) => only(&called(config, lab, label)),
    };
    topology.pins = config
        .pins
        .iter()
        .filter_map(|pin| {
            let from = pin.from.iter().filter_map(address).collect();
            Some(Pin { terminal: address(&pin.terminal)?, from })
        })
        .collect();
    learn(config.tracker.zones_by_switch, lab, &mut topology);
    topology
}

/// Puts terminals that hear a switch into its zone; with `make`, a switch of no zone makes one.
fn learn(make: bool, lab: &Lab, topology: &mut Topology) {
    // Each hello asks, and with a thousand terminals a walk over all of them is most of its work.
    if !make && topology.zones.iter().all(|zone| zone.switches.is_empty()) {
        return;
    }
    let heard = lab.iter().filter_map(|terminal| Some((terminal.ip()?, terminal.neighbour()?)));
    let mut parents: BTreeMap<String, ZoneId> = BTreeMap::new();
    let mut learned = BTreeMap::new();
    for (ip, switch) in heard {
        let named = |zone: &&Zone| zone.switches.iter().any(|id| id.eq_ignore_ascii_case(&switch.chassis));
        if let Some(zone) = topology.zones.iter().find(named) {
            learned.insert(ip, zone.name.clone());
        } else if make && (parents.len() < MAX_LEARNED || parents.contains_key(&switch.chassis)) {
            parents.entry(switch.chassis.clone()).or_insert_with(|| topology.zone_of(ip));
            learned.insert(ip, switch.chassis.clone());
        }
    }
    let made: Vec<Zone> =
        parents.iter().map(|(chassis, parent)| made(chassis, *parent, &parents, topology)).collect();
    topology.zones.extend(made);
    topology.learned = learned;
}

/// The zone of a switch: it may fetch from where the zone may in which its addresses are, from that zone, and
/// from its other switches.
fn made(chassis: &str, parent: ZoneId, all: &BTreeMap<String, ZoneId>, topology: &Topology) -> Zone {
    let mut zone = Zone::new(chassis, Vec::new());
    if let Some(of) = topology.zone(parent) {
        zone.never.clone_from(&of.never);
        let siblings = all.iter().filter(|(name, of)| *name != chassis && **of == parent);
        zone.from = of.from.as_ref().map(|from| {
            let beside = siblings.map(|(name, _)| name.clone()).chain([of.name.clone()]);
            from.iter().cloned().chain(beside).collect()
        });
    }
    zone
}

/// A zone as the page shows it.
#[derive(utoipa::ToSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneView {
    pub name: String,
    /// Number of its terminals.
    pub terminals: usize,
    /// Number of its terminals that are imaging.
    pub imaging: usize,
    /// Those that exchange pieces beyond it now.
    pub gateways: Vec<String>,
}

/// All zones of these rows, even without terminals; empty if no zones are configured.
pub fn views(topology: &Topology, rows: &[TerminalView]) -> Vec<ZoneView> {
    let of = |name: &str| {
        let here = || rows.iter().filter(|row| row.zone.as_deref() == Some(name));
        let called = |row: &TerminalView| row.label.clone().unwrap_or_else(|| row.id.clone());
        ZoneView {
            name: name.to_owned(),
            terminals: here().count(),
            imaging: here().filter(|row| row.state == TerminalState::Imaging).count(),
            gateways: here().filter(|row| row.gateway).map(called).collect(),
        }
    };
    let rest = of(topology.name(ZoneId::Rest));
    let zones = topology.zones.iter().map(|zone| of(&zone.name));
    zones.chain((rest.terminals > 0).then_some(rest)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::api::{Neighbour, NicInfo};
    use crate::server::domain::ties::Ties;
    use crate::testkit::lab::hello_of;
    use std::sync::Arc;

    const A: &str = "52:54:00:00:00:0a";
    const B: &str = "52:54:00:00:00:0b";

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn hello(lab: &mut Lab, mac: &str, address: &str, chassis: Option<&str>) {
        let mut hello = hello_of(mac);
        let switch = |chassis: &str| Neighbour { chassis: chassis.into(), port: "7".into(), name: None };
        let elsewhere = NicInfo { neighbour: Some(switch("other")), ..NicInfo::default() };
        let nic = NicInfo {
            address: Some(format!("{address}/16")),
            neighbour: chassis.map(switch),
            ..NicInfo::default()
        };
        hello.inventory.nics = vec![elsewhere, nic];
        lab.hello(Duration::ZERO, address.into(), hello).expect("room");
    }

    fn config(text: &str) -> Config {
        Config::parse(text).expect("a configuration")
    }

    const ZONES: &str = "[[zone]]\nname='lab'\nnetworks=['10.1.0.0/16']\nfrom=['rest']\n\
                         [[zone]]\nname='attic'\nswitches=['52:54:00:FF:00:01']\n";

    #[test]
    fn a_terminal_moves_to_the_zone_of_the_switch_that_it_hears() {
        let (config, mut lab) = (config(ZONES), Lab::default());
        let zone = |lab: &Lab, at: &str| {
            let topology = topology(&config, lab);
            topology.name(topology.zone_of(ip(at))).to_owned()
        };
        hello(&mut lab, A, "10.1.0.1", None);
        assert_eq!(zone(&lab, "10.1.0.1"), "lab");
        hello(&mut lab, A, "10.1.0.1", Some("52:54:00:ff:00:01"));
        assert_eq!(zone(&lab, "10.1.0.1"), "attic");
        hello(&mut lab, A, "10.1.0.1", Some("52:54:00:ff:00:02"));
        assert_eq!(zone(&lab, "10.1.0.1"), "lab", "no zone has this switch");
    }

    #[test]
    fn each_switch_makes_a_zone_where_that_is_wanted() {
        let mut config = config(ZONES);
        config.tracker.zones_by_switch = true;
        let mut lab = Lab::default();
        hello(&mut lab, A, "10.1.0.1", Some("s1"));
        hello(&mut lab, B, "10.1.0.2", Some("s2"));
        let topology = topology(&config, &lab);
        let [one, two] = ["10.1.0.1", "10.1.0.2"].map(|at| topology.zone_of(ip(at)));
        assert_eq!((topology.name(one), topology.name(two)), ("s1", "s2"));
        let attic = ZoneId::Zone(1);
        assert!(topology.may_fetch(one, two) && topology.may_fetch(one, ZoneId::Zone(0)));
        assert!(
            topology.may_fetch(one, ZoneId::Rest) && !topology.may_fetch(one, attic),
            "as the zone around it"
        );
    }

    #[test]
    fn pins_name_terminals_by_label_mac_or_address() {
        let text = format!(
            "[terminals.'{A}']\nlabel='alpha'\n[[pin]]\nterminal='{B}'\nfrom=['alpha','10.9.0.1']\n\
             [[pin]]\nterminal='52:54:00:00:00:0c'\nfrom=['alpha']\n"
        );
        let (config, mut lab) = (config(&text), Lab::default());
        assert_eq!(topology(&config, &lab).pins, [], "nobody is known yet");
        hello(&mut lab, A, "10.1.0.1", None);
        hello(&mut lab, B, "10.2.0.2", None);
        let pin = Pin { terminal: ip("10.2.0.2"), from: vec![ip("10.1.0.1"), ip("10.9.0.1")] };
        assert_eq!(topology(&config, &lab).pins, [pin]);
    }

    #[test]
    fn a_terminal_is_needed_in_its_zone_and_through_a_gateway_beyond_it() {
        let config = config(
            "[[zone]]\nname='a'\nnetworks=['10.1.0.0/16']\nfrom=['b']\n\
             [[zone]]\nname='b'\nnetworks=['10.2.0.0/16']\nfrom=[]\n\
             [[pin]]\nterminal='10.2.0.9'\nfrom=['10.1.0.9']\n",
        );
        let ties = Ties {
            topology: Arc::new(topology(&config, &Lab::default())),
            gateways: [ip("10.1.0.1"), ip("10.2.0.1")].into(),
        };
        for (other, me, needs) in [
            ("10.1.0.5", "10.1.0.6", true),
            ("10.1.0.5", "10.2.0.1", true),
            ("10.1.0.5", "10.2.0.2", false),
            ("10.2.0.5", "10.1.0.1", false),
            ("10.2.0.9", "10.1.0.9", true),
            ("10.2.0.9", "10.2.0.1", false),
            ("192.168.0.1", "10.1.0.1", true),
            ("192.168.0.1", "10.1.0.2", false),
            ("192.168.0.1", "192.168.0.2", true),
        ] {
            assert_eq!(ties.needs(Some(ip(other)), Some(ip(me))), needs, "{other} of {me}");
        }
        assert!(ties.needs(None, Some(ip("10.1.0.6"))));
        assert_eq!(ties.zone(Some(ip("10.1.0.6"))).as_deref(), Some("a"));
        assert_eq!(Ties::default().zone(Some(ip("10.1.0.6"))), None);
    }
}
