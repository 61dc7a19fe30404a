//! The identity of a disk and its partitions: GUIDs of a GPT, the signature of an MBR.
//!
//! Invariant: values that mean "none" (all zeros) are never part of an identity.

use uuid::Uuid;

use crate::manifest::{Entry, Table};

/// The identity by which other programs find a disk and its partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// GUID of the disk.
    pub disk: Option<Uuid>,
    /// Unique GUIDs of its partitions.
    pub partitions: Vec<Uuid>,
    /// Signature of its MBR.
    pub signature: Option<[u8; 4]>,
}

impl Identity {
    /// The identity that a table with these entries gives.
    pub fn of<'a>(table: &Table, entries: impl Iterator<Item = &'a Entry>) -> Self {
        let guid = |entry: &Entry| match entry {
            Entry::Gpt { guid, .. } => Some(*guid).filter(|guid| !guid.is_nil()),
            Entry::Mbr { .. } | Entry::None => None,
        };
        let partitions = entries.filter_map(guid).collect();
        match table {
            Table::Gpt { guid, .. } => {
                Identity { disk: Some(*guid).filter(|guid| !guid.is_nil()), partitions, signature: None }
            }
            Table::Mbr { signature, .. } => {
                let signature = Some(*signature).filter(|signature| *signature != [0; 4]);
                Identity { disk: None, partitions, signature }
            }
            Table::None => Identity::default(),
        }
    }

    /// The values that two disks share, for people.
    pub fn shared(&self, other: &Identity) -> Vec<String> {
        let mut shared = Vec::new();
        if let Some(guid) = self.disk.filter(|guid| other.disk == Some(*guid)) {
            shared.push(format!("disk GUID {guid}"));
        }
        let both = self.partitions.iter().filter(|guid| other.partitions.contains(guid));
        shared.extend(both.map(|guid| format!("partition GUID {guid}")));
        if let Some(signature) = self.signature.filter(|signature| other.signature == Some(*signature)) {
            shared.push(format!("MBR signature {}", show_signature(signature)));
        }
        shared
    }
}

/// A signature as fdisk and the kernel write it.
pub(crate) fn show_signature(signature: [u8; 4]) -> String {
    format!("{:08x}", u32::from_le_bytes(signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_share_what_is_equal_and_zeros_are_nothing_to_share() {
        let entry = |n: u128| Entry::Gpt {
            kind: Uuid::from_u128(1),
            guid: Uuid::from_u128(n),
            attributes: 0,
            name: String::new(),
        };
        let disk = |guid: u128, entries: &[u128]| {
            let table =
                Table::Gpt { guid: Uuid::from_u128(guid), entries: 128, first_usable: crate::units::Lba(34) };
            let entries: Vec<Entry> = entries.iter().map(|n| entry(*n)).collect();
            Identity::of(&table, entries.iter())
        };
        assert_eq!(disk(9, &[10, 11]).shared(&disk(8, &[11, 12])).len(), 1);
        assert_eq!(disk(9, &[10]).shared(&disk(9, &[10])).len(), 2);
        assert!(disk(0, &[0]).shared(&disk(0, &[0])).is_empty());
        let mbr =
            |signature| Identity::of(&Table::Mbr { signature, extended: Vec::new() }, std::iter::empty());
        assert_eq!(mbr([1, 2, 3, 4]).shared(&mbr([1, 2, 3, 4])), ["MBR signature 04030201"]);
        assert!(mbr([0; 4]).shared(&mbr([0; 4])).is_empty());
        assert!(mbr([1, 2, 3, 4]).shared(&disk(9, &[10])).is_empty());
    }
}
