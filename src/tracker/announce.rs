//! A peer's announce: the query string of `/announce` and `/scrape` → checked values.
//!
//! Invariant: an [`Announce`] that exists has hashes of full size and a port that can be dialled. Unknown
//! keys are ignored. So is `ip`, because a peer's address is the one that its connection comes from; `ipv4`
//! counts only among peers behind the same address. `registry` uses the values.

use std::net::Ipv4Addr;

use crate::units::{InfoHash, PeerId};

/// Bytes of the longest accepted query string: 50 info-hashes of a scrape, all percent-encoded, are 3.5 kB.
pub(crate) const MAX_QUERY: usize = 8192;
/// Most info-hashes one scrape may name.
pub(crate) const MAX_SCRAPE: usize = 100;

/// Why a query cannot be used. The text is sent to the peer as `failure reason`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The query string is longer than `MAX_QUERY`.
    #[error("the query is longer than {MAX_QUERY} bytes")]
    TooLong,
    /// A needed key is not there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A key has a value that cannot be.
    #[error("{0} is not valid")]
    Invalid(&'static str),
}

/// The event at the peer (BEP 3 `event`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Event {
    /// A regular announce.
    #[default]
    Regular,
    Started,
    /// It just became complete.
    Completed,
    Stopped,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announce {
    pub info_hash: InfoHash,
    pub peer_id: PeerId,
    /// Where it listens; not 0, except for a peer that stops.
    pub port: u16,
    /// Bytes sent since it started.
    pub uploaded: u64,
    /// Bytes received since it started.
    pub downloaded: u64,
    /// Bytes it still lacks. A peer that does not say counts as incomplete.
    pub left: u64,
    pub event: Event,
    /// Peers as 6-byte strings (BEP 23). The default, as everywhere today.
    pub compact: bool,
    /// Without peer ids in a list that is not compact.
    pub no_peer_id: bool,
    /// How many peers it would like, if it said.
    pub numwant: Option<usize>,
    /// Bytes a second that a flashmob peer was seen to be able to pass on (`fm_carries`).
    pub capacity: Option<u64>,
    /// Its own private address (BEP 7 `ipv4`): peers behind the same translated address meet there.
    pub local: Option<Ipv4Addr>,
}

impl Announce {
    /// Reads a raw query string (without `?`).
    pub fn parse(query: &str) -> Result<Self, Malformed> {
        let (mut info_hash, mut peer_id, mut port, mut left) = (None, None, None, None);
        let (mut uploaded, mut downloaded, mut event) = (0, 0, Event::Regular);
        let (mut compact, mut no_peer_id, mut numwant, mut local) = (true, false, None, None);
        let mut capacity = None;
        for (key, value) in pairs(query)? {
            match key {
                "info_hash" => info_hash = Some(InfoHash(twenty(value, "info_hash")?)),
                "peer_id" => peer_id = Some(PeerId(twenty(value, "peer_id")?)),
                "port" => port = Some(value.parse().map_err(|_| Malformed::Invalid("port"))?),
                "uploaded" => uploaded = number(value, "uploaded")?,
                "downloaded" => downloaded = number(value, "downloaded")?,
                "left" => left = Some(number(value, "left")?),
                "event" => event = read_event(value)?,
                "compact" => compact = value != "0",
                "fm_carries" => capacity = Some(number(value, "fm_carries")?).filter(|rate| *rate > 0),
                // Some clients add their port. Only private addresses count, so that a lie sends no peer
                // elsewhere.
                "ipv4" => local = value.parse().ok().filter(Ipv4Addr::is_private),
                "no_peer_id" => no_peer_id = value == "1",
                // Some clients send -1 for "as many as you like".
                "numwant" if value.starts_with('-') => {}
                "numwant" => numwant = Some(value.parse().map_err(|_| Malformed::Invalid("numwant"))?),
                _ => {}
            }
        }
        let port = port.ok_or(Malformed::Missing("port"))?;
        if port == 0 && event != Event::Stopped {
            return Err(Malformed::Invalid("port"));
        }
        Ok(Announce {
            info_hash: info_hash.ok_or(Malformed::Missing("info_hash"))?,
            peer_id: peer_id.ok_or(Malformed::Missing("peer_id"))?,
            port,
            uploaded,
            downloaded,
            left: left.unwrap_or(u64::MAX),
            event,
            compact,
            no_peer_id,
            numwant,
            capacity,
            local,
        })
    }

    /// True when it lacks nothing.
    pub(crate) fn is_complete(&self) -> bool {
        self.left == 0
    }
}

/// Reads the info-hashes of a scrape (BEP 48); none means all.
pub(crate) fn parse_scrape(query: &str) -> Result<Vec<InfoHash>, Malformed> {
    let mut hashes = Vec::new();
    for (key, value) in pairs(query)? {
        if key == "info_hash" && hashes.len() < MAX_SCRAPE {
            hashes.push(InfoHash(twenty(value, "info_hash")?));
        }
    }
    Ok(hashes)
}

fn pairs(query: &str) -> Result<impl Iterator<Item = (&str, &str)>, Malformed> {
    if query.len() > MAX_QUERY {
        return Err(Malformed::TooLong);
    }
    Ok(query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, ""))))
}

fn number(value: &str, key: &'static str) -> Result<u64, Malformed> {
    value.parse().map_err(|_| Malformed::Invalid(key))
}

fn read_event(value: &str) -> Result<Event, Malformed> {
    match value {
        "" | "empty" | "paused" => Ok(Event::Regular),
        "started" => Ok(Event::Started),
        "completed" => Ok(Event::Completed),
        "stopped" => Ok(Event::Stopped),
        _ => Err(Malformed::Invalid("event")),
    }
}

fn twenty(value: &str, key: &'static str) -> Result<[u8; 20], Malformed> {
    percent_decode(value, 20).and_then(|bytes| bytes.try_into().ok()).ok_or(Malformed::Invalid(key))
}

/// Undoes percent-encoding (RFC 3986 §2.1); `None` for a broken escape or more than `limit` bytes. `+` stays:
/// it is a space in forms only, and in a peer id it is itself.
fn percent_decode(text: &str, limit: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(limit);
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let (byte, tail) = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => (hex(*high)? << 4 | hex(*low)?, tail),
            (b'%', _) => return None,
            (byte, tail) => (*byte, tail),
        };
        if bytes.len() == limit {
            return None;
        }
        bytes.push(byte);
        rest = tail;
    }
    Some(bytes)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A peer says that it is there, and no more than it must.
    pub(in crate::tracker) fn regular(info_hash: InfoHash, peer_id: PeerId, left: u64) -> Announce {
        Announce {
            info_hash,
            peer_id,
            port: 6881,
            uploaded: 0,
            downloaded: 0,
            left,
            event: Event::Regular,
            compact: true,
            no_peer_id: false,
            numwant: None,
            capacity: None,
            local: None,
        }
    }

    const HASH: &str = "%12%34%56%78%9a%bc%de%f1%23%45%67%89%ab%cd%ef%12%34%56%78%9a";

    fn query(extra: &str) -> String {
        format!("info_hash={HASH}&peer_id=-FM0100-abcdefghijk+&port=6881{extra}")
    }

    #[test]
    fn an_announce_is_read_with_its_bytes_decoded() {
        let all = query(
            "&uploaded=1&downloaded=2&left=3&event=started&numwant=7&compact=0&no_peer_id=1&ip=9.9.9.9",
        );
        let announce = Announce::parse(&all).expect("valid");
        assert_eq!(announce.info_hash.to_string(), "123456789abcdef123456789abcdef123456789a");
        assert_eq!(&announce.peer_id.0, b"-FM0100-abcdefghijk+");
        assert_eq!((announce.uploaded, announce.downloaded, announce.left), (1, 2, 3));
        assert_eq!((announce.event, announce.numwant), (Event::Started, Some(7)));
        assert!(!announce.compact && announce.no_peer_id);
    }

    #[test]
    fn what_is_left_out_has_the_usual_meaning() {
        let announce = Announce::parse(&query("&numwant=-1")).expect("valid");
        assert!(announce.compact && !announce.is_complete());
        assert_eq!((announce.event, announce.numwant), (Event::Regular, None));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, why) in [
            ("", Malformed::Missing("port")),
            ("port=1", Malformed::Missing("info_hash")),
            ("info_hash=abc&port=1", Malformed::Invalid("info_hash")),
            ("info_hash=%zz&port=1", Malformed::Invalid("info_hash")),
            (&query("&left=-1"), Malformed::Invalid("left")),
            (&query("&port=0"), Malformed::Invalid("port")),
            (&query("&port=65536"), Malformed::Invalid("port")),
            (&query("&event=dance"), Malformed::Invalid("event")),
            (&"x".repeat(MAX_QUERY + 1), Malformed::TooLong),
        ] {
            assert_eq!(Announce::parse(text), Err(why), "{text}");
        }
    }

    #[test]
    fn a_peer_that_stops_needs_no_port_to_be_dialled() {
        assert!(Announce::parse(&query("&port=0&event=stopped")).is_ok());
    }

    #[test]
    fn a_scrape_names_hashes_or_none() {
        assert_eq!(parse_scrape("").expect("valid"), []);
        assert_eq!(parse_scrape(&format!("info_hash={HASH}&info_hash={HASH}")).expect("valid").len(), 2);
        assert!(parse_scrape("info_hash=short").is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_and_never_a_panic(text in "\\PC{0,300}", tail in "[%&=a-f0-9_]{0,100}") {
            let _ = Announce::parse(&text);
            let _ = Announce::parse(&query(&tail));
            let _ = parse_scrape(&format!("info_hash={tail}"));
        }

        #[test]
        fn any_twenty_bytes_travel(hash in any::<[u8; 20]>(), id in any::<[u8; 20]>(), port in 1u16..,
            left: u64) {
            let escape = |bytes: [u8; 20]| bytes.iter().map(|b| format!("%{b:02X}")).collect::<String>();
            let text = format!("info_hash={}&peer_id={}&port={port}&left={left}", escape(hash), escape(id));
            let announce = Announce::parse(&text).expect("valid");
            prop_assert_eq!((announce.info_hash.0, announce.peer_id.0), (hash, id));
            prop_assert_eq!((announce.port, announce.left), (port, left));
        }
    }
}
