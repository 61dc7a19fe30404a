//! What a filesystem lies on: a partition, or a logical volume inside one.
//!
//! Invariant: nothing is written, and nothing outside of it is read.

use std::io;
use std::path::Path;

use flashmob::event::Failure;
use flashmob::io::disk::partition_reader::{PartitionReader, ReadAt};

use super::filesystem::{self, START};
use super::plan::PartitionPlan;

use crate::composed::Composed;
use crate::loop_device::LoopDevice;
use crate::source::Source;
use flashmob::layout::segments::Segments;

/// A partition or a logical volume.
pub(super) struct Backing<'a> {
    pub source: &'a Source,
    /// For messages: "partition 2", or "partition 2, volume lab/root".
    pub name: String,
    /// The partition that it is, or that it lies on.
    pub partition: u32,
    pub filesystem: Option<&'static str>,
    /// Its bytes on the source.
    pub segments: Segments,
}

impl<'a> Backing<'a> {
    pub(super) fn partition(source: &'a Source, partition: &PartitionPlan) -> Self {
        Backing {
            source,
            name: format!("partition {}", partition.number),
            partition: partition.number,
            filesystem: partition.filesystem,
            segments: Segments::linear(partition.start, partition.size),
        }
    }

    /// The volume `name` at `segments` of a partition.
    pub(super) fn volume(
        source: &'a Source,
        partition: &PartitionPlan,
        name: &str,
        segments: &Segments,
    ) -> Result<Self, Failure> {
        let mut backing = Backing {
            source,
            name: format!("partition {}, volume {name}", partition.number),
            partition: partition.number,
            filesystem: None,
            segments: segments.moved(partition.start),
        };
        backing.filesystem = filesystem::name(&backing.start()?);
        Ok(backing)
    }

    pub(super) fn size(&self) -> u64 {
        self.segments.size()
    }

    /// Its first 128 KiB, or all of it if it is smaller.
    pub(super) fn start(&self) -> Result<Vec<u8>, Failure> {
        let mut start = vec![0; usize::try_from(self.size().min(START)).unwrap_or(0)];
        let mut done = 0;
        while done < start.len() {
            let Some((place, len)) = self.segments.place(done as u64) else { break };
            let end = usize::try_from(len).map_or(start.len(), |len| (done + len).min(start.len()));
            self.source.read(place, &mut start[done..end])?;
            done = end;
        }
        Ok(start)
    }

    /// Fills `into`; false if that cannot be read, or ends beyond the end.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> bool {
        self.reader().read_exact_at(offset, into).is_ok()
    }

    pub(super) fn reader(&self) -> PartitionReader<Bytes<'_>> {
        PartitionReader::new(Bytes { source: self.source, segments: &self.segments }, 0, self.size())
    }

    /// A block device for programs that want one. The error is for people.
    pub(super) fn device(&self) -> Result<Device, String> {
        match self.segments.one_range() {
            Some(range) => {
                let size = range.end - range.start;
                LoopDevice::attach(&self.source.data(), range.start, size).map(Device::Part)
            }
            None => Composed::attach(&self.source.file, self.segments.clone()).map(Device::Composed),
        }
    }
}

/// The bytes of a source that belong to it.
pub(super) struct Bytes<'a> {
    source: &'a Source,
    segments: &'a Segments,
}

impl ReadAt for Bytes<'_> {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let Some((place, len)) = self.segments.place(offset) else { return Ok(0) };
        let len = usize::try_from(len).map_or(into.len(), |len| len.min(into.len()));
        let read = self.source.read(place, &mut into[..len]);
        read.map(|()| len).map_err(|failure| io::Error::other(failure.message))
    }
}

/// A block device with its bytes.
pub(super) enum Device {
    Part(LoopDevice),
    Composed(Composed),
}

impl Device {
    pub(super) fn path(&self) -> &Path {
        match self {
            Device::Part(device) => device.path(),
            Device::Composed(device) => device.path(),
        }
    }
}
