//! Linux hibernates into a swap area and marks it: whoever changes a mounted filesystem then destroys it when
//! the system resumes.
//!
//! A swap area is a partition, a logical volume of LVM, or a file of an ext2, ext3 or ext4 (`swap_file`).
//!
//! Invariant: pure, and any bytes do no harm. Swap is not recognised inside LUKS, in a file of another
//! filesystem, in a file that has no usual name and is not in `/etc/fstab` beside it, and in a volume whose
//! place is not known (`lvm`).

mod swap_file;

use super::lvm::{self, Content, Read};
use super::segments::Segments;

/// Marks over the swap area's signature: the kernel's, its predecessor's, uswsusp's, TuxOnIce's.
const MARKS: [&[u8]; 4] = [b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001"];
/// The signature ends the first page.
const AT: usize = 4086;
const PAGE: usize = 4096;

/// Where in a partition of `size` bytes a Linux system is hibernated, to put behind the partition's name:
/// nothing, or ", volume lab/swap", or ", file /swapfile". Bytes that `read` cannot read hold no system.
pub fn find(size: u64, read: Read<'_>) -> Option<String> {
    in_device(size, read).or_else(|| in_volumes(size, read))
}

fn in_device(size: u64, read: Read<'_>) -> Option<String> {
    let begins_with_mark = |at: u64| {
        let mut page = [0; PAGE];
        let inside = at.checked_add(PAGE as u64).is_some_and(|end| end <= size);
        inside && read(at, &mut page) && MARKS.iter().any(|mark| page[AT..].starts_with(mark))
    };
    if begins_with_mark(0) {
        return Some(String::new());
    }
    let files = swap_file::all(size, read);
    files.into_iter().find(|(_, at)| begins_with_mark(*at)).map(|(path, _)| format!(", file /{path}"))
}

fn in_volumes(size: u64, read: Read<'_>) -> Option<String> {
    let mut start = vec![0; usize::try_from(size).map_or(PAGE, |size| size.min(PAGE))];
    let group = read(0, &mut start).then(|| lvm::group(&start, size, read))?.ok()?;
    group.volumes.iter().find_map(|volume| {
        let Content::Device(segments) = &volume.content else { return None };
        let place = in_device(segments.size(), &|at, into| through(segments, read, at, into))?;
        Some(format!(", volume {}/{}{place}", group.name, volume.name))
    })
}

/// Fills `into` from byte `at` of the volume at `segments`.
fn through(segments: &Segments, read: Read<'_>, at: u64, into: &mut [u8]) -> bool {
    let mut done = 0;
    while done < into.len() {
        let Some((place, len)) = segments.place(at.saturating_add(done as u64)) else { return false };
        let end = usize::try_from(len).map_or(into.len(), |len| into.len().min(done.saturating_add(len)));
        if !read(place, &mut into[done..end]) {
            return false;
        }
        done = end;
    }
    true
}

#[cfg(test)]
mod tests;
