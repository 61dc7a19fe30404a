//! The peers that a flashmob peer may fetch from and serve: the dictionary `fm` of an announce answer
//! (docs/formats.md).
//!
//! The tracker writes it, the swarm engine follows it. Invariant: decoded rules have at most [`MAX_NETWORKS`]
//! networks and [`MAX_ADDRESSES`] addresses each way, and a valid share. `swarm` applies them to connections.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::bencode::{self, DictWriter, Value};

/// Networks of one zone at most; where zones are learned, each of its terminals is one.
pub(crate) const MAX_NETWORKS: usize = 256;
/// Peers beyond the zone that are named at most, each way.
pub(crate) const MAX_ADDRESSES: usize = 256;

/// The permissions of one peer in one swarm.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerPolicy {
    /// The name of its zone, for people.
    pub zone: String,
    /// Peers at these addresses are of the same zone: it may serve them, and fetch from them unless it is
    /// pinned.
    pub networks: Vec<IpNet>,
    /// Other peers that it may fetch from.
    pub fetch: Vec<IpAddr>,
    /// Other peers that it may serve.
    pub serve: Vec<IpAddr>,
    /// It fetches only from `fetch`.
    pub pinned: bool,
    /// Which part of the pieces it brings into its zone first, where it is one of several gateways.
    pub share: Option<Share>,
    /// Bytes a second that it may send, and receive, beyond its zone; `None`: as many as the link carries.
    pub rate: Option<u64>,
    /// Zones behind their own uplinks, for a peer in no zone that may meet all others: the server's seeder,
    /// which gets them inside the server. They do not travel.
    pub remote_zones: Vec<RemoteZone>,
}

/// A zone, seen from outside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RemoteZone {
    pub networks: Vec<IpNet>,
    /// Bytes a second that may be sent into it.
    pub rate: Option<u64>,
}

/// Part `part` of `of` equal ones, counted from 0: the pieces whose number modulo `of` is `part`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub part: u32,
    /// Of how many; more than `part`.
    pub of: u32,
}

impl PeerPolicy {
    pub fn encode(&self) -> Vec<u8> {
        bencode::write_dict(|dict| {
            texts(dict, "fetch", self.fetch.iter().take(MAX_ADDRESSES));
            texts(dict, "networks", self.networks.iter().take(MAX_NETWORKS));
            if let Some(share) = self.share {
                dict.int("of", share.of);
                dict.int("part", share.part);
            }
            dict.int("pinned", self.pinned);
            if let Some(rate) = self.rate {
                dict.int("rate", rate);
            }
            texts(dict, "serve", self.serve.iter().take(MAX_ADDRESSES));
            dict.bytes("zone", &self.zone);
        })
    }

    /// Reads the dictionary. `None` if it is malformed: the peer then keeps its old rules, because half of
    /// the rules are worse than none.
    pub fn decode(value: &Value<'_>) -> Option<PeerPolicy> {
        let dict = value.as_dict()?;
        let get = |key: &str| dict.get(key.as_bytes());
        let number = |key: &str| get(key)?.as_int();
        let share = match (number("part"), number("of")) {
            (Some(part), Some(of)) => {
                let share = Share { part: u32::try_from(part).ok()?, of: u32::try_from(of).ok()? };
                (share.part < share.of).then_some(share)
            }
            _ => None,
        };
        Some(PeerPolicy {
            zone: get("zone")?.as_text()?.to_owned(),
            networks: parsed(get("networks")?, MAX_NETWORKS)?,
            fetch: parsed(get("fetch")?, MAX_ADDRESSES)?,
            serve: parsed(get("serve")?, MAX_ADDRESSES)?,
            pinned: number("pinned") == Some(1),
            share,
            rate: number("rate").and_then(|rate| u64::try_from(rate).ok()).filter(|rate| *rate > 0),
            remote_zones: Vec::new(),
        })
    }
}

fn parsed<T: std::str::FromStr>(value: &Value<'_>, most: usize) -> Option<Vec<T>> {
    let Value::List(items) = value else { return None };
    (items.len() <= most).then_some(())?;
    items.iter().map(|item| item.as_text()?.parse().ok()).collect()
}

fn texts(dict: &mut DictWriter<'_>, key: &str, items: impl Iterator<Item = impl ToString>) {
    dict.list(key, |list| items.for_each(|item| list.bytes(item.to_string())));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some_rules() -> impl Strategy<Value = PeerPolicy> {
        let address = any::<IpAddr>();
        let networks = prop::collection::vec((any::<[u8; 4]>(), 0u8..=32), 0..5).prop_map(|nets| {
            let net = |(ip, len)| IpNet::new(IpAddr::from(ip), len).expect("a network").trunc();
            nets.into_iter().map(net).collect::<Vec<IpNet>>()
        });
        let list = prop::collection::vec(address, 0..20);
        let share =
            prop::option::of((0u32..9, 1u32..9).prop_map(|(part, more)| Share { part, of: part + more }));
        let rate = prop::option::of(1u64..1 << 40);
        ("[a-z0-9-]{0,12}", networks, list.clone(), list, any::<bool>(), share, rate).prop_map(
            |(zone, networks, fetch, serve, pinned, share, rate)| PeerPolicy {
                zone,
                networks,
                fetch,
                serve,
                pinned,
                share,
                rate,
                remote_zones: Vec::new(),
            },
        )
    }

    fn read(bytes: &[u8]) -> Option<PeerPolicy> {
        PeerPolicy::decode(&Value::parse(bytes, 50_000).ok()?)
    }

    proptest! {
        #[test]
        fn rules_come_back_as_they_were_sent(policy in some_rules()) {
            prop_assert_eq!(read(&policy.encode()), Some(policy));
        }

        #[test]
        fn broken_rules_are_no_rules(policy in some_rules(), at in any::<prop::sample::Index>(), byte: u8) {
            let mut bytes = policy.encode();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Some(read) = read(&bytes) {
                prop_assert!(read.fetch.len() <= MAX_ADDRESSES);
                prop_assert!(read.share.is_none_or(|share| share.part < share.of));
            }
        }
    }

    #[test]
    fn too_many_addresses_are_refused() {
        let item = "8:10.0.0.1";
        let many = format!("d5:fetchl{}e8:networksle5:servele4:zone1:ae", item.repeat(MAX_ADDRESSES + 1));
        assert_eq!(read(many.as_bytes()), None);
        let fits = format!("d5:fetchl{}e8:networksle5:servele4:zone1:ae", item.repeat(MAX_ADDRESSES));
        assert!(read(fits.as_bytes()).is_some());
    }
}
