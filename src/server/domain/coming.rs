//! Terminals that were sent the agent and have not taken their work yet, by the address that asked.
//!
//! Invariant: pure. Anybody can ask for a boot script in the name of any terminal. So one address has at most
//! one terminal on its way: the next one takes its place for the rest of its time. An address whose terminal
//! never came has none for [`REST`]. Without a place a terminal starts as well, and waits for its turn in the
//! agent, as it may behind a NAT.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// How long a terminal that was sent the agent and has not called yet is expected.
pub(crate) const COMING: Duration = Duration::from_secs(180);
/// How long an address has nobody on the way after its last terminal did not come.
pub(crate) const REST: Duration = Duration::from_secs(30 * 60);
/// Most addresses that are remembered.
const MOST: usize = 10_000;

/// One terminal on its way.
#[derive(Debug)]
struct One<T> {
    terminal: String,
    /// What it comes for.
    what: T,
    until: Duration,
}

/// The terminals on their way, by the owner of the address (`limits::owner`) that asked.
#[derive(Debug)]
pub(crate) struct Coming<T>(HashMap<IpAddr, One<T>>);

impl<T> Default for Coming<T> {
    fn default() -> Self {
        Coming(HashMap::new())
    }
}

impl<T> Coming<T> {
    /// `owner` asked in the name of `terminal`, and was sent the agent.
    pub(crate) fn sent(&mut self, now: Duration, owner: IpAddr, terminal: &str, what: T) {
        match self.0.get_mut(&owner) {
            Some(one) if one.until > now => (one.terminal, one.what) = (terminal.into(), what),
            Some(one) if one.until + REST > now => {}
            _ => {
                // Looked at only when it is full, because a whole lab comes at once.
                if self.0.len() >= MOST {
                    self.0.retain(|_, one| one.until + REST > now);
                }
                if self.0.len() < MOST {
                    self.0.insert(owner, One { terminal: terminal.into(), what, until: now + COMING });
                }
            }
        }
    }

    /// A terminal came, or no longer needs to. Its addresses may have others on the way at once.
    pub(crate) fn came(&mut self, terminal: &str) {
        self.0.retain(|_, one| one.terminal != terminal);
    }

    /// Who is on the way now, and for what. A terminal that asked from several addresses is there several
    /// times.
    pub(crate) fn iter(&self, now: Duration) -> impl Iterator<Item = (&str, &T)> {
        let live = self.0.values().filter(move |one| one.until > now);
        live.map(|one| (one.terminal.as_str(), &one.what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::lab::at;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn names(coming: &Coming<u64>, now: u64) -> Vec<&str> {
        let mut names: Vec<&str> = coming.iter(at(now)).map(|(name, _)| name).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn an_address_has_one_terminal_on_the_way_and_none_for_a_while_after_it_did_not_come() {
        let mut coming = Coming::default();
        for (now, name) in [(0, "a"), (60, "b"), (120, "c")] {
            coming.sent(at(now), ip(66), name, 1);
            assert_eq!(names(&coming, now), [name]);
        }
        assert_eq!(names(&coming, 179), ["c"]);
        assert!(names(&coming, 180).is_empty(), "the time of the first one is over");
        coming.sent(at(180), ip(66), "a", 1);
        assert!(names(&coming, 180).is_empty());
        let rested = 180 + REST.as_secs();
        coming.sent(at(rested), ip(66), "a", 1);
        assert_eq!(names(&coming, rested), ["a"]);
        assert_eq!(coming.0.len(), 1);
    }

    #[test]
    fn a_terminal_whose_address_changes_on_the_way_keeps_its_place_until_it_came() {
        let mut coming = Coming::default();
        coming.sent(at(0), ip(1), "a", 1);
        coming.sent(at(10), ip(2), "a", 1);
        coming.sent(at(20), ip(1), "b", 1);
        assert_eq!(names(&coming, 20), ["a", "b"], "although another one has its first address now");
        coming.came("a");
        assert_eq!(names(&coming, 20), ["b"]);
        coming.sent(at(30), ip(2), "c", 1);
        assert_eq!(names(&coming, 30), ["b", "c"]);
    }
}
