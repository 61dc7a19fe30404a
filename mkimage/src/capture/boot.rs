//! How the captured system starts: loaders on the ESP, a Linux kernel for kexec.
//!
//! Invariant: anything unreadable is left out with a remark and never ends a capture, because a system can
//! start even if this file does not understand how.

use std::fs::File;
use std::io::{BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};

use ext4_view::{Ext4, Ext4Read};
use flashmob::event::Failure;
use flashmob::io::disk::partition_reader::PartitionReader;
use flashmob::layout::personal::WAITING;
use flashmob::manifest::{LinuxBoot, Role, UefiLoader};

use super::grub;
use super::plan::PartitionPlan;

/// A configuration of GRUB has a few dozen KiB.
const MAX_CONFIG: u64 = 4 << 20;

/// The loaders and kernel found, with remarks about the rest.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Best first.
    pub uefi: Vec<UefiLoader>,
    pub linux: Option<LinuxBoot>,
    pub remarks: Vec<String>,
}

/// A kernel that the administrator names.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub kernel: String,
    pub initrd: Option<String>,
    pub cmdline: String,
}

/// Reads the loaders and kernels of the captured partitions.
///
/// `loader` is the path of the loader that terminals should start.
pub(super) fn look(
    file: &File,
    partitions: &[PartitionPlan],
    named: Option<&Named>,
    loader: Option<&str>,
) -> Result<Found, Failure> {
    let mut found = Found::default();
    for p in partitions.iter().filter(|p| p.role == Role::Esp && p.filesystem == Some("vfat")) {
        match guarded(|| loaders(file, p, loader)) {
            Ok(loaders) => found.uefi.extend(loaders),
            Err(why) => found.remarks.push(format!(
                "the EFI system partition {} cannot be read ({why}): its loaders are not recorded",
                p.number
            )),
        }
        if guarded(|| has_waiting(file, p)) == Ok(true) {
            found.remarks.push(format!(
                "files wait for the helper in {} of partition {}, perhaps secrets. They become a part of the \
                 image, and terminals remove them. Start the system once, so that its helper takes them",
                WAITING.join("/"),
                p.number
            ));
        }
    }
    order(&mut found, loader)?;
    let is_ext = |p: &&PartitionPlan| p.filesystem.is_some_and(|name| name.starts_with("ext"));
    for p in partitions.iter().filter(is_ext) {
        let result = guarded(|| {
            let fs = open_ext(file, p)?;
            Ok(match named {
                Some(named) => named_kernel(&fs, p.number, named),
                None => configured_kernel(&fs, p.number)?,
            })
        });
        match result {
            Ok(Some(linux)) => {
                found.linux = Some(linux);
                break;
            }
            Ok(None) => {}
            Err(why) => found.remarks.push(format!("partition {}: no kernel for kexec: {why}", p.number)),
        }
    }
    if let Some(named) = named
        && found.linux.is_none()
    {
        return Err(Failure::usage(
            format!("no ext2, ext3 or ext4 partition of the source has {}", files(named)),
            "Give the paths as they are on their partition, for example --kernel \
             /boot/vmlinuz-6.1.0-18-amd64.",
        ));
    }
    Ok(found)
}

fn files(named: &Named) -> String {
    named.initrd.as_ref().map_or(named.kernel.clone(), |initrd| format!("{} and {initrd}", named.kernel))
}

/// The readers of filesystems are not ours; a crash in one is a partition that cannot be read.
fn guarded<T>(look: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(look)).unwrap_or_else(|_| Err("its filesystem is damaged".into()))
}

/// Names of loaders in a system's own folder of `/EFI`, the one that starts the others first: shim (Debian,
/// Fedora, Rocky; openSUSE calls it `shim.efi`), GRUB, systemd-boot, rEFInd, Limine.
const LOADERS: [&str; 7] = [
    "shimx64.efi",
    "shim.efi",
    "grubx64.efi",
    "grub.efi",
    "systemd-bootx64.efi",
    "refind_x64.efi",
    "limine_x64.efi",
];

/// A path as the firmware's menus may show it, with slashes.
fn slashes(path: &str) -> String {
    path.replace('\\', "/")
}

/// Puts the loader for terminals first. The source's firmware is not captured, so it is unknown which of
/// several systems it started: a boot menu that offers the others comes before Windows, which does not.
fn order(found: &mut Found, chosen: Option<&str>) -> Result<(), Failure> {
    let rank = |loader: &UefiLoader| {
        let path = loader.path.to_ascii_lowercase();
        let kind =
            if path.starts_with("/efi/boot/") { 2 } else { u8::from(path.starts_with("/efi/microsoft/")) };
        (kind, path)
    };
    found.uefi.sort_by_key(rank);
    let names = found.uefi.iter().map(|loader| loader.path.clone()).collect::<Vec<_>>().join(", ");
    if let Some(chosen) = chosen {
        let path = slashes(chosen);
        let Some(at) = found.uefi.iter().position(|loader| loader.path.eq_ignore_ascii_case(&path)) else {
            let there = if found.uefi.is_empty() { "none" } else { names.as_str() };
            return Err(Failure::usage(
                format!("the source has no loader {chosen}; it has: {there}"),
                "Give one of these paths to --loader.",
            ));
        };
        found.uefi[..=at].rotate_right(1);
    }
    let systems = found.uefi.iter().filter(|loader| rank(loader).0 < 2).count();
    if chosen.is_none() && systems > 1 {
        let remark = format!(
            "the disk has {systems} systems; terminals start {} ({}). To start another one: --loader with \
             one of {}",
            found.uefi[0].label, found.uefi[0].path, names
        );
        found.remarks.push(remark);
    }
    Ok(())
}

fn loaders(file: &File, p: &PartitionPlan, chosen: Option<&str>) -> Result<Vec<UefiLoader>, String> {
    let text = |e: std::io::Error| e.to_string();
    let fs = open_fat(file, p)?;
    let root = fs.root_dir();
    let Ok(efi) = root.open_dir("EFI") else { return Ok(Vec::new()) };
    let loader = |path: String, label: String| UefiLoader { partition: p.number, path, label };
    let mut found = Vec::new();
    let mut fallback = None;
    for entry in efi.iter() {
        let entry = entry.map_err(text)?;
        let name = entry.file_name();
        if !entry.is_dir() || name.starts_with('.') {
            continue;
        }
        let folder = entry.to_dir();
        if name.eq_ignore_ascii_case("BOOT") {
            if folder.open_file("BOOTX64.EFI").is_ok() {
                fallback = Some(loader(format!("/EFI/{name}/BOOTX64.EFI"), "UEFI OS".into()));
            }
        } else if name.eq_ignore_ascii_case("Microsoft") {
            if folder.open_file("Boot/bootmgfw.efi").is_ok() {
                found.push(loader(format!("/EFI/{name}/Boot/bootmgfw.efi"), "Windows Boot Manager".into()));
            }
        } else if let Some(efi) = LOADERS.iter().find(|efi| folder.open_file(efi).is_ok()) {
            found.push(loader(format!("/EFI/{name}/{efi}"), name));
        }
    }
    found.extend(fallback);
    // A person may name one that has no usual name.
    let chosen = chosen.map(slashes).filter(|path| path.starts_with('/'));
    if let Some(path) = chosen
        && !found.iter().any(|loader| loader.path.eq_ignore_ascii_case(&path))
        && root.open_file(path.trim_start_matches('/')).is_ok()
    {
        let label = path.rsplit('/').nth(1).filter(|folder| !folder.is_empty()).unwrap_or("EFI").to_string();
        found.push(loader(path, label));
    }
    Ok(found)
}

/// Do files of the administrator wait there? The golden machine was imaged itself then.
fn has_waiting(file: &File, p: &PartitionPlan) -> Result<bool, String> {
    let fs = open_fat(file, p)?;
    let has = fs.root_dir().open_dir(&WAITING.join("/")).is_ok();
    Ok(has)
}

type Fat<'a> = fatfs::FileSystem<BufReadWrite<'a>>;

fn open_fat<'a>(file: &'a File, p: &PartitionPlan) -> Result<Fat<'a>, String> {
    let window =
        BufReadWrite(BufReader::with_capacity(64 << 10, PartitionReader::new(file, p.start, p.size)));
    fatfs::FileSystem::new(window, fatfs::FsOptions::new()).map_err(|e| e.to_string())
}

/// `fatfs` wants to write as well; [`PartitionReader`] refuses that.
struct BufReadWrite<'a>(BufReader<PartitionReader<&'a File>>);

impl Read for BufReadWrite<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(into)
    }
}

impl std::io::Write for BufReadWrite<'_> {
    fn write(&mut self, from: &[u8]) -> std::io::Result<usize> {
        self.0.get_mut().write(from)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl std::io::Seek for BufReadWrite<'_> {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        self.0.seek(to)
    }
}

/// An ext filesystem somewhere on the source.
struct ExtPartition(PartitionReader<File>);

impl Ext4Read for ExtPartition {
    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.0.read_exact_at(at, into)?)
    }
}

fn open_ext(file: &File, p: &PartitionPlan) -> Result<Ext4, String> {
    let file = file.try_clone().map_err(|e| e.to_string())?;
    let partition = ExtPartition(PartitionReader::new(file, p.start, p.size));
    Ext4::load(Box::new(partition)).map_err(|e| e.to_string())
}

fn is_file(fs: &Ext4, path: &str) -> bool {
    fs.metadata(path).is_ok_and(|m| m.file_type().is_regular_file())
}

fn named_kernel(fs: &Ext4, partition: u32, named: &Named) -> Option<LinuxBoot> {
    let all = is_file(fs, &named.kernel) && named.initrd.as_ref().is_none_or(|initrd| is_file(fs, initrd));
    all.then(|| LinuxBoot {
        partition,
        kernel: named.kernel.clone(),
        initrd: named.initrd.clone(),
        cmdline: named.cmdline.clone(),
    })
}

/// The entry that GRUB's configuration starts, if all its files are on the same filesystem.
fn configured_kernel(fs: &Ext4, partition: u32) -> Result<Option<LinuxBoot>, String> {
    let paths = ["/boot/grub/grub.cfg", "/grub/grub.cfg", "/boot/grub2/grub.cfg", "/grub2/grub.cfg"];
    let Some(path) = paths.into_iter().find(|path| is_file(fs, path)) else { return Ok(None) };
    if fs.metadata(path).map_err(|e| e.to_string())?.len() > MAX_CONFIG {
        return Err(format!("{path} is too large"));
    }
    let config = fs.read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    let entry = grub::first_entry(&config).map_err(|why| format!("{path}: {why}"))?;
    for file in std::iter::once(&entry.kernel).chain(&entry.initrd) {
        if !is_file(fs, file) {
            return Err(format!("{path} names {file}, which is not on this partition"));
        }
    }
    let grub::Entry { kernel, initrd, cmdline } = entry;
    Ok(Some(LinuxBoot { partition, kernel, initrd, cmdline }))
}
