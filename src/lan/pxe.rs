//! The question of a PXE firmware for an address and a boot file, and the answers to it (RFC 2131, PXE 2.1).
//!
//! Invariant: only a question, no lease: DISCOVER is sent, REQUEST never. Answers to other questions are not
//! read, and no length in them is trusted.

use std::net::Ipv4Addr;

const REQUEST: u8 = 1;
const REPLY: u8 = 2;
const ETHERNET: u8 = 1;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// Answers must come as broadcasts, because the asker has no address.
const BROADCAST: [u8; 2] = [0x80, 0];
/// DHCPDISCOVER and DHCPOFFER, values of option 53.
const DISCOVER: u8 = 1;
const OFFER: u8 = 2;
/// Codes of options.
const MESSAGE_TYPE: u8 = 53;
const SERVER: u8 = 54;
const WANTED: u8 = 55;
const VENDOR_CLASS: u8 = 60;
const BOOT_SERVER: u8 = 66;
const BOOT_FILE: u8 = 67;
const ARCHITECTURE: u8 = 93;
const INTERFACE: u8 = 94;
const END: u8 = 255;

/// A server's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub server: Ipv4Addr,
    /// It offers an address: a DHCP server, else a proxyDHCP.
    pub offers_address: bool,
    /// The file to boot, if it names one.
    pub boots: Option<String>,
    /// From where.
    pub next_server: Ipv4Addr,
}

/// A DISCOVER as a UEFI firmware of x86-64 sends it.
pub(crate) fn discover(mac: [u8; 6], xid: u32) -> Vec<u8> {
    let mut bytes = vec![REQUEST, ETHERNET, 6, 0];
    bytes.extend(xid.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(BROADCAST);
    bytes.resize(28, 0);
    bytes.extend(mac);
    bytes.resize(236, 0);
    bytes.extend(MAGIC);
    for (code, value) in [
        (MESSAGE_TYPE, &[DISCOVER][..]),
        (WANTED, &[1, 3, 43, SERVER, VENDOR_CLASS, BOOT_SERVER, BOOT_FILE]),
        (VENDOR_CLASS, b"PXEClient:Arch:00007:UNDI:003016"),
        (ARCHITECTURE, &[0, 7]),
        (INTERFACE, &[1, 3, 16]),
    ] {
        // Every value has fewer than 256 bytes.
        bytes.extend([code, u8::try_from(value.len()).unwrap_or(0)]);
        bytes.extend(value);
    }
    bytes.push(END);
    bytes.resize(bytes.len().max(300), 0);
    bytes
}

/// Reads an answer to this question; everything else is `None`.
pub(crate) fn answer(bytes: &[u8], mac: [u8; 6], xid: u32) -> Option<Answer> {
    let ours = bytes.first()? == &REPLY
        && bytes.get(4..8)? == xid.to_be_bytes()
        && bytes.get(28..34)? == mac
        && bytes.get(236..240)? == MAGIC;
    if !ours || option(bytes, MESSAGE_TYPE)? != [OFFER] {
        return None;
    }
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?));
    let given = address(16)?;
    let next = address(20)?;
    let server = option(bytes, SERVER).and_then(|id| Some(Ipv4Addr::from(<[u8; 4]>::try_from(id).ok()?)));
    let server = server.unwrap_or(next);
    let field = text(bytes.get(108..236)?);
    let boots = field.or_else(|| option(bytes, BOOT_FILE).and_then(text));
    Some(Answer {
        server,
        offers_address: !given.is_unspecified(),
        boots,
        next_server: if next.is_unspecified() { server } else { next },
    })
}

/// The value of the first option with this code.
fn option(message: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut rest = message.get(240..)?;
    loop {
        match rest {
            [0, after @ ..] => rest = after,
            [END, ..] | [] | [_] => return None,
            [code, length, after @ ..] => {
                let value = after.get(..usize::from(*length))?;
                if *code == wanted {
                    return Some(value);
                }
                rest = &after[value.len()..];
            }
        }
    }
}

/// A name up to its first zero; `None` if it is empty.
fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    (end > 0).then(|| String::from_utf8_lossy(&bytes[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhcproto::v4::{self, DhcpOption, Message};
    use dhcproto::{Decodable, Decoder, Encodable};
    use proptest::prelude::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn offer(address: [u8; 4], file: &str) -> Vec<u8> {
        let asked = Message::decode(&mut Decoder::new(&discover(MAC, 7))).expect("a DISCOVER");
        assert_eq!(asked.opts().msg_type(), Some(v4::MessageType::Discover));
        let class = asked.opts().get(v4::OptionCode::ClassIdentifier);
        assert_eq!(class, Some(&DhcpOption::ClassIdentifier(b"PXEClient:Arch:00007:UNDI:003016".to_vec())));
        let mut message = Message::default();
        message.set_opcode(v4::Opcode::BootReply).set_xid(asked.xid()).set_chaddr(asked.chaddr());
        message.set_yiaddr(address).set_siaddr([10, 0, 0, 2]);
        message.opts_mut().insert(DhcpOption::MessageType(v4::MessageType::Offer));
        message.opts_mut().insert(DhcpOption::ServerIdentifier([10, 0, 0, 1].into()));
        if !file.is_empty() {
            message.opts_mut().insert(DhcpOption::BootfileName(file.as_bytes().to_vec()));
        }
        message.to_vec().expect("encoded")
    }

    #[test]
    fn a_dhcp_server_and_a_proxy_are_told_apart() {
        let dhcp = answer(&offer([10, 0, 0, 50], ""), MAC, 7).expect("an answer");
        assert!(dhcp.offers_address && dhcp.boots.is_none());
        let proxy = answer(&offer([0, 0, 0, 0], "snponly.efi"), MAC, 7).expect("an answer");
        assert!(!proxy.offers_address);
        assert_eq!(proxy.boots.as_deref(), Some("snponly.efi"));
        assert_eq!((proxy.server, proxy.next_server), ([10, 0, 0, 1].into(), [10, 0, 0, 2].into()));
        assert_eq!(answer(&offer([10, 0, 0, 50], ""), MAC, 8), None, "an answer to somebody else");
    }

    proptest! {
        #[test]
        fn no_answer_stops_the_reader(tail in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = offer([10, 0, 0, 50], "");
            bytes.truncate(240);
            bytes.extend(tail);
            let _ = answer(&bytes, MAC, 7);
        }
    }
}
