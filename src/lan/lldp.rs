//! A switch's announcements on each of its ports: LLDP (IEEE 802.1AB-2016, chapters 8 and 9).
//!
//! Invariant: only whole frames that begin with chassis, port and time to live are read, texts are short and
//! printable, and other parts are skipped by their length. `io::net::lldp` receives frames; the server draws
//! conclusions from neighbours.

use crate::api::Neighbour;

/// Bytes of the longest accepted frame, which is the standard's limit.
pub(crate) const MAX_FRAME: usize = 1500;
/// Longest text taken from a frame, in characters.
const MAX_TEXT: usize = 128;

const END: u8 = 0;
const CHASSIS: u8 = 1;
const PORT: u8 = 2;
const TIME_TO_LIVE: u8 = 3;
const SYSTEM_NAME: u8 = 5;
const CAPABILITIES: u8 = 7;
/// Of the capabilities: it bridges, or routes.
const SWITCHES: u16 = 1 << 2 | 1 << 4;

/// The content of one frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// This switch is at the other end.
    Neighbour(Neighbour),
    /// The neighbour takes back its last announcement.
    Gone,
}

/// Reads the payload of a frame (after the Ethernet type 0x88cc). `None` if it is malformed, or if the sender
/// says that it is not a switch: phones and other machines speak LLDP as well.
pub(crate) fn read(frame: &[u8]) -> Option<Heard> {
    let mut rest = frame.get(..frame.len().min(MAX_FRAME))?;
    let chassis = identity(first(&mut rest, CHASSIS)?, 4, 5)?;
    let port = identity(first(&mut rest, PORT)?, 3, 4)?;
    let seconds = first(&mut rest, TIME_TO_LIVE)?.first_chunk::<2>()?;
    if u16::from_be_bytes(*seconds) == 0 {
        return Some(Heard::Gone);
    }
    let mut name = None;
    while let Some((kind, value)) = part(&mut rest) {
        match (kind, value) {
            (END, _) => break,
            (SYSTEM_NAME, value) => name = shown(value),
            (CAPABILITIES, [_, _, high, low, ..]) if u16::from_be_bytes([*high, *low]) & SWITCHES == 0 => {
                return None;
            }
            _ => {}
        }
    }
    Some(Heard::Neighbour(Neighbour { chassis, port, name }))
}

/// The next part if it is of `kind`.
fn first<'a>(rest: &mut &'a [u8], kind: u8) -> Option<&'a [u8]> {
    part(rest).filter(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// The next part: seven bits of kind, nine of length, then that many bytes.
fn part<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (head, tail) = rest.split_first_chunk::<2>()?;
    let head = u16::from_be_bytes(*head);
    let (value, tail) = tail.split_at_checked(usize::from(head & 0x1ff))?;
    *rest = tail;
    Some(((head >> 9) as u8, value))
}

/// A chassis or a port, whose first byte gives its type. `mac` and `network` are the types of a MAC address
/// and of a network address (whose first byte is its family).
fn identity(value: &[u8], mac: u8, network: u8) -> Option<String> {
    let (how, id) = value.split_first()?;
    if id.is_empty() || id.len() > 255 {
        return None;
    }
    if *how == mac && id.len() == 6 {
        return Some(id.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"));
    }
    if *how == network
        && let [1, a, b, c, d] = id
    {
        return Some(format!("{a}.{b}.{c}.{d}"));
    }
    Some(
        shown(id).unwrap_or_else(|| id.iter().take(MAX_TEXT / 2).map(|byte| format!("{byte:02x}")).collect()),
    )
}

/// A text that people can read, or `None`.
fn shown(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\0');
    let fine = !text.is_empty() && !text.chars().any(char::is_control);
    fine.then(|| text.chars().take(MAX_TEXT).collect())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn tlv(kind: u8, value: &[u8]) -> Vec<u8> {
        let head = u16::from(kind) << 9 | u16::try_from(value.len()).expect("short");
        [&head.to_be_bytes()[..], value].concat()
    }

    fn frame(more: &[Vec<u8>]) -> Vec<u8> {
        let chassis = tlv(CHASSIS, &[4, 0x52, 0x54, 0, 0xAB, 0xCD, 1]);
        let begin = [chassis, tlv(PORT, b"\x05Gi1/0/7"), tlv(TIME_TO_LIVE, &[0, 120])];
        [&begin[..], more].concat().concat()
    }

    fn neighbour(frame: &[u8]) -> Option<Neighbour> {
        match read(frame) {
            Some(Heard::Neighbour(neighbour)) => Some(neighbour),
            _ => None,
        }
    }

    #[test]
    fn a_switch_names_itself_and_its_port() {
        let all = [
            tlv(4, b"uplink side"),
            tlv(SYSTEM_NAME, b"sw-101"),
            tlv(CAPABILITIES, &[0, 20, 0, 4]),
            tlv(0, b""),
        ];
        let heard = neighbour(&frame(&all)).expect("a switch");
        assert_eq!((&*heard.chassis, &*heard.port), ("52:54:00:ab:cd:01", "Gi1/0/7"));
        assert_eq!(heard.name.as_deref(), Some("sw-101"));
        assert!(neighbour(&frame(&[])).is_some(), "what is optional may be left out");
    }

    #[test]
    fn other_ways_of_naming_are_shown_as_text_or_digits() {
        let named = |chassis: &[u8]| {
            let parts =
                [tlv(CHASSIS, chassis), tlv(PORT, b"\x07\x00\x01"), tlv(TIME_TO_LIVE, &[0, 9])].concat();
            neighbour(&parts).map(|heard| (heard.chassis, heard.port))
        };
        assert_eq!(named(b"\x05\x01\x0a\x00\x00\x01"), Some(("10.0.0.1".into(), "0001".into())));
        assert_eq!(named(b"\x07rack 3"), Some(("rack 3".into(), "0001".into())));
        assert_eq!(named(b"\x07\x1b[2J"), Some(("1b5b324a".into(), "0001".into())));
        assert_eq!(named(b"\x07"), None);
    }

    #[test]
    fn phones_and_nonsense_are_no_switches() {
        assert_eq!(read(&frame(&[tlv(CAPABILITIES, &[0, 36, 0, 32])])), None);
        assert_eq!(read(&[]), None);
        assert_eq!(read(&tlv(PORT, b"\x05x")), None);
        let whole = frame(&[]);
        (0..whole.len()).for_each(|cut| assert_eq!(read(&whole[..cut]), None, "{cut}"));
    }

    #[test]
    fn a_switch_may_take_back_what_it_said() {
        let gone = [tlv(CHASSIS, b"\x07a"), tlv(PORT, b"\x07b"), tlv(TIME_TO_LIVE, &[0, 0])].concat();
        assert_eq!(read(&gone), Some(Heard::Gone));
    }

    proptest! {
        #[test]
        fn garbage_is_nothing_or_short_and_never_a_panic(parts in vec((0u8..128, vec(any::<u8>(), 0..300)),
            0..6)) {
            let garbage: Vec<u8> = parts.iter().flat_map(|(kind, value)| tlv(*kind, value)).collect();
            for bytes in [garbage.clone(), frame(&[garbage])] {
                if let Some(heard) = neighbour(&bytes) {
                    for text in [Some(heard.chassis), Some(heard.port), heard.name].into_iter().flatten() {
                        prop_assert!(text.chars().count() <= MAX_TEXT && !text.chars().any(char::is_control));
                    }
                }
            }
        }
    }
}
