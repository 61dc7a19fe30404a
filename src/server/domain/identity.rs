//! The identity of a calling machine: MAC addresses and SMBIOS UUIDs.
//!
//! Invariant: pure. MACs identify machines, because many boards carry no UUID, or share one with thousands of
//! others; a UUID only tells machines apart, so that an adapter that is carried from one to the other does
//! not make them one. In doubt it is another machine, because a confusion would leave one without its image,
//! or wipe the wrong disk.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use uuid::Uuid;

pub use crate::units::Mac;

/// Is it one that VirtualBox (host-only networks) or VMware (VMnet1, VMnet8) give to an adapter of every
/// host?
fn is_everywhere(mac: Mac) -> bool {
    mac.0.starts_with(&[0x0a, 0x00, 0x27, 0x00, 0x00]) || mac.0.starts_with(&[0x00, 0x50, 0x56, 0xc0, 0x00])
}

/// The UUID if it can name a machine; `None` for the ones that boards have which were never given one.
pub(crate) fn usable_uuid(text: &str) -> Option<Uuid> {
    const NEVER_SET: [&str; 5] = [
        "03000200-0400-0500-0006-000700080009",
        "00020003-0004-0005-0006-000700080009",
        "12345678-1234-5678-90ab-cddeefaabbcc",
        "78563412-3412-7856-90ab-cddeefaabbcc",
        "fefefefe-fefe-fefe-fefe-fefefefefefe",
    ];
    let uuid = Uuid::parse_str(text.trim()).ok()?;
    let bytes = uuid.as_bytes();
    let all_the_same = bytes.iter().all(|b| *b == bytes[0]);
    (!all_the_same && !NEVER_SET.contains(&uuid.hyphenated().to_string().as_str())).then_some(uuid)
}

/// The same machine's UUID? SMBIOS 2.6 turned the byte order of the first three fields round, and firmware,
/// iPXE and Linux do not agree about older boards.
pub(crate) fn same_uuid(a: Uuid, b: Uuid) -> bool {
    in_one_order(a) == in_one_order(b)
}

/// One value for a UUID in both byte orders.
pub(crate) fn in_one_order(uuid: Uuid) -> Uuid {
    uuid.min(Uuid::from_bytes(uuid.to_bytes_le()))
}

/// Most MACs of one machine.
pub(crate) const MAX_MACS: usize = 32;

/// A machine's own statements about its identity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// Its MACs, the one it netbooted from first.
    pub macs: Vec<Mac>,
    /// Its UUID if that means anything.
    pub uuid: Option<Uuid>,
}

impl Identity {
    /// From texts. Invalid ones are left out, and so are the MACs that software gives to its adapters on
    /// every machine (older agents report them), and all after the first 32 MACs.
    pub fn new<S: AsRef<str>>(macs: &[S], uuid: Option<&str>) -> Self {
        let mut known = Vec::new();
        for mac in macs.iter().take(MAX_MACS).filter_map(|text| text.as_ref().parse::<Mac>().ok()) {
            if !known.contains(&mac) && !is_everywhere(mac) {
                known.push(mac);
            }
        }
        Identity { macs: known, uuid: uuid.and_then(usable_uuid) }
    }

    fn shares_a_mac_with(&self, other: &Identity) -> bool {
        self.macs.iter().any(|mac| other.macs.contains(mac))
    }

    fn has_a_mac_beside(&self, other: &Identity) -> bool {
        self.macs.iter().any(|mac| !other.macs.contains(mac))
    }

    fn uuid_agrees(&self, other: &Identity) -> Option<bool> {
        Some(same_uuid(self.uuid?, other.uuid?))
    }
}

/// Its MACs, or else its UUID.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let macs: Vec<String> = self.macs.iter().map(ToString::to_string).collect();
        match (macs.is_empty(), self.uuid) {
            (false, _) => f.write_str(&macs.join(", ")),
            (true, Some(uuid)) => TerminalKey::Uuid(uuid).fmt(f),
            (true, None) => f.write_str("a terminal without MAC and UUID"),
        }
    }
}

/// A terminal among which one is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    pub id: &'a str,
    /// Its last statement about its identity.
    pub identity: &'a Identity,
    /// The MACs that are certainly its own; the others are a claim that anybody can make.
    pub own: &'a [Mac],
    /// A person has registered it.
    pub accepted: bool,
    /// Seconds since its last call.
    pub silent: u64,
}

/// Finds the terminal that is speaking. A MAC that is certainly a terminal's own names it unless both have
/// UUIDs that differ (an adapter that was carried over), or each has a MAC that the other lacks and no UUID
/// tells that they are one. A MAC that a terminal only claims names it if the UUIDs agree, because otherwise
/// a stranger who claims the MACs of many machines would keep them out. A UUID names it only where neither
/// has a MAC: two boards with one UUID and no common MAC are two machines, however long the first has been
/// silent. A ticket for the MAC `vouched` prefers the terminal for which it was made.
pub fn find<'a>(
    known: impl Iterator<Item = Known<'a>> + Clone,
    who: &Identity,
    vouched: Option<Mac>,
) -> Option<&'a str> {
    let has_own = |k: &Known<'_>| match vouched {
        Some(mac) => k.own.contains(&mac),
        None => who.macs.iter().any(|mac| k.own.contains(mac)),
    };
    let by_mac = known
        .clone()
        .filter(|k| who.shares_a_mac_with(k.identity))
        .filter(|k| {
            let own = || who.macs.iter().any(|mac| k.own.contains(mac));
            let apart = || who.has_a_mac_beside(k.identity) && k.identity.has_a_mac_beside(who);
            // A person named it by its UUID; its MACs are those of whoever came first and knew that.
            let by_uuid = Uuid::parse_str(k.id).is_ok();
            who.uuid_agrees(k.identity).unwrap_or_else(|| !by_uuid && own() && !apart())
        })
        .min_by_key(|k| (!has_own(k), who.uuid_agrees(k.identity) != Some(true), !k.accepted, k.silent));
    if let Some(found) = by_mac {
        return Some(found.id);
    }
    known
        .filter(|k| who.uuid_agrees(k.identity) == Some(true))
        .filter(|k| who.macs.is_empty() && k.identity.macs.is_empty())
        .min_by_key(|k| k.silent)
        .map(|k| k.id)
}

/// How the configuration names a terminal: a MAC, or `uuid:` and a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub enum TerminalKey {
    /// By one of its MACs.
    Mac(Mac),
    Uuid(Uuid),
}

impl TerminalKey {
    /// Does it mean this machine?
    pub fn matches(&self, who: &Identity) -> bool {
        match self {
            TerminalKey::Mac(mac) => who.macs.contains(mac),
            TerminalKey::Uuid(uuid) => who.uuid.is_some_and(|own| same_uuid(own, *uuid)),
        }
    }
}

impl FromStr for TerminalKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("uuid:") {
            Some(uuid) => usable_uuid(uuid)
                .map(TerminalKey::Uuid)
                .ok_or_else(|| format!("'{uuid}' is not a UUID that names one machine")),
            None => text
                .parse()
                .map(TerminalKey::Mac)
                .map_err(|e| format!("{e}, nor a UUID like uuid:4c4c4544-…")),
        }
    }
}

impl fmt::Display for TerminalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TerminalKey::Mac(mac) => mac.fmt(f),
            TerminalKey::Uuid(uuid) => write!(f, "uuid:{uuid}"),
        }
    }
}

impl TryFrom<String> for TerminalKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "52:54:00:00:00:0a";
    const B: &str = "52:54:00:00:00:0b";
    const U: &str = "4c4c4544-0042-3510-8052-b4c04f4d4e31";
    const U_TURNED: &str = "44454c4c-4200-1035-8052-b4c04f4d4e31";
    const V: &str = "11112222-3333-4444-5555-666677778888";

    fn who(macs: &[&str], uuid: Option<&str>) -> Identity {
        Identity::new(macs, uuid)
    }

    /// Finds it where the first MAC of each known terminal is certainly its own.
    fn found(known: &[(&str, Identity, u64)], who: &Identity) -> Option<String> {
        let list = known.iter().map(|(id, identity, silent)| {
            let own = identity.macs.get(..1).unwrap_or_default();
            Known { id, identity, own, accepted: false, silent: *silent }
        });
        find(list, who, None).map(str::to_string)
    }

    #[test]
    fn a_claimed_mac_names_a_terminal_only_with_its_uuid() {
        let claims = [("a", who(&[A, B], Some(U)), 5)];
        assert_eq!(found(&claims, &who(&[B], None)), None);
        assert_eq!(found(&claims, &who(&[B], Some(V))), None);
        assert_eq!(found(&claims, &who(&[B], Some(U))), Some("a".into()), "its second card");
        let owner = [("a", who(&[A, B], Some(U)), 5), ("b", who(&[B], Some(U)), 500)];
        assert_eq!(found(&owner, &who(&[B], Some(U))), Some("b".into()), "the owner goes first");
    }

    #[test]
    fn a_registered_terminal_goes_before_a_stranger_with_its_mac() {
        let (a, b) = (who(&[A], Some(U)), who(&[A], Some(V)));
        let known = |id, identity, accepted, silent| Known { id, identity, own: &a.macs, accepted, silent };
        let both = [known("stranger", &b, false, 1), known("listed", &a, true, 900)];
        assert_eq!(find(both.into_iter(), &who(&[A], None), None), Some("listed"));
        assert_eq!(find(both.into_iter(), &who(&[A], Some(V)), None), Some("stranger"));
    }

    #[test]
    fn uuids_that_name_nobody_are_not_used() {
        let zeros = "00000000-0000-0000-0000-000000000000";
        for bogus in [zeros, &zeros.replace('0', "f"), "03000200-0400-0500-0006-000700080009", "", "no"] {
            assert_eq!(usable_uuid(bogus), None, "{bogus}");
        }
        assert!(usable_uuid(U).is_some());
    }

    #[test]
    fn a_uuid_in_the_other_byte_order_is_the_same() {
        let (a, b) = (usable_uuid(U).expect("valid"), usable_uuid(U_TURNED).expect("valid"));
        assert!(same_uuid(a, b) && same_uuid(b, a));
        assert!(!same_uuid(a, usable_uuid(V).expect("valid")));
    }

    #[test]
    fn a_mac_names_a_terminal_whatever_bogus_uuid_it_has() {
        let known = [("a", who(&[A], None), 5)];
        assert_eq!(
            found(&known, &who(&[B, A], Some("00000000-0000-0000-0000-000000000000"))),
            Some("a".into())
        );
        assert_eq!(found(&known, &who(&[B], None)), None);
    }

    #[test]
    fn an_adapter_carried_to_another_machine_does_not_make_it_the_first() {
        let known = [("a", who(&[A], Some(U)), 5)];
        assert_eq!(found(&known, &who(&[A], Some(V))), None);
        let both = [("a", who(&[A], Some(U)), 5), ("b", who(&[A], Some(V)), 500)];
        assert_eq!(found(&both, &who(&[A], Some(V))), Some("b".into()));
    }

    #[test]
    fn one_dock_on_many_laptops_is_one_terminal_for_each_laptop() {
        let mut known = Vec::new();
        for n in 0..20u32 {
            let laptop = who(&[A], Some(&format!("4c4c4544-0042-3510-8052-b4c0{n:08x}")));
            assert_eq!(found(&known, &laptop), None, "laptop {n} was never here");
            known.push(("laptop", laptop, 3));
        }
        let ids: Vec<String> = (0..20).map(|n| n.to_string()).collect();
        let known: Vec<_> =
            ids.iter().zip(known).map(|(id, (_, who, silent))| (id.as_str(), who, silent)).collect();
        for (id, laptop, _) in &known {
            assert_eq!(found(&known, laptop).as_deref(), Some(*id), "and is known when it comes back");
        }
    }

    #[test]
    fn two_boards_with_one_uuid_and_no_common_mac_are_two_machines_however_long_one_was_silent() {
        for silent in [0, 3, 121, 500, u64::MAX] {
            assert_eq!(found(&[("a", who(&[A], Some(U)), silent)], &who(&[B], Some(U))), None, "{silent}");
            assert_eq!(found(&[("a", who(&[A], Some(U)), silent)], &who(&[B], Some(U_TURNED))), None);
            assert_eq!(found(&[("a", who(&[A], Some(U)), silent)], &who(&[], Some(U))), None);
        }
    }

    #[test]
    fn machines_without_a_uuid_that_share_one_of_their_adapters_are_two() {
        const DOCK: &str = "52:54:00:00:00:d0";
        let known = [("a", who(&[A, DOCK], None), 5)];
        assert_eq!(found(&known, &who(&[B, DOCK], None)), None);
        assert_eq!(found(&known, &who(&[B, DOCK], Some(U))), None);
        assert_eq!(found(&known, &who(&[A], None)), Some("a".into()), "with one adapter less");
        assert_eq!(found(&known, &who(&[A, DOCK, B], None)), Some("a".into()), "with one more");
        let same = [("a", who(&[A, DOCK], Some(U)), 5)];
        assert_eq!(found(&same, &who(&[B, DOCK], Some(U))), Some("a".into()), "the UUID tells");
    }

    #[test]
    fn an_adapter_that_a_program_makes_alike_on_every_machine_names_none() {
        for everywhere in ["0a:00:27:00:00:00", "00:50:56:c0:00:08"] {
            assert_eq!(found(&[("a", who(&[A, everywhere], None), 5)], &who(&[B, everywhere], None)), None);
            assert_eq!(found(&[("a", who(&[everywhere, A], None), 5)], &who(&[A], None)), Some("a".into()));
            assert_eq!(who(&[everywhere], None), Identity::default());
        }
    }

    #[test]
    fn a_machine_without_any_mac_is_known_by_its_uuid() {
        let known = [("a", who(&[A], Some(U)), 3), ("b", who(&[], Some(U)), 500)];
        assert_eq!(found(&known, &who(&[], Some(U_TURNED))), Some("b".into()));
    }

    #[test]
    fn the_configuration_names_terminals_by_mac_or_uuid() {
        let machine = who(&[A, B], Some(U));
        assert!(A.parse::<TerminalKey>().expect("valid").matches(&machine));
        assert!(format!("uuid:{U_TURNED}").parse::<TerminalKey>().expect("valid").matches(&machine));
        assert!(!format!("uuid:{V}").parse::<TerminalKey>().expect("valid").matches(&machine));
        assert!("uuid:00000000-0000-0000-0000-000000000000".parse::<TerminalKey>().is_err());
        assert!("lab-01".parse::<TerminalKey>().is_err());
    }
}
