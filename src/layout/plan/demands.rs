//! What an image asks of a disk before anything is known of the disk's content.
//!
//! Invariant: pure. The server judges a new job by it, and a terminal its disk.

use serde::{Deserialize, Serialize};

use crate::event::Failure;
use crate::image_id::ImageId;
use crate::manifest::{Manifest, Partition, Policy};

/// The demands of an image on its disk, and what it brings.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Demands {
    /// Bytes of the smallest disk that takes the image.
    pub minimum_size: u64,
    /// Bytes of a logical sector.
    pub sector_size: u32,
    /// Numbers of the partitions whose content the image has.
    pub written: Vec<u32>,
    /// Numbers of the partitions that it keeps.
    pub kept: Vec<u32>,
}

impl Demands {
    pub(crate) fn of(manifest: &Manifest) -> Self {
        let (written, kept): (Vec<_>, Vec<_>) =
            manifest.partitions.iter().partition(|partition| partition.policy == Policy::Replace);
        let numbers = |partitions: Vec<&Partition>| {
            let mut numbers: Vec<u32> = partitions.iter().map(|partition| partition.number).collect();
            numbers.sort_unstable();
            numbers
        };
        Demands {
            minimum_size: manifest.disk.minimum_size,
            sector_size: manifest.disk.sector_size.get(),
            written: numbers(written),
            kept: numbers(kept),
        }
    }

    /// Refuses a disk with sectors of another size.
    pub(crate) fn check_sectors(&self, image: &ImageId, disk: &str, sector_size: u32) -> Result<(), Failure> {
        if self.sector_size == sector_size {
            return Ok(());
        }
        Err(Failure::refused(
            format!(
                "{image} is for disks with sectors of {} bytes, and {disk} has sectors of {} bytes",
                self.sector_size, sector_size
            ),
            "Capture the image from a disk of the same sector size, or set the disk to it (nvme format).",
        ))
    }

    /// Refuses a choice of partitions that the image cannot write.
    pub(crate) fn check_choice(&self, image: &ImageId, only: &[u32]) -> Result<(), Failure> {
        let Some(number) = only.iter().find(|number| !self.written.contains(number)) else { return Ok(()) };
        if self.kept.contains(number) {
            return Err(Failure::refused(
                format!("{image} keeps partition {number}: it has no content of it"),
                "Leave it out of the job's partitions.",
            ));
        }
        let mut numbers: Vec<u32> = self.written.iter().chain(&self.kept).copied().collect();
        numbers.sort_unstable();
        let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        Err(Failure::refused(
            format!("{image} has no partition {number}"),
            format!("It has {}: correct the job's partitions.", numbers.join(", ")),
        ))
    }
}
