//! Asks an HTTP tracker (BEP 3, 7, 23): one announce, one answer.
//!
//! Invariant: an answer is read to [`MAX_REPLY`] at most, and only whole peers with a port are taken from it.
//! The session decides when to ask, and uses the peers.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::bencode::Value;
use crate::peer_policy::PeerPolicy;
use crate::units::{InfoHash, PeerId};

pub(crate) use crate::tracker::Event;

/// Longest answer that is read: ten thousand peers have 60 KB.
const MAX_REPLY: usize = 1 << 20;
/// Bencoded values an answer may hold: peers as dictionaries have four each.
const MAX_VALUES: usize = 50_000;
/// Longest interval that is believed.
const LONGEST_INTERVAL: u64 = 3600;

/// The content of an announce.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub info_hash: InfoHash,
    /// Ours.
    pub peer_id: PeerId,
    /// The port on which we listen.
    pub port: u16,
    /// Bytes sent to peers.
    pub uploaded: u64,
    /// Bytes received from peers.
    pub downloaded: u64,
    /// Bytes still missing.
    pub left: u64,
    /// The event to announce.
    pub event: Event,
    /// Bytes a second that we were seen to be able to pass on; zero while that is not known.
    pub capacity: u64,
    /// Our private address, for peers behind the same translated one.
    pub local: Option<Ipv4Addr>,
}

/// The tracker's answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Reply {
    /// How often to ask.
    pub interval: Option<Duration>,
    /// Not to ask more often than this.
    pub min_interval: Option<Duration>,
    pub peers: Vec<SocketAddr>,
    /// The peers we may fetch from and serve, if the tracker says.
    pub policy: Option<PeerPolicy>,
}

/// Why an announce brought no peers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnnounceError {
    #[error("not a URL: {0}")]
    Url(String),
    #[error("{0} trackers are not supported, only http")]
    Scheme(String),
    /// The request failed on its way.
    #[error("{}", why(.0))]
    Request(#[from] reqwest::Error),
    #[error("its answer is longer than {MAX_REPLY} bytes")]
    TooLong,
    #[error("its answer is not a tracker's")]
    Malformed,
    /// The tracker's own reason.
    #[error("it refuses: {0}")]
    Refused(String),
    /// An error of HTTP, and how its body reads as an answer.
    #[error("it answers {0} ({1})")]
    Status(reqwest::StatusCode, Box<AnnounceError>),
}

/// Announces to the tracker at `url`.
pub(crate) async fn announce(
    http: &reqwest::Client,
    url: &str,
    asked: &Asked,
) -> Result<Reply, AnnounceError> {
    let url = with_query(url, asked)?;
    let mut response = http.get(url).send().await?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await? {
        if body.len() + part.len() > MAX_REPLY {
            return Err(AnnounceError::TooLong);
        }
        body.extend_from_slice(&part);
    }
    match parse_reply(&body) {
        // Some trackers say why in the body of an error.
        Err(reason) if !status.is_success() => Err(AnnounceError::Status(status, Box::new(reason))),
        other => other,
    }
}

/// The announce URL with everything asked. A query that is there already (a passkey) is kept.
fn with_query(url: &str, asked: &Asked) -> Result<reqwest::Url, AnnounceError> {
    let mut url = reqwest::Url::parse(url).map_err(|error| AnnounceError::Url(error.to_string()))?;
    if url.scheme() != "http" {
        return Err(AnnounceError::Scheme(url.scheme().to_owned()));
    }
    let mut query = url.query().map(|query| format!("{query}&")).unwrap_or_default();
    query.push_str("info_hash=");
    escape(&asked.info_hash.0, &mut query);
    query.push_str("&peer_id=");
    escape(&asked.peer_id.0, &mut query);
    let Asked { port, uploaded, downloaded, left, .. } = asked;
    let event = match asked.event {
        Event::Started => "&event=started",
        Event::Completed => "&event=completed",
        Event::Stopped => "&event=stopped",
        _ => "",
    };
    let numbers = format!(
        "&port={port}&uploaded={uploaded}&downloaded={downloaded}&left={left}&compact=1&numwant=200{event}"
    );
    query.push_str(&numbers);
    // Writing to a string cannot fail.
    if asked.capacity > 0 {
        let _ = write!(query, "&fm_carries={}", asked.capacity);
    }
    if let Some(local) = asked.local {
        let _ = write!(query, "&ipv4={local}");
    }
    url.set_query(Some(&query));
    Ok(url)
}

fn escape(bytes: &[u8], into: &mut String) {
    for byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            into.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

/// The reason of a failed request for people: the innermost one ("Connection refused"). It never has the
/// request's URL, which may hold a ticket.
pub(crate) fn why(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let text = innermost.to_string();
    match error.url() {
        Some(url) => text.replace(&format!(" for url ({url})"), ""),
        None => text,
    }
}

fn parse_reply(body: &[u8]) -> Result<Reply, AnnounceError> {
    let value = Value::parse(body, MAX_VALUES).map_err(|_| AnnounceError::Malformed)?;
    let dict = value.as_dict().ok_or(AnnounceError::Malformed)?;
    let get = |key: &str| dict.get(key.as_bytes());
    if let Some(reason) = get("failure reason") {
        let reason = reason.as_bytes().map(String::from_utf8_lossy).unwrap_or_default();
        return Err(AnnounceError::Refused(reason.into_owned()));
    }
    let seconds = |key: &str| {
        let seconds = u64::try_from(get(key)?.as_int()?).ok()?;
        Some(Duration::from_secs(seconds.clamp(1, LONGEST_INTERVAL)))
    };
    let mut peers = Vec::new();
    match get("peers") {
        Some(Value::Bytes(compact)) => peers.extend(compact_v4(compact)),
        Some(Value::List(list)) => peers.extend(list.iter().filter_map(peer_of_dict)),
        _ => {}
    }
    peers.extend(get("peers6").and_then(Value::as_bytes).into_iter().flat_map(compact_v6));
    peers.retain(|peer| peer.port() != 0 && !peer.ip().is_unspecified());
    let policy = get("fm").and_then(PeerPolicy::decode);
    Ok(Reply { interval: seconds("interval"), min_interval: seconds("min interval"), peers, policy })
}

fn compact_v4(bytes: &[u8]) -> impl Iterator<Item = SocketAddr> {
    bytes.as_chunks::<6>().0.iter().map(|[a, b, c, d, high, low]| {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(*a, *b, *c, *d)), u16::from_be_bytes([*high, *low]))
    })
}

fn compact_v6(bytes: &[u8]) -> impl Iterator<Item = SocketAddr> {
    bytes.as_chunks::<18>().0.iter().filter_map(|peer| {
        let (ip, port) = (peer.first_chunk::<16>()?, peer.last_chunk::<2>()?);
        Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(*ip)), u16::from_be_bytes(*port)))
    })
}

fn peer_of_dict(value: &Value<'_>) -> Option<SocketAddr> {
    let dict = value.as_dict()?;
    let ip = dict.get(&b"ip"[..])?.as_text()?.parse().ok()?;
    let port = u16::try_from(dict.get(&b"port"[..])?.as_int()?).ok()?;
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compact_peers_of_both_families_are_read() {
        let mut body = b"d8:intervali30e12:min intervali10e5:peers13:".to_vec();
        body.extend([10, 0, 0, 1, 0x1a, 0xe1, 10, 0, 0, 2, 0, 0, 99]);
        body.extend(b"6:peers618:");
        body.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x1a, 0xe2]);
        body.push(b'e');
        let reply = parse_reply(&body).unwrap();
        assert_eq!(reply.interval, Some(Duration::from_secs(30)));
        assert_eq!(reply.min_interval, Some(Duration::from_secs(10)));
        let peers: Vec<_> = reply.peers.iter().map(ToString::to_string).collect();
        assert_eq!(peers, ["10.0.0.1:6881", "[fd00::1]:6882"], "no port and no whole peer are left out");
    }

    #[test]
    fn peers_as_dictionaries_are_read() {
        let body = b"d5:peersld2:ip8:10.0.0.97:peer id2:xx4:porti7eed2:ip4:oops4:porti7eeee";
        assert_eq!(parse_reply(body).unwrap().peers, ["10.0.0.9:7".parse().unwrap()]);
    }

    #[test]
    fn a_refusal_and_nonsense_are_told_to_people() {
        assert!(parse_reply(b"d14:failure reason4:no!!e").unwrap_err().to_string().contains("no!!"));
        assert!(parse_reply(b"<html>").is_err());
        assert!(parse_reply(b"le").is_err());
    }

    #[tokio::test]
    async fn the_reason_of_a_failed_request_has_no_url() {
        let http = reqwest::Client::new();
        let error = http.get("http://127.0.0.1:0/announce?t=secret").send().await.unwrap_err();
        assert!(!why(&error).contains("secret"), "{}", why(&error));
        // The outermost reason is the only one.
        let error = http.get("unknown://host/?t=secret").send().await.unwrap_err();
        assert!(!why(&error).contains("secret"), "{}", why(&error));
    }

    #[test]
    fn hashes_are_escaped_and_a_passkey_is_kept() {
        let asked = Asked {
            info_hash: InfoHash([b' '; 20]),
            peer_id: PeerId(*b"-FM0100-abcdefghijk&"),
            port: 6881,
            uploaded: 1,
            downloaded: 2,
            left: 3,
            event: Event::Started,
            capacity: 4,
            local: Some(Ipv4Addr::new(10, 0, 0, 7)),
        };
        let url = with_query("http://t/announce?key=x", &asked).unwrap();
        assert!(url.query().unwrap().starts_with("key=x&info_hash=%20%20"), "{url}");
        assert!(url.query().unwrap().contains("&peer_id=-FM0100-abcdefghijk%26&port=6881"), "{url}");
        assert!(url.query().unwrap().ends_with("&event=started&fm_carries=4&ipv4=10.0.0.7"), "{url}");
        let read_back = crate::tracker::Announce::parse(url.query().unwrap()).unwrap();
        assert_eq!((read_back.info_hash, read_back.left), (asked.info_hash, 3));
        assert_eq!((read_back.local, read_back.capacity), (asked.local, Some(4)));
        assert!(with_query("udp://t:1/announce", &asked).is_err());
    }
}
