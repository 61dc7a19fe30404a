//! Asking name servers for the lab's flashmob server: SRV records (RFC 2782) of `_flashmob._tcp.DOMAIN`.
//!
//! Invariant: only answers to the question asked are taken, best priority first. `io::net::discovery` sends
//! and waits.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, TYPE};

/// A server that a name server knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name, without the final dot.
    pub host: String,
    pub port: u16,
    /// Its addresses, as far as the answer had them.
    pub addresses: Vec<Ipv4Addr>,
}

/// Bytes of the question for the flashmob servers of `domain`; `None` if that is no domain name.
pub fn question(id: u16, domain: &str) -> Option<Vec<u8>> {
    let name = name_of(domain);
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(&name).ok()?;
    packet.questions.push(Question::new(name, QTYPE::TYPE(TYPE::SRV), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().ok()
}

/// Reads the answer to question `id`. `None` if the bytes are not that; empty if there are no such servers.
pub fn answer(id: u16, domain: &str, bytes: &[u8]) -> Option<Vec<Service>> {
    let packet = Packet::parse(bytes).ok()?;
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) {
        return None;
    }
    let wanted = name_of(domain);
    let mut addresses: HashMap<String, Vec<Ipv4Addr>> = HashMap::new();
    for record in packet.answers.iter().chain(&packet.additional_records) {
        if let RData::A(a) = &record.rdata {
            addresses
                .entry(record.name.to_string().to_ascii_lowercase())
                .or_default()
                .push(Ipv4Addr::from_bits(a.address));
        }
    }
    let mut services: Vec<_> = packet
        .answers
        .iter()
        .filter(|record| record.name.to_string().eq_ignore_ascii_case(&wanted))
        .filter_map(|record| match &record.rdata {
            // A target of "." says that the service is decidedly not there.
            RData::SRV(srv) if !srv.target.to_string().trim_end_matches('.').is_empty() => {
                let host = srv.target.to_string().trim_end_matches('.').to_ascii_lowercase();
                let service = Service {
                    addresses: addresses.get(&host).cloned().unwrap_or_default(),
                    host,
                    port: srv.port,
                };
                Some((srv.priority, u16::MAX - srv.weight, service))
            }
            _ => None,
        })
        .collect();
    services.sort_by_key(|(priority, light, _)| (*priority, *light));
    Some(services.into_iter().map(|(_, _, service)| service).collect())
}

fn name_of(domain: &str) -> String {
    format!("_flashmob._tcp.{}", domain.trim_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use simple_dns::ResourceRecord;
    use simple_dns::rdata::{A, SRV};

    fn reply(id: u16, services: &[(u16, u16, &'static str)]) -> Vec<u8> {
        let mut packet = Packet::new_reply(id);
        for (priority, weight, host) in services {
            packet.answers.push(ResourceRecord::new(
                Name::new_unchecked("_flashmob._tcp.lab.example"),
                CLASS::IN,
                60,
                RData::SRV(SRV {
                    priority: *priority,
                    weight: *weight,
                    port: 6969,
                    target: Name::new_unchecked(host),
                }),
            ));
        }
        let a = RData::A(A { address: Ipv4Addr::new(10, 0, 0, 5).to_bits() });
        packet.additional_records.push(ResourceRecord::new(
            Name::new_unchecked("b.lab.example"),
            CLASS::IN,
            60,
            a,
        ));
        packet.build_bytes_vec().unwrap()
    }

    #[test]
    fn the_best_priority_comes_first_with_its_address() {
        let bytes = reply(7, &[(20, 0, "a.lab.example"), (10, 5, "b.lab.example"), (10, 1, "c.lab.example")]);
        let found = answer(7, "lab.example.", &bytes).unwrap();
        let hosts: Vec<_> = found.iter().map(|s| s.host.as_str()).collect();
        assert_eq!(hosts, ["b.lab.example", "c.lab.example", "a.lab.example"]);
        assert_eq!(found[0].addresses, [Ipv4Addr::new(10, 0, 0, 5)]);
        assert_eq!(found[0].port, 6969);
    }

    #[test]
    fn answers_to_other_questions_are_not_taken() {
        let bytes = reply(7, &[(1, 1, "b.lab.example")]);
        assert_eq!(answer(8, "lab.example", &bytes), None);
        assert_eq!(answer(7, "other.example", &bytes), Some(vec![]));
        assert_eq!(answer(7, "lab.example", &question(7, "lab.example").unwrap()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300),
            domain in ".{0,80}") {
            let _ = question(1, &domain);
            let _ = answer(1, &domain, &bytes);
        }
    }
}
