//! The tracker's answers as bencoded bytes (BEP 3, 7, 23, 48).
//!
//! Invariant: dictionaries have their keys in byte order and end. A failure is a dictionary with `failure
//! reason` alone, sent with status 200 as BEP 3 wants it.

use std::net::SocketAddr;

use super::announce::Announce;
use super::policy::Candidate;
use super::registry::{Answer, SwarmCounts};
use crate::bencode::{self, DictWriter};
use crate::units::InfoHash;

/// Answers an announce in the form it asked for.
pub fn announce(answer: &Answer, asked: &Announce) -> Vec<u8> {
    bencode::write_dict(|dict| {
        dict.int("complete", answer.complete);
        if let Some(policy) = &answer.policy {
            dict.raw("fm", &policy.encode());
        }
        dict.int("incomplete", answer.incomplete);
        dict.int("interval", answer.interval.as_secs());
        dict.int("min interval", answer.min_interval.as_secs());
        if asked.compact {
            let (mut four, mut six) = (Vec::new(), Vec::new());
            for peer in &answer.peers {
                compact(peer.address, &mut four, &mut six);
            }
            dict.bytes("peers", four);
            if !six.is_empty() {
                dict.bytes("peers6", six);
            }
        } else {
            dict.list("peers", |list| {
                answer.peers.iter().for_each(|peer| list.dict(|dict| entry(dict, peer, asked.no_peer_id)));
            });
        }
    })
}

/// Answers a scrape of `swarms`, which are in ascending order of their info-hashes.
pub(crate) fn scrape(swarms: &[(InfoHash, SwarmCounts)]) -> Vec<u8> {
    bencode::write_dict(|dict| {
        dict.dict("files", |files| {
            for (hash, counts) in swarms {
                files.dict(hash.0, |dict| {
                    dict.int("complete", counts.complete);
                    dict.int("downloaded", counts.downloaded);
                    dict.int("incomplete", counts.incomplete);
                });
            }
        });
    })
}

/// Says why there is no other answer.
pub fn failure(reason: &str) -> Vec<u8> {
    bencode::write_dict(|dict| dict.bytes("failure reason", reason))
}

fn compact(address: SocketAddr, four: &mut Vec<u8>, six: &mut Vec<u8>) {
    let list = match address {
        SocketAddr::V4(v4) => {
            four.extend(v4.ip().octets());
            four
        }
        SocketAddr::V6(v6) => {
            six.extend(v6.ip().octets());
            six
        }
    };
    list.extend(address.port().to_be_bytes());
}

fn entry(dict: &mut DictWriter<'_>, peer: &Candidate, no_peer_id: bool) {
    dict.bytes("ip", peer.address.ip().to_string());
    if !no_peer_id {
        dict.bytes("peer id", peer.peer_id.0);
    }
    dict.int("port", peer.address.port());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bendy::decoding::Decoder;

    use super::*;
    use crate::units::PeerId;

    fn asked(compact: &str) -> Announce {
        let query = format!("info_hash={0}&peer_id={0}&port=1&{compact}", "a".repeat(20));
        Announce::parse(&query).expect("valid")
    }

    fn answer(addresses: &[&str]) -> Answer {
        let peers = addresses
            .iter()
            .map(|a| Candidate {
                peer_id: PeerId([b'p'; 20]),
                address: a.parse().expect("address"),
                complete: false,
                silent: Duration::ZERO,
                home: false,
                capacity: None,
            })
            .collect();
        let (interval, min_interval) = (Duration::from_secs(30), Duration::from_secs(15));
        Answer { interval, min_interval, complete: 1, incomplete: 2, peers, policy: None }
    }

    #[test]
    fn compact_answers_hold_both_families() {
        let bytes = announce(&answer(&["10.1.2.3:6881", "[fd00::1]:258"]), &asked(""));
        let mut expected = b"d8:completei1e10:incompletei2e8:intervali30e12:min intervali15e".to_vec();
        expected.extend(
            b"5:peers6:\x0a\x01\x02\x03\x1a\xe16:peers618:\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x01\x02e",
        );
        assert_eq!(bytes, expected);
    }

    #[test]
    fn rules_stand_where_their_key_belongs() {
        let policy = Some(crate::peer_policy::PeerPolicy { zone: "a".into(), ..Default::default() });
        let bytes = announce(&Answer { policy, ..answer(&[]) }, &asked(""));
        let fm = b"d8:completei1e2:fmd5:fetchle8:networksle6:pinnedi0e5:servele4:zone1:ae10:incomplete";
        assert!(bytes.starts_with(fm), "{}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_list_of_dictionaries_is_given_to_who_asks_for_it() {
        let bytes = announce(&answer(&["10.1.2.3:6881", "[fd00::1]:258"]), &asked("compact=0"));
        let text = String::from_utf8(bytes).expect("ASCII");
        let id = "p".repeat(20);
        assert!(text.ends_with(&format!(
            "5:peersld2:ip8:10.1.2.37:peer id20:{id}4:porti6881eed2:ip7:fd00::17:peer id20:{id}4:porti258eeee"
        )));
        let without = announce(&answer(&["10.1.2.3:6881"]), &asked("compact=0&no_peer_id=1"));
        assert!(!String::from_utf8(without).expect("ASCII").contains("peer id"));
    }

    #[test]
    fn every_answer_is_canonical_bencoding() {
        let counts = SwarmCounts { complete: 1, downloaded: 2, incomplete: 3 };
        for bytes in [
            announce(&answer(&[]), &asked("")),
            announce(&answer(&["1.2.3.4:5", "[::1]:6"]), &asked("compact=0")),
            scrape(&[(InfoHash([1; 20]), counts), (InfoHash([2; 20]), counts)]),
            scrape(&[]),
            failure("no: \"such\" thing"),
        ] {
            // The decoder refuses unsorted keys as it walks over them.
            let mut decoder = Decoder::new(&bytes);
            let object = decoder.next_object().expect("bencoded").expect("not empty");
            let mut dict = object.try_into_dictionary().expect("dictionary");
            while let Some((_, value)) = dict.next_pair().expect("sorted pairs") {
                drop(value);
            }
        }
    }
}
