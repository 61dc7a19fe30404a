//! What any client and any server may send.

use proptest::prelude::*;

use super::super::client::{Unopened, disconnect_request, open, parse_reply, read_request, request_of};
use super::*;

const SIZE: u64 = 3 << 20;

fn export() -> Export {
    Export { name: "a-secret-name".into(), size: SIZE, sector_size: 512 }
}

/// A client's stream whose other end is a session.
struct Joined {
    session: Session,
    answers: Vec<u8>,
}

impl Joined {
    fn new() -> Self {
        let (session, answers) = Session::new(export());
        Joined { session, answers }
    }
}

impl std::io::Read for Joined {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let taken = into.len().min(self.answers.len());
        into[..taken].copy_from_slice(&self.answers[..taken]);
        self.answers.drain(..taken);
        Ok(taken)
    }
}

impl std::io::Write for Joined {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let actions = self.session.input(bytes).map_err(std::io::Error::other)?;
        for action in actions {
            if let Action::Send(bytes) = action {
                self.answers.extend(bytes);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A session whose client named the export.
fn opened() -> Session {
    let mut joined = Joined::new();
    let exported = open(&mut joined, "a-secret-name").expect("opened");
    assert_eq!((exported.size, exported.minimum, exported.maximum), (SIZE, 512, MAX_READ));
    assert!(joined.answers.is_empty() && joined.session.is_open());
    joined.session
}

#[test]
fn who_knows_the_name_reads_and_nobody_else() {
    assert!(matches!(open(&mut Joined::new(), "another"), Err(Unopened::Unknown)));
    assert!(matches!(open(&mut Joined::new(), ""), Err(Unopened::Unknown)));
    let mut session = opened();
    let said = session.input(&read_request(7, 512, 1024));
    assert_eq!(said, Ok(vec![Action::Read { cookie: 7, offset: 512, length: 1024 }]));
    assert_eq!(session.input(&disconnect_request()), Ok(vec![Action::End]));
    assert_eq!(session.input(&read_request(8, 0, 512)), Ok(vec![]));
}

/// The answers to the options of a client that has no zeroes.
fn answers(options: &[(u32, Vec<u8>)]) -> Result<Vec<Action>, Garbage> {
    let (mut session, _) = Session::new(export());
    let mut bytes = 3u32.to_be_bytes().to_vec();
    for (kind, data) in options {
        bytes.extend(OPTION_MAGIC.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(u32::try_from(data.len()).expect("short").to_be_bytes());
        bytes.extend(data);
    }
    session.input(&bytes)
}

#[test]
fn exports_are_not_listed_and_unknown_options_do_no_harm() {
    const STARTTLS: u32 = 5;
    let said =
        answers(&[(option::LIST, vec![]), (STARTTLS, vec![]), (99, vec![1; 100]), (option::ABORT, vec![])]);
    let kinds: Vec<_> = said
        .expect("answers")
        .iter()
        .map(|action| match action {
            Action::Send(bytes) => u32_at(bytes, 12).expect("an answer"),
            _ => 0,
        })
        .collect();
    let unsupported = answer::UNSUPPORTED;
    assert_eq!(kinds, [answer::POLICY, unsupported, unsupported, answer::ACK, 0]);
    // A name that is longer than the option.
    let said = answers(&[(option::GO, vec![0xff; 6])]).expect("an answer");
    let [Action::Send(said)] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(u32_at(said, 12), Some(answer::INVALID));
}

#[test]
fn the_oldest_option_opens_the_export_by_its_name_only() {
    let said = answers(&[(option::EXPORT_NAME, b"a-secret-name".to_vec())]).expect("opened");
    let [Action::Send(bytes)] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!((bytes.len(), u64_at(bytes, 0)), (10, Some(SIZE)));
    assert_eq!(u16_at(bytes, 8).map(|flags| flags & READ_ONLY), Some(READ_ONLY));
    assert!(answers(&[(option::EXPORT_NAME, b"".to_vec())]).is_err());
}

#[test]
fn a_client_with_too_long_or_too_many_options_is_cut_off() {
    assert!(answers(&[(option::GO, vec![0; MAX_OPTION])]).is_ok());
    assert!(answers(&[(option::GO, vec![0; MAX_OPTION + 1])]).is_err());
    assert!(answers(&vec![(option::LIST, vec![]); 32]).is_ok());
    assert!(answers(&vec![(option::LIST, vec![]); 33]).is_err());
}

#[test]
fn writes_are_refused_and_the_session_goes_on() {
    let mut session = opened();
    let denied = |cookie| Action::Send(reply(errno::PERM, cookie).to_vec());
    // Its bytes come in two parts, and look like a request.
    assert_eq!(session.input(&request_of(command::WRITE, 1, 0, 512)), Ok(vec![]));
    assert_eq!(session.input(&[0x25; 500]), Ok(vec![]));
    let mut rest = vec![0x25; 12];
    rest.extend(read_request(2, 0, 512));
    let read = Action::Read { cookie: 2, offset: 0, length: 512 };
    assert_eq!(session.input(&rest), Ok(vec![denied(1), read]));
    for kind in [command::TRIM, command::WRITE_ZEROES] {
        assert_eq!(session.input(&request_of(kind, 3, 0, 512)), Ok(vec![denied(3)]));
    }
    assert!(session.input(&request_of(command::WRITE, 1, 0, MAX_WRITE + 1)).is_err());
}

#[test]
fn reads_beyond_the_export_and_parts_of_sectors_are_refused() {
    let mut session = opened();
    let cases = [
        (SIZE, 512),
        (SIZE - 512, 1024),
        (u64::MAX - 511, 512),
        (0, 0),
        (1, 512),
        (0, 511),
        (0, MAX_READ + 512),
    ];
    for (offset, length) in cases {
        let said = session.input(&read_request(9, offset, length));
        assert_eq!(said, Ok(vec![Action::Send(reply(errno::INVALID, 9).to_vec())]), "{offset} {length}");
    }
    let last = session.input(&read_request(9, SIZE - 512, 512));
    assert_eq!(last, Ok(vec![Action::Read { cookie: 9, offset: SIZE - 512, length: 512 }]));
    let unknown = session.input(&request_of(7, 9, 0, 512));
    assert_eq!(unknown, Ok(vec![Action::Send(reply(errno::INVALID, 9).to_vec())]));
}

#[test]
fn headers_of_replies_are_read_again() {
    assert_eq!(parse_reply(&reply(errno::IO, 77)), Some((77, errno::IO)));
    assert_eq!(parse_reply(&[0; 16]), None);
}

proptest! {
    #[test]
    fn garbage_neither_reads_beyond_the_export_nor_fills_the_memory(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..40),
        open_first in any::<bool>(),
    ) {
        let mut session = if open_first { opened() } else { Session::new(export()).0 };
        for part in parts {
            let Ok(actions) = session.input(&part) else { break };
            for action in actions {
                if let Action::Read { offset, length, .. } = action {
                    prop_assert!(offset + u64::from(length) <= SIZE);
                }
            }
            prop_assert!(session.held.len() <= HELD);
        }
    }

    #[test]
    fn any_request_is_answered_within_the_export_and_however_it_is_cut(
        requests in prop::collection::vec((0u16..9, any::<u64>(), 0..SIZE / 256, 0u32..20), 1..20),
        cut in 1usize..90,
    ) {
        let mut bytes = Vec::new();
        for (kind, cookie, offset, length) in &requests {
            let (offset, length) = (offset * 512, length * 256);
            bytes.extend(request_of(*kind, *cookie, offset, length));
            if *kind == command::WRITE {
                bytes.resize(bytes.len() + usize::try_from(length).expect("short"), 0x25);
            }
        }
        let whole = opened().input(&bytes);
        let mut session = opened();
        let mut parts = Vec::new();
        for part in bytes.chunks(cut) {
            parts.extend(session.input(part).expect("requests"));
        }
        for action in &parts {
            if let Action::Read { offset, length, .. } = action {
                prop_assert!(offset + u64::from(*length) <= SIZE && *length <= MAX_READ);
            }
        }
        prop_assert_eq!(whole, Ok(parts));
    }

    #[test]
    fn a_client_survives_any_server(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        greets in any::<bool>(),
    ) {
        let greeting = if greets { Session::new(export()).1 } else { Vec::new() };
        struct Server(std::io::Cursor<Vec<u8>>);
        impl std::io::Read for Server {
            fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
                self.0.read(into)
            }
        }
        impl std::io::Write for Server {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let _ = open(&mut Server(std::io::Cursor::new([greeting, bytes].concat())), "x");
    }
}
