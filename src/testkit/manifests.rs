//! Sample manifests, tables and plans, made by hand and by chance.
//!
//! Invariant: each is consistent until a test changes it.

use crate::api::LayoutMode;
use crate::event::Failure;
use crate::layout::extents::{Extents, RangeKind, Run, RunBuilder, UNIT};
use crate::layout::grid::{classify, count};
use crate::layout::plan::{DiskFacts, Existing, ExistingPartition, LayoutPlan};
use crate::manifest::{
    Boot, Disk, Entry, FORMAT, Manifest, Partition, Payload, PieceCount, Policy, Role, Table,
    TrustedManifest, names,
};
use crate::testkit::disks::MIB;
use crate::units::{InfoHash, Lba, PieceLength, SectorSize, Sha256};
use proptest::prelude::*;
use uuid::Uuid;

/// Version 1 of an image of these partitions, without sidecars, on a disk of `minimum_size` bytes in 512-byte
/// sectors with an MBR.
pub(crate) fn manifest_with(
    piece_length: PieceLength,
    minimum_size: u64,
    partitions: Vec<Partition>,
) -> Manifest {
    let replaced = partitions.iter().filter(|partition| partition.policy == Policy::Replace);
    let pieces = replaced.map(|partition| partition.pieces.data).sum();
    Manifest {
        format: FORMAT,
        name: "lab".into(),
        version: "1".into(),
        sequence: 1,
        created: "2026-01-01T00:00:00Z".into(),
        piece_length,
        disk: Disk {
            sector_size: SectorSize::DEFAULT,
            minimum_size,
            table: Table::Mbr { signature: [1, 2, 3, 4], extended: vec![] },
            boot_areas: vec![],
        },
        partitions,
        boot: Boot::default(),
        payload: Payload { pieces, file_size: 64 << 30, info_hash: InfoHash([0; 20]), sha256: None },
        sidecars: Default::default(),
        lost: Vec::new(),
    }
}

/// A manifest whose partitions have the sizes and counts of `extents`.
pub(crate) fn manifest_of(extents: &Extents, piece_length: u32, policy: Policy) -> Manifest {
    let piece_length = PieceLength::new(piece_length).expect("a piece length");
    let mut lba = 64;
    let partitions: Vec<Partition> = (1u32..)
        .zip(&extents.partitions)
        .map(|(number, runs)| {
            let size = runs.last().expect("one run at least").end();
            let first = Lba(lba);
            lba += size / 512;
            let counted = count(&classify(runs, size, piece_length));
            let entry = Entry::Mbr { kind: 0x83, active: false, ebr: None };
            Partition {
                number,
                first,
                size,
                entry,
                role: Role::Data,
                filesystem: None,
                policy,
                grow: false,
                blank: None,
                pieces: counted,
                sha256: None,
            }
        })
        .collect();
    manifest_with(piece_length, lba * 512, partitions)
}

/// Runs that cover a partition, from (kind, units) and a size of the last unit.
pub(crate) fn runs_strategy() -> impl Strategy<Value = Vec<Run>> {
    (proptest::collection::vec((0u64..3, 1u64..40), 1..20), 0u64..8).prop_map(|(parts, short)| {
        let mut builder = RunBuilder::default();
        for (kind, units) in parts {
            builder.push(RangeKind::from_code(kind).expect("0, 1 or 2"), units * UNIT);
        }
        let mut runs = builder.finish();
        runs.last_mut().expect("one run at least").len -= short * 512;
        runs
    })
}

pub(crate) fn gpt_partition(number: u32, first: u64, size: u64, sector: u32) -> Partition {
    let cells = u32::try_from(size.div_ceil(MIB)).expect("small");
    assert!(size.is_multiple_of(sector.into()));
    Partition {
        number,
        first: Lba(first),
        size,
        entry: Entry::Gpt {
            kind: Uuid::from_u128(7),
            guid: Uuid::from_u128(100 + u128::from(number)),
            attributes: 0,
            name: format!("p{number}"),
        },
        role: Role::Data,
        filesystem: None,
        policy: Policy::Replace,
        grow: false,
        blank: None,
        pieces: PieceCount { data: 0, zero: cells, free: 0 },
        sha256: None,
    }
}

pub(crate) fn mbr_partition(number: u32, first: u64, size: u64, ebr: Option<u64>) -> Partition {
    Partition {
        entry: Entry::Mbr { kind: 0x83, active: number == 1, ebr: ebr.map(Lba) },
        ..gpt_partition(number, first, size, 512)
    }
}

pub(crate) fn manifest(table: Table, partitions: Vec<Partition>, minimum_size: u64, sector: u32) -> Manifest {
    let image = manifest_with(PieceLength::new(1 << 20).expect("1 MiB"), minimum_size, partitions);
    let sector_size = SectorSize::new(sector).expect("a size");
    Manifest {
        disk: Disk { sector_size, table, ..image.disk },
        sidecars: [names::EXTENTS, names::PIECES, names::BOOT, names::TORRENT]
            .map(|name| (name.to_string(), Sha256([0; 32])))
            .into(),
        ..image
    }
}

pub(crate) fn gpt_table() -> Table {
    Table::Gpt { guid: Uuid::from_u128(1), entries: 128, first_usable: Lba(34) }
}

pub(crate) fn gpt_manifest() -> Manifest {
    let partitions = vec![gpt_partition(1, 2048, MIB, 512), gpt_partition(3, 8192, 8 * MIB, 512)];
    manifest(gpt_table(), partitions, 20 * MIB, 512)
}

pub(crate) fn empty_disk(size: u64) -> DiskFacts {
    DiskFacts {
        name: "sdx".into(),
        size,
        sector: SectorSize::DEFAULT,
        table: Err("there is none".into()),
        backup_gpt: None,
    }
}

pub(crate) fn same_disk(manifest: &Manifest, size: u64) -> DiskFacts {
    let partitions = manifest
        .partitions
        .iter()
        .map(|p| ExistingPartition { number: p.number, first: p.first, size: p.size, entry: p.entry.clone() })
        .collect();
    DiskFacts { table: Ok(Existing { table: manifest.disk.table.clone(), partitions }), ..empty_disk(size) }
}

pub(crate) fn plan(manifest: &Manifest, disk: &DiskFacts, mode: LayoutMode) -> Result<LayoutPlan, Failure> {
    let trusted = TrustedManifest::insecure(&manifest.to_bytes()).expect("a consistent manifest");
    LayoutPlan::new(&trusted, &[0x11; 4096], disk, mode, None)
}
