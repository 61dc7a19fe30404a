//! Tickets: what a boot script gives a terminal, so that it may speak.
//!
//! A ticket is the time at which it was made and a MAC (HMAC-SHA256) over this time and the machine that
//! asked, by a key that only the server has. So the server remembers nothing of tickets that nobody uses, and
//! its restart between a boot script and the terminal's first call disturbs nobody. `lab::secrets` sees to it
//! that a ticket is used once.
//!
//! Invariant: pure. A ticket is good for one machine, for [`LIFE`]. The key comes in as an argument.

use std::net::IpAddr;
use std::time::Duration;

use crate::digest::sha256;
use crate::image_id::ImageId;
use crate::server::domain::identity::{Identity, Mac, in_one_order};
use crate::units::Sha256;

/// How long a ticket is good: the firmware, kernel and network of a slow terminal take a few minutes.
pub(crate) const LIFE: Duration = Duration::from_secs(15 * 60);
/// Bytes of the time, and of the code that proves the rest.
const TIME: usize = 6;
const CODE: usize = 16;

/// The server's key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(pub [u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// The machine that a ticket is for: the MAC it boots from, or its UUID if it named none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Mac(Mac),
    Uuid(uuid::Uuid),
}

impl Subject {
    /// Of a machine that asks for its boot script.
    pub(crate) fn of(who: &Identity) -> Option<Subject> {
        let mac = who.macs.first().copied().map(Subject::Mac);
        mac.or_else(|| who.uuid.map(|uuid| Subject::Uuid(in_one_order(uuid))))
    }

    /// Is it one of the machine's names?
    pub(crate) fn names(self, who: &Identity) -> bool {
        match self {
            Subject::Mac(mac) => who.macs.contains(&mac),
            Subject::Uuid(uuid) => who.uuid.map(in_one_order) == Some(uuid),
        }
    }

    fn bytes(self) -> Vec<u8> {
        match self {
            Subject::Mac(mac) => [&b"mac "[..], &mac.0].concat(),
            Subject::Uuid(uuid) => [&b"uuid "[..], uuid.as_bytes()].concat(),
        }
    }
}

/// A ticket that was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// When it was made, in whole milliseconds.
    pub made: Duration,
    pub subject: Subject,
}

/// A new ticket, as it is written on the kernel's command line.
pub(crate) fn issue(key: &Key, subject: Subject, now: Duration) -> String {
    let made = millis(now);
    let code = terminal_code(key, made, subject);
    hex(&[&made[..], &code[..]].concat())
}

/// Checks what a machine that calls itself `who` presents.
pub(crate) fn check(key: &Key, text: &str, who: &Identity, now: Duration) -> Option<Ticket> {
    let bytes = unhex(text).filter(|bytes| bytes.len() == TIME + CODE)?;
    let (made, given) = bytes.split_at(TIME);
    let made: [u8; TIME] = made.try_into().ok()?;
    let named = who.macs.iter().map(|mac| Subject::Mac(*mac));
    let named = named.chain(who.uuid.map(|uuid| Subject::Uuid(in_one_order(uuid))));
    let subject =
        named.fold(None, |found, subject| match equal(&terminal_code(key, made, subject), given) {
            true => Some(subject),
            false => found,
        })?;
    let made = time_of(made);
    // A ticket of the future was made before the machine's date was set back.
    (made <= now && now - made < LIFE).then_some(Ticket { made, subject })
}

/// How long a ticket for an image is good: longer than any attempt stays in the swarm.
const IMAGE_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A ticket of the terminal that makes `attempt`, for the payload of one image and for the administrator's
/// files that this image has for it.
pub(crate) fn issue_for_image(key: &Key, (attempt, image): (u64, &ImageId), now: Duration) -> String {
    let made = millis(now);
    format!("{attempt}-{}", hex(&[&made[..], &attempt_code(key, made, (attempt, image))].concat()))
}

/// A ticket for the payload of one image, for the addresses in a torrent file, which people hand on. It does
/// not open the administrator's files.
pub(crate) fn issue_for_torrent(key: &Key, image: &ImageId, now: Duration) -> String {
    let made = millis(now);
    hex(&[&made[..], &torrent_code(key, made, image)].concat())
}

/// The attempt that a terminal's ticket for this image was made for.
pub(crate) fn attempt_of(key: &Key, text: &str, image: &ImageId, now: Duration) -> Option<u64> {
    let (attempt, code) = text.split_once('-')?;
    let attempt: u64 = attempt.parse().ok()?;
    is_in_time(code, now, IMAGE_LIFE, |made| attempt_code(key, made, (attempt, image))).then_some(attempt)
}

/// Is it a ticket for the payload of this image, a terminal's or that of a torrent file?
pub(crate) fn is_for_payload(key: &Key, text: &str, image: &ImageId, now: Duration) -> bool {
    attempt_of(key, text, image, now).is_some()
        || is_in_time(text, now, IMAGE_LIFE, |made| torrent_code(key, made, image))
        // A terminal in the swarm since before the server was updated.
        || is_in_time(text, now, IMAGE_LIFE, |made| image_code(key, made, image))
}

/// A ticket for one address: whoever presents it has received what was sent there.
pub(crate) fn issue_for_address(key: &Key, address: IpAddr, now: Duration) -> String {
    let made = millis(now);
    hex(&[&made[..], &address_code(key, made, address)].concat())
}

/// Was this ticket sent to the address within [`LIFE`]?
pub(crate) fn is_for_address(key: &Key, text: &str, address: IpAddr, now: Duration) -> bool {
    is_in_time(text, now, LIFE, |made| address_code(key, made, address))
}

fn is_in_time(text: &str, now: Duration, life: Duration, code: impl Fn([u8; TIME]) -> [u8; CODE]) -> bool {
    let Some(bytes) = unhex(text).filter(|bytes| bytes.len() == TIME + CODE) else { return false };
    let (made, given) = bytes.split_at(TIME);
    let Ok(made) = <[u8; TIME]>::try_from(made) else { return false };
    let time = time_of(made);
    equal(&code(made), given) && time <= now && now - time < life
}

fn attempt_code(key: &Key, made: [u8; TIME], (attempt, image): (u64, &ImageId)) -> [u8; CODE] {
    let subject = [&attempt.to_be_bytes()[..], image.to_string().as_bytes()].concat();
    code(key, b"flashmob files ", made, &subject)
}

fn image_code(key: &Key, made: [u8; TIME], image: &ImageId) -> [u8; CODE] {
    code(key, b"flashmob image ", made, image.to_string().as_bytes())
}

fn address_code(key: &Key, made: [u8; TIME], address: IpAddr) -> [u8; CODE] {
    code(key, b"flashmob address ", made, address.to_string().as_bytes())
}

fn torrent_code(key: &Key, made: [u8; TIME], image: &ImageId) -> [u8; CODE] {
    code(key, b"flashmob torrent ", made, image.to_string().as_bytes())
}

/// How long a started system may take to call back: long holidays.
const BOOT_LIFE: Duration = Duration::from_secs(60 * 24 * 3600);

/// Why a started system's ticket is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotGood {
    #[error("this server made no such ticket")]
    Wrong,
    #[error("this ticket is too old")]
    Expired,
}

/// A ticket for the system that `attempt` installs.
pub(crate) fn issue_for_boot(key: &Key, attempt: u64, now: Duration) -> String {
    let made = millis(now);
    format!("{attempt}-{}", hex(&[&made[..], &boot_code(key, made, attempt)].concat()))
}

/// The attempt that a started system's ticket is for.
pub(crate) fn boot_of(key: &Key, text: &str, now: Duration) -> Result<u64, NotGood> {
    let (attempt, code) = text.split_once('-').ok_or(NotGood::Wrong)?;
    let attempt: u64 = attempt.parse().map_err(|_| NotGood::Wrong)?;
    let bytes = unhex(code).filter(|bytes| bytes.len() == TIME + CODE).ok_or(NotGood::Wrong)?;
    let (made, given) = bytes.split_at(TIME);
    let made = <[u8; TIME]>::try_from(made).map_err(|_| NotGood::Wrong)?;
    let time = time_of(made);
    match (equal(&boot_code(key, made, attempt), given), time <= now && now - time < BOOT_LIFE) {
        (true, true) => Ok(attempt),
        (true, false) => Err(NotGood::Expired),
        (false, _) => Err(NotGood::Wrong),
    }
}

fn boot_code(key: &Key, made: [u8; TIME], attempt: u64) -> [u8; CODE] {
    code(key, b"flashmob booted ", made, &attempt.to_be_bytes())
}

fn time_of(made: [u8; TIME]) -> Duration {
    Duration::from_millis(made.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

/// The last six bytes: enough for 8000 years.
fn millis(time: Duration) -> [u8; TIME] {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).to_be_bytes();
    let [_, _, a, b, c, d, e, f] = millis;
    [a, b, c, d, e, f]
}

fn terminal_code(key: &Key, made: [u8; TIME], subject: Subject) -> [u8; CODE] {
    code(key, b"flashmob ticket ", made, &subject.bytes())
}

fn code(key: &Key, kind: &[u8], made: [u8; TIME], subject: &[u8]) -> [u8; CODE] {
    let whole = authenticated(key, &[kind, &made, subject].concat());
    let mut code = [0; CODE];
    code.copy_from_slice(&whole[..CODE]);
    code
}

/// HMAC-SHA256 (RFC 2104).
fn authenticated(key: &Key, message: &[u8]) -> [u8; 32] {
    let padded = |pad: u8| {
        let mut block = [pad; 64];
        block.iter_mut().zip(key.0).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = sha256(&[&padded(0x36)[..], message].concat());
    sha256(&[&padded(0x5c)[..], &inner.0].concat()).0
}

/// Whether two secrets are equal. The time it takes does not depend on where they differ.
pub(crate) fn equal(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differing) == 0
}

/// The hash under which a secret is kept.
pub(crate) fn hash_of(secret: &str) -> Sha256 {
    sha256(secret.as_bytes())
}

/// Bytes as a secret's text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    pairs.remainder().is_empty().then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::lab::at;

    const KEY: Key = Key([7; 32]);
    const A: &str = "52:54:00:00:00:0a";
    const B: &str = "52:54:00:00:00:0b";
    const U: &str = "4c4c4544-0042-3510-8052-b4c04f4d4e31";
    const U_TURNED: &str = "44454c4c-4200-1035-8052-b4c04f4d4e31";

    fn who(macs: &[&str], uuid: Option<&str>) -> Identity {
        Identity::new(macs, uuid)
    }

    fn ticket_of(who: &Identity) -> String {
        issue(&KEY, Subject::of(who).expect("a name"), at(1_800_000_000))
    }

    #[test]
    fn a_ticket_is_good_for_its_machine_for_a_quarter_of_an_hour() {
        let ticket = ticket_of(&who(&[A], Some(U)));
        let came = |who: &Identity, now: u64| check(&KEY, &ticket, who, at(1_800_000_000 + now));
        let agent = who(&[B, A], None);
        let good = came(&agent, 0).expect("good");
        assert_eq!((good.made, good.subject.names(&who(&[A], None))), (at(1_800_000_000), true));
        assert!(came(&agent, 899).is_some() && came(&agent, 900).is_none());
        assert_eq!(came(&who(&[B], Some(U)), 1), None, "another machine");
        assert_eq!(check(&KEY, &ticket, &agent, at(1_799_999_999)), None, "made in the future");
        assert_eq!(check(&Key([8; 32]), &ticket, &agent, at(1_800_000_001)), None, "of another server");
    }

    #[test]
    fn a_machine_without_a_mac_has_a_ticket_for_its_uuid_in_either_byte_order() {
        let ticket = ticket_of(&who(&[], Some(U)));
        assert!(check(&KEY, &ticket, &who(&[A], Some(U_TURNED)), at(1_800_000_001)).is_some());
        assert_eq!(check(&KEY, &ticket, &who(&[A], None), at(1_800_000_001)), None);
        assert_eq!(Subject::of(&Identity::default()), None);
    }

    #[test]
    fn no_changed_ticket_is_good() {
        let machine = who(&[A], None);
        let ticket = ticket_of(&machine);
        let good = |text: &str| check(&KEY, text, &machine, at(1_800_000_001)).is_some();
        assert!(good(&ticket) && good(&ticket.to_uppercase()));
        for n in 0..ticket.len() {
            let mut changed = ticket.clone().into_bytes();
            changed[n] = if changed[n] == b'0' { b'1' } else { b'0' };
            assert!(!good(std::str::from_utf8(&changed).expect("hex")), "digit {n}");
        }
        for bad in ["", "0", "zz", &ticket[2..], &ticket[1..], &format!("{ticket}00"), "é"] {
            assert!(!good(bad), "{bad}");
        }
    }

    #[test]
    fn a_ticket_for_an_image_is_for_no_other_and_for_one_attempt() {
        let (image, other) = (ImageId::new("debian", "1"), ImageId::new("debian", "2"));
        let ticket = issue_for_image(&KEY, (17, &image), at(1_800_000_000));
        let of = |text: &str, image, now| attempt_of(&KEY, text, image, at(now));
        assert_eq!(of(&ticket, &image, 1_800_000_000), Some(17));
        assert_eq!(of(&ticket, &image, 1_800_600_000), Some(17));
        for (image, now) in [(&image, 1_800_604_800), (&image, 1_799_999_999), (&other, 1_800_000_001)] {
            assert_eq!(of(&ticket, image, now), None);
            assert!(!is_for_payload(&KEY, &ticket, image, at(now)));
        }
        assert!(is_for_payload(&KEY, &ticket, &image, at(1_800_000_001)));
        let machine = who(&[A], None);
        assert_eq!(check(&KEY, &ticket, &machine, at(1_800_000_001)), None);
        for bad in [&ticket.replacen("17", "18", 1), &ticket[3..], &ticket_of(&machine), "", "17-", "-"] {
            assert_eq!(of(bad, &image, 1_800_000_001), None, "{bad}");
            assert!(!is_for_payload(&KEY, bad, &image, at(1_800_000_001)), "{bad}");
        }
        assert_eq!(boot_of(&KEY, &ticket, at(1_800_000_001)), Err(NotGood::Wrong));
    }

    #[test]
    fn a_terminal_that_got_its_ticket_before_the_servers_update_stays_in_the_swarm() {
        let (image, made) = (ImageId::new("debian", "1"), millis(at(1_800_000_000)));
        let ticket = hex(&[&made[..], &image_code(&KEY, made, &image)].concat());
        assert!(is_for_payload(&KEY, &ticket, &image, at(1_800_000_001)));
        assert_eq!(attempt_of(&KEY, &ticket, &image, at(1_800_000_001)), None, "and gets no files");
    }

    #[test]
    fn a_ticket_for_an_address_is_for_no_other_and_ends() {
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let ticket = issue_for_address(&KEY, one, at(1_800_000_000));
        let good = |address, now| is_for_address(&KEY, &ticket, address, at(now));
        assert!(good(one, 1_800_000_000) && good(one, 1_800_000_899));
        assert!(!good(one, 1_800_000_900) && !good(one, 1_799_999_999) && !good(other, 1_800_000_001));
        assert!(!is_for_address(&KEY, &ticket_of(&who(&[A], None)), one, at(1_800_000_001)));
    }

    #[test]
    fn a_ticket_of_a_started_system_is_for_one_attempt_and_ends() {
        let ticket = issue_for_boot(&KEY, 7, at(1_800_000_000));
        let read = |text: &str, now| boot_of(&KEY, text, at(now));
        assert_eq!(read(&ticket, 1_800_000_000), Ok(7));
        assert_eq!(read(&ticket, 1_800_000_000 + 60 * 86_400), Err(NotGood::Expired));
        assert_eq!(read(&ticket, 1_799_999_999), Err(NotGood::Expired), "made in the future");
        let other = ticket.replacen('7', "8", 1);
        for bad in [&other, "", "7-", "7", "x-00", &ticket[..ticket.len() - 2]] {
            assert_eq!(read(bad, 1_800_000_000), Err(NotGood::Wrong), "{bad}");
        }
        assert_eq!(boot_of(&Key([8; 32]), &ticket, at(1_800_000_000)), Err(NotGood::Wrong));
    }

    #[test]
    fn the_code_is_that_of_rfc_4231() {
        // Test case 1 has a key of 20 bytes, which is padded with zeros.
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let code = hex(&authenticated(&Key(key), b"Hi There"));
        assert_eq!(code, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    }

    #[test]
    fn secrets_are_equal_only_in_full() {
        assert!(equal(b"abc", b"abc") && equal(b"", b""));
        assert!(!equal(b"abc", b"abd") && !equal(b"abc", b"ab") && !equal(b"", b"a"));
    }
}
