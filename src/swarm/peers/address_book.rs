//! Which addresses to dial, and when: every address we heard of, and the result of dialling it.
//!
//! Invariant: an address is dialled at most once at a time, never while the peer behind it is connected,
//! never if it is our own or banned; after a failure it rests for a time that doubles. The book is bounded.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::rng::Rng;
use crate::units::{Now, PeerId};

/// Addresses that are kept at most.
const MAX_KNOWN: usize = 4096;
/// Bans that are kept at most; the oldest are forgotten.
const MAX_BANS: usize = 1024;
/// How long a ban lasts. It is no longer, because the fault may have been in this machine's own memory.
const BAN: Duration = Duration::from_secs(600);
/// Rest after the first failure, doubled by each further one.
const FIRST_REST: Duration = Duration::from_secs(1);
/// Longest rest after failures.
const LONGEST_REST: Duration = Duration::from_secs(60);
/// Rest after a connection that had nothing to trade.
const NOTHING_TO_TRADE_REST: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy)]
struct Entry {
    state: State,
    failures: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    RestUntil(Now),
    Dialling,
    Connected,
    Never,
}

/// The book.
#[derive(Debug)]
pub(crate) struct AddressBook {
    known: BTreeMap<SocketAddr, Entry>,
    dialling: usize,
    /// No address is due before this time.
    quiet_until: Now,
    banned: VecDeque<(PeerId, Now)>,
    own: Vec<SocketAddr>,
}

impl AddressBook {
    /// An empty book of a machine that listens at `port` of `own`.
    pub(crate) fn new(own: &[IpAddr], port: u16) -> Self {
        let own = own.iter().map(|ip| SocketAddr::new(*ip, port)).map(canonical).collect();
        AddressBook {
            known: BTreeMap::new(),
            dialling: 0,
            quiet_until: Now::ZERO,
            banned: VecDeque::new(),
            own,
        }
    }

    /// Notes addresses; those known already stay as they are.
    pub(crate) fn learn(&mut self, addrs: impl IntoIterator<Item = SocketAddr>) {
        for addr in addrs.into_iter().map(canonical) {
            let usable = addr.port() != 0 && !addr.ip().is_unspecified() && !addr.ip().is_multicast();
            if usable && self.known.len() < MAX_KNOWN && !self.own.contains(&addr) {
                self.known.entry(addr).or_insert_with(|| {
                    self.quiet_until = Now::ZERO;
                    Entry { state: State::RestUntil(Now::ZERO), failures: 0 }
                });
            }
        }
    }

    /// Dials under way.
    pub(crate) fn dialling(&self) -> usize {
        self.dialling
    }

    /// Other addresses than before may be dialled.
    pub(crate) fn look_again(&mut self) {
        self.quiet_until = Now::ZERO;
    }

    /// An address that `may` be dialled and whose time has come, by chance; it counts as being dialled from
    /// now on. When there was none, the book is not read again before one's time has come.
    pub(crate) fn next_dial(
        &mut self,
        now: Now,
        rng: &mut Rng,
        may: impl Fn(SocketAddr) -> bool,
    ) -> Option<SocketAddr> {
        if now < self.quiet_until {
            return None;
        }
        let ready = |addr: SocketAddr, entry: &Entry| {
            matches!(entry.state, State::RestUntil(until) if until <= now) && may(addr)
        };
        let count = self.known.iter().filter(|(addr, entry)| ready(**addr, entry)).count();
        if count == 0 {
            let rests = self.known.values().filter_map(|entry| match entry.state {
                State::RestUntil(until) if until > now => Some(until),
                _ => None,
            });
            self.quiet_until = rests.min().unwrap_or(Now(Duration::MAX));
            return None;
        }
        let mut all = self.known.iter_mut().filter(|(addr, entry)| ready(**addr, entry));
        let (addr, entry) = all.nth(rng.below(count))?;
        entry.state = State::Dialling;
        self.dialling += 1;
        Some(*addr)
    }

    /// A dial led to nothing.
    pub(crate) fn failed(&mut self, addr: SocketAddr, now: Now) {
        if self.known.get(&canonical(addr)).is_some_and(|entry| entry.state == State::Dialling) {
            self.rest(addr, now, None);
        }
    }

    /// A connection with the peer that listens at `addr` is open.
    pub(crate) fn connected(&mut self, addr: SocketAddr) {
        self.learn([addr]);
        self.set(addr, State::Connected);
    }

    /// The connection with the peer that listens at `addr` is over: dial again after a rest.
    pub(crate) fn closed(&mut self, addr: SocketAddr, now: Now, nothing_to_trade: bool) {
        self.rest(addr, now, nothing_to_trade.then_some(NOTHING_TO_TRADE_REST));
    }

    /// A connection lived for a while: its address is as good as new.
    pub(crate) fn proved(&mut self, addr: SocketAddr) {
        if let Some(entry) = self.known.get_mut(&canonical(addr)) {
            entry.failures = 0;
        }
    }

    /// Never dial this address: it is our own.
    pub(crate) fn never(&mut self, addr: SocketAddr) {
        self.learn([addr]);
        self.set(addr, State::Never);
    }

    /// This peer is not welcome for [`BAN`]. It is not dialled either, at the address where it listens.
    pub(crate) fn ban(&mut self, peer: PeerId, listens: Option<SocketAddr>, now: Now) {
        self.banned.retain(|(other, until)| *other != peer && *until > now);
        if self.banned.len() >= MAX_BANS {
            self.banned.pop_front();
        }
        self.banned.push_back((peer, now + BAN));
        if let Some(addr) = listens {
            self.rest(addr, now, Some(BAN));
        }
    }

    /// Whether `peer` is banned.
    pub(crate) fn is_banned(&self, peer: PeerId, now: Now) -> bool {
        self.banned.iter().any(|(other, until)| *other == peer && *until > now)
    }

    fn rest(&mut self, addr: SocketAddr, now: Now, rest: Option<Duration>) {
        let Some(entry) = self.known.get_mut(&canonical(addr)) else { return };
        let doubled = FIRST_REST.saturating_mul(1 << entry.failures.min(10)).min(LONGEST_REST);
        entry.failures += 1;
        if entry.state != State::Never {
            let until = now + rest.unwrap_or(doubled);
            // A banned peer's address rests for the whole ban, even when its connection is closed afterwards.
            let longer = match entry.state {
                State::RestUntil(before) => before.max(until),
                _ => until,
            };
            self.set(addr, State::RestUntil(longer));
        }
    }

    fn set(&mut self, addr: SocketAddr, state: State) {
        if let Some(entry) = self.known.get_mut(&canonical(addr)) {
            if entry.state == State::Dialling && state != State::Dialling {
                self.dialling -= 1;
            }
            entry.state = state;
            if let State::RestUntil(until) = state {
                self.quiet_until = self.quiet_until.min(until);
            }
        }
    }
}

/// IPv4 addresses that a dual-stack socket shows as IPv6 are the same machines.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn at(seconds: u64) -> Now {
        Now(Duration::from_secs(seconds))
    }

    #[test]
    fn an_address_is_dialled_once_and_rests_longer_after_each_failure() {
        let (mut book, mut rng) = (AddressBook::new(&[], 0), Rng::new(1));
        book.learn([addr("10.0.0.1:6881"), addr("[::ffff:10.0.0.1]:6881")]);
        assert_eq!(book.next_dial(at(0), &mut rng, |_| true), Some(addr("10.0.0.1:6881")));
        assert_eq!(book.next_dial(at(0), &mut rng, |_| true), None);
        book.failed(addr("10.0.0.1:6881"), at(0));
        assert_eq!((book.dialling(), book.next_dial(at(0), &mut rng, |_| true)), (0, None));
        assert!(book.next_dial(at(1), &mut rng, |_| true).is_some());
        book.failed(addr("10.0.0.1:6881"), at(1));
        assert_eq!(book.next_dial(at(2), &mut rng, |_| true), None);
        assert!(book.next_dial(at(3), &mut rng, |_| true).is_some());
    }

    #[test]
    fn own_unusable_and_connected_addresses_are_not_dialled() {
        let (mut book, mut rng) = (AddressBook::new(&["10.0.0.9".parse().expect("ip")], 6881), Rng::new(1));
        book.learn(["10.0.0.9:6881", "10.0.0.1:0", "0.0.0.0:6881", "224.0.0.1:6881"].map(addr));
        assert_eq!(book.next_dial(at(0), &mut rng, |_| true), None);
        book.connected(addr("10.0.0.2:6881"));
        assert_eq!(book.next_dial(at(1000), &mut rng, |_| true), None);
        book.closed(addr("10.0.0.2:6881"), at(1000), true);
        assert_eq!(book.next_dial(at(1200), &mut rng, |_| true), None);
        assert!(book.next_dial(at(1300), &mut rng, |_| true).is_some());
        book.never(addr("10.0.0.2:6881"));
        book.failed(addr("10.0.0.2:6881"), at(1300));
        assert_eq!((book.dialling(), book.next_dial(at(9999), &mut rng, |_| true)), (0, None));
    }

    #[test]
    fn whoever_may_be_dialled_later_is_found_then() {
        let (mut book, mut rng) = (AddressBook::new(&[], 0), Rng::new(1));
        book.learn([addr("10.0.0.1:1")]);
        assert_eq!(book.next_dial(at(0), &mut rng, |_| false), None);
        book.look_again();
        assert_eq!(book.next_dial(at(0), &mut rng, |_| true), Some(addr("10.0.0.1:1")));
        assert_eq!(book.next_dial(at(0), &mut rng, |_| true), None);
        book.learn([addr("10.0.0.2:1")]);
        assert_eq!(book.next_dial(at(0), &mut rng, |_| true), Some(addr("10.0.0.2:1")));
        book.failed(addr("10.0.0.2:1"), at(5));
        assert_eq!(book.next_dial(at(5), &mut rng, |_| true), None);
        assert_eq!(book.next_dial(at(6), &mut rng, |_| true), Some(addr("10.0.0.2:1")));
    }

    #[test]
    fn a_ban_holds_for_ten_minutes_for_the_peer_and_its_address() {
        let (mut book, mut rng) = (AddressBook::new(&[], 0), Rng::new(1));
        let (peer, listens) = (PeerId([7; 20]), addr("10.0.0.1:6881"));
        book.connected(listens);
        book.ban(peer, Some(listens), at(100));
        book.closed(listens, at(100), false);
        assert!(book.is_banned(peer, at(699)) && !book.is_banned(PeerId([8; 20]), at(100)));
        assert_eq!(book.next_dial(at(699), &mut rng, |_| true), None);
        assert!(!book.is_banned(peer, at(700)));
        assert_eq!(book.next_dial(at(700), &mut rng, |_| true), Some(listens));
    }

    #[test]
    fn the_book_is_bounded() {
        let mut book = AddressBook::new(&[], 0);
        book.learn(
            (0..10_000u32).map(|n| SocketAddr::new(std::net::Ipv4Addr::from(0x0a00_0000 + n).into(), 1)),
        );
        assert_eq!(book.known.len(), MAX_KNOWN);
        (0..2000u32).for_each(|n| {
            let mut id = [0; 20];
            id[..4].copy_from_slice(&n.to_be_bytes());
            book.ban(PeerId(id), None, at(0));
        });
        assert_eq!(book.banned.len(), MAX_BANS);
    }
}
