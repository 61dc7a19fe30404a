//! Whom a peer is told about.
//!
//! Invariant: a policy only chooses among the candidates it is given, never more than asked. Today everyone may
//! meet everyone; zones and relations (DESIGN §6) will be another [`Policy`].

use std::net::SocketAddr;

use crate::units::PeerId;

/// A peer that could be told, or the one that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Who.
    pub peer_id: PeerId,
    /// Where it listens.
    pub address: SocketAddr,
    /// Lacks nothing.
    pub complete: bool,
}

/// Decides whom a peer is told.
pub trait Policy: Send + Sync {
    /// At most `want` of `candidates`, in the order in which they should be dialled. `chance` gives random numbers.
    fn choose(
        &self,
        asker: &Candidate,
        candidates: Vec<Candidate>,
        want: usize,
        chance: &mut dyn FnMut() -> u64,
    ) -> Vec<Candidate>;
}

/// One flat network: everyone may meet everyone, in random order.
///
/// A peer that is complete is not told of others that are. One that is not gets complete ones first, but these
/// fill at most half of the list while there are enough others: a swarm lives from those that fetch.
#[derive(Debug, Clone, Copy, Default)]
pub struct Everyone;

impl Policy for Everyone {
    fn choose(
        &self,
        asker: &Candidate,
        mut candidates: Vec<Candidate>,
        want: usize,
        chance: &mut dyn FnMut() -> u64,
    ) -> Vec<Candidate> {
        candidates.retain(|other| {
            other.peer_id != asker.peer_id
                && other.address != asker.address
                && !(asker.complete && other.complete)
        });
        shuffle(&mut candidates, chance);
        let (mut complete, mut others): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|c| c.complete);
        complete.truncate(want.div_ceil(2).max(want.saturating_sub(others.len())));
        others.truncate(want.saturating_sub(complete.len()));
        complete.extend(others);
        complete.truncate(want);
        complete
    }
}

/// Fisher and Yates. The bias of a remainder of 64 bits is below 2^-50 for any lab.
fn shuffle<T>(items: &mut [T], chance: &mut dyn FnMut() -> u64) {
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
        Candidate { peer_id: PeerId([n; 20]), address: ([10, 0, 0, n], 6881).into(), complete }
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
        let told = Everyone.choose(&me, vec![me, peer(2, false)], 10, &mut counter());
        assert_eq!(told, [peer(2, false)]);
    }

    #[test]
    fn a_complete_peer_is_told_only_of_those_that_fetch() {
        let told = Everyone.choose(&peer(1, true), vec![peer(2, true), peer(3, false)], 10, &mut counter());
        assert_eq!(told, [peer(3, false)]);
    }

    #[test]
    fn complete_peers_come_first_and_fill_half_at_most() {
        let candidates: Vec<_> = (2..=21).map(|n| peer(n, n <= 11)).collect();
        let told = Everyone.choose(&peer(1, false), candidates.clone(), 8, &mut counter());
        assert_eq!(told.iter().map(|c| c.complete).collect::<Vec<_>>(), [[true; 4], [false; 4]].concat());
        let few: Vec<_> = (2..=12).map(|n| peer(n, n <= 11)).collect();
        let told = Everyone.choose(&peer(1, false), few, 8, &mut counter());
        assert_eq!(told.iter().filter(|c| c.complete).count(), 7);
        assert_eq!(told.len(), 8);
    }

    #[test]
    fn over_many_answers_everyone_is_told() {
        let candidates: Vec<_> = (2..=60).map(|n| peer(n, false)).collect();
        let mut chance = counter();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..40 {
            let told = Everyone.choose(&peer(1, false), candidates.clone(), 10, &mut chance);
            assert_eq!(told.len(), 10);
            seen.extend(told.into_iter().map(|c| c.address));
        }
        assert_eq!(seen.len(), candidates.len());
    }
}
