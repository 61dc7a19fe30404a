//! One boot entry of UEFI firmware: `EFI_LOAD_OPTION` (UEFI 2.10 §3.1.3) for a loader on a partition.
//!
//! Invariant: an encoded option says the same when it is read again; options of other shapes are left alone
//! by not being read at all.

use uuid::Uuid;

/// `LOAD_OPTION_ACTIVE`.
const ACTIVE: u32 = 1;
/// Media device path (§10.3.5).
const MEDIA: u8 = 4;
const HARD_DRIVE: u8 = 1;
const FILE_PATH: u8 = 4;
const HARD_DRIVE_BYTES: u16 = 42;
const END: [u8; 4] = [0x7f, 0xff, 4, 0];

/// How a hard drive device path recognises its partition (§10.3.5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionId {
    /// By the unique GUID of its GPT entry.
    Gpt(Uuid),
    /// By the MBR's signature and the partition's number.
    Mbr([u8; 4]),
}

/// A boot entry for a loader on a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadOption {
    /// The text in the firmware's menu.
    pub label: String,
    pub partition: u32,
    pub first: u64,
    pub sectors: u64,
    /// How it is recognised.
    pub id: PartitionId,
    /// Path of the loader, with backslashes.
    pub path: String,
}

impl LoadOption {
    /// The variable's data. `None` if the path is longer than a device path can say.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut list = Vec::new();
        list.extend_from_slice(&[MEDIA, HARD_DRIVE]);
        list.extend_from_slice(&HARD_DRIVE_BYTES.to_le_bytes());
        list.extend_from_slice(&self.partition.to_le_bytes());
        list.extend_from_slice(&self.first.to_le_bytes());
        list.extend_from_slice(&self.sectors.to_le_bytes());
        match self.id {
            PartitionId::Gpt(guid) => {
                list.extend_from_slice(&guid.to_bytes_le());
                list.extend_from_slice(&[2, 2]);
            }
            PartitionId::Mbr(signature) => {
                list.extend_from_slice(&signature);
                list.extend_from_slice(&[0; 12]);
                list.extend_from_slice(&[1, 1]);
            }
        }
        let path = utf16(&self.path);
        list.extend_from_slice(&[MEDIA, FILE_PATH]);
        list.extend_from_slice(&u16::try_from(path.len() + 4).ok()?.to_le_bytes());
        list.extend_from_slice(&path);
        list.extend_from_slice(&END);
        let mut bytes = ACTIVE.to_le_bytes().to_vec();
        bytes.extend_from_slice(&u16::try_from(list.len()).ok()?.to_le_bytes());
        bytes.extend_from_slice(&utf16(&self.label));
        bytes.extend_from_slice(&list);
        Some(bytes)
    }

    /// Reads an option; `None` unless it is exactly a partition and a path on it, as firmware and efibootmgr
    /// write them. Optional data after the path is ignored.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (_attributes, rest) = bytes.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (label, rest) = take_utf16(rest)?;
        let list = rest.get(..usize::from(u16::from_le_bytes(*length)))?;
        let (drive, list) = take_node(list)?;
        let (file, end) = take_node(list)?;
        let [MEDIA, HARD_DRIVE, drive @ ..] = drive else { return None };
        let [MEDIA, FILE_PATH, file @ ..] = file else { return None };
        if !end.starts_with(&END) || drive.len() != usize::from(HARD_DRIVE_BYTES) - 2 {
            return None;
        }
        let (partition, drive) = drive[2..].split_first_chunk::<4>()?;
        let (first, drive) = drive.split_first_chunk::<8>()?;
        let (sectors, drive) = drive.split_first_chunk::<8>()?;
        let (signature, kind) = drive.split_first_chunk::<16>()?;
        let id = match kind {
            [2, 2] => PartitionId::Gpt(Uuid::from_bytes_le(*signature)),
            [1, 1] => PartitionId::Mbr(*signature.first_chunk()?),
            _ => return None,
        };
        let (path, _) = take_utf16(file.get(2..)?)?;
        Some(LoadOption {
            label,
            partition: u32::from_le_bytes(*partition),
            first: u64::from_le_bytes(*first),
            sectors: u64::from_le_bytes(*sectors),
            id,
            path,
        })
    }

    /// Both start the same loader under the same label. (Where the partition lies may differ: firmware finds
    /// it by its identity.)
    pub(crate) fn is_same_entry(&self, other: &LoadOption) -> bool {
        self.label == other.label && self.id == other.id && self.path.eq_ignore_ascii_case(&other.path)
    }
}

/// Does this option start from a network? Its device path has a node of the kinds MAC address, IPv4, IPv6 or
/// URI (§10.3.4).
pub(crate) fn is_network(bytes: &[u8]) -> bool {
    const MESSAGING: u8 = 3;
    const NETWORKS: [u8; 4] = [11, 12, 13, 24];
    let list = || {
        let (_, rest) = bytes.split_first_chunk::<4>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (_, rest) = take_utf16(rest)?;
        rest.get(..usize::from(u16::from_le_bytes(*length)))
    };
    let mut list = list().unwrap_or_default();
    while let Some((node, rest)) = take_node(list) {
        if NETWORKS.iter().any(|kind| node.starts_with(&[MESSAGING, *kind])) {
            return true;
        }
        list = rest;
    }
    false
}

/// A path with slashes as firmware writes it.
pub(crate) fn firmware_path(path: &str) -> String {
    let path = path.replace('/', "\\");
    if path.starts_with('\\') { path } else { format!("\\{path}") }
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// Text up to its zero, and the rest.
fn take_utf16(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (units, _) = bytes.as_chunks::<2>();
    let end = units.iter().position(|unit| *unit == [0, 0])?;
    let units: Vec<u16> = units[..end].iter().map(|unit| u16::from_le_bytes(*unit)).collect();
    Some((String::from_utf16(&units).ok()?, &bytes[2 * end + 2..]))
}

/// One node of a device path with its header, and the rest.
fn take_node(list: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(u16::from_le_bytes([*list.get(2)?, *list.get(3)?]));
    if length < 4 { None } else { list.split_at_checked(length) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn option(label: &str, path: &str) -> LoadOption {
        LoadOption {
            label: label.into(),
            partition: 1,
            first: 2048,
            sectors: 204_800,
            id: PartitionId::Gpt(Uuid::from_u128(0x1234_5678_9abc_def0_1122_3344_5566_7788)),
            path: firmware_path(path),
        }
    }

    #[test]
    fn an_option_has_the_bytes_that_firmware_expects() {
        let bytes = option("d", "/EFI/d/s.efi").encode().expect("short");
        let expected = [
            &[1, 0, 0, 0, 76, 0][..],
            &[b'd', 0, 0, 0],
            &[4, 1, 42, 0, 1, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0x20, 3, 0, 0, 0, 0, 0],
            &[
                0x78, 0x56, 0x34, 0x12, 0xbc, 0x9a, 0xf0, 0xde, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77,
                0x88, 2, 2,
            ],
            &[4, 4, 30, 0],
        ]
        .concat();
        assert_eq!(bytes[..expected.len()].to_vec(), expected);
        assert!(bytes.ends_with(b"e\0f\0i\0\0\0\x7f\xff\x04\0"));
    }

    #[test]
    fn what_is_no_partition_and_path_is_not_read() {
        let good = option("d", "/EFI/d/s.efi").encode().expect("short");
        assert!(LoadOption::decode(&good).is_some());
        for cut in 0..good.len() {
            assert_eq!(LoadOption::decode(&good[..cut]), None, "{cut}");
        }
        let mut network = good.clone();
        network[10] = 3;
        assert_eq!(LoadOption::decode(&network), None);
    }

    proptest! {
        #[test]
        fn options_come_back_as_they_were_written(label in "\\PC{0,30}", path in "[a-zA-Z/]{1,60}",
            partition in any::<u32>(), first in any::<u64>(), mbr in any::<Option<[u8; 4]>>()) {
            let mut option = option(&label, &path);
            option.partition = partition;
            option.first = first;
            if let Some(signature) = mbr { option.id = PartitionId::Mbr(signature); }
            let bytes = option.encode().expect("short");
            prop_assert_eq!(LoadOption::decode(&bytes), Some(option));
        }

        #[test]
        fn garbage_is_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = LoadOption::decode(&bytes);
        }
    }
}
