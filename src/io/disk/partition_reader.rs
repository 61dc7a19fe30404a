//! A part of a disk as a file of its own: a partition, for readers of tables and filesystems.
//!
//! Invariant: nothing outside the part is read, and nothing is written at all: writes fail.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use crate::io::storage::device::Disk;

/// Something that is read at any place.
pub trait ReadAt {
    /// Reads at most as many bytes as `into` has, from `offset` on; 0 at the end.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, into, offset)
    }
}

impl ReadAt for Disk {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size().saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = into.len().min(left);
        Disk::read_at(self, offset, &mut into[..wanted]).map_err(io::Error::other)?;
        Ok(wanted)
    }
}

impl<R: ReadAt> ReadAt for &R {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        R::read_at(self, offset, into)
    }
}

/// Bytes `start..start + len` of `inner`, read-only.
#[derive(Debug)]
pub struct PartitionReader<R> {
    inner: R,
    start: u64,
    len: u64,
    at: u64,
}

impl<R: ReadAt> PartitionReader<R> {
    /// Reading beyond the end of `inner` ends early, as with files.
    pub fn new(inner: R, start: u64, len: u64) -> Self {
        PartitionReader { inner, start, len: len.min(u64::MAX - start), at: 0 }
    }

    /// Fills `into` from `offset` on, wherever the position is.
    pub fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(into.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::Error::other("beyond the end of the partition"));
        }
        let mut done = 0;
        while done < into.len() {
            match self.inner.read_at(self.start + offset + done as u64, &mut into[done..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(more) => done += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl<R: ReadAt> Read for PartitionReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let wanted = into.len().min(left);
        if wanted == 0 {
            return Ok(0);
        }
        let got = self.inner.read_at(self.start + self.at, &mut into[..wanted])?;
        self.at += got as u64;
        Ok(got)
    }
}

impl<R> Seek for PartitionReader<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = to.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

/// The readers of filesystems ask for it; they are only ever used to read.
impl<R> Write for PartitionReader<R> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "this view of a partition is read-only"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_inside_is_read_and_nothing_is_written() {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"0123456789").expect("written");
        let mut window = PartitionReader::new(&file, 3, 4);
        let mut text = String::new();
        window.read_to_string(&mut text).expect("read");
        assert_eq!(text, "3456");
        assert_eq!(window.seek(SeekFrom::End(-1)).expect("seek"), 3);
        text.clear();
        window.read_to_string(&mut text).expect("read");
        assert_eq!(text, "6");
        assert!(window.seek(SeekFrom::Start(2)).is_ok() && window.seek(SeekFrom::Current(-3)).is_err());
        assert!(window.write(b"x").is_err());
        let mut two = [0; 2];
        window.read_exact_at(2, &mut two).expect("inside");
        assert_eq!(&two, b"56");
        assert!(window.read_exact_at(3, &mut two).is_err());
        assert_eq!(PartitionReader::new(&file, u64::MAX, 9).read(&mut [0; 4]).expect("end"), 0);
    }
}
