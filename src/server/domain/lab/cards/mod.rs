//! Which network cards are certainly a terminal's own.
//!
//! A hello names any MACs, also those of other machines. A MAC is certainly a terminal's own if a person
//! listed it, or if it gave the terminal its name: the first one of the hello that registered it. The server
//! sends the agent, and the ticket that lets it speak, by such a MAC only. No hello takes one away, and none
//! adds one.
//!
//! Invariant: a terminal's own MACs are among those of its identity.

#[cfg(test)]
mod tests;

use super::Terminal;
use crate::server::domain::identity::{Identity, MAX_MACS, Mac};

/// The MACs that are certainly the terminal's own after it said hello as `who`: those of before, else the
/// first one, by which it netbooted.
pub(super) fn own_after(before: Option<&Terminal>, who: &Identity) -> Vec<Mac> {
    match before {
        Some(before) if !before.own_macs.is_empty() => before.own_macs.clone(),
        _ => who.macs.first().copied().into_iter().collect(),
    }
}

/// `who` with the MACs that are certainly its own, and these before the others.
pub(super) fn with_own(who: Identity, own: &[Mac]) -> Identity {
    let (mut macs, claimed): (Vec<Mac>, Vec<Mac>) = who.macs.into_iter().partition(|mac| own.contains(mac));
    let missing: Vec<Mac> = own.iter().copied().filter(|mac| !macs.contains(mac)).collect();
    macs.extend(missing);
    let room = MAX_MACS.saturating_sub(macs.len());
    macs.extend(claimed.into_iter().take(room));
    Identity { macs, uuid: who.uuid }
}

/// The own MACs of a terminal that an older server stored, which did not tell them from claims: those of one
/// that was only listed, else the one that is its name and the one that it last netbooted by.
pub(crate) fn own_of_older(id: &str, macs: &[Mac], was_heard: bool) -> Vec<Mac> {
    let named: Option<Mac> = id.parse().ok();
    let own = |(place, mac): &(usize, &Mac)| !was_heard || *place == 0 || named == Some(**mac);
    macs.iter().enumerate().filter(own).map(|(_, mac)| *mac).collect()
}

impl Terminal {
    /// Its identity without MACs that only a hello named as its own.
    pub(crate) fn certain(&self) -> Identity {
        Identity { macs: self.own_macs.clone(), uuid: self.identity.uuid }
    }

    /// The card by which a machine netboots that was found to be this terminal, if only a hello named the
    /// card as its own: it may be another machine's, which must not get the agent.
    pub(crate) fn claimed_card(&self, who: &Identity) -> Option<Mac> {
        // One without any MAC is known by its UUID, or a person listed it by that, and it comes for the first
        // time.
        let has_cards = !self.identity.macs.is_empty();
        who.macs.first().copied().filter(|mac| has_cards && !self.own_macs.contains(mac))
    }
}
