//! Firmware and iPXE as DHCP, PXE and TFTP clients (RFC 2131, RFC 4578, RFC 1350, PXE 2.1).

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use dhcproto::v4::{self, DhcpOption, Message, MessageType, OptionCode, UnknownOption};
use dhcproto::{Decodable, Decoder, Encodable};
use socket2::{Domain, Socket, Type};

const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 9];
/// This terminal's address for calls to port 4011.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 9);
/// dnsmasq offers an address only after a ping to it got no answer for 3 s.
const OFFERS: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_secs(4);
/// Answers that come together.
const QUIET: Duration = Duration::from_millis(400);
/// The menu in option 43, and the chosen item.
const BOOT_MENU: u8 = 9;
const BOOT_ITEM: u8 = 71;
const FLASHMOB: u8 = 224;

#[derive(Debug, Clone, Copy)]
pub(super) struct Firmware {
    arch: u16,
    class: &'static str,
    ipxe: bool,
}

/// What it was told by all servers together.
#[derive(Debug)]
pub(super) struct Told {
    pub address: Option<Ipv4Addr>,
    pub file: Option<String>,
    pub next_server: Ipv4Addr,
    pub flashmob: Option<String>,
    pub router: bool,
}

impl Firmware {
    pub(super) const fn bios() -> Self {
        Firmware { arch: 0, class: "PXEClient:Arch:00000:UNDI:002001", ipxe: false }
    }

    pub(super) const fn uefi(arch: u16) -> Self {
        Firmware { arch, class: "PXEClient:Arch:00007:UNDI:003016", ipxe: false }
    }

    pub(super) const fn http() -> Self {
        Firmware { arch: 16, class: "HTTPClient:Arch:00016:UNDI:003001", ipxe: false }
    }

    /// Firmware that brings iPXE, or iPXE that the firmware has loaded.
    pub(super) const fn ipxe(self) -> Self {
        Firmware { ipxe: true, ..self }
    }

    /// No firmware: a running system.
    pub(super) const fn system() -> Self {
        Firmware { arch: 0, class: "MSFT 5.0", ipxe: false }
    }

    pub(super) fn is_plain_uefi(&self) -> bool {
        matches!(self.arch, 7 | 9) && !self.ipxe
    }

    /// All offers, each for itself.
    pub(super) fn offers(&self) -> Vec<Told> {
        let question = self.message(MessageType::Discover, None);
        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
        // Two questions, because dnsmasq answers late while it pings an address for somebody else.
        let mut all = ask(&client(), &question, to, Duration::from_secs(9), |_| false);
        all.sort_by_key(server_of);
        all.dedup_by_key(|one| server_of(one));
        all.iter().map(|one| told(Some(one), Some(one))).collect()
    }

    fn message(&self, kind: MessageType, more: Option<DhcpOption>) -> Message {
        let mut message = Message::default();
        message.set_chaddr(&MAC).set_flags(v4::Flags::default().set_broadcast());
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(kind));
        options.insert(DhcpOption::ParameterRequestList(
            [1, 3, 43, 54, 60, 66, 67, FLASHMOB].map(OptionCode::from).to_vec(),
        ));
        options.insert(DhcpOption::ClassIdentifier(self.class.into()));
        let raw = |code: u8, data: &[u8]| UnknownOption::new(OptionCode::from(code), data.to_vec());
        options.insert(DhcpOption::Unknown(raw(93, &self.arch.to_be_bytes())));
        if self.ipxe {
            options.insert(DhcpOption::Unknown(raw(77, b"iPXE")));
        }
        if let Some(more) = more {
            options.insert(more);
        }
        message
    }

    /// Asks all DHCP servers, then the boot server, as far as the answers need it.
    pub(super) fn boot(&self) -> Told {
        let socket = client();
        let question = self.message(MessageType::Discover, None);
        let enough = |all: &[Message]| {
            let leases = all.iter().any(|one| !one.yiaddr().is_unspecified());
            leases && all.iter().any(|one| one.yiaddr().is_unspecified() || file(one).is_some())
        };
        let offers = ask(&socket, &question, SocketAddrV4::new(Ipv4Addr::BROADCAST, 67), OFFERS, enough);
        self.follow(&socket, OWN, &offers)
    }

    /// The same in another network, whose relay at `relay` forwards the question to `server` alone. `own` is
    /// the address that the network's DHCP server gave.
    pub(super) fn boot_behind(&self, relay: Ipv4Addr, own: Ipv4Addr, server: Ipv4Addr) -> Told {
        let mut question = self.message(MessageType::Discover, None);
        question.set_giaddr(relay).set_hops(1);
        // A relay sends from the port at which it hears the answers (RFC 1542, section 4.1.2).
        let forwarding = UdpSocket::bind((relay, 67)).unwrap();
        let offers =
            ask(&forwarding, &question, SocketAddrV4::new(server, 67), OFFERS, |all| !all.is_empty());
        assert!(offers.iter().all(|offer| offer.giaddr() == relay), "{offers:?}");
        self.follow(&UdpSocket::bind((own, 68)).unwrap(), own, &offers)
    }

    /// Goes on with the servers' offers, as a machine with the address `own`.
    fn follow(&self, socket: &UdpSocket, own: Ipv4Addr, offers: &[Message]) -> Told {
        let lease = offers.iter().find(|one| !one.yiaddr().is_unspecified());
        let class = self.class.split(':').next().unwrap().as_bytes();
        let booting =
            offers.iter().find(|one| bytes(one, 60).as_deref() == Some(class) || file(one).is_some());
        let mut told = told(lease, booting);
        let proxy = booting.filter(|one| one.yiaddr().is_unspecified() && told.file.is_none());
        if let Some((proxy, server)) = proxy.and_then(|proxy| Some((proxy, server_of(proxy)?))) {
            // BIOS chooses the first item of the menu in option 43; UEFI asks for the file at once.
            let menu = bytes(proxy, 43).and_then(|options| sub_option(&options, BOOT_MENU));
            let item = menu.map(|menu| {
                let mut chosen = vec![BOOT_ITEM, 4, menu[0], menu[1], 0, 0, 255];
                chosen.truncate(7);
                DhcpOption::Unknown(UnknownOption::new(OptionCode::from(43), chosen))
            });
            let mut question = self.message(MessageType::Request, item);
            question.set_ciaddr(own);
            let to = SocketAddrV4::new(server, 4011);
            let answers = ask(socket, &question, to, OFFERS, |all| !all.is_empty());
            told.file = answers.first().and_then(file);
            told.next_server = answers.first().map_or(Ipv4Addr::UNSPECIFIED, Message::siaddr);
        }
        told
    }
}

fn told(lease: Option<&Message>, booting: Option<&Message>) -> Told {
    Told {
        address: lease.map(Message::yiaddr),
        file: booting.and_then(file),
        next_server: booting.map_or(Ipv4Addr::UNSPECIFIED, Message::siaddr),
        flashmob: lease.and_then(|one| bytes(one, FLASHMOB)).and_then(|url| String::from_utf8(url).ok()),
        router: lease.is_some_and(|one| one.opts().get(OptionCode::Router).is_some()),
    }
}

/// A socket at the port of DHCP clients.
fn client() -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_broadcast(true).unwrap();
    socket.bind_device(Some(b"eth0")).unwrap();
    socket.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68).into()).unwrap();
    socket.into()
}

/// The answers to a question, until there are enough of them and no more come.
fn ask(
    socket: &UdpSocket,
    question: &Message,
    to: SocketAddrV4,
    within: Duration,
    enough: impl Fn(&[Message]) -> bool,
) -> Vec<Message> {
    let (end, mut answers, mut buffer) = (Instant::now() + within, Vec::new(), [0; 2048]);
    let mut again = Instant::now();
    while Instant::now() < end {
        // As firmware does: the first question may meet a switch that does not forward yet.
        if !enough(&answers) && Instant::now() >= again {
            socket.send_to(&question.to_vec().unwrap(), to).unwrap();
            again += AGAIN;
        }
        socket.set_read_timeout(Some(QUIET)).unwrap();
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let answer = Message::decode(&mut Decoder::new(&buffer[..length])).unwrap();
                if answer.xid() == question.xid() {
                    answers.push(answer);
                }
            }
            Err(_) if enough(&answers) => break,
            Err(_) => {}
        }
    }
    answers
}

/// The raw value of an option.
fn bytes(message: &Message, code: u8) -> Option<Vec<u8>> {
    match message.opts().get(OptionCode::from(code))? {
        DhcpOption::ClassIdentifier(value) | DhcpOption::VendorExtensions(value) => Some(value.clone()),
        DhcpOption::BootfileName(value) => Some(value.clone()),
        DhcpOption::Unknown(option) => Some(option.data().to_vec()),
        _ => None,
    }
}

fn server_of(message: &Message) -> Option<Ipv4Addr> {
    match message.opts().get(OptionCode::ServerIdentifier)? {
        DhcpOption::ServerIdentifier(address) => Some(*address),
        _ => None,
    }
}

fn sub_option(options: &[u8], wanted: u8) -> Option<Vec<u8>> {
    match options {
        [255, ..] | [] | [_] => None,
        [code, length, rest @ ..] => {
            let (value, rest) = rest.split_at_checked(usize::from(*length))?;
            if *code == wanted { Some(value.to_vec()) } else { sub_option(rest, wanted) }
        }
    }
}

/// The file to boot, from either of its two places.
fn file(message: &Message) -> Option<String> {
    let field = message.fname().map(<[u8]>::to_vec).filter(|name| name.iter().any(|byte| *byte != 0));
    let name = field.or_else(|| bytes(message, 67))?;
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Some(String::from_utf8_lossy(&name[..end]).into_owned())
}

/// Fetches a file in blocks of 512 bytes.
pub(super) fn tftp(server: &str, name: &str) -> Vec<u8> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(OFFERS)).unwrap();
    let request = [&[0, 1], name.as_bytes(), b"\0octet\0"].concat();
    socket.send_to(&request, (server, 69)).unwrap();
    let (mut whole, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(buffer[..2], [0, 3], "{}", String::from_utf8_lossy(&buffer[..length]));
        whole.extend_from_slice(&buffer[4..length]);
        socket.send_to(&[0, 4, buffer[2], buffer[3]], from).unwrap();
        if length < 4 + 512 {
            return whole;
        }
    }
}
