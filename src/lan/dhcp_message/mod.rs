//! DHCP messages (RFC 2131, options of RFC 2132) between bytes and the few values the client needs.
//!
//! Invariant: a reply that is returned is a well-formed answer to this client's transaction. `dhcp` decides
//! when to send. Only the tests use dhcproto, as the server: its reader asserts on some malformed options and
//! rejects a whole answer because of one text that is not UTF-8.

use std::collections::HashMap;
use std::net::Ipv4Addr;

/// The bytes that begin the options (RFC 2131 §3).
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// The `op` field of a client's message and of a server's (RFC 2131 §2).
const BOOTREQUEST: u8 = 1;
const BOOTREPLY: u8 = 2;
/// Ethernet, as hardware type and as type of a client identifier (RFC 2131 §2, RFC 2132 §9.14).
const ETHERNET: u8 = 1;
/// The flag that asks for an answer by broadcast (RFC 2131 §2).
const BROADCAST: u16 = 0x8000;

/// Codes of the options (RFC 2132).
mod option {
    pub(super) const PAD: u8 = 0;
    pub(super) const SUBNET_MASK: u8 = 1;
    pub(super) const ROUTER: u8 = 3;
    pub(super) const DNS_SERVER: u8 = 6;
    pub(super) const DOMAIN_NAME: u8 = 15;
    pub(super) const INTERFACE_MTU: u8 = 26;
    pub(super) const REQUESTED_ADDRESS: u8 = 50;
    pub(super) const LEASE_TIME: u8 = 51;
    pub(super) const OVERLOAD: u8 = 52;
    pub(super) const MESSAGE_TYPE: u8 = 53;
    pub(super) const SERVER_IDENTIFIER: u8 = 54;
    pub(super) const PARAMETER_REQUEST_LIST: u8 = 55;
    pub(super) const MAX_MESSAGE_SIZE: u8 = 57;
    pub(super) const RENEWAL_TIME: u8 = 58;
    pub(super) const REBINDING_TIME: u8 = 59;
    pub(super) const CLIENT_IDENTIFIER: u8 = 61;
    /// The option that names the flashmob server: from the range for private use (RFC 3942).
    pub(super) const FLASHMOB: u8 = 224;
    pub(super) const END: u8 = 255;
}

/// The types of message that the client sends or understands (RFC 2132 §9.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum MessageType {
    Discover = 1,
    Offer = 2,
    Request = 3,
    Ack = 5,
    Nak = 6,
}

impl MessageType {
    fn of(byte: u8) -> Option<Self> {
        let all = [Self::Discover, Self::Offer, Self::Request, Self::Ack, Self::Nak];
        all.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A server's offer or lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The address for this interface.
    pub address: Ipv4Addr,
    /// Length of the network's prefix.
    pub prefix: u8,
    /// The DHCP server's identifier.
    pub server: Option<Ipv4Addr>,
    /// `siaddr`: where the netboot files come from.
    pub next_server: Option<Ipv4Addr>,
    /// Default routers, best first.
    pub routers: Vec<Ipv4Addr>,
    pub dns: Vec<Ipv4Addr>,
    /// Domain of the lab.
    pub domain: Option<String>,
    /// MTU of the interface.
    pub mtu: Option<u16>,
    /// Option 224: the flashmob server.
    pub flashmob: Option<String>,
    /// Seconds the lease lasts.
    pub lease: Option<u32>,
    /// Seconds until it is renewed.
    pub renew: Option<u32>,
    /// Seconds until any server may renew it.
    pub rebind: Option<u32>,
}

/// The variable fields of a client's message.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fields {
    pub mac: [u8; 6],
    pub xid: u32,
    /// Seconds since the client began, for relays that wait.
    pub secs: u16,
    /// The address in use, when renewing.
    pub ciaddr: Option<Ipv4Addr>,
    /// The address asked for, when not in use yet.
    pub requested: Option<Ipv4Addr>,
    /// The server that was chosen.
    pub server: Option<Ipv4Addr>,
}

/// Bytes of a DISCOVER or REQUEST.
pub(super) fn encode(kind: MessageType, fields: Fields) -> Vec<u8> {
    /// The longest answer that the client takes, in bytes.
    const MAX_MESSAGE: u16 = 1500;
    /// BOOTP relays and servers drop messages below 300 bytes (RFC 951).
    const SHORTEST: usize = 300;
    let none = Ipv4Addr::UNSPECIFIED;
    // Without an address an answer must come as a broadcast.
    let flags = if fields.ciaddr.is_none() { BROADCAST } else { 0 };
    let mut bytes = Vec::with_capacity(SHORTEST);
    bytes.extend([BOOTREQUEST, ETHERNET, 6, 0]);
    bytes.extend(fields.xid.to_be_bytes());
    bytes.extend(fields.secs.to_be_bytes());
    bytes.extend(flags.to_be_bytes());
    bytes.extend(fields.ciaddr.unwrap_or(none).octets());
    // The server's fields, up to the hardware address.
    bytes.resize(28, 0);
    bytes.extend(fields.mac);
    // The names of a server and a file, which a client leaves empty.
    bytes.resize(236, 0);
    bytes.extend(MAGIC);

    let mut option = |code: u8, value: &[u8]| {
        // Every value has fewer than 256 bytes.
        bytes.extend([code, u8::try_from(value.len()).unwrap_or(0)]);
        bytes.extend(value);
    };
    if let Some(address) = fields.requested {
        option(option::REQUESTED_ADDRESS, &address.octets());
    }
    option(option::MESSAGE_TYPE, &[kind as u8]);
    if let Some(server) = fields.server {
        option(option::SERVER_IDENTIFIER, &server.octets());
    }
    option(
        option::PARAMETER_REQUEST_LIST,
        &[
            option::SUBNET_MASK,
            option::ROUTER,
            option::DNS_SERVER,
            option::DOMAIN_NAME,
            option::INTERFACE_MTU,
            option::LEASE_TIME,
            option::SERVER_IDENTIFIER,
            option::RENEWAL_TIME,
            option::REBINDING_TIME,
            option::FLASHMOB,
        ],
    );
    option(option::MAX_MESSAGE_SIZE, &MAX_MESSAGE.to_be_bytes());
    let [a, b, c, d, e, f] = fields.mac;
    option(option::CLIENT_IDENTIFIER, &[ETHERNET, a, b, c, d, e, f]);
    bytes.push(option::END);
    bytes.resize(bytes.len().max(SHORTEST), 0);
    bytes
}

/// An answer of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Offer(Offer),
    Ack(Offer),
    Nak,
}

/// Reads an answer to transaction `xid` of the interface `mac`; everything else is `None`.
pub(super) fn decode(bytes: &[u8], mac: [u8; 6], xid: u32) -> Option<Reply> {
    let ours = bytes.get(0..4)? == [BOOTREPLY, ETHERNET, 6, bytes[3]]
        && bytes.get(4..8)? == xid.to_be_bytes()
        && bytes.get(28..34)? == mac
        && bytes.get(236..240)? == MAGIC;
    if !ours {
        return None;
    }
    let options = Options::read(bytes);
    match MessageType::of(*options.get(option::MESSAGE_TYPE)?.first()?)? {
        MessageType::Nak => Some(Reply::Nak),
        MessageType::Offer => Some(Reply::Offer(offer(bytes, &options)?)),
        MessageType::Ack => Some(Reply::Ack(offer(bytes, &options)?)),
        MessageType::Discover | MessageType::Request => None,
    }
}

/// A message's options by code; the parts of a long one are joined (RFC 3396).
struct Options(HashMap<u8, Vec<u8>>);

impl Options {
    /// Reads the options field, and the file and name fields where option 52 says that they hold more.
    fn read(message: &[u8]) -> Self {
        let mut options = Options(HashMap::new());
        options.walk(message.get(240..).unwrap_or_default());
        let overload = options.get(option::OVERLOAD).and_then(|o| o.first()).copied().unwrap_or(0);
        if overload & 1 != 0 {
            options.walk(message.get(108..236).unwrap_or_default());
        }
        if overload & 2 != 0 {
            options.walk(message.get(44..108).unwrap_or_default());
        }
        options
    }

    fn walk(&mut self, mut bytes: &[u8]) {
        while let [code, rest @ ..] = bytes {
            match (*code, rest) {
                (option::PAD, rest) => bytes = rest,
                (option::END, _) | (_, []) => return,
                (code, [length, rest @ ..]) => {
                    let Some((value, rest)) = rest.split_at_checked(usize::from(*length)) else { return };
                    self.0.entry(code).or_default().extend_from_slice(value);
                    bytes = rest;
                }
            }
        }
    }

    fn get(&self, code: u8) -> Option<&[u8]> {
        self.0.get(&code).map(Vec::as_slice)
    }

    fn seconds(&self, code: u8) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(code)?.try_into().ok()?))
    }

    fn addresses(&self, code: u8) -> Vec<Ipv4Addr> {
        self.get(code).unwrap_or_default().chunks_exact(4).filter_map(address).collect()
    }

    fn text(&self, code: u8) -> Option<String> {
        text(self.get(code)?)
    }
}

/// Four bytes as an address that a machine may have.
fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.try_into().ok()?;
    let a = Ipv4Addr::from(octets);
    let usable = !a.is_unspecified() && !a.is_broadcast() && !a.is_multicast() && !a.is_loopback();
    usable.then_some(a)
}

fn offer(message: &[u8], options: &Options) -> Option<Offer> {
    let yiaddr = address(message.get(16..20)?)?;
    let mtu = options.get(option::INTERFACE_MTU).and_then(|o| Some(u16::from_be_bytes(o.try_into().ok()?)));
    Some(Offer {
        address: yiaddr,
        prefix: match options.get(option::SUBNET_MASK) {
            Some(mask) => prefix_of(mask.try_into().ok()?)?,
            None => natural_prefix(yiaddr),
        },
        server: options.addresses(option::SERVER_IDENTIFIER).first().copied(),
        next_server: address(message.get(20..24)?),
        routers: options.addresses(option::ROUTER),
        dns: options.addresses(option::DNS_SERVER),
        domain: options.text(option::DOMAIN_NAME),
        mtu: mtu.filter(|mtu| *mtu >= 576),
        flashmob: options.text(option::FLASHMOB),
        lease: options.seconds(option::LEASE_TIME),
        renew: options.seconds(option::RENEWAL_TIME),
        rebind: options.seconds(option::REBINDING_TIME),
    })
}

/// Text of an option: some servers end it with NUL; anything unprintable is no text.
fn text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\0').trim();
    (!text.is_empty() && text.chars().all(|c| c.is_ascii_graphic())).then(|| text.to_owned())
}

/// Length of a netmask's prefix, if it is one.
fn prefix_of(mask: [u8; 4]) -> Option<u8> {
    let mask = u32::from_be_bytes(mask);
    let ones = mask.leading_ones();
    (ones == mask.count_ones() && ones > 0).then(|| u8::try_from(ones).ok()).flatten()
}

/// The prefix length that a server without a mask means (RFC 950).
fn natural_prefix(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..128 => 8,
        128..192 => 16,
        _ => 24,
    }
}

#[cfg(test)]
pub(super) mod tests;
