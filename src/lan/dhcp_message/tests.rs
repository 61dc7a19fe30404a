//! Tests of the DHCP messages, with dhcproto as the server.

use super::*;
use dhcproto::v4::{DhcpOption, Message, Opcode, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable, Encoder};
use proptest::prelude::*;

/// A server's answer.
pub(in crate::lan) fn answer(kind: MessageType, request: &[u8], offer: &Offer) -> Vec<u8> {
    let asked = Message::decode(&mut Decoder::new(request)).unwrap();
    let none = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(
        asked.xid(),
        asked.ciaddr(),
        offer.address,
        offer.next_server.unwrap_or(none),
        none,
        asked.chaddr(),
    );
    message.set_opcode(Opcode::BootReply);
    let mask = Ipv4Addr::from_bits(u32::MAX << (32 - offer.prefix));
    let options = message.opts_mut();
    options.insert(DhcpOption::MessageType((kind as u8).into()));
    options.insert(DhcpOption::SubnetMask(mask));
    options.insert(DhcpOption::Router(offer.routers.clone()));
    options.insert(DhcpOption::DomainNameServer(offer.dns.clone()));
    if let Some(server) = offer.server {
        options.insert(DhcpOption::ServerIdentifier(server));
    }
    for (value, option) in [
        (offer.lease, DhcpOption::AddressLeaseTime as fn(u32) -> DhcpOption),
        (offer.renew, DhcpOption::Renewal),
        (offer.rebind, DhcpOption::Rebinding),
    ] {
        if let Some(value) = value {
            options.insert(option(value));
        }
    }
    if let Some(domain) = &offer.domain {
        options.insert(DhcpOption::DomainName(domain.clone()));
    }
    if let Some(mtu) = offer.mtu {
        options.insert(DhcpOption::InterfaceMtu(mtu));
    }
    if let Some(url) = &offer.flashmob {
        let unknown =
            dhcproto::v4::UnknownOption::new(OptionCode::Unknown(option::FLASHMOB), url.clone().into());
        options.insert(DhcpOption::Unknown(unknown));
    }
    let mut bytes = Vec::new();
    message.encode(&mut Encoder::new(&mut bytes)).unwrap();
    bytes
}

pub(in crate::lan) fn sample() -> Offer {
    Offer {
        address: Ipv4Addr::new(10, 7, 0, 9),
        prefix: 22,
        server: Some(Ipv4Addr::new(10, 7, 0, 1)),
        next_server: Some(Ipv4Addr::new(10, 7, 0, 2)),
        routers: vec![Ipv4Addr::new(10, 7, 0, 1)],
        dns: vec![Ipv4Addr::new(10, 7, 0, 1), Ipv4Addr::new(10, 7, 0, 3)],
        domain: Some("lab.example".into()),
        mtu: Some(1400),
        flashmob: Some("http://10.7.0.5:6969".into()),
        lease: Some(600),
        renew: Some(300),
        rebind: Some(500),
    }
}

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

#[test]
fn an_answer_is_read_with_all_that_is_needed() {
    let request = encode(MessageType::Discover, Fields { mac: MAC, xid: 77, ..Fields::default() });
    let bytes = answer(MessageType::Offer, &request, &sample());
    assert_eq!(decode(&bytes, MAC, 77), Some(Reply::Offer(sample())));
}

#[test]
fn answers_to_others_are_not_taken() {
    let request = encode(MessageType::Discover, Fields { mac: MAC, xid: 77, ..Fields::default() });
    let bytes = answer(MessageType::Offer, &request, &sample());
    assert_eq!(decode(&bytes, MAC, 78), None);
    assert_eq!(decode(&bytes, [2, 0, 0, 0, 0, 8], 77), None);
    assert_eq!(decode(&request, MAC, 77), None, "a request is no answer");
}

#[test]
fn a_request_asks_for_option_224_and_for_a_broadcast_answer() {
    let bytes = encode(MessageType::Discover, Fields { mac: MAC, xid: 1, ..Fields::default() });
    let message = Message::decode(&mut Decoder::new(&bytes)).unwrap();
    assert!(message.flags().broadcast());
    let Some(DhcpOption::ParameterRequestList(list)) = message.opts().get(OptionCode::ParameterRequestList)
    else {
        panic!("no parameter request list");
    };
    assert!(list.contains(&OptionCode::Unknown(224)));
    assert!(bytes.len() >= 300);
}

#[test]
fn options_in_the_file_field_and_in_two_parts_are_read() {
    let mut bytes = encode(MessageType::Discover, Fields { mac: MAC, xid: 77, ..Fields::default() });
    bytes[0] = 2;
    bytes[16..20].copy_from_slice(&[10, 0, 0, 9]);
    bytes.truncate(240);
    bytes.extend([53, 1, 2, 224, 3, b'h', b'o', b's', 52, 1, 1, 224, 1, b't', 255]);
    bytes[108..113].copy_from_slice(&[15, 3, b'l', b'a', b'b']);
    let Some(Reply::Offer(offer)) = decode(&bytes, MAC, 77) else { panic!("not an offer") };
    assert_eq!((offer.flashmob.as_deref(), offer.domain.as_deref()), (Some("host"), Some("lab")));
    assert_eq!(offer.prefix, 8);
}

#[test]
fn a_message_is_written_byte_for_byte_as_ever() {
    let fields = Fields { mac: MAC, xid: 0x0102_0304, secs: 5, ..Fields::default() };
    let address = Ipv4Addr::new(10, 7, 0, 9);
    let requested = Fields { requested: Some(address), server: Some(Ipv4Addr::new(10, 7, 0, 1)), ..fields };
    let renewed = Fields { ciaddr: Some(address), ..fields };
    let broadcast = [1, 1, 6, 0, 1, 2, 3, 4, 0, 5, 128, 0, 0, 0, 0, 0];
    let unicast = [1, 1, 6, 0, 1, 2, 3, 4, 0, 5, 0, 0, 10, 7, 0, 9];
    let common = [55, 10, 1, 3, 6, 15, 26, 51, 54, 58, 59, 224, 57, 2, 5, 220, 61, 7, 1, 2, 0, 0, 0, 0, 7];
    let discover: &[u8] = &[53, 1, 1];
    let request: &[u8] = &[50, 4, 10, 7, 0, 9, 53, 1, 3, 54, 4, 10, 7, 0, 1];
    let renewal: &[u8] = &[53, 1, 3];
    for (kind, fields, header, options) in [
        (MessageType::Discover, fields, broadcast, discover),
        (MessageType::Request, requested, broadcast, request),
        (MessageType::Request, renewed, unicast, renewal),
    ] {
        let mut expected = header.to_vec();
        expected.resize(28, 0);
        expected.extend(MAC);
        expected.resize(236, 0);
        expected.extend(MAGIC);
        expected.extend(options);
        expected.extend(common);
        expected.push(255);
        expected.resize(300, 0);
        assert_eq!(encode(kind, fields), expected);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..600),
        magic: bool) {
        if magic && bytes.len() >= 240 {
            bytes[..3].copy_from_slice(&[2, 1, 6]);
            bytes[4..8].copy_from_slice(&77u32.to_be_bytes());
            bytes[28..34].copy_from_slice(&MAC);
            bytes[236..240].copy_from_slice(&MAGIC);
        }
        let _ = decode(&bytes, MAC, 77);
    }

    #[test]
    fn offers_round_trip(prefix in 1u8..=32, lease in any::<u32>(), mtu in 576u16..,
        host in 1u32..0x7f00_0000) {
        let offer = Offer {
            prefix, lease: Some(lease), mtu: Some(mtu), address: Ipv4Addr::from_bits(host), ..sample()
        };
        let request = encode(MessageType::Discover, Fields { mac: MAC, xid: 5, ..Fields::default() });
        prop_assert_eq!(decode(&answer(MessageType::Ack, &request, &offer), MAC, 5), Some(Reply::Ack(offer)));
    }
}
