//! Which torrents are accepted, and that reading and writing preserve them.

use super::*;
use proptest::prelude::*;

fn file(path: &[&str], length: u64) -> FileEntry {
    FileEntry::data(path.iter().map(|p| (*p).to_owned()).collect(), length)
}

fn builder() -> MetainfoBuilder {
    MetainfoBuilder {
        name: "v1".into(),
        piece_length: 1 << 20,
        files: vec![file(&["payload", "0000.bin"], 2 << 20), file(&["payload", "0001.bin"], 5)],
        pieces: Pieces::Hashed(vec![Sha1([1; 20]), Sha1([2; 20]), Sha1([3; 20])]),
        private: true,
    }
}

#[test]
fn a_built_torrent_reads_back_the_same() {
    let made = builder().build().expect("builds");
    assert_eq!(made.total_length(), (2 << 20) + 5);
    assert_eq!(made.piece_count(), 3);
    assert!(made.private && !made.unhashed && !made.is_single_file());
    assert_eq!(Metainfo::parse(&made.to_bytes()), Ok(made));
}

#[test]
fn a_known_torrent_has_its_known_info_hash() {
    // `sha1sum` of the info dictionary below.
    let info = b"d6:lengthi5e4:name1:a12:piece lengthi16384e6:pieces20:01234567890123456789e";
    let torrent = [b"d7:comment2:hi4:info".as_slice(), info, b"e"].concat();
    let read = Metainfo::parse(&torrent).expect("reads");
    assert_eq!(read.info_hash.to_string(), KNOWN_INFO_HASH);
    assert!(read.is_single_file());
    assert_eq!(&*read.info, info);
}
const KNOWN_INFO_HASH: &str = "d17f2c87a4921bafb5b731c9ce90a258568ecc8d";

#[test]
fn trackers_and_web_seeds_leave_the_info_hash_alone() {
    // `private=0` and an unknown key would not be written by us: they must survive byte for byte.
    let info =
        b"d6:lengthi5e4:name1:a12:piece lengthi16384e6:pieces20:012345678901234567897:privatei0e1:zi7ee";
    let read = Metainfo::parse(&[b"d4:info".as_slice(), info, b"e"].concat()).expect("reads");
    let given = read
        .clone()
        .with_trackers(vec!["http://a/announce".into(), "http://b/announce".into()])
        .with_url_list(vec!["http://a/images/".into()]);
    let again = Metainfo::parse(&given.to_bytes()).expect("reads again");
    assert_eq!(again, given);
    assert_eq!(again.info_hash, read.info_hash);
}

#[test]
fn unhashed_torrents_of_equal_size_differ_by_their_nonce() {
    let with = |nonce| {
        let pieces = Pieces::Unhashed { nonce: [nonce; 16] };
        MetainfoBuilder { pieces, ..builder() }.build().expect("builds")
    };
    assert!(with(1).unhashed);
    assert_eq!(with(1).pieces, vec![Sha1([0; 20]); 3]);
    assert_ne!(with(1).info_hash, with(2).info_hash);
}

#[test]
fn a_torrent_of_too_many_pieces_is_refused_with_the_bytes_that_it_would_have() {
    let pieces = Pieces::Unhashed { nonce: [1; 16] };
    let files = vec![file(&["payload", "0000.bin"], 10_000_000 << 20)];
    let made = MetainfoBuilder { pieces, files, ..builder() }.build();
    assert_eq!(made, Err(MetainfoError::TooLarge(200_000_000)));
}

#[test]
fn paths_that_leave_the_folder_are_refused() {
    for bad in ["..", ".", "", "a/b", "a\\b", "a\0b", "/etc"] {
        let made = MetainfoBuilder { files: vec![file(&[bad], 5)], ..builder() }.build();
        assert!(matches!(made, Err(MetainfoError::Path(_))), "{bad:?}: {made:?}");
        let made = MetainfoBuilder { name: bad.into(), ..builder() }.build();
        assert!(matches!(made, Err(MetainfoError::Path(_))), "{bad:?}: {made:?}");
    }
}

#[test]
fn files_that_collide_are_refused() {
    for pair in [[vec!["a"], vec!["a"]], [vec!["a"], vec!["a", "b"]], [vec!["a", "b"], vec!["a"]]] {
        let files = pair.iter().map(|path| file(path, 1)).collect();
        let made = MetainfoBuilder { files, ..builder() }.build();
        assert!(matches!(made, Err(MetainfoError::Duplicate(_))), "{pair:?}: {made:?}");
    }
}

#[test]
fn lengths_and_hashes_must_go_together() {
    let bad = |change: fn(&mut MetainfoBuilder)| {
        let mut made = builder();
        change(&mut made);
        made.build().expect_err("refused")
    };
    assert!(matches!(bad(|b| b.files[1].length = 0), MetainfoError::HashCount { expected: 2, .. }));
    assert!(matches!(bad(|b| b.files[1].length = u64::MAX), MetainfoError::Length(_)));
    assert!(matches!(bad(|b| b.files[1].length = i64::MAX as u64), MetainfoError::Length(_)));
    assert_eq!(bad(|b| b.piece_length = 0), MetainfoError::PieceLength(0));
    assert!(matches!(bad(|b| b.piece_length = u32::MAX), MetainfoError::PieceLength(_)));
}

#[test]
fn what_is_no_torrent_says_so() {
    for (bytes, says) in [
        (b"<html>404</html>".as_slice(), "not a torrent or it is damaged"),
        (b"", "not a torrent or it is damaged"),
        (b"d4:infoi1ee", "'info' is missing or not a dictionary"),
        (b"d4:infod4:name1:aee", "'piece length' is missing"),
        (b"d4:infod12:meta versioni2e4:name1:aee", "v2"),
    ] {
        let error = Metainfo::parse(bytes).expect_err("refused").to_string();
        assert!(error.contains(says), "{error}");
    }
}

/// A torrent of other programs: `info` with these keys beside name, piece length and hashes, sorted as they
/// must be.
fn foreign(entries: Vec<(&str, Value<'_>)>, pieces: usize) -> Result<Metainfo, MetainfoError> {
    let hashes = vec![7; 20 * pieces];
    let mut info = vec![
        ("name", Value::text("set")),
        ("piece length", Value::Int(16)),
        ("pieces", Value::bytes(&hashes)),
    ];
    info.extend(entries);
    Metainfo::parse(&bencode::dict([("info", bencode::dict(info))]).encode())
}

fn path<'a>(elements: &[&'a [u8]]) -> Value<'a> {
    Value::List(elements.iter().map(|element| Value::bytes(element)).collect())
}

#[test]
fn paddings_may_share_a_path_or_have_none() {
    let data = |name: &'static [u8]| bencode::dict([("length", Value::Int(10)), ("path", path(&[name]))]);
    let padding = |path: Option<Value<'static>>| {
        let entries = [("attr", Value::text("p")), ("length", Value::Int(6))];
        bencode::dict(entries.into_iter().chain(path.map(|path| ("path", path))))
    };
    let same = || padding(Some(path(&[b".pad", b"6"])));
    let list = vec![data(b"a"), same(), data(b"b"), same(), data(b"c"), padding(None)];
    let read = foreign(vec![("files", Value::List(list))], 3).expect("reads");
    let kinds: Vec<_> = read.files.iter().map(|file| (file.kind, file.length)).collect();
    let (data, padding) = ((FileKind::Data, 10), (FileKind::Padding, 6));
    assert_eq!(kinds, [data, padding, data, padding, data, padding]);
    assert_eq!(read.total_length(), 48);
    assert_eq!(Metainfo::parse(&read.to_bytes()), Ok(read));
}

#[test]
fn names_in_another_encoding_are_read_from_their_utf8_form() {
    let file = |utf8: Option<Value<'static>>| {
        let entries = [("length", Value::Int(4)), ("path", path(&[b"gr\xfc\xdfe"]))];
        bencode::dict(entries.into_iter().chain(utf8.map(|utf8| ("path.utf-8", utf8))))
    };
    let read = |file| {
        let files = ("files", Value::List(vec![file]));
        foreign(vec![files, ("name.utf-8", Value::text("Übung"))], 1).expect("reads")
    };
    let named = read(file(Some(path(&["grüße".as_bytes()]))));
    assert_eq!((named.name.as_str(), named.files[0].path.join("/").as_str()), ("Übung", "grüße"));
    let unreadable = read(file(Some(path(&[b"gr\xfc\xdfe"]))));
    assert_eq!(unreadable.files[0].path, ["gr\u{fffd}\u{fffd}e"], "a strange name still reaches its payload");
    assert_eq!(read(file(None)).files, unreadable.files);
    let escape = file(Some(path(&[b".."])));
    let refused = foreign(vec![("files", Value::List(vec![escape]))], 1);
    assert!(matches!(refused, Err(MetainfoError::Path(_))), "{refused:?}");
}

#[test]
fn a_hybrid_torrent_is_read_by_its_v1_half_however_deep_its_folders_are() {
    let elements: Vec<String> = (0..MAX_PATH_DEPTH).map(|i| format!("d{i}")).collect();
    let root = [9; 32];
    let leaf = bencode::dict([("length", Value::Int(4)), ("pieces root", Value::bytes(&root))]);
    let tree = elements
        .iter()
        .rev()
        .fold(bencode::dict([("", leaf)]), |inner, element| bencode::dict([(element.as_str(), inner)]));
    let list: Vec<&[u8]> = elements.iter().map(|element| element.as_bytes()).collect();
    let file = bencode::dict([("length", Value::Int(4)), ("path", path(&list))]);
    let keys = vec![("file tree", tree), ("files", Value::List(vec![file])), ("meta version", Value::Int(2))];
    let read = foreign(keys, 1).expect("reads");
    assert_eq!((read.files.len(), read.files[0].path.len()), (1, MAX_PATH_DEPTH));
}

#[test]
fn symbolic_links_are_told_apart_from_files() {
    let file = bencode::dict([("length", Value::Int(4)), ("path", path(&[b"a"]))]);
    let link = bencode::dict([
        ("attr", Value::text("l")),
        ("path", path(&[b"b"])),
        ("symlink path", path(&[b"..", b"etc"])),
    ]);
    let read = foreign(vec![("files", Value::List(vec![file, link]))], 1).expect("reads");
    assert_eq!(read.links().map(|link| link.path.join("/")).collect::<Vec<_>>(), ["b"]);
    assert_eq!(read.total_length(), 4);
}

proptest! {
    #[test]
    fn a_damaged_torrent_never_panics(at in 0usize..300, byte in any::<u8>(), cut in 0usize..300) {
        let mut bytes = builder().build().expect("builds").to_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(read) = Metainfo::parse(&bytes) {
            prop_assert_eq!(read.pieces.len() as u64,
                read.total_length().div_ceil(u64::from(read.piece_length)));
        }
        bytes.truncate(cut % bytes.len());
        prop_assert!(Metainfo::parse(&bytes).is_err());
    }
}
