//! Puts the administrator's files on an imaged disk: on the filesystem that they are for where the kernel
//! writes it, else on the EFI system partition, from where the helper in the system takes them.
//!
//! Invariant: each file may be written again with the same result. One that cannot be written does not stop
//! the others. No link is followed on the way to a file.

use std::collections::BTreeMap;
use std::io;

use crate::io::disk::personal::fat;
use crate::io::disk::personal::root::Root;
use crate::io::storage::device::Disk;
use crate::layout::personal::{GivenFile, Places, Told, WAITING, WAITING_LIST, WAITING_ON_BOOT};
use crate::manifest::after::System;

/// The files for the systems of a disk, without those that name a partition.
#[derive(Default)]
pub(super) struct BySystem<'a> {
    pub(super) linux: Vec<&'a GivenFile>,
    pub(super) windows: Vec<&'a GivenFile>,
}

impl<'a> BySystem<'a> {
    /// Those of `places`. `has_root`: a Linux was found that the agent can write.
    pub(super) fn of(places: &'a Places, has_root: bool) -> Self {
        let usual = places.usual_system(has_root);
        let of = |system| {
            let files = places.files.iter().filter(|file| file.partition.is_none());
            let files = files.filter(|file| file.system.unwrap_or(usual) == system);
            // Of two with one path, the later rule's comes last.
            files.map(|file| (&file.path, file)).collect::<BTreeMap<_, _>>().into_values().collect()
        };
        BySystem { linux: of(System::Linux), windows: of(System::Windows) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.linux.is_empty() && self.windows.is_empty()
    }

    /// The files with the names under which they wait, each with its system because helpers of older images
    /// read no other word, and the list of them.
    fn listed(&self) -> (Vec<(String, &GivenFile)>, String) {
        let linux = self.linux.iter().map(|file| (System::Linux, *file));
        let each = linux.chain(self.windows.iter().map(|file| (System::Windows, *file)));
        let named = |(number, (system, file)): (usize, (System, _))| {
            (format!("{}-{number:04}.bin", system.word()), file)
        };
        let files: Vec<(String, &GivenFile)> = each.enumerate().map(named).collect();
        let line = |(name, file): &(String, &GivenFile)| {
            format!("{name} {} {:04o} {}\n", file.sha256, file.mode, file.path)
        };
        let list = files.iter().map(line).collect();
        (files, list)
    }

    /// Whom they wait for, for people.
    pub(super) fn waiting(&self) -> String {
        let systems = [(System::Linux, &self.linux), (System::Windows, &self.windows)];
        let systems = systems.iter().filter(|(_, files)| !files.is_empty());
        let words: Vec<String> = systems
            .map(|(system, files)| format!("{} files wait for the helper in {system}", files.len()))
            .collect();
        words.join(", ")
    }
}

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

/// Removes what waits on an EFI system partition: it came with the image from a golden machine that was
/// imaged itself, or is for an earlier attempt. The list goes first.
pub(super) fn clear_esp(disk: &Disk, at: (u64, u64)) -> io::Result<bool> {
    fat::remove(disk, at, &WAITING, WAITING_LIST)
}

/// Leaves `files` on the EFI system partition. The list of them comes last.
pub(super) fn wait_on_esp(disk: &Disk, at: (u64, u64), files: &BySystem<'_>) -> io::Result<()> {
    let within = |name: &str| -> Vec<String> {
        WAITING.iter().map(|part| part.to_string()).chain([name.to_string()]).collect()
    };
    let write = |name: &str, content: &[u8]| {
        let path = within(name);
        fat::write(disk, at, &path.iter().map(String::as_str).collect::<Vec<_>>(), content)
    };
    let (files, list) = files.listed();
    for (name, file) in &files {
        write(name, &file.content)?;
    }
    write(WAITING_LIST, list.as_bytes())
}

/// Leaves `files` on the filesystem for `/boot`, instead of what waited there. The list of them comes last.
pub(super) fn wait_on_boot(boot: &Root, files: &BySystem<'_>) -> io::Result<()> {
    let path = |name: &str| format!("{WAITING_ON_BOOT}/{name}");
    let is_old = |name: &String| ![".", "..", WAITING_LIST].contains(&name.as_str());
    let old = boot.names(WAITING_ON_BOOT)?;
    if boot.has(&path(WAITING_LIST)) {
        boot.remove(&path(WAITING_LIST))?;
    }
    for name in old.iter().filter(|name| is_old(name)) {
        boot.remove(&path(name))?;
    }
    if files.is_empty() {
        return Ok(());
    }
    boot.make_folder(WAITING_ON_BOOT)?;
    let (files, list) = files.listed();
    for (name, file) in &files {
        boot.put(&path(name), &file.content, 0o600)?;
    }
    boot.put(&path(WAITING_LIST), list.as_bytes(), 0o600)
}
