//! `FIRST,LAST[,NETMASK][,GATEWAY]`: addresses that this server gives out itself.
//!
//! Invariant: the first address is not above the last, and a given netmask has all its ones in front.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::Deserialize;

/// Addresses for terminals, and the router that they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Range {
    pub first: Ipv4Addr,
    pub last: Ipv4Addr,
    /// The prefix length; `None` for the network's own.
    pub prefix: Option<u8>,
    /// `None`: terminals get no router.
    pub gateway: Option<Ipv4Addr>,
}

impl Range {
    /// How many addresses it has.
    pub fn size(&self) -> u64 {
        u64::from(u32::from(self.last)) - u64::from(u32::from(self.first)) + 1
    }

    /// The text that is read as this range.
    pub fn to_words(self) -> String {
        let netmask = self.prefix.and_then(|prefix| Some(Ipv4Net::new(self.first, prefix).ok()?.netmask()));
        let all = [Some(self.first), Some(self.last), netmask, self.gateway];
        all.into_iter().flatten().map(|one| one.to_string()).collect::<Vec<_>>().join(",")
    }

    /// Whether this range, its gateway and its netmask are of `network`.
    pub fn fits(&self, network: &Ipv4Net) -> Result<(), String> {
        if self.prefix.is_some_and(|prefix| prefix != network.prefix_len()) {
            return Err(format!("its netmask is not that of {}", network.trunc()));
        }
        for address in [self.first, self.last].into_iter().chain(self.gateway) {
            if !network.contains(&address) {
                return Err(format!("{address} is not in {}", network.trunc()));
            }
            if address == network.network() || address == network.broadcast() {
                return Err(format!("{address} is not an address for a machine in {}", network.trunc()));
            }
        }
        Ok(())
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("'{text}': {why}; write FIRST,LAST[,NETMASK][,GATEWAY], as in 10.0.0.100,10.0.0.199")
        };
        let addresses: Result<Vec<Ipv4Addr>, _> = text.split(',').map(|word| word.trim().parse()).collect();
        let addresses = addresses.map_err(|_| wrong("not IPv4 addresses with commas"))?;
        let (first, last, rest) = match addresses.as_slice() {
            [first, last, rest @ ..] if rest.len() <= 2 => (*first, *last, rest),
            _ => return Err(wrong("two to four addresses are needed")),
        };
        if first > last {
            return Err(wrong("the first address is above the last"));
        }
        // No machine has an address of 224.0.0.0 or above, and a netmask below that is /0 to /3.
        let (mask, gateway) = match rest {
            [mask, gateway] => (Some(*mask), Some(*gateway)),
            [one] if one.octets()[0] >= 224 => (Some(*one), None),
            [one] => (None, Some(*one)),
            _ => (None, None),
        };
        let prefix = mask.map(ipnet::ipv4_mask_to_prefix).transpose();
        let prefix = prefix.map_err(|_| wrong("the netmask has a gap"))?;
        Ok(Range { first, last, prefix, gateway })
    }
}

impl TryFrom<String> for Range {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to {}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_range_are_read_as_it() {
        for text in [
            "10.0.0.1,10.0.0.9",
            "10.0.0.1,10.0.0.9,255.255.0.0",
            "10.0.0.1,10.0.0.9,10.0.0.254",
            "10.0.0.1,10.0.0.9,255.255.0.0,10.0.0.254",
        ] {
            assert_eq!(text.parse::<Range>().map(Range::to_words).as_deref(), Ok(text));
        }
    }

    #[test]
    fn netmask_and_gateway_may_each_be_left_out() {
        let read = |text: &str| text.parse::<Range>().map(|r| (r.prefix, r.gateway.map(|g| g.octets()[3])));
        assert_eq!(read("10.0.0.5,10.0.0.9"), Ok((None, None)));
        assert_eq!(read("10.0.0.5,10.0.0.9,255.255.255.0"), Ok((Some(24), None)));
        assert_eq!(read("10.0.0.5, 10.0.0.9, 10.0.0.1"), Ok((None, Some(1))));
        assert_eq!(read("10.0.0.5,10.0.0.9,255.255.0.0,10.0.0.1"), Ok((Some(16), Some(1))));
        for bad in ["10.0.0.5", "10.0.0.9,10.0.0.5", "10.0.0.5,10.0.0.9,255.0.255.0", "a,b", "1.1.1.1,2,3"] {
            assert!(read(bad).expect_err(bad).contains("FIRST,LAST"), "{bad}");
        }
    }

    #[test]
    fn a_range_outside_its_network_is_named() {
        let network: Ipv4Net = "10.0.0.2/24".parse().expect("a network");
        let fits = |text: &str| text.parse::<Range>().expect("a range").fits(&network);
        assert_eq!(fits("10.0.0.5,10.0.0.9,255.255.255.0,10.0.0.1"), Ok(()));
        assert_eq!(fits("10.0.0.5,10.0.1.9").unwrap_err(), "10.0.1.9 is not in 10.0.0.0/24");
        assert!(fits("10.0.0.5,10.0.0.9,10.0.1.1").unwrap_err().contains("10.0.1.1 is not in"));
        assert!(fits("10.0.0.5,10.0.0.9,255.255.0.0").unwrap_err().contains("netmask"));
        assert!(fits("10.0.0.5,10.0.0.255").unwrap_err().contains("not an address for a machine"));
    }
}
