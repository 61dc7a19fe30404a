//! Puts the administrator's files on an imaged disk: on the filesystem that they are for where the kernel
//! writes it, else on the EFI system partition, from where the helper in the system takes them.
//!
//! Invariant: each file may be written again with the same result. One that cannot be written does not stop
//! the others. No link is followed on the way to a file.

use std::io;

use crate::io::disk::personal::fat;
use crate::io::disk::personal::root::Root;
use crate::io::storage::device::Disk;
use crate::layout::personal::{GivenFile, Told, WAITING, WAITING_LIST};

/// Writes `files` below `root`.
pub(super) fn below(root: &Root, files: &[&GivenFile], tell: &mut dyn FnMut(Told)) {
    let mut written = 0;
    for file in files {
        match root.put(&file.path, &file.content, file.mode) {
            Ok(()) => written += 1,
            Err(e) => tell(Told::Problem(format!("the administrator's file /{}: {e}", file.path))),
        }
    }
    if written > 0 {
        tell(Told::Step(format!("{written} of the administrator's files are written")));
    }
}

/// Leaves `files` on the EFI system partition. The list of them comes last.
pub(super) fn wait_on_esp(disk: &Disk, at: (u64, u64), files: &[&GivenFile]) -> io::Result<()> {
    let within = |name: &str| -> Vec<String> {
        WAITING.iter().map(|part| part.to_string()).chain([name.to_string()]).collect()
    };
    let write = |name: &str, content: &[u8]| {
        let path = within(name);
        fat::write(disk, at, &path.iter().map(String::as_str).collect::<Vec<_>>(), content)
    };
    let mut list = String::new();
    for (number, file) in files.iter().enumerate() {
        let name = format!("{number:04}.bin");
        write(&name, &file.content)?;
        list += &format!("{name} {} {:04o} {}\n", file.sha256, file.mode, file.path);
    }
    write(WAITING_LIST, list.as_bytes())
}
