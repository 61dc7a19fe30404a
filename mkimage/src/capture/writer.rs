//! Writes payload files, and leaves holes where pieces are zero.
//!
//! Invariant: a file that is closed is on the medium.

use crate::keys::{file_failure, sync_all};
use flashmob::buf::ZEROS;
use flashmob::event::Failure;
use flashmob::io::sys::begin_writing;
use flashmob::layout::extents::UNIT;
use flashmob::units::PieceLength;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const _: () = assert!(UNIT == 4096, "zeros are looked for in the unit that extents are known to");

/// Ranges that are not zero, to [`UNIT`], in order and never touching.
pub(super) fn data_ranges(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    for unit in bytes.chunks(ZEROS.len()) {
        let end = start + unit.len();
        if unit != &ZEROS[..unit.len()] {
            match found.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => found.push(start..end),
            }
        }
        start = end;
    }
    found
}

/// Bytes between two requests to write back; otherwise a small image would reach the device only at the end.
pub(super) const WRITE_BACK: u64 = 16 << 20;

/// Writes files of pieces one after another.
pub(super) struct Writer {
    folder: PathBuf,
    piece_length: u64,
    file_size: u64,
    /// Payload offset of the next piece.
    next: u64,
    open: Option<Open>,
}

/// The file that is written.
pub(super) struct Open {
    file: File,
    path: PathBuf,
    /// Bytes that the kernel was asked to write to the medium.
    begun: u64,
}

impl Writer {
    /// Files of `file_size` bytes in `folder`, which is there.
    pub(super) fn new(folder: PathBuf, piece_length: PieceLength, file_size: u64) -> Self {
        Writer { folder, piece_length: piece_length.bytes(), file_size, next: 0, open: None }
    }

    /// The next piece, of which only `data` is not zero.
    pub(super) fn add(&mut self, piece: &[u8], data: &[Range<usize>]) -> Result<(), Failure> {
        let inside = self.next % self.file_size;
        if inside == 0 {
            self.close(self.file_size)?;
            let path = self.folder.join(format!("{:04}.bin", self.next / self.file_size));
            let file = File::create_new(&path).map_err(|e| file_failure("creating", &path, &e))?;
            self.open = Some(Open { file, path, begun: 0 });
        }
        if let Some(open) = &mut self.open {
            for range in data {
                open.file
                    .write_all_at(&piece[range.clone()], inside + range.start as u64)
                    .map_err(|e| file_failure("writing", &open.path, &e))?;
            }
            open.write_back(inside + self.piece_length);
        }
        self.next += self.piece_length;
        Ok(())
    }

    /// Ends the open file at `len` bytes and waits until it is on the medium.
    fn close(&mut self, len: u64) -> Result<(), Failure> {
        let Some(Open { file, path, .. }) = self.open.take() else { return Ok(()) };
        file.set_len(len).map_err(|e| file_failure("writing", &path, &e))?;
        sync_all(&file, &path)
    }

    /// Ends the last file.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        let rest = self.next % self.file_size;
        self.close(if rest == 0 { self.file_size } else { rest })
    }
}

impl Open {
    /// The first `len` bytes will not change.
    fn write_back(&mut self, len: u64) {
        if len - self.begun < WRITE_BACK {
            return;
        }
        // No more than a hint: a filesystem that does not know it writes when it likes.
        if let Err(e) = begin_writing(&self.file, self.begun, len - self.begun) {
            log::debug!("{} is not written early: {e}", self.path.display());
        }
        self.begun = len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_files_are_cut_at_their_size() {
        let dir = tempfile::tempdir().expect("a folder");
        let length = PieceLength::new(16384).expect("a length");
        let mut writer = Writer::new(dir.path().to_path_buf(), length, 32768);
        for i in 1..=5u8 {
            writer.add(&[i; 16384], &[0..4096, 8192..8193]).expect("written");
        }
        writer.finish().expect("finished");
        let file = |name: &str| std::fs::read(dir.path().join(name)).expect("a file");
        assert_eq!(
            (file("0000.bin").len(), file("0001.bin").len(), file("0002.bin").len()),
            (32768, 32768, 16384)
        );
        let second = file("0001.bin");
        assert_eq!((second[4095], second[4096], second[8192], second[8193]), (3, 0, 3, 0));
        assert_eq!(second[16384], 4);
    }

    #[test]
    fn what_goes_to_the_medium_early_is_all_of_each_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let length = PieceLength::new(1 << 20).expect("a length");
        let (pieces, in_file) = (45usize, 20usize);
        let mut writer = Writer::new(dir.path().to_path_buf(), length, (in_file as u64) << 20);
        let piece = |n: usize| vec![u8::try_from(n + 1).expect("small"); 1 << 20];
        for n in 0..pieces {
            writer.add(&piece(n), std::slice::from_ref(&(0..1 << 20))).expect("written");
            let begun = writer.open.as_ref().expect("a file").begun;
            let written = (n % in_file + 1) as u64 * length.bytes();
            assert!(begun <= written && written - begun < WRITE_BACK, "{begun} of {written}");
        }
        writer.finish().expect("finished");
        for n in 0..pieces {
            let file = File::open(dir.path().join(format!("{:04}.bin", n / in_file))).expect("a file");
            let mut found = vec![0; 1 << 20];
            file.read_exact_at(&mut found, (n % in_file) as u64 * length.bytes()).expect("read");
            assert!(found == piece(n), "piece {n}");
        }
    }
}
