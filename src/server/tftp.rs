//! The server's UDP port, with the number of its TCP port: signed GRUB, which speaks no HTTP in Debian 12,
//! asks here by TFTP (RFC 1350, 2347 to 2349) what its terminal does.
//!
//! ```text
//!  socket ──packet──► Transfers ──file name──► netboot::by_file_name
//!    ▲                    └──block──► socket; a block without an answer again each second, five times
//! ```
//!
//! Invariant: no file is read: the only name with an answer is `/boot/grub?…`. One task owns the socket and
//! all transfers; there are at most [`MOST`], and at most [`MOST_OF_ONE`] of one address.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::watch;

use crate::server::app::App;
use crate::server::http::{listen, netboot};

/// Transfers at once. One is over in milliseconds; a thousand terminals begin within seconds.
const MOST: usize = 1024;
/// Transfers at once of one address, which may be a NAT with a whole lab behind it.
const MOST_OF_ONE: usize = MOST / 2;
/// How long an acknowledgement may take before the block is sent again, and how often it is sent.
const WAIT: Duration = Duration::from_secs(1);
const SENDINGS: u32 = 5;
/// The block size without the option, and the largest one that is granted: it fits an Ethernet frame.
const BLOCK: usize = 512;
const LARGEST_BLOCK: usize = 1408;

const READ: u16 = 1;
const DATA: u16 = 3;
const ACKNOWLEDGE: u16 = 4;
const ERROR: u16 = 5;
const OPTIONS: u16 = 6;
/// "File not found."
const NOT_FOUND: u16 = 1;

/// One terminal's answer on its way.
#[derive(Debug)]
struct Transfer {
    /// The packet that began it: the same one again is a repetition.
    request: Vec<u8>,
    text: Vec<u8>,
    block_size: usize,
    /// The block that was sent last; 0 for the answer to options.
    block: u16,
    last: Vec<u8>,
    sent: Instant,
    sendings: u32,
    /// It has acknowledged something, so most likely it is there, and not a victim whose address somebody
    /// wrote. (The number of a block is easy to guess: `netboot` wants a better proof.)
    proved: bool,
}

#[derive(Debug, Default)]
struct Transfers(HashMap<SocketAddr, Transfer>);

/// A request to read: the file's name, the block size and whether options must be answered.
struct Request {
    name: String,
    block_size: usize,
    options: Vec<&'static str>,
}

impl Transfers {
    /// The packet to send back for one that came. `answer` gives the text of a file's name.
    fn receive(
        &mut self,
        from: SocketAddr,
        packet: &[u8],
        now: Instant,
        answer: impl FnOnce(&str) -> Option<String>,
    ) -> Option<Vec<u8>> {
        let (kind, rest) = (number(packet)?, packet.get(2..)?);
        match kind {
            READ => self.begin(from, packet, rest, now, answer),
            ACKNOWLEDGE => self.acknowledged(from, number(rest)?, now),
            ERROR => {
                self.0.remove(&from);
                None
            }
            _ => None,
        }
    }

    fn begin(
        &mut self,
        from: SocketAddr,
        packet: &[u8],
        rest: &[u8],
        now: Instant,
        answer: impl FnOnce(&str) -> Option<String>,
    ) -> Option<Vec<u8>> {
        if let Some(known) = self.0.get_mut(&from).filter(|known| known.request == packet) {
            known.sent = now;
            return Some(known.last.clone());
        }
        let request = parse(rest)?;
        let Some(text) = answer(&request.name) else {
            self.0.remove(&from);
            return Some([&words(&[ERROR, NOT_FOUND])[..], b"flashmob has no such file\0"].concat());
        };
        let text = text.into_bytes();
        let (block, last) = if request.options.is_empty() {
            (1, block_of(&text, request.block_size, 1))
        } else {
            (0, options(&request, text.len()))
        };
        let transfer = Transfer {
            request: packet.to_vec(),
            block_size: request.block_size,
            text,
            block,
            last: last.clone(),
            sent: now,
            sendings: 1,
            proved: false,
        };
        self.make_room(from.ip());
        self.0.insert(from, transfer);
        Some(last)
    }

    fn acknowledged(&mut self, from: SocketAddr, block: u16, now: Instant) -> Option<Vec<u8>> {
        let transfer = self.0.get_mut(&from)?;
        // An old one: what it acknowledges was followed by the next block already.
        if block != transfer.block {
            return None;
        }
        let is_last = block > 0 && usize::from(block) * transfer.block_size > transfer.text.len();
        if is_last {
            self.0.remove(&from);
            return None;
        }
        transfer.proved = true;
        transfer.block += 1;
        transfer.last = block_of(&transfer.text, transfer.block_size, transfer.block);
        (transfer.sent, transfer.sendings) = (now, 1);
        Some(transfer.last.clone())
    }

    /// Forgets a transfer if there are too many of `one` address, or of all: the oldest that nobody has
    /// acknowledged, else the oldest. Whoever waits for it asks again by itself. A new request is never
    /// turned away, because others may have sent the earlier ones in its address's name.
    fn make_room(&mut self, one: IpAddr) {
        let of_one = |from: &SocketAddr| from.ip() == one;
        let crowded = self.0.keys().filter(|from| of_one(from)).count() >= MOST_OF_ONE;
        if !crowded && self.0.len() < MOST {
            return;
        }
        let able = self.0.iter().filter(|(from, _)| !crowded || of_one(from));
        let oldest = able.min_by_key(|(_, transfer)| (transfer.proved, transfer.sent)).map(|(from, _)| *from);
        oldest.map(|from| self.0.remove(&from));
    }

    /// The packets to send again. Forgets who never answers. The first answer is not sent again: its receiver
    /// repeats the request, and an address that somebody else wrote must not get more than it was sent.
    fn due(&mut self, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
        let late = |transfer: &Transfer| now.duration_since(transfer.sent) >= WAIT;
        self.0.retain(|_, transfer| match transfer.proved {
            true => !(late(transfer) && transfer.sendings >= SENDINGS),
            false => now.duration_since(transfer.sent) < WAIT * SENDINGS,
        });
        let due = self.0.iter_mut().filter(|(_, transfer)| transfer.proved && late(transfer));
        due.map(|(to, transfer)| {
            transfer.sent = now;
            transfer.sendings += 1;
            (*to, transfer.last.clone())
        })
        .collect()
    }
}

/// The big-endian number at the beginning.
fn number(packet: &[u8]) -> Option<u16> {
    packet.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn words(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// `NAME 0 octet 0 (OPTION 0 VALUE 0)…`
fn parse(rest: &[u8]) -> Option<Request> {
    let mut texts = rest.strip_suffix(b"\0")?.split(|byte| *byte == 0).map(|text| str::from_utf8(text).ok());
    let (name, mode) = (texts.next()??, texts.next()??);
    if !mode.eq_ignore_ascii_case("octet") {
        return None;
    }
    let mut request = Request { name: name.to_string(), block_size: BLOCK, options: Vec::new() };
    while let (Some(Some(option)), Some(Some(value))) = (texts.next(), texts.next()) {
        if option.eq_ignore_ascii_case("blksize") {
            let asked: usize = value.parse().ok().filter(|size| *size >= 8)?;
            request.block_size = asked.min(LARGEST_BLOCK);
            request.options.push("blksize");
        } else if option.eq_ignore_ascii_case("tsize") {
            request.options.push("tsize");
        }
    }
    Some(request)
}

fn options(request: &Request, length: usize) -> Vec<u8> {
    let mut packet = words(&[OPTIONS]);
    for option in &request.options {
        let value = if *option == "tsize" { length } else { request.block_size };
        packet.extend_from_slice(format!("{option}\0{value}\0").as_bytes());
    }
    packet
}

/// A block shorter than the block size is the last one; it may be empty.
fn block_of(text: &[u8], size: usize, block: u16) -> Vec<u8> {
    let from = (usize::from(block) - 1) * size;
    let part = &text[from.min(text.len())..(from + size).min(text.len())];
    [&words(&[DATA, block])[..], part].concat()
}

/// Binds the UDP port beside the TCP port at `address`.
pub(super) async fn bind(address: SocketAddr) -> std::io::Result<UdpSocket> {
    UdpSocket::bind(address).await
}

/// Answers until `stop` is true (or gone).
pub(super) async fn serve(app: Arc<App>, socket: UdpSocket, mut stop: watch::Receiver<bool>) {
    let mut transfers = Transfers::default();
    let mut packet = [0; 1500];
    let mut tick = tokio::time::interval(WAIT);
    loop {
        tokio::select! {
            received = socket.recv_from(&mut packet) => {
                // An ICMP error of an earlier packet; its terminal is gone.
                let Ok((length, from)) = received else { continue };
                let answer = |name: &str| netboot::by_file_name(&app, name, canonical(from));
                if let Some(back) = transfers.receive(from, &packet[..length], Instant::now(), answer) {
                    send(&socket, &back, from).await;
                }
            }
            _ = tick.tick() => {
                for (to, again) in transfers.due(Instant::now()) {
                    send(&socket, &again, to).await;
                }
            }
            () = listen::stopped(&mut stop) => return,
        }
    }
}

fn canonical(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}

/// A packet that cannot be sent is like one that was lost.
async fn send(socket: &UdpSocket, packet: &[u8], to: SocketAddr) {
    if let Err(e) = socket.send_to(packet, to).await {
        log::debug!("tftp: {to}: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRUB: &[u8] = b"\0\x01/boot/grub?mac=1\0octet\0blksize\x001024\0tsize\x000\0";

    fn terminal(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 9], port))
    }

    fn acknowledge(block: u16) -> Vec<u8> {
        words(&[ACKNOWLEDGE, block])
    }

    #[test]
    fn grub_gets_its_options_and_then_block_after_block() {
        let (mut transfers, now, one) = (Transfers::default(), Instant::now(), terminal(1));
        let text = "x".repeat(1024) + "y";
        let mut send = |packet: &[u8]| transfers.receive(one, packet, now, |_| Some(text.clone()));
        assert_eq!(send(GRUB).as_deref(), Some(&b"\0\x06blksize\x001024\0tsize\x001025\0"[..]));
        assert_eq!(send(&acknowledge(0)).map(|block| block.len()), Some(4 + 1024));
        assert_eq!(send(&acknowledge(1)).as_deref(), Some(&b"\0\x03\0\x02y"[..]));
        // A repeated acknowledgement does not double the rest of the transfer.
        assert_eq!(send(&acknowledge(1)), None);
        assert_eq!(send(&acknowledge(2)), None);
        assert!(transfers.0.is_empty());
    }

    #[test]
    fn a_text_that_fills_its_last_block_is_ended_by_an_empty_one() {
        let (mut transfers, now, one) = (Transfers::default(), Instant::now(), terminal(1));
        let mut send = |packet: &[u8]| transfers.receive(one, packet, now, |_| Some("x".repeat(512)));
        assert_eq!(send(b"\0\x01/a\0octet\0").map(|block| block.len()), Some(4 + 512));
        assert_eq!(send(&acknowledge(1)).as_deref(), Some(&b"\0\x03\0\x02"[..]));
        assert_eq!(send(&acknowledge(2)), None);
        assert!(transfers.0.is_empty());
    }

    #[test]
    fn a_repeated_request_is_decided_once() {
        let (mut transfers, now, one) = (Transfers::default(), Instant::now(), terminal(1));
        let first = transfers.receive(one, GRUB, now, |_| Some("a".into()));
        let again = transfers.receive(one, GRUB, now, |_| panic!("it was decided"));
        assert!(first.is_some() && first == again);
    }

    #[test]
    fn a_lost_packet_is_sent_again_but_not_for_ever() {
        let (mut transfers, now, one) = (Transfers::default(), Instant::now(), terminal(1));
        transfers.receive(one, GRUB, now, |_| Some("a".into())).expect("an answer");
        let first = transfers.receive(one, &acknowledge(0), now, |_| None).expect("the first block");
        assert!(transfers.due(now).is_empty());
        for n in 1..SENDINGS {
            assert_eq!(transfers.due(now + WAIT * n), [(one, first.clone())]);
        }
        assert!(transfers.due(now + WAIT * SENDINGS).is_empty() && transfers.0.is_empty());
    }

    #[test]
    fn an_address_that_never_acknowledged_gets_one_answer_to_each_request_and_takes_no_place_for_long() {
        let (mut transfers, now) = (Transfers::default(), Instant::now());
        let forged = |n: u16| SocketAddr::from(([10, 1, n.to_be_bytes()[0], n.to_be_bytes()[1]], 1));
        for n in 0..2000 {
            transfers.receive(forged(n), GRUB, now, |_| Some("a".into()));
        }
        assert!(transfers.0.len() <= MOST && transfers.due(now + WAIT).is_empty());
        let one = terminal(1);
        assert!(transfers.receive(one, GRUB, now + WAIT, |_| Some("a".into())).is_some());
        assert!(transfers.0.contains_key(&one), "it got the place of one that never answered");
        transfers.due(now + WAIT * (SENDINGS + 2));
        assert!(transfers.0.is_empty());
    }

    #[test]
    fn other_names_have_no_file_and_rubbish_has_no_answer() {
        let (mut transfers, now, one) = (Transfers::default(), Instant::now(), terminal(1));
        let error = transfers.receive(one, GRUB, now, |_| None).expect("an error");
        assert!(error.starts_with(&[0, 5, 0, 1]) && transfers.0.is_empty());
        for rubbish in [
            &b""[..],
            b"\0",
            b"\0\x01",
            b"\0\x01/a",
            b"\0\x01/a\0",
            b"\0\x01/a\0mail\0",
            b"\0\x02/a\0octet\0",
        ] {
            assert_eq!(transfers.receive(one, rubbish, now, |_| Some("a".into())), None, "{rubbish:?}");
        }
        assert_eq!(transfers.receive(one, &acknowledge(7), now, |_| None), None);
    }

    #[test]
    fn one_address_never_takes_all_transfers() {
        let (mut transfers, now) = (Transfers::default(), Instant::now());
        for port in 1..2000 {
            transfers.receive(terminal(port), GRUB, now, |_| Some("a".into()));
        }
        assert_eq!(transfers.0.len(), MOST_OF_ONE);
        assert!(
            transfers.0.contains_key(&terminal(1999)),
            "the last one is answered, whoever sent the others"
        );
        let other = SocketAddr::from(([10, 0, 0, 10], 1));
        assert!(transfers.receive(other, GRUB, now, |_| Some("a".into())).is_some());
    }
}
