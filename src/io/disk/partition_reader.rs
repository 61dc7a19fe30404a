//! A part of something seekable, seen as if it were all there is: a partition of a disk, for readers of
//! tables and filesystems.
//!
//! Invariant: nothing outside the window is read, and nothing is written at all: writes fail.

use std::io::{self, Read, Seek, SeekFrom, Write};

/// Bytes `start..start + len` of `inner`, read-only.
#[derive(Debug)]
pub struct Window<R> {
    inner: R,
    start: u64,
    len: u64,
    at: u64,
}

impl<R: Read + Seek> Window<R> {
    /// A window onto `inner`. Reading past the end of `inner` ends early, as for files.
    pub fn new(inner: R, start: u64, len: u64) -> Self {
        Window { inner, start, len: len.min(u64::MAX - start), at: 0 }
    }
}

impl<R: Read + Seek> Read for Window<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.len.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let wanted = into.len().min(left);
        if wanted == 0 {
            return Ok(0);
        }
        // Others may move the same file's position, so each read seeks.
        self.inner.seek(SeekFrom::Start(self.start + self.at))?;
        let got = self.inner.read(&mut into[..wanted])?;
        self.at += got as u64;
        Ok(got)
    }
}

impl<R: Read + Seek> Seek for Window<R> {
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
impl<R> Write for Window<R> {
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
    use std::io::Cursor;

    #[test]
    fn only_what_is_inside_is_read_and_nothing_is_written() {
        let mut window = Window::new(Cursor::new(b"0123456789".to_vec()), 3, 4);
        let mut text = String::new();
        window.read_to_string(&mut text).expect("read");
        assert_eq!(text, "3456");
        assert_eq!(window.seek(SeekFrom::End(-1)).expect("seek"), 3);
        text.clear();
        window.read_to_string(&mut text).expect("read");
        assert_eq!(text, "6");
        assert!(window.seek(SeekFrom::Start(2)).is_ok() && window.seek(SeekFrom::Current(-3)).is_err());
        assert!(window.write(b"x").is_err());
        assert_eq!(Window::new(Cursor::new(vec![0; 8]), u64::MAX, 9).read(&mut [0; 4]).expect("end"), 0);
    }
}
