//! Files of Windows in an NTFS that a terminal does not need: hibernation and paging files. Also whether
//! Windows is hibernated.
//!
//! Invariant: only reads; an unreadable one is captured like any other file.

use std::io::{Read, Seek};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ntfs::Ntfs;
use ntfs::attribute_value::NtfsAttributeValue;
use ntfs::indexes::NtfsFileNameIndex;

use super::backing::Backing;

/// In the root folder.
const HIBERNATION: &str = "hiberfil.sys";
const PAGING: [&str; 2] = ["pagefile.sys", "swapfile.sys"];
/// Bytes of each file that travel, because they tell its state.
const HEADER: u64 = 4096;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Windows {
    /// It sleeps (also by fast startup) or was stopped while waking up.
    pub hibernated: bool,
    /// Bytes of it that hold pages of memory.
    pub pages: Vec<Range<u64>>,
}

/// Looks into an NTFS. Unreadable parts are left out, because `soundness` reports damage.
pub(super) fn look(backing: &Backing<'_>) -> Windows {
    let mut view = backing.reader();
    // The reader of the format expects a sound filesystem.
    let found = catch_unwind(AssertUnwindSafe(|| look_inside(&mut view)));
    match found {
        Ok(Ok(found)) => found,
        Ok(Err(e)) => {
            log::info!("{}: paging files are not known: {e}", backing.name);
            Windows::default()
        }
        Err(_) => Windows::default(),
    }
}

fn look_inside<T: Read + Seek>(volume: &mut T) -> ntfs::Result<Windows> {
    let mut ntfs = Ntfs::new(volume)?;
    ntfs.read_upcase_table(volume)?;
    let mut found = Windows::default();
    for name in PAGING.into_iter().chain([HIBERNATION]) {
        let Some((header, pages)) = file(&ntfs, volume, name)? else { continue };
        found.pages.extend(pages);
        // The beginning of a file in use; "wake" and zeros say that it was resumed.
        let marks: [&[u8]; 2] = [b"hibr", b"rstr"];
        let mark = header.to_ascii_lowercase();
        found.hibernated |= name == HIBERNATION && marks.contains(&mark.as_slice());
    }
    Ok(found)
}

/// A file's first bytes, and the ranges after its header.
type Place = ([u8; 4], Vec<Range<u64>>);

/// Looks for a file of the root folder.
fn file<T: Read + Seek>(ntfs: &Ntfs, volume: &mut T, name: &str) -> ntfs::Result<Option<Place>> {
    let root = ntfs.root_directory(volume)?;
    let index = root.directory_index(volume)?;
    let mut finder = index.finder();
    let Some(entry) = NtfsFileNameIndex::find(&mut finder, ntfs, volume, name) else { return Ok(None) };
    let file = entry?.to_file(ntfs, volume)?;
    let Some(data) = file.data(volume, "") else { return Ok(None) };
    let data = data?;
    let attribute = data.to_attribute()?;
    let plain = attribute.flags().is_empty() && !file.is_directory();
    let value = attribute.value(volume)?;
    let mut header = [0; 4];
    let mut pages = Vec::new();
    if let (true, NtfsAttributeValue::NonResident(value)) = (plain, &value) {
        let mut inside = 0;
        for run in value.data_runs() {
            let run = run?;
            let len = run.allocated_size();
            if let Some(start) = run.data_position().value() {
                let header = HEADER.saturating_sub(inside).min(len);
                pages.push(start.get() + header..start.get() + len);
            }
            inside += len;
        }
    }
    value.attach(volume).read_exact(&mut header).or_else(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => Ok(()),
        _ => Err(e),
    })?;
    Ok(Some((header, pages)))
}
