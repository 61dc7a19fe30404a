//! Checks at the capture whether terminals will accept the image.
//!
//! Invariant: an image that passed is taken by a blank disk of the source's size and by the smallest one that
//! the manifest promises to fit (where partitions are kept: by a disk with the same table). The capture
//! refuses with the terminals' own messages, because it makes the plan with their code.

use flashmob::api::LayoutMode;
use flashmob::event::Failure;
use flashmob::layout::plan::{DiskFacts, Existing, ExistingPartition, LayoutPlan};
use flashmob::manifest::{
    Boot, Disk, FORMAT, Manifest, Partition, Payload, PieceCount, Policy, TrustedManifest, names,
};
use flashmob::units::{InfoHash, PieceLength, Sha256};

use super::payload::Terms;
use super::plan::PartitionPlan;

/// Plans the image onto disks like the source, which has `source_size` bytes.
pub(super) fn check(manifest: &Manifest, boot_bytes: &[u8], source_size: u64) -> Result<(), Failure> {
    let trusted = TrustedManifest::insecure(&manifest.to_bytes()).map_err(|e| {
        Failure::refused(
            format!("terminals would not read the manifest: {e}"),
            "Correct the partition table of the source first (sfdisk, gdisk).",
        )
    })?;
    let keeps = manifest.partitions.iter().any(|p| p.policy == Policy::Keep);
    let mode = if keeps { LayoutMode::Keep } else { LayoutMode::WholeDisk };
    for size in [source_size, manifest.disk.minimum_size] {
        LayoutPlan::new(&trusted, boot_bytes, &disk_like(manifest, size), mode, None).map_err(|refusal| {
            Failure { message: format!("terminals would refuse this image: {}", refusal.message), ..refusal }
        })?;
    }
    Ok(())
}

/// A disk that is going to be captured, as its image will describe it.
pub(super) struct Golden<'a> {
    /// The image's name.
    pub name: &'a str,
    pub disk: Disk,
    pub partitions: &'a [PartitionPlan],
    pub boot: Boot,
    pub boot_bytes: &'a [u8],
    /// Bytes of the source.
    pub size: u64,
}

/// The same check before the first piece is read, with placeholder counts and hashes, which no plan depends
/// on.
pub(super) fn check_early(golden: Golden<'_>, terms: &Terms<'_>) -> Result<(), Failure> {
    let Golden { name, disk, partitions, boot, boot_bytes, size } = golden;
    let manifest = Manifest {
        format: FORMAT,
        name: name.into(),
        version: "capture".into(),
        sequence: 1,
        created: String::new(),
        piece_length: terms.piece_length,
        disk,
        partitions: partitions.iter().map(|p| unread(p, terms.piece_length)).collect(),
        boot,
        payload: Payload {
            pieces: 0,
            file_size: terms.file_size,
            info_hash: InfoHash([0; 20]),
            sha256: None,
        },
        sidecars: [names::EXTENTS, names::BOOT, names::TORRENT]
            .map(|name| (name.to_string(), Sha256([0; 32])))
            .into(),
        lost: Vec::new(),
    };
    check(&manifest, boot_bytes, size)
}

/// A partition as if it were all zeros.
fn unread(plan: &PartitionPlan, piece_length: PieceLength) -> Partition {
    let cells = u32::try_from(plan.size.div_ceil(piece_length.bytes())).unwrap_or(u32::MAX);
    Partition {
        number: plan.number,
        first: plan.first,
        size: plan.size,
        entry: plan.entry.clone(),
        role: plan.role,
        filesystem: plan.filesystem.map(str::to_string),
        policy: plan.policy,
        grow: plan.grow,
        blank: plan.blank,
        pieces: PieceCount { data: 0, zero: cells, free: 0 },
        sha256: None,
    }
}

/// A disk of `size` bytes that has the image's table already.
fn disk_like(manifest: &Manifest, size: u64) -> DiskFacts {
    let there = |p: &Partition| ExistingPartition {
        number: p.number,
        first: p.first,
        size: p.size,
        entry: p.entry.clone(),
    };
    DiskFacts {
        name: "a disk like the source".into(),
        size,
        sector: manifest.disk.sector_size,
        table: Ok(Existing {
            table: manifest.disk.table.clone(),
            partitions: manifest.partitions.iter().map(there).collect(),
        }),
        backup_gpt: None,
    }
}
