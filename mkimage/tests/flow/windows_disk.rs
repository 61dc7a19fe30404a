//! A disk as Windows lays it out (EFI system partition, Microsoft reserved, NTFS, recovery), made by Debian's
//! tools: imaged to a larger disk, with all that Windows finds its partitions by.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flashmob::api::LayoutMode;
use flashmob::boot::entries;
use flashmob::boot::option::PartitionId;
use flashmob::io::disk::table::{self, DiskTable};
use flashmob::io::image::folder::ImageFolder;
use flashmob::layout::plan::{DiskFacts, LayoutPlan};
use flashmob::manifest::{Entry, TrustedManifest};
use flashmob::units::{DiskOffset, SectorSize};
use flashmob_testkit::child::command;
use flashmob_testkit::command::{run, run_line};
use flashmob_testkit::loops::LoopDevice;

use super::disks::{MIB, noise};
use super::filesystems::said;
use super::imaging::{beside, serve};
use super::used::image;
use super::{SMALL, capture_as, contents, mkimage, succeed, texts};

/// Number, type, name, first MiB and length in MiB of each partition.
const PARTS: [(u32, &str, &str, u64, u64); 4] = [
    (1, "c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "EFI system partition", 1, 40),
    (2, "e3c9e316-0b5c-4db8-817d-f92df00215ae", "Microsoft reserved partition", 41, 16),
    (3, "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "Basic data partition", 57, 96),
    (4, "de94bba4-06d1-4d40-a16a-bfd50179d6ac", "", 153, 24),
];
const GOLDEN: u64 = 178 * MIB;
const LARGER: u64 = 320 * MIB;
/// "Platform required" and "no drive letter", as Windows sets them on its recovery partition.
const RECOVERY: u64 = 0x8000_0000_0000_0001;

/// A golden Windows disk.
struct Golden {
    disk: PathBuf,
    /// Files of the partitions 3 and 4.
    trees: [PathBuf; 2],
}

impl Golden {
    fn new(folder: &Path) -> Self {
        let windows = folder.join("windows");
        let scripts = windows.join("Windows/Setup/Scripts");
        fs::create_dir_all(&scripts).expect("folders");
        fs::create_dir_all(windows.join("Windows/System32/config")).expect("folders");
        fs::write(windows.join("Windows/System32/config/SYSTEM"), noise(21, 400_000)).expect("a file");
        fs::write(windows.join("Windows/System32/ntoskrnl.exe"), noise(22, 5_000_000)).expect("a file");
        let helper = folder.join("helper");
        run(beside("flashmob"), &[&"helper", &helper]);
        for file in ["flashmob-first-start.ps1", "SetupComplete.cmd"] {
            fs::copy(helper.join("windows").join(file), scripts.join(file)).expect("a script");
        }
        let recovery = folder.join("recovery");
        fs::create_dir_all(recovery.join("Recovery/WindowsRE")).expect("folders");
        fs::write(recovery.join("Recovery/WindowsRE/Winre.wim"), noise(23, 6_000_000)).expect("a file");
        fs::write(recovery.join("Recovery/WindowsRE/ReAgent.xml"), "<WindowsRE/>").expect("a file");

        let disk = image(folder, "golden.img", GOLDEN);
        for (number, kind, name, first, length) in PARTS {
            let new = format!("--new={number}:{}:{}", first * 2048, (first + length) * 2048 - 1);
            let kind = format!("--typecode={number}:{kind}");
            run("sgdisk", &[&new, &kind, &format!("--change-name={number}:{name}"), &disk]);
        }
        run("sgdisk", &[&"--attributes=4:set:0", &"--attributes=4:set:63", &disk]);
        put(&disk, PARTS[0].3, &esp(folder));
        let trees = [windows, recovery];
        for (tree, part) in trees.iter().zip(&PARTS[2..]) {
            put(&disk, part.3, &ntfs(folder, tree, part.3, part.4));
        }
        Golden { disk, trees }
    }
}

/// Puts a filesystem on a disk, from this MiB on.
pub(crate) fn put(disk: &Path, first: u64, filesystem: &Path) {
    let file = File::options().write(true).open(disk).expect("the disk");
    file.write_all_at(&fs::read(filesystem).expect("a filesystem"), first * MIB).expect("written");
}

fn esp(folder: &Path) -> PathBuf {
    let esp = image(folder, "esp", PARTS[0].4 * MIB);
    run("mkfs.vfat", &[&"-F", &"32", &"-n", &"SYSTEM", &esp]);
    let loader = folder.join("bootmgfw.efi");
    fs::write(&loader, noise(24, 1_500_000)).expect("a loader");
    for directory in ["EFI", "EFI/Boot", "EFI/Microsoft", "EFI/Microsoft/Boot"] {
        run("mmd", &[&"-i", &esp, &format!("::{directory}")]);
    }
    for file in ["EFI/Boot/bootx64.efi", "EFI/Microsoft/Boot/bootmgfw.efi", "EFI/Microsoft/Boot/BCD"] {
        run("mcopy", &[&"-i", &esp, &loader, &format!("::{file}")]);
    }
    esp
}

/// An NTFS with the files of `tree`, for a partition that begins at this MiB.
fn ntfs(folder: &Path, tree: &Path, first: u64, length: u64) -> PathBuf {
    let filesystem = image(folder, "ntfs", length * MIB);
    let start = (first * 2048).to_string();
    let geometry: [&dyn AsRef<std::ffi::OsStr>; 6] = [&"-p", &start, &"-H", &"255", &"-S", &"63"];
    run("mkntfs", &[&[&"-q" as &dyn AsRef<_>, &"-F", &"-Q"][..], &geometry, &[&filesystem]].concat());
    let mounted = Mounted::new(&filesystem, "rw");
    for entry in fs::read_dir(tree).expect("a folder") {
        run("cp", &[&"-r", &entry.expect("an entry").path(), &mounted.0.path()]);
    }
    drop(mounted);
    filesystem
}

/// An NTFS that ntfs-3g shows.
pub(crate) struct Mounted(tempfile::TempDir);

impl Mounted {
    pub(crate) fn new(filesystem: &Path, mode: &str) -> Self {
        let mounted = Mounted(tempfile::tempdir().expect("a folder"));
        run("ntfs-3g", &[&"-o", &mode, &filesystem, &mounted.0.path()]);
        mounted
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        run("umount", &[&self.0.path()]);
    }
}

/// Serves the images in `folder` and writes `lab` to a disk of this size, which had another content.
fn imaged(folder: &Path, size: u64) -> PathBuf {
    let server = serve(None, &folder.join("images"), &folder.join("state"), "127.0.0.1:0");
    let disk = image(folder, "terminal.img", size);
    let file = File::options().write(true).open(&disk).expect("the disk");
    (0..8).for_each(|i| file.write_all_at(&noise(9, 1 << 20), i * size / 8).expect("old content"));
    let device = LoopDevice::over(&disk, &[]);
    let mut agent = command(None, beside("flashmob-agent"));
    agent.args(["--server", &server.url, "--insecure", "--listen", "127.0.0.1:0", "--image", "lab"]);
    succeed(&agent.arg("--disk").arg(device.path()).output().expect("it starts"));
    disk
}

fn table_of(disk: &Path) -> DiskTable {
    let file = File::open(disk).expect("a disk");
    let size = file.metadata().expect("a file").len();
    table::read(&mut &file, size, SectorSize::DEFAULT).expect("read").expect("a table")
}

/// Number, first MiB and length in MiB of each partition.
fn places(table: &DiskTable) -> Vec<(u32, u64, u64)> {
    table.partitions.iter().map(|p| (p.number, p.first.0 / 2048, p.size / MIB)).collect()
}

/// Checks a terminal's disk with the usual tools, and the files of Windows and its recovery.
fn check(golden: &Golden, disk: &Path) {
    let verified = run_line("sgdisk", &format!("--verify {}", disk.display()));
    assert!(verified.contains("No problems found"), "{verified}");
    let recovery = run_line("sgdisk", &format!("--info=4 {}", disk.display()));
    assert!(recovery.contains("Attribute flags: 8000000000000001"), "{recovery}");
    let (ours, theirs) = (table_of(disk), table_of(&golden.disk));
    assert_eq!(ours.table, theirs.table, "the disk's GUID");
    let entries = |table: DiskTable| table.partitions.into_iter().map(|p| p.entry).collect::<Vec<_>>();
    let parts = ours.partitions.clone();
    let sizes = ours.partitions.iter().zip(&theirs.partitions).map(|(a, b)| a.size.min(b.size));
    let sizes: Vec<u64> = sizes.collect();
    assert_eq!(entries(ours), entries(theirs), "types, GUIDs, attributes and names");
    // The filesystem of a partition that was grown is as large as the golden one until it grows itself.
    let part = |i: usize| LoopDevice::part(disk, parts[i].first.0 * 512, sizes[i]);
    run("fsck.fat", &[&"-n", &part(0)]);
    for (tree, i) in golden.trees.iter().zip(2..) {
        let device = part(i);
        let checked = said("ntfsresize", &["--info", "--no-progress-bar"], device.path());
        assert!(!checked.contains("scheduled for check"), "{checked}");
        run("ntfsfix", &[&"-n", &device]);
        let mounted = Mounted::new(device.path(), "ro");
        assert!(contents(mounted.0.path()) == contents(tree), "files of partition {} differ", i + 1);
    }
}

#[test]
fn a_windows_disk_arrives_on_a_larger_one_with_its_recovery_partition_at_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let golden = Golden::new(folder);
    let options = [&SMALL[..], &[&"--grow"]].concat();
    succeed(&capture_as("lab@1", &golden.disk, folder.join("images"), &options));
    let image = folder.join("images/lab/1");
    let disk = imaged(folder, LARGER);
    let gain = (LARGER - GOLDEN) / MIB;
    let expected = PARTS.map(|(number, _, _, first, length)| match number {
        3 => (3, first, length + gain),
        4 => (4, first + gain, length),
        _ => (number, first, length),
    });
    assert_eq!(places(&table_of(&disk)), expected);
    let Entry::Gpt { attributes, .. } = table_of(&disk).partitions[3].entry else { panic!("a GPT") };
    assert_eq!(attributes, RECOVERY);
    check(&golden, &disk);
    succeed(&mkimage(&[&"verify", &image, &"--disk", &disk]));

    // As the agent or Windows lets it grow then.
    let p = &table_of(&disk).partitions[2];
    let device = LoopDevice::part(&disk, p.first.0 * 512, p.size);
    run("sh", &[&"-c", &format!("echo y | PATH=$PATH:/sbin ntfsresize {}", device.name())]);
    run("ntfsfix", &[&"-n", &device]);
    let mounted = Mounted::new(device.path(), "ro");
    assert!(contents(mounted.0.path()) == contents(&golden.trees[0]), "files differ after the growth");
}

#[test]
fn a_windows_disk_is_shrunk_before_its_recovery_partition_which_moves() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let golden = Golden::new(folder);
    let before = fs::read(&golden.disk).expect("the disk");
    let options = [&SMALL[..], &[&"--shrink=8MiB"]].concat();
    let output = capture_as("lab@1", &golden.disk, folder.join("images"), &options);
    succeed(&output);
    let notes = texts(&output).1;
    assert!(
        notes.contains("partition 3 is shrunk from ") && notes.contains("partition 4 behind it"),
        "{notes}"
    );
    assert!(fs::read(&golden.disk).expect("the disk") == before, "the source has changed");
    let size = GOLDEN * 2 / 3;
    let disk = imaged(folder, size);
    let table = table_of(&disk);
    let [_, _, windows, recovery] = &places(&table)[..] else { panic!("four partitions") };
    assert_eq!((windows.0, windows.1, recovery.0, recovery.2), (3, 57, 4, 24));
    assert!(windows.2 < 96 && windows.1 + windows.2 == recovery.1, "{windows:?} {recovery:?}");
    check(&golden, &disk);
    succeed(&mkimage(&[&"verify", &folder.join("images/lab/1"), &"--disk", &disk]));
    // Boot code for BIOS finds a volume by the sectors before it, which both boot sectors name.
    let mut hidden = [0; 4];
    let file = File::open(&disk).expect("the disk");
    let first = recovery.1 * MIB;
    for at in [first, first + 24 * MIB - 512] {
        file.read_exact_at(&mut hidden, at + 28).expect("read");
        assert_eq!(u64::from(u32::from_le_bytes(hidden)), recovery.1 * 2048);
    }
}

#[test]
fn the_firmware_gets_one_entry_for_the_windows_boot_manager() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let golden = Golden::new(folder);
    let options = [&SMALL[..], &[&"--grow"]].concat();
    succeed(&capture_as("lab@1", &golden.disk, folder.join("images"), &options));
    let found = ImageFolder::open(&folder.join("images/lab/1")).expect("an image");
    let trusted = TrustedManifest::insecure(&found.manifest().to_bytes()).expect("a manifest");
    let boot = fs::read(folder.join("images/lab/1/boot.bin")).expect("boot areas");
    let facts = DiskFacts {
        name: "vda".into(),
        size: LARGER,
        sector: SectorSize::DEFAULT,
        table: Err("it is empty".into()),
        backup_gpt: None,
    };
    let plan = LayoutPlan::new(&trusted, &boot, &facts, LayoutMode::WholeDisk, None).expect("it fits");
    let Entry::Gpt { guid, .. } = table_of(&golden.disk).partitions[0].entry else { panic!("a GPT") };
    let [entry] = &entries::wanted(&plan)[..] else { panic!("{:?}", entries::wanted(&plan)) };
    assert_eq!(entry.label, "Windows Boot Manager");
    assert_eq!(entry.path.to_ascii_lowercase(), "\\efi\\microsoft\\boot\\bootmgfw.efi");
    assert_eq!((entry.partition, entry.first, entry.sectors), (1, 2048, 40 * 2048));
    assert_eq!(entry.id, PartitionId::Gpt(guid));
    assert_eq!(plan.place(4).map(|place| place.start), Some(DiskOffset(295 * MIB)));
}
