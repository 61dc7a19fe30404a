//! A person's limit on a peer's traffic: a token bucket for each direction, shared by all torrents of a peer.
//!
//! A block that leaves is paid when it is given to the network. A piece that comes from a flashmob peer is
//! paid when it is granted, because its sender then sends all of it, at its own limit. A block that comes
//! from a standard client is paid when it is requested.
//!
//! Invariant: in any time `t`, at most `rate × (t + BURST)` bytes are paid each way, and one payment more.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::sync;
use crate::units::Now;

/// A bucket holds what its rate gives in this time.
const BURST: Duration = Duration::from_millis(20);

/// At most this many bytes a second each way, over all torrents whose engines have a clone of it. They must
/// count time from the same moment.
#[derive(Debug, Clone, Default)]
pub struct RateLimit(Option<Arc<Limited>>);

#[derive(Debug)]
struct Limited {
    /// Bytes a second, more than zero.
    rate: u64,
    paid: Mutex<Paid>,
}

/// Until when each direction is paid for.
#[derive(Debug, Default)]
struct Paid {
    sent: Now,
    received: Now,
}

impl RateLimit {
    /// `rate` bytes a second each way; 0 counts as 1.
    pub fn new(rate: u64) -> Self {
        RateLimit(Some(Arc::new(Limited { rate: rate.max(1), paid: Mutex::default() })))
    }

    /// Bytes a second; `None` without a limit.
    pub fn rate(&self) -> Option<u64> {
        self.0.as_ref().map(|limited| limited.rate)
    }

    /// How long until the next bytes may leave.
    pub(crate) fn sends_in(&self, now: Now) -> Duration {
        self.wait(|paid| paid.sent, now)
    }

    /// How long until the next bytes may come.
    pub(crate) fn receives_in(&self, now: Now) -> Duration {
        self.wait(|paid| paid.received, now)
    }

    /// `bytes` on the wire leave at `now`.
    pub(crate) fn pay_sent(&self, bytes: u64, now: Now) {
        self.pay(|paid| &mut paid.sent, bytes, now);
    }

    /// `bytes` on the wire are asked for at `now`. When they come is their sender's word, which must not keep
    /// others waiting.
    pub(crate) fn pay_received(&self, bytes: u64, now: Now) {
        self.pay(|paid| &mut paid.received, bytes, now);
    }

    fn wait(&self, direction: impl Fn(&Paid) -> Now, now: Now) -> Duration {
        let Some(limited) = &self.0 else { return Duration::ZERO };
        direction(&sync::lock(&limited.paid)).since(now + BURST)
    }

    fn pay(&self, direction: impl Fn(&mut Paid) -> &mut Now, bytes: u64, now: Now) {
        let Some(limited) = &self.0 else { return };
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(limited.rate);
        let time = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let mut paid = sync::lock(&limited.paid);
        let until = direction(&mut paid);
        *until = (*until).max(now) + time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_gets_its_rate_and_no_more() {
        let limit = RateLimit::new(1_000_000);
        let torrents = [limit.clone(), limit.clone()];
        let (mut sent, mut received) = (0, 0);
        for ms in 0..2000 {
            let now = Now(Duration::from_millis(ms));
            for torrent in &torrents {
                while torrent.sends_in(now).is_zero() {
                    torrent.pay_sent(16_384, now);
                    sent += 16_384;
                }
                while torrent.receives_in(now).is_zero() {
                    torrent.pay_received(100_000, now);
                    received += 100_000;
                }
            }
        }
        assert!((1_980_000..2_060_000).contains(&sent), "{sent}");
        assert!((1_980_000..2_200_000).contains(&received), "{received}");
    }

    #[test]
    fn an_idle_time_is_not_made_up_for() {
        let limit = RateLimit::new(1_000_000);
        let now = Now(Duration::from_secs(60));
        limit.pay_sent(1_000_000, now);
        assert_eq!(limit.sends_in(now), Duration::from_millis(980));
        assert_eq!(limit.receives_in(now), Duration::ZERO);
        let free = RateLimit::default();
        free.pay_sent(u64::MAX, now);
        assert_eq!((free.sends_in(now), free.rate()), (Duration::ZERO, None));
    }
}
