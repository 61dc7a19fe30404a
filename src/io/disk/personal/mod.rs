//! Makes the system on an imaged disk its terminal's own: `linux` changes files of a Linux system below its
//! `root`, `fat` writes the one file that the system itself reads, `blank` writes it into a Windows that
//! starts by BIOS.
//!
//! Invariant: it begins after the image was proved and committed, and after the terminal has left the swarm.
//! The file comes last: where it is, everything before it is done, and a run that was cut off does the rest.
//! Nothing but the file is changed unless the job gives a host name or the image has files for the terminal.

mod after;
mod blank;
mod fallback;
mod fat;
mod linux;
mod power;
mod root;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;

use crate::io::disk::claim::claim;
use crate::io::disk::mount::{Mount, node};
use crate::layout;
use crate::layout::personal::{Blank, GivenFile, ON_BOOT, ON_ESP, ON_ROOT, OwnFile, Part, Places, Told};
use after::BySystem;
use blank::Filled;
use root::Root;

/// Folders of a filesystem in which a distribution may keep its root (subvolumes of Btrfs).
const ROOTS: [&str; 4] = [".", "@", "@rootfs", "root"];
/// Why a Windows that starts by BIOS gets no files.
const NOWHERE: &str = "there is no EFI system partition where they could wait";

/// Makes the system on `places` the terminal's own, as `own` says. `tell` hears of each step. Whether the own
/// file is written, or has no place on this disk.
pub(crate) fn make(places: &Places, own: &OwnFile, tell: &mut dyn FnMut(Told)) -> bool {
    work(places, own, tell).map_err(|why| tell(Told::Problem(why))).is_ok()
}

fn work(places: &Places, own: &OwnFile, tell: &mut dyn FnMut(Told)) -> Result<(), String> {
    let Some(esp) = esp_of(places) else { return without_esp(places, own, tell) };
    if on_esp(places, esp, |disk, at| fat::read(disk, at, &ON_ESP))?.is_some_and(|it| own.is_complete(&it)) {
        tell(Told::Step("it was done before".into()));
        return Ok(());
    }
    elsewhere(places, tell);
    let waiting = systems(places, own, tell);
    // A helper copies all that is listed there, whoever listed it.
    if on_esp(places, esp, after::clear_esp)? {
        tell(Told::Step("old files that waited for a helper are removed".into()));
    }
    if !waiting.is_empty() {
        tell(match on_esp(places, esp, |disk, at| after::wait_on_esp(disk, at, &waiting)) {
            Ok(()) => Told::Step(waiting.waiting()),
            Err(why) => Told::Problem(format!("the administrator's files: {why}")),
        });
    }
    // A loader is copied to an EFI system partition of the image alone.
    if let Some(loader) = places.loader.as_ref().filter(|_| places.esp().is_some()) {
        tell(match on_esp(places, esp, |disk, at| fallback::copy(disk, at, loader)) {
            Ok(what) => Told::Step(format!("the firmware keeps no boot entry: {what}")),
            Err(why) => Told::Problem(format!("the firmware keeps no boot entry, and {why}")),
        });
    }
    on_esp(places, esp, |disk, at| fat::write(disk, at, &ON_ESP, &own.to_bytes()))?;
    tell(Told::Step(format!("{} is on the EFI system partition", ON_ESP.join("/"))));
    Ok(())
}

/// All on a disk that starts by BIOS.
fn without_esp(places: &Places, own: &OwnFile, tell: &mut dyn FnMut(Told)) -> Result<(), String> {
    // A Linux beside that Windows has its own file, which comes last.
    in_windows(places, own, tell)?;
    let why = match Mounted::find(places)? {
        Found::One(mounted) => return mounted.during(|root| on_root(root, places, own, tell)),
        Found::Several(numbers) => several(&numbers),
        Found::None => match Mounted::boot(places)? {
            Some(mounted) => return mounted.during(|boot| on_boot(boot, places, own, tell)),
            None if places.blank.is_some() => {
                elsewhere(places, tell);
                let files = BySystem::of(places, false);
                leave_out(&files.windows, NOWHERE, tell);
                return Ok(());
            }
            None => not_found(places),
        },
    };
    tell(Told::Problem(format!("there is no place for {}: {why}", ON_ROOT.join("/"))));
    Ok(())
}

/// Fills the blank of a Windows, if it has one.
fn in_windows(places: &Places, own: &OwnFile, tell: &mut dyn FnMut(Told)) -> Result<(), String> {
    let Some(Blank { partition, at }) = places.blank else { return Ok(()) };
    let claimed = claim(&places.info, places.layout, &[partition]);
    let claimed = claimed.map_err(|failure| failure.message)?;
    let path = layout::blank::PATH.join("/");
    let filled = blank::fill(claimed.disk(), at, own);
    tell(match filled.map_err(|e| format!("{path} of the Windows in partition {partition}: {e}"))? {
        Filled::Now => Told::Step(format!("{path} of the Windows in partition {partition} is filled")),
        Filled::Before => Told::Step("it was done before".into()),
        Filled::Not(why) => {
            Told::Problem(format!("the Windows in partition {partition} gets no {path}: {why}"))
        }
    });
    Ok(())
}

/// The EFI system partition for the file: the one that was written, else one that was left as it was and has
/// the file of an earlier attempt, which would go on giving the old name.
fn esp_of(places: &Places) -> Option<&Part> {
    let with_file = |kept: &&Part| {
        on_esp(places, kept, |disk, at| fat::read(disk, at, &ON_ESP)).is_ok_and(|there| there.is_some())
    };
    places.esp().or_else(|| places.kept_esp.as_ref().filter(with_file))
}

/// Changes the Linux that the agent can write. Returns the files that must wait for a helper.
fn systems<'a>(places: &'a Places, own: &OwnFile, tell: &mut dyn FnMut(Told)) -> BySystem<'a> {
    let named = !own.hostname.is_empty();
    if !named && places.files.iter().all(|file| file.partition.is_some()) {
        return BySystem::default();
    }
    let found = Mounted::find(places);
    let has_root = matches!(found, Ok(Found::One(_) | Found::Several(_)));
    let mut files = BySystem::of(places, has_root);
    match found {
        Ok(Found::One(mounted)) => {
            let linux = std::mem::take(&mut files.linux);
            let done = mounted.during(|root| {
                after::below(root, &linux, tell);
                steps(root, own, tell);
                // The golden machine's own: this terminal's is on the EFI system partition.
                let path = ON_ROOT.join("/");
                root.has(&path)
                    .then(|| root.remove(&path))
                    .transpose()
                    .map_err(|e| format!("/{path}: {e}"))?;
                Ok(())
            });
            done.unwrap_or_else(|why| tell(Told::Problem(why)));
        }
        Ok(Found::Several(numbers)) => {
            let linux = std::mem::take(&mut files.linux);
            if named || !linux.is_empty() {
                tell(Told::Problem(several(&numbers)));
            }
        }
        Ok(Found::None) if places.has_windows() || !named => {}
        Ok(Found::None) => {
            tell(Told::Problem(format!("the host name is left to the system: {}", not_found(places))))
        }
        Err(why) => tell(Told::Problem(why)),
    }
    if !places.has_windows() {
        leave_out(&std::mem::take(&mut files.windows), "no Windows was written", tell);
    }
    files
}

/// Tells of files that no Windows gets.
fn leave_out(files: &[&GivenFile], why: &str, tell: &mut dyn FnMut(Told)) {
    if !files.is_empty() {
        let count = files.len();
        tell(Told::Problem(format!("{count} files for Windows are left out: {why}")));
    }
}

/// Why nothing of two Linux systems is changed.
fn several(numbers: &[u32]) -> String {
    let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
    format!(
        "there are several Linux systems on the disk (partitions {}), and the host name and the files may be \
         for any of them: nothing is written to these. A rule of the files may name a partition",
        numbers.join(", ")
    )
}

/// Why no Linux system is changed.
fn not_found(places: &Places) -> String {
    let kinds =
        places.parts.iter().filter(|part| places.esp() != Some(part)).map(|part| match &*part.filesystem {
            "" => format!("partition {} has no known filesystem", part.number),
            kind => format!("partition {} has {kind}", part.number),
        });
    let kinds: Vec<String> = kinds.collect();
    match kinds.is_empty() {
        true => "no partition of a system was written".into(),
        false => format!("no root filesystem of a Linux system was found ({})", kinds.join(", ")),
    }
}

/// Works on the EFI system partition while the disk is exclusively open.
fn on_esp<T>(
    places: &Places,
    esp: &Part,
    work: impl FnOnce(&crate::io::storage::device::Disk, (u64, u64)) -> io::Result<T>,
) -> Result<T, String> {
    let claimed = claim(&places.info, places.layout, &[esp.number]).map_err(|failure| failure.message)?;
    work(claimed.disk(), (esp.start, esp.size)).map_err(|e| format!("the EFI system partition: {e}"))
}

/// The administrator's files for partitions that their rules name.
fn elsewhere(places: &Places, tell: &mut dyn FnMut(Told)) {
    let numbers: BTreeSet<u32> = places.files.iter().filter_map(|file| file.partition).collect();
    for number in numbers {
        let files: Vec<&GivenFile> =
            places.files.iter().filter(|file| file.partition == Some(number)).collect();
        let done = match places.linux().find(|part| part.number == number) {
            None => Err("it was not written".into()),
            Some(part) => node(places, part)
                .and_then(|node| Mounted::new(&node, &part.filesystem, MsFlags::empty()))
                .and_then(|mounted| {
                    mounted.during(|top| {
                        after::below(top, &files, tell);
                        Ok(())
                    })
                }),
        };
        if let Err(why) = done {
            tell(Told::Problem(format!("the administrator's files for partition {number}: {why}")));
        }
    }
}

/// All on the root filesystem.
fn on_root(root: &Root, places: &Places, own: &OwnFile, tell: &mut dyn FnMut(Told)) -> Result<(), String> {
    let path = ON_ROOT.join("/");
    let said = |e: io::Error| format!("/{path}: {e}");
    if root.read(&path).map_err(said)?.is_some_and(|there| own.is_complete(&there)) {
        tell(Told::Step("it was done before".into()));
        return Ok(());
    }
    elsewhere(places, tell);
    let files = BySystem::of(places, true);
    leave_out(&files.windows, NOWHERE, tell);
    after::below(root, &files.linux, tell);
    steps(root, own, tell);
    root.make_folder("etc/flashmob").map_err(said)?;
    // The ticket is not for everybody on the system.
    root.put(&path, &own.to_bytes(), 0o600).map_err(said)?;
    tell(Told::Step(format!("/{path} is written")));
    Ok(())
}

/// All on the filesystem for `/boot` of a Linux that the agent cannot write: its helper does the rest.
fn on_boot(boot: &Root, places: &Places, own: &OwnFile, tell: &mut dyn FnMut(Told)) -> Result<(), String> {
    let path = ON_BOOT.join("/");
    let said = |e: io::Error| format!("/boot/{path}: {e}");
    if boot.read(&path).map_err(said)?.is_some_and(|there| own.is_complete(&there)) {
        tell(Told::Step("it was done before".into()));
        return Ok(());
    }
    elsewhere(places, tell);
    let mut files = BySystem::of(places, false);
    let windows = std::mem::take(&mut files.windows);
    leave_out(&windows, NOWHERE, tell);
    boot.make_folder(ON_BOOT[0]).map_err(said)?;
    match after::wait_on_boot(boot, &files) {
        Ok(()) if files.is_empty() => {}
        Ok(()) => tell(Told::Step(files.waiting())),
        Err(why) => tell(Told::Problem(format!("the administrator's files: {why}"))),
    }
    boot.put(&path, &own.to_bytes(), 0o600).map_err(said)?;
    if !own.hostname.is_empty() {
        tell(Told::Problem(format!("the host name is left to the system: {}", not_found(places))));
    }
    tell(Told::Step(format!("/boot/{path} is written")));
    Ok(())
}

/// The steps of a Linux system, if the job gives it a host name. One that fails does not stop the others.
fn steps(root: &Root, own: &OwnFile, tell: &mut dyn FnMut(Told)) {
    if own.hostname.is_empty() {
        return;
    }
    for (_, step) in linux::STEPS {
        match step(root, &own.hostname) {
            Ok(changed) => changed.into_iter().for_each(|what| tell(Told::Step(what))),
            Err(why) => tell(Told::Problem(why)),
        }
    }
}

/// Linux systems on a disk that the agent can write.
enum Found {
    None,
    One(Mounted),
    /// The numbers of their partitions.
    Several(Vec<u32>),
}

/// A mounted filesystem with the root of a Linux system.
struct Mounted {
    mount: Mount,
    /// The root's folder in it.
    folder: &'static str,
}

impl Mounted {
    /// Partitions in which `folder` finds one, and that folder.
    fn look(
        places: &Places,
        folder: impl Fn(&Mounted) -> Option<&'static str>,
    ) -> Result<Vec<(PathBuf, &Part, &'static str)>, String> {
        let mut found = Vec::new();
        for part in places.linux() {
            let node = node(places, part)?;
            // A partition that cannot be mounted may be the root, so this is told.
            let looked = Mounted::new(&node, &part.filesystem, MsFlags::MS_RDONLY)?;
            let Some(folder) = folder(&looked) else { continue };
            found.push((node, part, folder));
        }
        Ok(found)
    }

    /// Mounts the one partition that is a filesystem for `/boot`, if there is just one.
    fn boot(places: &Places) -> Result<Option<Mounted>, String> {
        let is_boot = |mounted: &Mounted| {
            let top = Root::open(mounted.mount.path()).ok()?;
            let menu = ["grub", "grub2", "loader", "extlinux"].iter().any(|folder| top.is_folder(folder));
            let kernel =
                top.names(".").is_ok_and(|names| names.iter().any(|name| name.starts_with("vmlinuz")));
            (menu && kernel).then_some(".")
        };
        match &Mounted::look(places, is_boot)?[..] {
            [(node, part, _)] => Mounted::new(node, &part.filesystem, MsFlags::empty()).map(Some),
            _ => Ok(None),
        }
    }

    /// Mounts the one partition that has a root. The others are not written.
    fn find(places: &Places) -> Result<Found, String> {
        let found = Mounted::look(places, Mounted::root)?;
        match &found[..] {
            [] => Ok(Found::None),
            [(node, part, folder)] => {
                let mut mounted = Mounted::new(node, &part.filesystem, MsFlags::empty())?;
                mounted.folder = folder;
                Ok(Found::One(mounted))
            }
            several => Ok(Found::Several(several.iter().map(|(_, part, _)| part.number).collect())),
        }
    }

    fn new(node: &Path, kind: &str, flags: MsFlags) -> Result<Self, String> {
        Ok(Mounted { mount: Mount::new(node, kind, flags)?, folder: "." })
    }

    /// The folder that is the root of a system.
    fn root(&self) -> Option<&'static str> {
        let top = Root::open(self.mount.path()).ok()?;
        ROOTS.into_iter().find(|folder| {
            top.below(folder).is_ok_and(|root| {
                root.is_folder("etc") && (root.has("etc/os-release") || root.has("usr/lib/os-release"))
            })
        })
    }

    /// Changes the system and unmounts it.
    fn during(self, work: impl FnOnce(&Root) -> Result<(), String>) -> Result<(), String> {
        let said = |e: io::Error| format!("writing the root filesystem: {e}");
        let root = Root::open(self.mount.path()).and_then(|top| top.below(self.folder)).map_err(said)?;
        work(&root)?;
        if root.relabel().map_err(said)? {
            log::info!("SELinux labels are set anew at the first start");
        }
        root.sync().map_err(said)?;
        drop(root);
        self.mount.close().map_err(said)
    }
}

#[cfg(test)]
mod tests;
