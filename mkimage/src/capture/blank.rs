//! The blank that flashmob's helper has made in a Windows that starts by BIOS, for the terminal's own file
//! (`flashmob::layout::blank`).
//!
//! Invariant: only reads. A file that an agent could not fill in place is left out with a remark.

use std::io::{Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};

use flashmob::layout::blank::{LENGTH, PATH, is_one};
use flashmob::manifest::{Policy, Role};
use ntfs::indexes::NtfsFileNameIndex;
use ntfs::{Ntfs, NtfsFile};

use super::backing::Backing;
use super::plan::{PartitionPlan, Plan};
use crate::source::Source;

/// Looks for the blank, and remembers its place in the partition's plan. Where there is an EFI system
/// partition, terminals have their file there.
pub(super) fn find(source: &Source, plan: &mut Plan) {
    if plan.partitions.iter().any(|p| p.role == Role::Esp && p.filesystem == Some("vfat")) {
        return;
    }
    let path = PATH.join("/");
    let mut found = Vec::new();
    let is_ntfs = |p: &&mut PartitionPlan| p.filesystem == Some("ntfs") && p.policy == Policy::Replace;
    for partition in plan.partitions.iter_mut().filter(is_ntfs) {
        match look(&Backing::partition(source, partition)) {
            Ok(None) => {}
            Ok(Some(at)) => {
                partition.blank = Some(at);
                found.push(partition.number);
            }
            Err(why) => plan.remarks.push(format!(
                "partition {}: terminals cannot get their own name, because {path} {why}. Remove that file \
                 in the golden Windows, and make it anew: flashmob-first-start.ps1 -Blank",
                partition.number
            )),
        }
    }
    if found.len() > 1 {
        let numbers: Vec<String> = found.iter().map(u32::to_string).collect();
        plan.remarks.push(format!(
            "terminals cannot get their own name, because the partitions {} all have {path}. Remove it in \
             all but the Windows that shall get a name",
            numbers.join(", ")
        ));
        plan.partitions.iter_mut().for_each(|partition| partition.blank = None);
    }
}

/// Where the blank begins in an NTFS; `None` if there is none. The error says why it cannot be filled.
fn look(backing: &Backing<'_>) -> Result<Option<u64>, String> {
    let mut view = backing.reader();
    // The reader of the format expects a sound filesystem.
    let looked = catch_unwind(AssertUnwindSafe(|| look_inside(&mut view)));
    let at = match looked {
        Ok(Ok(None)) => return Ok(None),
        Ok(Ok(Some(at))) => at?,
        Ok(Err(e)) => return Err(format!("cannot be read ({e})")),
        Err(_) => return Err("cannot be read".into()),
    };
    let mut bytes = vec![0; LENGTH];
    match backing.read(at, &mut bytes) && is_one(&bytes) {
        true => Ok(Some(at)),
        false => Err(format!("does not begin with {LENGTH} bytes that the helper or an agent wrote")),
    }
}

/// The place of the file's first bytes, or why they cannot be written in place. `None`: there is no file.
fn look_inside<T: Read + Seek>(volume: &mut T) -> ntfs::Result<Option<Result<u64, String>>> {
    let mut ntfs = Ntfs::new(volume)?;
    ntfs.read_upcase_table(volume)?;
    let mut file = ntfs.root_directory(volume)?;
    for name in PATH {
        let Some(inside) = child(&ntfs, volume, &file, name)? else { return Ok(None) };
        file = inside;
    }
    place(&ntfs, volume, &file).map(Some)
}

fn child<'n, T: Read + Seek>(
    ntfs: &'n Ntfs,
    volume: &mut T,
    folder: &NtfsFile<'n>,
    name: &str,
) -> ntfs::Result<Option<NtfsFile<'n>>> {
    if !folder.is_directory() {
        return Ok(None);
    }
    let index = folder.directory_index(volume)?;
    let mut finder = index.finder();
    let Some(entry) = NtfsFileNameIndex::find(&mut finder, ntfs, volume, name) else { return Ok(None) };
    entry?.to_file(ntfs, volume).map(Some)
}

fn place<T: Read + Seek>(
    ntfs: &Ntfs,
    volume: &mut T,
    file: &NtfsFile<'_>,
) -> ntfs::Result<Result<u64, String>> {
    let Some(data) = file.data(volume, "").filter(|_| !file.is_directory()) else {
        return Ok(Err("is no file".into()));
    };
    let data = data?;
    let attribute = data.to_attribute()?;
    if !attribute.flags().is_empty() {
        let how = attribute.flags().to_string().to_lowercase();
        return Ok(Err(format!("is stored otherwise than plainly ({how})")));
    }
    if attribute.is_resident() {
        return Ok(Err("is so short that NTFS keeps it in its file table".into()));
    }
    if attribute.value_length() < LENGTH as u64 {
        return Ok(Err(format!("has less than {LENGTH} bytes")));
    }
    // A cluster is the file's alone, so the bytes of one cluster belong to the file together.
    if ntfs.cluster_size() < u32::try_from(LENGTH).unwrap_or(u32::MAX) {
        return Ok(Err(format!("lies in clusters of {} bytes", ntfs.cluster_size())));
    }
    let first = attribute.value(volume)?.data_position();
    Ok(first.value().map(std::num::NonZero::get).ok_or_else(|| "has no clusters at its beginning".into()))
}
