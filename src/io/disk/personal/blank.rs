//! Fills the blank in a Windows, in place: no metadata of its filesystem changes.
//!
//! Invariant: nothing is written where the bytes are not a blank's. The bytes are read back from the device.

use std::io;

use crate::io::disk::personal::power;
use crate::io::storage::device::Disk;
use crate::layout::blank;
use crate::layout::personal::OwnFile;

/// What became of a blank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Filled {
    /// It has the file now.
    Now,
    /// The same attempt has filled it.
    Before,
    /// Nothing is written, and why.
    Not(String),
}

/// Writes `own` into the blank at the byte `at` of the disk.
pub(super) fn fill(disk: &Disk, at: u64, own: &OwnFile) -> io::Result<Filled> {
    let Some(new) = blank::filled(own) else {
        let most = blank::LENGTH;
        return Ok(Filled::Not(format!("the terminal's file has more than the {most} bytes of the blank")));
    };
    let there = read(disk, at)?;
    if own.is_complete(&there) {
        return Ok(Filled::Before);
    }
    if !blank::is_one(&there) {
        let why = "something else lies where the image has the blank for the file, so nothing is written";
        return Ok(Filled::Not(why.into()));
    }
    for (offset, bytes) in blank::writes(&there, &new, disk.sector().get() as usize) {
        power::change()?;
        disk.write_at(at + offset as u64, &bytes).map_err(io::Error::other)?;
        disk.sync().map_err(io::Error::other)?;
    }
    match read(disk, at)? == new {
        true => Ok(Filled::Now),
        false => Err(io::Error::other("the file reads back otherwise than it was written")),
    }
}

fn read(disk: &Disk, at: u64) -> io::Result<Vec<u8>> {
    let mut there = vec![0; blank::LENGTH];
    disk.read_at(at, &mut there).map_err(io::Error::other)?;
    Ok(there)
}
