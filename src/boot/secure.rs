//! Keys of Secure Boot as the firmware keeps and takes them: signature lists (UEFI 2.10 §32.4.1), and signed
//! updates of the variables that hold them (§8.2.2).
//!
//! Invariant: pure. Lengths are checked before use, and bytes that are not understood are an error.

/// A variable with keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyVariable {
    /// Certificates of programs that may start.
    Db,
    /// Certificates of those who may change `db`.
    Kek,
    /// Certificate of the machine's owner. With it the firmware leaves Setup Mode.
    Pk,
}

/// The order in which they are written: with the last one the firmware leaves Setup Mode.
pub const IN_ORDER: [KeyVariable; 3] = [KeyVariable::Db, KeyVariable::Kek, KeyVariable::Pk];

/// Non-volatile, boot service and runtime access, signed with a time.
const REPLACE: u32 = 0x27;
/// The same, and what is there stays.
const APPEND: u32 = 0x67;

impl KeyVariable {
    pub fn name(self) -> &'static str {
        match self {
            KeyVariable::Db => "db",
            KeyVariable::Kek => "KEK",
            KeyVariable::Pk => "PK",
        }
    }

    /// Its vendor: `EFI_IMAGE_SECURITY_DATABASE_GUID` or `EFI_GLOBAL_VARIABLE`.
    pub fn vendor(self) -> &'static str {
        match self {
            KeyVariable::Db => "d719b2cb-3d3a-4596-a3bc-dad00e67656f",
            KeyVariable::Kek | KeyVariable::Pk => "8be4df61-93ca-11d2-aa0d-00e098032b8c",
        }
    }

    /// Certificates are added to `db` and `KEK`, so that those of others stay.
    pub fn attributes(self) -> u32 {
        match self {
            KeyVariable::Db | KeyVariable::Kek => APPEND,
            KeyVariable::Pk => REPLACE,
        }
    }
}

/// `EFI_CERT_X509_GUID`.
const X509: [u8; 16] =
    [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];
/// `EFI_CERT_TYPE_PKCS7_GUID`.
const PKCS7: [u8; 16] =
    [0x9d, 0xd2, 0xaf, 0x4a, 0xdf, 0x68, 0xee, 0x49, 0x8a, 0xa9, 0x34, 0x7d, 0x37, 0x56, 0x65, 0xa7];
/// A list's type and three lengths.
const LIST_HEADER: usize = 28;
/// The owner before each signature.
const OWNER: usize = 16;
/// `EFI_TIME` at the beginning of an update.
const TIME: usize = 16;

/// Why bytes are no signature lists, or no update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(&'static str);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// Lists of these certificates (DER) of one owner. Each has its own list, because a list's signatures have
/// equal lengths. `None` if one is too long.
pub fn lists_of(owner: [u8; OWNER], certificates: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut lists = Vec::new();
    for certificate in certificates {
        let signature = u32::try_from(OWNER + certificate.len()).ok()?;
        let length = u32::try_from(LIST_HEADER).ok()?.checked_add(signature)?;
        lists.extend(X509);
        lists.extend([length, 0, signature].into_iter().flat_map(u32::to_le_bytes));
        lists.extend(owner);
        lists.extend(certificate);
    }
    Some(lists)
}

/// The certificates (DER) in signature lists; hashes and others are left out.
pub fn certificates(mut lists: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    let mut found = Vec::new();
    while !lists.is_empty() {
        let (header, _) = lists.split_at_checked(LIST_HEADER).ok_or(Malformed("a list's header is cut"))?;
        let [length, skipped, signature] = [16, 20, 24].map(|at| word(header, at));
        let wrong = Malformed("a list's lengths do not fit");
        let (list, rest) = lists.split_at_checked(length).ok_or(wrong)?;
        let signatures = list.get(LIST_HEADER..).and_then(|rest| rest.get(skipped..)).ok_or(wrong)?;
        if signature <= OWNER || signatures.len() % signature != 0 {
            return Err(wrong);
        }
        if header.starts_with(&X509) {
            found.extend(signatures.chunks_exact(signature).map(|one| &one[OWNER..]));
        }
        lists = rest;
    }
    Ok(found)
}

/// The signature lists inside a signed update (`EFI_VARIABLE_AUTHENTICATION_2`). The firmware judges the
/// signature.
pub fn payload(update: &[u8]) -> Result<&[u8], Malformed> {
    /// Revision 2.0, `WIN_CERT_TYPE_EFI_GUID`.
    const KIND: [u8; 4] = [0x00, 0x02, 0xf1, 0x0e];
    let signed = update.get(TIME..).ok_or(Malformed("it is too short for a signed update"))?;
    if signed.get(4..8) != Some(&KIND) || signed.get(8..24) != Some(&PKCS7) {
        return Err(Malformed("it is no signed update of a variable"));
    }
    let lists = signed.get(word(signed, 0)..).ok_or(Malformed("the update's signature is cut"))?;
    match certificates(lists)?.is_empty() {
        true => Err(Malformed("the update has no certificate")),
        false => Ok(lists),
    }
}

/// A little-endian length; 0 where the bytes end.
fn word(bytes: &[u8], at: usize) -> usize {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
    bytes.map_or(0, |bytes| usize::try_from(u32::from_le_bytes(*bytes)).unwrap_or(usize::MAX))
}

/// Is it one of Microsoft's certificates, by the names inside? They sign Windows, shim, and the firmware on
/// graphics and network cards.
pub fn is_microsofts(certificate: &[u8]) -> bool {
    const NAME: &[u8] = b"Microsoft Corporation";
    certificate.windows(NAME.len()).any(|window| window == NAME)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn update(lists: &[u8]) -> Vec<u8> {
        let signature = [7u8; 100];
        let length = u32::try_from(24 + signature.len()).expect("short");
        let kind = [0x00, 0x02, 0xf1, 0x0e];
        [&[0; TIME][..], &length.to_le_bytes(), &kind, &PKCS7, &signature, lists].concat()
    }

    #[test]
    fn lists_are_written_as_the_specification_says_and_read_again() {
        let one = lists_of([9; 16], &[b"DER".to_vec()]).expect("short");
        let expected = [&X509[..], &[47, 0, 0, 0, 0, 0, 0, 0, 19, 0, 0, 0], &[9; 16], b"DER"].concat();
        assert_eq!(one, expected);
        let two = lists_of([9; 16], &[b"DER".to_vec(), b"longer".to_vec()]).expect("short");
        assert_eq!(certificates(&two), Ok(vec![&b"DER"[..], b"longer"]));
        assert_eq!(certificates(b""), Ok(vec![]));
        let mut hashes = one.clone();
        hashes[0] = 0;
        assert_eq!(certificates(&[hashes, one].concat()), Ok(vec![&b"DER"[..]]), "other kinds are left out");
    }

    #[test]
    fn lists_that_are_cut_or_lie_about_lengths_are_refused() {
        let whole = lists_of([9; 16], &[b"DER".to_vec()]).expect("short");
        for end in 1..whole.len() {
            assert!(certificates(&whole[..end]).is_err(), "{end}");
        }
        for (at, value) in [(16, 0), (16, 255), (20, 255), (24, 0), (24, 5), (24, 200)] {
            let mut wrong = whole.clone();
            wrong[at] = value;
            assert!(certificates(&wrong).is_err(), "{at} {value}");
        }
    }

    #[test]
    fn the_lists_of_an_update_are_behind_its_signature() {
        let lists = lists_of([9; 16], &[b"DER".to_vec()]).expect("short");
        let whole = update(&lists);
        assert_eq!(payload(&whole), Ok(&lists[..]));
        for end in 0..whole.len() {
            assert!(payload(&whole[..end]).is_err(), "{end}");
        }
        assert!(payload(&lists).is_err() && payload(&update(b"")).is_err());
    }

    #[test]
    fn only_the_owners_key_replaces_what_is_there() {
        assert_eq!(IN_ORDER.map(KeyVariable::name), ["db", "KEK", "PK"]);
        assert_eq!(IN_ORDER.map(KeyVariable::attributes), [0x67, 0x67, 0x27]);
    }

    #[test]
    fn microsofts_certificates_are_known_by_their_names() {
        assert!(is_microsofts(b"\x30\x82 O=Microsoft Corporation CN=Microsoft UEFI CA 2023"));
        assert!(!is_microsofts(b"Our school") && !is_microsofts(b""));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = certificates(&bytes);
            let _ = payload(&bytes);
        }
    }
}
