//! Limits on the calls of one address: a token bucket for new terminals, and one for requests.
//!
//! Invariant: pure, with the clock as an argument. An address spends only its own tokens, and at most
//! [`MAX_ADDRESSES`] buckets are remembered. Calls of known terminals are not counted: `http` asks here only
//! for calls of strangers.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::server::domain::config::LimitsConfig;

/// Most addresses whose buckets are remembered.
const MAX_ADDRESSES: usize = 4096;
/// Seconds of requests that may come at once, as the first requests of many open pages do.
const REQUESTS_AT_ONCE: u32 = 10;

/// The size of a bucket, and the time until a spent token is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    at_once: u32,
    every: Duration,
}

/// The owner of a bucket: an IPv4 address, or an IPv6 network of 64 bits, because one machine can use all
/// addresses of such a network. Terminals speak IPv4.
pub(crate) fn owner(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() & !u128::from(u64::MAX))),
        four => four,
    }
}

/// Token buckets by owner: when each will be full again. A missing one is full.
#[derive(Debug, Default)]
struct Buckets(HashMap<IpAddr, Duration>);

impl Buckets {
    /// Takes a token, or says how long it takes until there is one.
    fn take(&mut self, now: Duration, address: IpAddr, rate: Rate) -> Result<(), Duration> {
        let owner = owner(address);
        let before = self.0.get(&owner).copied().unwrap_or_default().max(now);
        let after = before + rate.every;
        let lacking = after.saturating_sub(now + rate.every * rate.at_once);
        if !lacking.is_zero() {
            return Err(lacking);
        }
        if self.0.len() >= MAX_ADDRESSES && !self.0.contains_key(&owner) {
            self.make_room(now);
        }
        self.0.insert(owner, after);
        Ok(())
    }

    /// Forgets the full buckets, or else the fuller half, whose owners gain the least.
    fn make_room(&mut self, now: Duration) {
        self.0.retain(|_, full| *full > now);
        if self.0.len() >= MAX_ADDRESSES {
            let mut times: Vec<Duration> = self.0.values().copied().collect();
            let (_, middle, _) = times.select_nth_unstable(MAX_ADDRESSES / 2);
            self.0.retain(|_, full| full > middle);
        }
    }
}

/// The buckets of all addresses.
#[derive(Debug, Default)]
pub struct Limits {
    new_terminals: Buckets,
    requests: Buckets,
    refused: Buckets,
}

/// Refused actions of one address that are written down at once, and of all addresses together.
const REFUSED: Rate = Rate { at_once: 20, every: Duration::from_secs(60) };
const REFUSED_OF_ALL: Rate = Rate { at_once: 200, every: Duration::from_secs(10) };
/// The bucket of all addresses together.
const ALL: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

impl Limits {
    /// Is a refused action of `address` written down, or are there too many?
    pub fn refused(&mut self, now: Duration, address: IpAddr) -> bool {
        self.refused.take(now, address, REFUSED).is_ok()
            && self.refused.take(now, ALL, REFUSED_OF_ALL).is_ok()
    }

    /// May `address` register a terminal that the server does not know? Otherwise: when it may.
    pub fn register(
        &mut self,
        now: Duration,
        address: IpAddr,
        config: &LimitsConfig,
    ) -> Result<(), Duration> {
        let every = Duration::from_secs(60) / config.new_terminals_per_minute.max(1);
        self.new_terminals.take(now, address, Rate { at_once: config.new_terminals, every })
    }

    /// May `address` ask for something that does not come from a known terminal? Otherwise: when it may.
    pub fn request(&mut self, now: Duration, address: IpAddr, config: &LimitsConfig) -> Result<(), Duration> {
        let a_second = config.requests_per_second.max(1);
        let at_once = a_second.saturating_mul(REQUESTS_AT_ONCE);
        self.requests.take(now, address, Rate { at_once, every: Duration::from_secs(1) / a_second })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testkit::lab::at;

    const ROOM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));

    fn config() -> LimitsConfig {
        LimitsConfig::default()
    }

    #[test]
    fn a_room_behind_one_address_registers_at_once_and_ten_thousand_invented_terminals_do_not() {
        let mut limits = Limits::default();
        let came = |limits: &mut Limits, now, address| limits.register(now, address, &config());
        assert!((0..60).all(|_| came(&mut limits, at(100), ROOM).is_ok()));
        // 10,000 in six seconds.
        let in_time = |n: u64| at(100) + Duration::from_micros(600 * n);
        let more = (0..10_000).filter(|n| came(&mut limits, in_time(*n), ROOM).is_ok()).count();
        assert!(more <= 142, "{more}");
        let wait = came(&mut limits, at(106), ROOM).expect_err("nothing left");
        assert!(wait <= Duration::from_secs(5), "{wait:?}");
        assert_eq!(came(&mut limits, at(106) + wait, ROOM), Ok(()), "the wait is as long as was said");
        assert_eq!(came(&mut limits, at(106), [10, 0, 0, 10].into()), Ok(()), "another address");
    }

    #[test]
    fn the_addresses_of_one_machine_share_a_bucket() {
        let of = |text: &str| owner(text.parse().expect("an address"));
        assert_eq!(of("fd00::1:2:3:4"), of("fd00::ffff:1"));
        assert_ne!(of("fd00::1"), of("fd00:0:0:1::1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }

    #[test]
    fn a_page_that_asks_twice_a_second_is_never_refused() {
        let mut limits = Limits::default();
        for second in 0..10_000 {
            for _ in 0..2 {
                assert_eq!(limits.request(at(second), ROOM, &config()), Ok(()));
            }
        }
    }

    proptest! {
        /// In any order of calls, an address gets its bucket's size and refill, not more, nor less because of
        /// others.
        #[test]
        fn an_address_gets_its_tokens_whatever_others_do(
            calls in prop::collection::vec((0u8..4, 0u64..3000), 1..300),
            at_once in 1u32..20,
            millis in 1u64..5000,
        ) {
            let rate = Rate { at_once, every: Duration::from_millis(millis) };
            let (mut together, mut now) = (Buckets::default(), Duration::ZERO);
            let mut alone: [Buckets; 4] = Default::default();
            let mut taken = [0u64; 4];
            for (who, later) in calls {
                now += Duration::from_millis(later);
                let address = IpAddr::from([10, 0, 0, who]);
                let answer = together.take(now, address, rate);
                let who = usize::from(who);
                prop_assert_eq!(answer, alone[who].take(now, address, rate));
                match answer {
                    Ok(()) => taken[who] += 1,
                    Err(wait) => {
                        prop_assert!(!wait.is_zero() && wait <= rate.every);
                        let mut later = Buckets(together.0.clone());
                        prop_assert_eq!(later.take(now + wait, address, rate), Ok(()));
                    }
                }
                let refilled = u64::try_from(now.as_millis()).expect("short") / millis;
                prop_assert!(taken[who] <= u64::from(at_once) + refilled);
            }
        }
    }

    #[test]
    fn the_number_of_remembered_addresses_is_bounded_and_the_one_that_asks_most_is_not_set_free() {
        let rate = Rate { at_once: 3, every: Duration::from_secs(60) };
        let mut buckets = Buckets::default();
        assert!((0..3).all(|_| buckets.take(at(0), ROOM, rate).is_ok()));
        for n in 0..20_000u32 {
            assert_eq!(buckets.take(at(0), IpAddr::V4((0x0b00_0000 + n).into()), rate), Ok(()));
            assert!(buckets.0.len() <= MAX_ADDRESSES);
        }
        assert!(buckets.take(at(1), ROOM, rate).is_err());
    }
}
