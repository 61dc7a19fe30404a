//! A DHCP client (RFC 2131) as a state machine: one for each interface.
//!
//! Invariant: it never gives up. A port that is blocked by spanning tree for 40 s, a server that starts later
//! and a lease that was lost all end in a DISCOVER sent again and again, at most every [`SLOWEST`]. Sockets,
//! clock and randomness are `io::net::dhcp`'s; times are durations since any fixed moment.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

pub use super::dhcp_message::Offer;
use super::dhcp_message::{self, Fields, MessageType, Reply};

/// The pause between the first two messages of a kind.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two DISCOVERs.
pub(crate) const SLOWEST: Duration = Duration::from_secs(8);
/// REQUESTs for one offer before the client drops it.
const REQUESTS: u32 = 4;
/// The pause between renewals that get no answer, but for those after a cable came back.
const RENEW_AGAIN: Duration = Duration::from_secs(30);
/// Used when a server gives no lease time although it must.
const LEASE_WITHOUT_TIME: u32 = 3600;
/// Shorter leases are held this long, or the network would hear nothing but renewals.
const SHORTEST_LEASE: u32 = 60;

/// The client's actions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send these bytes from port 68 to 255.255.255.255 port 67.
    Broadcast(Vec<u8>),
    /// Send them to this server's port 67.
    Unicast(Ipv4Addr, Vec<u8>),
    /// The address may be used from now on; also said when a renewal changed something.
    Bound(Box<Offer>),
    /// The address must no longer be used.
    Lost(Ipv4Addr),
}

#[derive(Debug)]
enum State {
    Selecting,
    Requesting { offer: Offer, sent: u32 },
    Bound(Held),
    Renewing(Held),
    Rebinding(Held),
}

/// A lease and when it ages.
#[derive(Debug, Clone)]
struct Held {
    offer: Offer,
    renew: Option<Duration>,
    rebind: Option<Duration>,
    expires: Option<Duration>,
}

/// The client of one interface.
#[derive(Debug)]
pub struct Client {
    mac: [u8; 6],
    xid: u32,
    random: u64,
    began: Duration,
    pause: Duration,
    deadline: Option<Duration>,
    state: State,
    outputs: VecDeque<Output>,
}

impl Client {
    /// A client that sends its first DISCOVER at once. Transaction numbers and jitter follow from `seed`.
    pub fn new(mac: [u8; 6], seed: u64, now: Duration) -> Self {
        let mut client = Client {
            mac,
            xid: 0,
            random: seed,
            began: now,
            pause: Duration::ZERO,
            deadline: None,
            state: State::Selecting,
            outputs: VecDeque::new(),
        };
        client.select(now);
        client
    }

    /// When [`Client::tick`] must be called next; `None` while nothing ages (an endless lease).
    pub fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(crate) fn tick(&mut self, now: Duration) {
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        match std::mem::replace(&mut self.state, State::Selecting) {
            State::Selecting => self.discover(now),
            State::Requesting { sent, .. } if sent >= REQUESTS => self.select(now),
            State::Requesting { offer, sent } => self.request(now, offer, sent + 1),
            State::Bound(held) => {
                self.new_transaction(now);
                self.pause = RENEW_AGAIN;
                self.age(now, held);
            }
            State::Renewing(held) | State::Rebinding(held) => self.age(now, held),
        }
    }

    /// Handles a datagram from port 68. Anything but an answer to this client is ignored.
    pub fn receive(&mut self, now: Duration, bytes: &[u8]) {
        let Some(reply) = dhcp_message::decode(bytes, self.mac, self.xid) else { return };
        match (std::mem::replace(&mut self.state, State::Selecting), reply) {
            (State::Selecting, Reply::Offer(offer)) => self.request(now, offer, 1),
            (State::Requesting { offer, .. }, Reply::Ack(ack)) if ack.address == offer.address => {
                self.bind(now, ack, None);
            }
            (State::Requesting { .. }, Reply::Nak) => self.select(now),
            (State::Renewing(held) | State::Rebinding(held), Reply::Ack(ack)) => {
                self.bind(now, ack, Some(held.offer));
            }
            (State::Renewing(held) | State::Rebinding(held), Reply::Nak) => {
                self.outputs.push_back(Output::Lost(held.offer.address));
                self.select(now);
            }
            (before, _) => self.state = before,
        }
    }

    /// The cable was out and is back: the address is confirmed with any server at once, for it may be another
    /// network now. The question is repeated as DISCOVER is, because a switch whose port is new forwards
    /// nothing for up to 40 s.
    pub(crate) fn link_back(&mut self, now: Duration) {
        match std::mem::replace(&mut self.state, State::Selecting) {
            State::Bound(held) | State::Renewing(held) | State::Rebinding(held) => {
                let held = Held { rebind: Some(now), renew: Some(now), ..held };
                self.new_transaction(now);
                self.pause = FIRST_PAUSE;
                self.age(now, held);
            }
            State::Selecting | State::Requesting { .. } => self.select(now),
        }
    }

    /// Begins anew with a DISCOVER.
    fn select(&mut self, now: Duration) {
        self.new_transaction(now);
        self.pause = FIRST_PAUSE;
        self.state = State::Selecting;
        self.discover(now);
    }

    fn discover(&mut self, now: Duration) {
        let bytes = dhcp_message::encode(MessageType::Discover, self.fields(now));
        self.outputs.push_back(Output::Broadcast(bytes));
        self.again_after_pause(now);
    }

    fn request(&mut self, now: Duration, offer: Offer, sent: u32) {
        if sent == 1 {
            self.pause = FIRST_PAUSE;
        }
        let fields = Fields { requested: Some(offer.address), server: offer.server, ..self.fields(now) };
        self.outputs.push_back(Output::Broadcast(dhcp_message::encode(MessageType::Request, fields)));
        self.state = State::Requesting { offer, sent };
        self.again_after_pause(now);
    }

    fn bind(&mut self, now: Duration, mut offer: Offer, before: Option<Offer>) {
        if let Some(before) = before {
            if before.address != offer.address {
                self.outputs.push_back(Output::Lost(before.address));
            }
            // A renewal may omit options of the first lease.
            offer.flashmob = offer.flashmob.or(before.flashmob);
            offer.next_server = offer.next_server.or(before.next_server);
        }
        self.outputs.push_back(Output::Bound(Box::new(offer.clone())));
        let seconds = offer.lease.unwrap_or(LEASE_WITHOUT_TIME);
        let held = if seconds == u32::MAX {
            Held { offer, renew: None, rebind: None, expires: None }
        } else {
            let seconds = seconds.max(SHORTEST_LEASE);
            let shortest = SHORTEST_LEASE / 2;
            let rebind = offer.rebind.filter(|r| (shortest..seconds).contains(r)).unwrap_or(seconds / 8 * 7);
            let renew = offer.renew.filter(|r| (shortest..rebind).contains(r)).unwrap_or(seconds / 2);
            let at = |s: u32| Some(now + Duration::from_secs(u64::from(s)));
            Held { offer, renew: at(renew), rebind: at(rebind), expires: at(seconds) }
        };
        self.deadline = held.renew;
        self.state = State::Bound(held);
    }

    /// Renews, asks any server, or gives the address up, by the lease's age.
    fn age(&mut self, now: Duration, held: Held) {
        let past = |moment: Option<Duration>| moment.is_some_and(|m| m <= now);
        if past(held.expires) {
            self.outputs.push_back(Output::Lost(held.offer.address));
            self.select(now);
            return;
        }
        let fields = Fields { ciaddr: Some(held.offer.address), ..self.fields(now) };
        let bytes = dhcp_message::encode(MessageType::Request, fields);
        self.again_after_pause(now);
        let ages = [held.expires, held.rebind.filter(|moment| *moment > now)];
        self.deadline = ages.into_iter().flatten().chain(self.deadline).min();
        self.state = match held.offer.server {
            Some(server) if !past(held.rebind) => {
                self.outputs.push_back(Output::Unicast(server, bytes));
                State::Renewing(held)
            }
            _ => {
                self.outputs.push_back(Output::Broadcast(bytes));
                State::Rebinding(held)
            }
        };
    }

    fn fields(&self, now: Duration) -> Fields {
        let secs = now.saturating_sub(self.began).as_secs();
        Fields {
            mac: self.mac,
            xid: self.xid,
            secs: u16::try_from(secs).unwrap_or(u16::MAX),
            ..Fields::default()
        }
    }

    fn new_transaction(&mut self, now: Duration) {
        self.began = now;
        self.xid = u32::try_from(self.chance() >> 32).unwrap_or_default();
    }

    /// Sets the deadline, with up to half a second of jitter, so that a lab that is switched on at once does
    /// not ask at once. A pause below [`SLOWEST`] doubles up to it.
    fn again_after_pause(&mut self, now: Duration) {
        let jitter = Duration::from_millis(self.chance() % 500);
        self.deadline = Some(now + self.pause + jitter);
        if self.pause < SLOWEST {
            self.pause = (self.pause * 2).min(SLOWEST - Duration::from_millis(500));
        }
    }

    /// SplitMix64.
    fn chance(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests;
