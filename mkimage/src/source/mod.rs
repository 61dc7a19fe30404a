//! The source of a capture or comparison: a block device, a file, a virtual disk or a disk that an NBD server
//! lends, opened so that no other program of this machine writes to it meanwhile.
//!
//! Invariant: a [`Source`] of a block device that could be claimed is held O_EXCL, so the kernel keeps others
//! from mounting it. One that is mounted read-only cannot be claimed, and is read without. QEMU's own locks
//! keep QEMU from writing to it (`locks`). `seen` notices other writers afterwards. Nothing is ever written.

mod locks;
mod mounts;
mod nbd;
mod seen;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flashmob::event::Failure;
use flashmob::io::disk::table;
use flashmob::io::sysfs;
use flashmob::manifest::Lost;
use flashmob::units::{DiskOffset, SectorSize};
use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::unistd::{Whence, lseek64};

use crate::format::Format;
use crate::keys::file_failure;
use crate::view::View;
use nbd::Lent;
use nbd::address::Address;
use seen::Seen;

/// Bytes that are skipped at a time where the source cannot be read.
const RESCUED: usize = 4096;

pub(crate) struct Source {
    pub path: PathBuf,
    pub file: File,
    pub size: u64,
    pub sector_size: SectorSize,
    /// The kernel knows its holes (a sparse file).
    holes: bool,
    /// Shows a virtual disk; after `file`, so that it outlives it.
    view: Option<View>,
    /// Lent by an NBD server; after `file`, so that it outlives it.
    lent: Option<Lent>,
    /// The source that `view` is an overlay of, and the overlay's folder.
    below: Option<(Box<Source>, tempfile::TempDir)>,
    /// Its state before it was read, if it was claimed.
    before: Option<Seen>,
}

impl Source {
    /// Opens a disk, a partition or a file for a capture. Refused while another program may write to it.
    /// Without `format` the name decides.
    pub(crate) fn claim(path: &Path, format: Option<Format>) -> Result<Self, Failure> {
        if let Some(address) = Address::of(path)? {
            return Self::of_lent(path, address, format);
        }
        let before = Seen::look(path)?;
        let source = Self::open_alone(path, format)?;
        // QEMU locks the disks that it shows.
        if source.view.is_none() {
            locks::hold(&source.file, path)?;
        }
        if let Some(behind) = before.behind() {
            let file = File::open(behind).map_err(|e| file_failure("opening", behind, &e))?;
            locks::refuse_writers(&file, behind)?;
        }
        Ok(Source { before: Some(before), ..source })
    }

    /// An overlay of this source, of the same size, in its place; `folder` has what was written to it. The
    /// source stays claimed.
    pub(crate) fn overlaid(self, overlay: View, folder: tempfile::TempDir) -> Result<Self, Failure> {
        let (size, sector_size) = (self.size, self.sector_size);
        let over = Self::of_view(&self.path.clone(), overlay)?;
        Ok(Source { size, sector_size, below: Some((Box::new(self), folder)), ..over })
    }

    /// Refuses a claimed source that changed since it was opened.
    pub(crate) fn refuse_changed(&self) -> Result<(), Failure> {
        if let Some((below, _)) = &self.below {
            return below.refuse_changed();
        }
        self.before.as_ref().map_or(Ok(()), Seen::refuse_changed)
    }

    fn open_alone(path: &Path, format: Option<Format>) -> Result<Self, Failure> {
        let metadata = fs::metadata(path).map_err(|e| file_failure("opening", path, &e))?;
        if metadata.file_type().is_block_device() {
            let devices = sysfs::with_partitions(metadata.rdev());
            let mounts = mounts::of_devices(&devices)?;
            if let Some(mount) = mounts.iter().find(|mount| mount.writable) {
                return Err(Failure::refused(
                    format!("{} is mounted read-write at {} ({})", path.display(), mount.place, mount.device),
                    format!("Unmount it first: umount {}", mount.place),
                ));
            }
            let exclusive = OpenOptions::new().read(true).custom_flags(nix::libc::O_EXCL).open(path);
            let file = match exclusive {
                Err(e) if e.raw_os_error() == Some(nix::libc::EBUSY) && !mounts.is_empty() => {
                    File::open(path)
                }
                Err(e) if e.raw_os_error() == Some(nix::libc::EBUSY) => {
                    return Err(Failure::refused(
                        format!(
                            "{} is in use (swap, LVM, RAID, dm-crypt or another program)",
                            path.display()
                        ),
                        "Find its user with `lsblk` and release it first.",
                    ));
                }
                other => other,
            };
            let file = file.map_err(|e| file_failure("opening", path, &e))?;
            return Self::from_file(path, file, metadata.rdev());
        }
        if let Some(mount) = mounts::of_file(path)?.into_iter().find(|mount| mount.writable) {
            return Err(Failure::refused(
                format!("{} is mounted read-write at {} through a loop device", path.display(), mount.place),
                format!("Unmount it first: umount {}", mount.place),
            ));
        }
        Self::look_at(path, format)
    }

    /// Opens a disk, a partition or a file to be compared, even if others use it.
    pub(crate) fn look_at(path: &Path, format: Option<Format>) -> Result<Self, Failure> {
        if let Some(address) = Address::of(path)? {
            return Self::of_lent(path, address, format);
        }
        match Format::of(path, format)? {
            Format::Raw => {}
            format => return Self::of_view(path, View::show(path, format)?),
        }
        let metadata = fs::metadata(path).map_err(|e| file_failure("opening", path, &e))?;
        if !metadata.is_file() && !metadata.file_type().is_block_device() {
            return Err(Failure::usage(
                format!("{} is neither a block device nor a file", path.display()),
                "Give a disk (/dev/sda), a partition (/dev/sda2) or a disk image file in raw format.",
            ));
        }
        let file = File::open(path).map_err(|e| file_failure("opening", path, &e))?;
        let device = if metadata.is_file() { 0 } else { metadata.rdev() };
        Self::from_file(path, file, device)
    }

    /// A virtual disk, by the file that shows it.
    fn of_view(path: &Path, view: View) -> Result<Self, Failure> {
        let shown = view.path();
        let file = File::open(&shown).map_err(|e| file_failure("opening", &shown, &e))?;
        Ok(Source { view: Some(view), ..Self::from_file(path, file, 0)? })
    }

    /// A disk that an NBD server lends, by the file that shows it.
    fn of_lent(path: &Path, address: Address, format: Option<Format>) -> Result<Self, Failure> {
        if format.is_some_and(|format| format != Format::Raw) {
            return Err(Failure::usage(
                format!("{} is a disk on the network, and these are read as they are", path.display()),
                "Leave out --format; a server like qemu-nbd shows what is inside a virtual disk.",
            ));
        }
        let lent = Lent::open(address)?;
        let shown = lent.view.path();
        let file = File::open(&shown).map_err(|e| file_failure("opening", &shown, &e))?;
        let source = Self::from_file(path, file, 0)?;
        let exported = lent.client.exported();
        Ok(Source { size: exported.size, holes: false, lent: Some(lent), ..source })
    }

    /// The same with sectors of `told` bytes, where only a person knows them. The kernel knows those of a
    /// block device.
    pub(crate) fn with_sectors(self, told: Option<SectorSize>) -> Self {
        let is_device = self.file.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device());
        let told = told.filter(|_| !is_device);
        Source { sector_size: told.unwrap_or(self.sector_size), ..self }
    }

    /// True if it comes over the network, where every byte costs time.
    pub(crate) fn is_lent(&self) -> bool {
        self.lent.is_some()
    }

    /// Asks the network for a range that will be read soon, at most `nbd::MAX_READ` long. False: enough is
    /// under way.
    pub(crate) fn ask(&self, offset: u64, length: u64) -> bool {
        self.lent.as_ref().is_some_and(|lent| lent.client.ask(offset, length))
    }

    /// Bytes that came over the network, if it is lent.
    pub(crate) fn received(&self) -> Option<u64> {
        let below = self.below.as_ref().and_then(|(below, _)| below.received());
        below.or_else(|| self.lent.as_ref().map(|lent| lent.client.received()))
    }

    /// Why it can no longer be read, if its connection is lost for good.
    pub(crate) fn gone(&self) -> Option<Failure> {
        let below = self.below.as_ref().and_then(|(below, _)| below.gone());
        below.or_else(|| self.lent.as_ref().and_then(|lent| lent.client.gone()))
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        match &self.lent {
            Some(lent) => lent.client.read(offset, into),
            None => self.file.read_exact_at(into, offset),
        }
    }

    /// Where its bytes are, for programs that read them.
    pub(crate) fn data(&self) -> PathBuf {
        let lent = self.lent.as_ref().map(|lent| &lent.view);
        self.view.as_ref().or(lent).map_or_else(|| self.path.clone(), View::path)
    }

    fn from_file(path: &Path, file: File, device: u64) -> Result<Self, Failure> {
        let cannot = |e: io::Error| file_failure("reading", path, &e);
        let size = lseek64(&file, 0, Whence::SeekEnd).map_err(|e| cannot(e.into()))?;
        let size = u64::try_from(size).unwrap_or(0);
        let is_file = device == 0;
        let sector_size = if is_file {
            table::guess_sector_size(&mut &file, size)?
        } else {
            let bytes = sysfs::queue_fact(device, "logical_block_size");
            bytes.and_then(|n| SectorSize::new(u32::try_from(n).ok()?)).unwrap_or(SectorSize::DEFAULT)
        };
        // Hints: the first drops cached pages, so that the device is read; the second asks for read-ahead.
        for advice in [PosixFadviseAdvice::POSIX_FADV_DONTNEED, PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL] {
            if let Err(e) = posix_fadvise(&file, 0, 0, advice) {
                log::debug!("advising on {}: {e}", path.display());
            }
        }
        let path = path.to_path_buf();
        Ok(Source {
            path,
            file,
            size,
            sector_size,
            holes: is_file,
            view: None,
            lent: None,
            below: None,
            before: None,
        })
    }

    /// Fills `into` from `offset`. The failure names the first sector that cannot be read.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Failure> {
        self.read_at(offset, into).map_err(|e| {
            if let Some(gone) = self.gone() {
                return gone;
            }
            let path = self.path.display();
            if e.kind() == io::ErrorKind::UnexpectedEof {
                return Failure::disk(
                    format!(
                        "{path} ends before byte {}: it shrank while it was read",
                        offset + into.len() as u64
                    ),
                    "Capture it again while no other program writes to it.",
                );
            }
            let sector = u64::from(self.sector_size.get());
            let mut one = vec![0; usize::try_from(sector).unwrap_or(512)];
            let mut all = (offset / sector..).take(into.len().div_ceil(one.len()));
            let bad = all.find(|lba| self.read_at(lba * sector, &mut one).is_err());
            let place = bad.map_or_else(|| format!("byte {offset}"), |lba| format!("sector {lba}"));
            Failure::disk(
                format!("reading {} bytes at byte {offset} of {path}: {place}: {e}", into.len()),
                "The source cannot be read there: check the disk (smartctl, dmesg) or take another copy. \
                 --rescue goes on with zeros in its place.",
            )
        })
    }

    /// Fills `into` from `offset` as far as it can be read; the rest is zeros, and is returned. A lost
    /// connection is a failure, because the disk could be read.
    pub(crate) fn rescue(&self, offset: u64, into: &mut [u8]) -> Result<Vec<Lost>, Failure> {
        let mut lost: Vec<Lost> = Vec::new();
        let mut at = offset;
        for part in into.chunks_mut(RESCUED) {
            let length = part.len() as u64;
            if let Err(e) = self.read_at(at, part) {
                if let Some(gone) = self.gone() {
                    return Err(gone);
                }
                log::warn!("{} bytes at byte {at} of {}: {e}", part.len(), self.path.display());
                part.fill(0);
                match lost.last_mut() {
                    Some(last) if last.offset.0 + last.length == at => last.length += length,
                    _ => lost.push(Lost { offset: DiskOffset(at), length }),
                }
            }
            at += length;
        }
        Ok(lost)
    }

    /// True if the kernel says that nothing was ever written to `offset..offset + len`.
    pub(crate) fn is_hole(&self, offset: u64, len: u64) -> bool {
        if !self.holes {
            return false;
        }
        let Ok(from) = i64::try_from(offset) else { return false };
        match lseek64(&self.file, from, Whence::SeekData) {
            Ok(data) => u64::try_from(data).is_ok_and(|data| data >= offset + len),
            // No data from there to the end of the file.
            Err(Errno::ENXIO) => true,
            // The filesystem does not know.
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use flashmob::event::Class;

    use super::*;

    #[test]
    fn holes_of_a_sparse_file_are_known() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("sparse");
        let file = File::create(&path).expect("a file");
        file.set_len(8 << 20).expect("its size");
        file.write_all_at(b"x", 4 << 20).expect("a byte");
        let source = Source::claim(&path, None).expect("a source");
        assert_eq!(source.size, 8 << 20);
        assert!(!source.is_hole(4 << 20, 1 << 20));
        // The filesystem under the test may not know holes; then nothing is one.
        if source.is_hole(0, 1 << 20) {
            assert!(!source.is_hole(0, 5 << 20));
            assert!(source.is_hole(6 << 20, 2 << 20));
        }
    }

    #[test]
    fn a_source_that_shrinks_while_it_is_read_is_named_as_such() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("source");
        fs::write(&path, vec![1; 1 << 20]).expect("written");
        let source = Source::claim(&path, None).expect("a source");
        let mut buf = vec![0; 64 << 10];
        source.read(900 << 10, &mut buf).expect("there");
        File::options().write(true).open(&path).and_then(|file| file.set_len(920 << 10)).expect("shorter");
        let failure = source.read(900 << 10, &mut buf).expect_err("gone");
        assert_eq!(failure.class, Class::Disk);
        assert!(failure.message.contains("it shrank while it was read"), "{}", failure.message);
    }
}
