//! Terminals that share a name with others: boards whose maker gave one UUID to all of them, laptops that use
//! one dock.
//!
//! Invariant: a UUID of several terminals selects no terminal. Configuration and commands for such a UUID
//! have no effect, and people are informed; nothing picks one of the terminals.

use std::collections::{BTreeSet, HashMap};

use super::{Lab, Terminal};
use crate::server::domain::identity::{Identity, TerminalKey, in_one_order};

/// How many terminals a sentence names.
const SHOWN: usize = 3;

/// A list of terminals for a sentence, cut where it grows long.
pub fn some_of(ids: &[&str]) -> String {
    first_of(SHOWN, ids)
}

/// The first `most` names and how many more there are.
pub fn first_of(most: usize, names: &[&str]) -> String {
    let shown = names.iter().take(most).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(most) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// The terminals by their UUIDs (in one byte order) and their MACs.
#[derive(Debug, Default)]
pub(super) struct Namesakes(HashMap<TerminalKey, BTreeSet<String>>);

/// All names that a machine gives itself.
fn keys(who: &Identity) -> impl Iterator<Item = TerminalKey> {
    let uuid = who.uuid.map(|uuid| TerminalKey::Uuid(in_one_order(uuid)));
    uuid.into_iter().chain(who.macs.iter().copied().map(TerminalKey::Mac))
}

impl Namesakes {
    /// The terminal `id` was `before` and is `now`.
    pub(super) fn note(&mut self, id: &str, before: Option<&Identity>, now: &Identity) {
        if let Some(before) = before {
            self.forget(id, before);
        }
        for new in keys(now) {
            self.0.entry(new).or_default().insert(id.to_owned());
        }
    }

    /// The terminal `id`, which was `who`, is no more.
    pub(super) fn forget(&mut self, id: &str, who: &Identity) {
        for key in keys(who) {
            if let Some(all) = self.0.get_mut(&key) {
                all.remove(id);
                if all.is_empty() {
                    self.0.remove(&key);
                }
            }
        }
    }

    /// The terminals that `who` can be: those that share a MAC with it, or the UUID if it has no MAC.
    pub(super) fn sharing(&self, who: &Identity) -> impl Iterator<Item = &str> {
        let by_uuid = who.macs.is_empty();
        keys(who)
            .filter(move |key| by_uuid || matches!(key, TerminalKey::Mac(_)))
            .flat_map(|key| self.of(key))
    }

    fn of(&self, key: TerminalKey) -> impl Iterator<Item = &str> {
        self.0.get(&key).into_iter().flatten().map(String::as_str)
    }
}

impl Lab {
    /// The terminals that have one of these MACs, or the UUID of a machine without a MAC.
    pub(crate) fn sharing(&self, who: &Identity) -> impl Iterator<Item = &Terminal> {
        self.namesakes.sharing(who).filter_map(|id| self.get(id))
    }

    /// The other terminals with the UUID of `who`, which is the terminal `id` if it is known.
    fn namesakes_of(&self, who: &Identity, id: Option<&str>) -> impl Iterator<Item = &str> {
        let uuid = who.uuid.map(|uuid| TerminalKey::Uuid(in_one_order(uuid)));
        uuid.into_iter().flat_map(|key| self.namesakes.of(key)).filter(move |other| Some(*other) != id)
    }

    fn is_accepted(&self, id: &str) -> bool {
        self.get(id).is_some_and(|terminal| terminal.accepted)
    }

    /// The names by which the configuration may know `who` (the terminal `id`, if it is known). A UUID that
    /// another terminal shares is left out, because it is ambiguous. Anybody may claim a UUID, so a claim of
    /// a terminal that nobody accepted takes nothing from an accepted one. Of its MACs those count that are
    /// certainly its own.
    pub fn named(&self, who: &Identity, id: Option<&str>) -> Identity {
        let accepted = id.is_some_and(|id| self.is_accepted(id));
        let shared = self.namesakes_of(who, id).any(|other| !accepted || self.is_accepted(other));
        let own = id.and_then(|id| self.get(id)).map(|terminal| &terminal.own_macs);
        Identity { macs: own.unwrap_or(&who.macs).clone(), uuid: who.uuid.filter(|_| !shared) }
    }

    /// The terminals that `key` fits: several where they share a UUID or an adapter. If some of them are
    /// accepted, the others are not meant. A MAC does not fit a terminal that only claims it.
    pub(crate) fn fitting(&self, key: &TerminalKey) -> Vec<&Terminal> {
        let mut fitting = self.all_known_by(key);
        if fitting.iter().any(|terminal| terminal.accepted) {
            fitting.retain(|terminal| terminal.accepted);
        }
        fitting
    }

    /// The terminals that have this UUID, or this MAC as certainly their own, accepted or not.
    pub(super) fn all_known_by(&self, key: &TerminalKey) -> Vec<&Terminal> {
        let mut all = self.all_with(key);
        if let TerminalKey::Mac(mac) = key {
            all.retain(|terminal| terminal.own_macs.contains(mac));
        }
        all
    }

    /// The terminals that have this MAC or UUID or claim it, accepted or not.
    pub(super) fn all_with(&self, key: &TerminalKey) -> Vec<&Terminal> {
        let key = match key {
            TerminalKey::Mac(mac) => TerminalKey::Mac(*mac),
            TerminalKey::Uuid(uuid) => TerminalKey::Uuid(in_one_order(*uuid)),
        };
        self.namesakes.of(key).filter_map(|id| self.get(id)).collect()
    }

    /// Notes for people about this terminal's name.
    pub fn notes(&self, terminal: &Terminal) -> Vec<String> {
        let others: Vec<&str> = self.namesakes_of(&terminal.identity, Some(&terminal.id)).collect();
        let note = format!("shares its UUID with {}; tell them apart by MAC", some_of(&others));
        let adapters = terminal.identity.macs.iter().filter_map(|mac| {
            let others = self.namesakes.of(TerminalKey::Mac(*mac)).filter(|other| *other != terminal.id);
            let others: Vec<&str> = others.collect();
            let shared =
                format!("was seen with the adapter {mac} of {}; tell them apart by UUID", some_of(&others));
            (!others.is_empty()).then_some(shared)
        });
        let claimed = self.netboot_of(&terminal.id).and_then(|netboot| netboot.claimed);
        let claimed =
            claimed.map(|mac| format!("netboots by {mac}, which nobody has listed as its own card"));
        (!others.is_empty()).then_some(note).into_iter().chain(adapters).chain(claimed).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::api::Hello;
    use crate::testkit::lab::hello_of;

    const U: &str = "8a95d198-7f46-11e5-bf8b-08002704d48e";

    fn lab(boards: &[(&str, Option<&str>)]) -> Lab {
        let mut lab = Lab::default();
        for (mac, uuid) in boards {
            let hello = Hello { uuid: uuid.map(Into::into), ..hello_of(mac) };
            lab.hello(Duration::ZERO, String::new(), hello).expect("room");
        }
        lab
    }

    fn notes(lab: &Lab, id: &str) -> String {
        lab.notes(lab.get(id).expect("known")).join("; ")
    }

    #[test]
    fn boards_that_share_a_uuid_are_told_apart_by_mac_and_a_note_says_so_on_each() {
        let (a, b, c) = ("02:00:00:00:00:0a", "02:00:00:00:00:0b", "02:00:00:00:00:0c");
        let lab = lab(&[(a, Some(U)), (b, Some(U)), (c, None)]);
        assert_eq!(notes(&lab, a), format!("shares its UUID with {b}; tell them apart by MAC"));
        assert_eq!(notes(&lab, b), format!("shares its UUID with {a}; tell them apart by MAC"));
        assert_eq!(notes(&lab, c), "");
        let many: Vec<String> = (0..6).map(|n| format!("02:00:00:00:00:0{n}")).collect();
        let many = self::lab(&many.iter().map(|mac| (mac.as_str(), Some(U))).collect::<Vec<_>>());
        let note = notes(&many, "02:00:00:00:00:05");
        assert!(note.contains("02:00:00:00:00:02 and 2 more; tell"), "{note}");
    }

    #[test]
    fn a_shared_uuid_names_neither_a_known_terminal_nor_one_that_comes_for_the_first_time() {
        let (a, b) = ("02:00:00:00:00:0a", "02:00:00:00:00:0b");
        let one = lab(&[(a, Some(U))]);
        let key: TerminalKey = format!("uuid:{U}").parse().expect("valid");
        let known = one.get(a).expect("known").identity.clone();
        assert!(key.matches(&one.named(&known, Some(a))), "while nobody shares it");
        let new = Identity::new(&[b], Some(U));
        assert!(!key.matches(&one.named(&new, None)), "it may be the one that is known");
        let both = lab(&[(a, Some(U)), (b, Some(U))]);
        assert_eq!(both.fitting(&key).len(), 2);
        assert!(!key.matches(&both.named(&known, Some(a))) && !key.matches(&both.named(&new, Some(b))));
        assert!(a.parse::<TerminalKey>().expect("valid").matches(&both.named(&known, Some(a))));
    }

    #[test]
    fn a_terminal_that_says_another_uuid_than_before_is_nobodys_namesake_any_more() {
        let (a, b) = ("02:00:00:00:00:0a", "02:00:00:00:00:0b");
        let mut lab = lab(&[(a, Some(U)), (b, Some(U))]);
        lab.hello(Duration::ZERO, String::new(), hello_of(b)).expect("room");
        assert_eq!((notes(&lab, a), notes(&lab, b)), (String::new(), String::new()));
    }

    #[test]
    fn a_stranger_who_claims_the_uuid_of_an_accepted_terminal_takes_nothing_from_it() {
        let (a, b) = ("02:00:00:00:00:0a", "02:00:00:00:00:0b");
        let mut lab = lab(&[(a, Some(U)), (b, Some(U))]);
        lab.accept(a).expect("new");
        let key: TerminalKey = format!("uuid:{U}").parse().expect("valid");
        let named =
            |lab: &Lab, id: &str| key.matches(&lab.named(&lab.get(id).expect("known").identity, Some(id)));
        let fitting = |lab: &Lab| lab.fitting(&key).iter().map(|t| t.id.clone()).collect::<Vec<_>>();
        assert!(named(&lab, a) && !named(&lab, b), "the stranger has none of its names");
        assert_eq!(fitting(&lab), [a]);
        assert!(notes(&lab, a).contains(b), "people still see it");
        lab.accept(b).expect("new");
        assert!(!named(&lab, a) && !named(&lab, b), "two boards of the lab");
        assert_eq!(fitting(&lab), [a, b]);
    }

    #[test]
    fn laptops_that_share_a_dock_have_a_note_each() {
        const V: &str = "11112222-3333-4444-5555-666677778888";
        let dock = "02:00:00:00:00:d0";
        let lab = lab(&[(dock, Some(U)), (dock, Some(V))]);
        let second = format!("{dock}-2");
        assert_eq!(
            (notes(&lab, dock), notes(&lab, &second)),
            (
                format!("was seen with the adapter {dock} of {second}; tell them apart by UUID"),
                format!("was seen with the adapter {dock} of {dock}; tell them apart by UUID")
            )
        );
        assert_eq!(lab.fitting(&dock.parse().expect("valid")).len(), 2);
    }
}
