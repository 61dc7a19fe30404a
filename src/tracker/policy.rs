//! The choice of peers for an answer.
//!
//! Invariant: a policy only chooses among the given candidates, never more than requested. Here is the policy
//! of a flat network; `zoned` has zones and pins.

use std::net::SocketAddr;
use std::time::Duration;

use super::topology::Topology;
use crate::peer_policy::PeerPolicy;
use crate::units::{InfoHash, PeerId};

/// A peer that could be told, or the one that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub peer_id: PeerId,
    pub address: SocketAddr,
    /// Lacks nothing.
    pub complete: bool,
    /// Time since it was last heard.
    pub silent: Duration,
    /// It is the server's own seeder.
    pub home: bool,
    /// Bytes a second that it was seen to be able to pass on, if it says.
    pub capacity: Option<u64>,
}

impl Candidate {
    /// It speaks our extensions.
    pub fn is_ours(&self) -> bool {
        self.peer_id.is_ours()
    }
}

/// The peer that asks.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    pub swarm: InfoHash,
    pub asker: Candidate,
    /// How many at most.
    pub want: usize,
}

/// The policy's answer to one peer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// Addresses to dial, in this order.
    pub peers: Vec<Candidate>,
    /// The peers it may fetch from and serve, if not all.
    pub policy: Option<PeerPolicy>,
    /// When to ask again, if sooner than usual.
    pub interval: Option<Duration>,
}

/// Chooses the peers for an answer.
pub trait Policy: Send {
    /// At most `ask.want` of `candidates`, which are of the same swarm. `chance` gives random numbers.
    fn choose(
        &mut self,
        ask: &Request,
        candidates: Vec<Candidate>,
        chance: &mut dyn FnMut() -> u64,
    ) -> Selection;

    /// A swarm is no more.
    fn forget(&mut self, _swarm: &InfoHash) {}

    /// The lab's shape is another one from now on.
    fn arrange(&mut self, _topology: &Topology) {}

    /// The rules of the server's own seeder; `None` if the lab has no zones and never had.
    fn home(&self) -> Option<PeerPolicy> {
        None
    }

    /// The peers that exchange pieces beyond their zones, in each swarm.
    fn gateways(&self) -> Vec<(InfoHash, PeerId)> {
        Vec::new()
    }
}

/// One flat network: everyone may meet everyone, in random order.
///
/// A peer that is complete is not told of others that are. One that is not gets complete ones first, but
/// these fill at most half of the list while there are enough others: a swarm lives from those that fetch.
#[derive(Debug, Clone, Copy, Default)]
pub struct FlatPolicy;

impl Policy for FlatPolicy {
    fn choose(
        &mut self,
        ask: &Request,
        mut candidates: Vec<Candidate>,
        chance: &mut dyn FnMut() -> u64,
    ) -> Selection {
        let Request { asker, want, .. } = *ask;
        candidates.retain(|other| other.peer_id != asker.peer_id && !(asker.complete && other.complete));
        shuffle(&mut candidates, chance);
        let (mut complete, mut others): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|c| c.complete);
        complete.truncate(want.div_ceil(2).max(want.saturating_sub(others.len())));
        others.truncate(want.saturating_sub(complete.len()));
        complete.extend(others);
        complete.truncate(want);
        Selection { peers: complete, ..Selection::default() }
    }
}

/// Fisher and Yates. The bias of a remainder of 64 bits is below 2^-50 for any lab.
pub(super) fn shuffle<T>(items: &mut [T], chance: &mut dyn FnMut() -> u64) {
    for i in (1..items.len()).rev() {
        let bound = u64::try_from(i + 1).unwrap_or(u64::MAX);
        let j = usize::try_from(chance() % bound).unwrap_or(0);
        items.swap(i, j);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8, complete: bool) -> Candidate {
        Candidate {
            peer_id: PeerId([n; 20]),
            address: ([10, 0, 0, n], 6881).into(),
            complete,
            silent: Duration::ZERO,
            home: false,
            capacity: None,
        }
    }

    fn told(
        asker: Candidate,
        candidates: Vec<Candidate>,
        want: usize,
        chance: &mut dyn FnMut() -> u64,
    ) -> Vec<Candidate> {
        let ask = Request { swarm: InfoHash([7; 20]), asker, want };
        FlatPolicy.choose(&ask, candidates, chance).peers
    }

    fn counter() -> impl FnMut() -> u64 {
        let mut state = 1u64;
        move || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            state >> 20
        }
    }

    #[test]
    fn nobody_is_told_of_itself() {
        let me = peer(1, false);
        let list = told(me, vec![me, peer(2, false)], 10, &mut counter());
        assert_eq!(list, [peer(2, false)]);
    }

    #[test]
    fn a_complete_peer_is_told_only_of_those_that_fetch() {
        let list = told(peer(1, true), vec![peer(2, true), peer(3, false)], 10, &mut counter());
        assert_eq!(list, [peer(3, false)]);
    }

    #[test]
    fn complete_peers_come_first_and_fill_half_at_most() {
        let candidates: Vec<_> = (2..=21).map(|n| peer(n, n <= 11)).collect();
        let list = told(peer(1, false), candidates.clone(), 8, &mut counter());
        assert_eq!(list.iter().map(|c| c.complete).collect::<Vec<_>>(), [[true; 4], [false; 4]].concat());
        let few: Vec<_> = (2..=12).map(|n| peer(n, n <= 11)).collect();
        let list = told(peer(1, false), few, 8, &mut counter());
        assert_eq!(list.iter().filter(|c| c.complete).count(), 7);
        assert_eq!(list.len(), 8);
    }

    #[test]
    fn over_many_answers_everyone_is_told() {
        let candidates: Vec<_> = (2..=60).map(|n| peer(n, false)).collect();
        let mut chance = counter();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..40 {
            let list = told(peer(1, false), candidates.clone(), 10, &mut chance);
            assert_eq!(list.len(), 10);
            seen.extend(list.into_iter().map(|c| c.address));
        }
        assert_eq!(seen.len(), candidates.len());
    }
}
