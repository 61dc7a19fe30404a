//! An image onto loop devices, step by step without a network: the content after each step, and the findings
//! when the medium, the power or the disk's owner interferes.

use std::sync::Arc;

use crate::api::LayoutMode;
use crate::bitfield::Bitfield;
use crate::event::{Class, Failure};
use crate::io::disk::claim::{ClaimedDisk, claim};
use crate::io::disk::commit::commit;
use crate::io::disk::disarm::disarm;
use crate::io::disk::readback::{Finding, Known, Readback};
use crate::io::disk::table;
use crate::io::disk::target::ImageStorage;
use crate::layout::plan::LayoutPlan;
use crate::manifest::{Manifest, Policy, TrustedManifest};
use crate::storage::Storage;
use crate::testkit::disks::*;
use crate::testkit::images::*;
use crate::testkit::programs::{run, run_patiently, unmount};
use crate::units::{PieceIndex, SectorSize};

const PIECE: u32 = 256 << 10;

fn plan(claim: &ClaimedDisk, image: &TestImage, mode: LayoutMode) -> Result<LayoutPlan, Failure> {
    let trusted = TrustedManifest::insecure(&image.manifest.to_bytes()).expect("consistent");
    LayoutPlan::new(&trusted, &image.boot, claim.facts(), mode, None)
}

fn disarmed(disk: &LoopDisk, image: &TestImage, mode: LayoutMode) -> Arc<ImageStorage> {
    let replaced: Vec<u32> = image.manifest.partitions.iter().map(|p| p.number).collect();
    let claimed = claim(&disk.info(), mode, &replaced).expect("free");
    let plan = plan(&claimed, image, mode).expect("it fits");
    let disarmed = disarm(claimed, plan).expect("wiped");
    Arc::new(ImageStorage::new(disarmed, Arc::clone(&image.grid)))
}

fn fill(storage: &ImageStorage, image: &TestImage) {
    for (i, piece) in image.payload.chunks(PIECE as usize).enumerate().rev() {
        storage.write_at(i as u64 * u64::from(PIECE), piece).expect("written");
    }
    storage.write_zeros(&nothing(storage).zeros, |_| true).expect("zeroed");
}

fn nothing(storage: &ImageStorage) -> Known {
    let zeros = u32::try_from(storage.zero_cells().count()).expect("few");
    Known { pieces: Bitfield::none(storage.grid().pieces()), zeros: Bitfield::none(zeros), writes: 0 }
}

fn read_back(storage: &Arc<ImageStorage>, image: &TestImage, lenient: bool) -> Result<Finding, Failure> {
    let readback = Readback::start(Arc::clone(storage), image.hashes.clone(), nothing(storage), 0, lenient);
    readback.expect("a thread").finish()
}

fn finish(storage: &Arc<ImageStorage>, image: &TestImage) -> Result<(), Failure> {
    let Finding::Right(verified) = read_back(storage, image, false)? else { panic!("wrong pieces end it") };
    let (committed, _warning) = commit(verified)?;
    // Served pieces now come from the disk.
    let mut payload = vec![0u8; image.payload.len()];
    committed.storage().read_at(0, &mut payload).expect("read");
    assert!(payload == image.payload, "the payload can be served from the disk");
    Ok(())
}

fn keep_all(_: &mut Manifest) {}

#[test]
fn a_gpt_disk_comes_back_on_a_larger_disk_with_both_tables_valid() {
    for sector in [512, 4096] {
        let source = gpt_source(sector);
        let image = image_of(&source, sector, PIECE, keep_all);
        let disk = LoopDisk::used(32 << 20, sector);
        let storage = disarmed(&disk, &image, LayoutMode::WholeDisk);
        fill(&storage, &image);
        let esp = 2 << 20;
        assert_eq!(disk.bytes()[esp..esp + PIECE as usize], vec![0; PIECE as usize], "heads are held back");
        finish(&storage, &image).expect("right");
        drop(storage);
        let after = disk.bytes();
        image.assert_on(&after, &source);
        let size = SectorSize::new(sector).expect("a size");
        let read = |bytes: &[u8]| {
            let mut cursor = std::io::Cursor::new(bytes);
            table::read(&mut cursor, bytes.len() as u64, size).expect("sound").expect("a table")
        };
        let (was, is) = (read(&source), read(&after));
        assert_eq!((is.table, is.partitions), (was.table, was.partitions));
        assert_eq!(is.remarks, [], "the backup is at the end of the larger disk");
        let said = run("sgdisk", &["-v", &disk.path]);
        assert!(said.contains("No problems found"), "{said}");
        let original = LoopDisk::of(&source, sector);
        for number in ["1", "2", "4"] {
            let info = |disk: &LoopDisk| run("sgdisk", &["-i", number, &disk.path]);
            assert_eq!(info(&original), info(&disk), "partition {number}");
        }
    }
}

#[test]
fn an_mbr_disk_comes_back_with_logical_partitions_signature_and_boot_code() {
    let source = mbr_source();
    let image = image_of(&source, 512, PIECE, keep_all);
    let disk = LoopDisk::used(32 << 20, 512);
    let storage = disarmed(&disk, &image, LayoutMode::WholeDisk);
    fill(&storage, &image);
    finish(&storage, &image).expect("right");
    drop(storage);
    let after = disk.bytes();
    image.assert_on(&after, &source);
    let dump = |disk: &LoopDisk| run("sfdisk", &["--dump", &disk.path]).replace(&disk.path, "DISK");
    assert_eq!(dump(&LoopDisk::of(&source, 512)), dump(&disk));
    assert_eq!(after[..512], source[..512], "the first sector, cylinder, head and sector numbers included");
}

#[test]
fn a_kept_partition_and_the_table_are_not_touched() {
    let source = gpt_source(512);
    let image = image_of(&source, 512, PIECE, |manifest| manifest.partitions[1].policy = Policy::Keep);
    let mut other = source.clone();
    other[2 << 20..23 << 20].iter_mut().for_each(|byte| *byte ^= 0x55);
    let disk = LoopDisk::of(&other, 512);
    let storage = disarmed(&disk, &image, LayoutMode::Keep);
    assert_eq!(disk.bytes()[6 << 20..7 << 20], vec![0; 1 << 20], "the replaced partition starts nothing");
    fill(&storage, &image);
    finish(&storage, &image).expect("right");
    drop(storage);
    let after = disk.bytes();
    image.assert_on(&after, &source);
    assert!(after[2 << 20..6 << 20] == other[2 << 20..6 << 20], "the kept partition");
    assert!(after[512..34 * 512] == source[512..34 * 512], "the table");
}

#[test]
fn after_a_disarm_nothing_can_be_started_and_a_second_run_finishes() {
    let source = gpt_source(512);
    let image = image_of(&source, 512, PIECE, keep_all);
    // The disk had another bootable system, whose ESP is at the same place.
    let disk = LoopDisk::of(&gpt_source(512), 512);
    let storage = disarmed(&disk, &image, LayoutMode::WholeDisk);
    fill(&storage, &image);
    drop(storage);
    let half = disk.bytes();
    let mut cursor = std::io::Cursor::new(&half);
    assert!(table::read(&mut cursor, half.len() as u64, SectorSize::DEFAULT).expect("readable").is_none());
    assert!(half[..1 << 20].iter().all(|byte| *byte == 0), "no boot code, MBR or GPT");
    assert!(half[23 << 20..].iter().all(|byte| *byte == 0), "no backup GPT");
    assert!(half[2 << 20..(2 << 20) + PIECE as usize].iter().all(|byte| *byte == 0), "no head of an ESP");
    let storage = disarmed(&disk, &image, LayoutMode::WholeDisk);
    fill(&storage, &image);
    finish(&storage, &image).expect("right");
    drop(storage);
    let after = disk.bytes();
    assert_eq!((0..source.len()).find(|at| after[*at] != source[*at]), None, "the very same disk");
}

#[test]
fn what_changes_on_the_medium_after_the_write_is_found_and_not_committed() {
    let source = gpt_source(512);
    let image = image_of(&source, 512, PIECE, keep_all);
    // In a travelling piece, in its last sector, in a piece of zeros.
    for (at, what) in [(3 << 20, "partition 2"), ((23 << 20) - 1537, "partition 4"), (17 << 20, "zeros")] {
        let disk = LoopDisk::used(24 << 20, 512);
        let storage = disarmed(&disk, &image, LayoutMode::WholeDisk);
        fill(&storage, &image);
        storage.sync().expect("synced");
        disk.corrupt(at);
        let failure = finish(&storage, &image).expect_err("it was changed");
        assert_eq!(failure.class, Class::Disk);
        assert!(
            failure.message.contains(what) && failure.message.contains(&disk.path),
            "{}",
            failure.message
        );
        assert!(failure.message.contains("sector"), "{}", failure.message);
        drop(storage);
        assert!(disk.bytes()[..1 << 20].iter().all(|byte| *byte == 0), "nothing was committed");
    }
}

#[test]
fn pieces_that_nobody_checked_are_named_when_they_are_wrong() {
    let source = gpt_source(512);
    let image = image_of(&source, 512, PIECE, keep_all);
    let disk = LoopDisk::used(24 << 20, 512);
    let storage = disarmed(&disk, &image, LayoutMode::WholeDisk);
    fill(&storage, &image);
    for piece in [0, 3] {
        let wrong = vec![0x77; PIECE as usize];
        storage.write_at(piece * u64::from(PIECE), &wrong).expect("written");
    }
    // Pieces written twice are read twice: the storage returns the last content.
    let Ok(Finding::Wrong(wrong)) = read_back(&storage, &image, true) else { panic!("two are wrong") };
    assert_eq!(wrong.iter().collect::<Vec<_>>(), [PieceIndex(0), PieceIndex(3)]);
}

#[test]
fn only_free_cells_are_discarded_beside_an_image_and_all_of_it_before_one_and_never_what_was_wiped() {
    use crate::io::disk::discard::{Discard, discard};
    use crate::layout::extents::{Extents, RangeKind};
    use crate::layout::grid::Grid;
    let source = gpt_source(512);
    let mut image = image_of(&source, 512, PIECE, keep_all);
    // Zero cells of the test's image are free in this one.
    let free = |partition: usize| {
        let runs = image.grid.runs(partition).iter().copied();
        runs.map(|mut run| {
            run.kind = if run.kind == RangeKind::Zero { RangeKind::Free } else { run.kind };
            run
        })
        .collect()
    };
    let extents = Extents { partitions: (0..3).map(free).collect() };
    for partition in &mut image.manifest.partitions {
        let zero = std::mem::take(&mut partition.pieces.zero);
        partition.pieces.free = zero;
    }
    image.grid = Arc::new(Grid::new(&image.manifest, extents).expect("they agree"));
    for (what, gone) in [(Discard::Free, false), (Discard::All, true)] {
        let disk = LoopDisk::used(24 << 20, 512);
        let storage = disarmed(&disk, &image, LayoutMode::WholeDisk);
        let taken = discard(&storage, what, || true);
        let after = disk.bytes();
        // A loop device returns zeros for discarded ranges; the disk was 0xaa. 12 MiB into it all cells are
        // free.
        assert_eq!(after[(12 << 20)..(13 << 20)], vec![0; 1 << 20]);
        assert_eq!(after[21 << 20] == 0, gone, "{what:?}: there is data of the image");
        let wiped: u64 = storage.plan().wipes().iter().map(|wipe| wipe.end - wipe.start).sum();
        let all: u64 = storage.plan().places().iter().map(|place| place.size).sum();
        assert!(taken > 0 && taken <= all - (wiped - (2 << 20)), "{what:?}: {taken}");
        assert_eq!(gone, taken == all - (wiped - (2 << 20)), "{what:?}: {taken}");
    }
}

#[test]
fn a_piece_that_was_never_written_is_found() {
    let source = gpt_source(512);
    let image = image_of(&source, 512, PIECE, keep_all);
    let disk = LoopDisk::used(24 << 20, 512);
    let storage = disarmed(&disk, &image, LayoutMode::WholeDisk);
    for (i, piece) in image.payload.chunks(PIECE as usize).enumerate().skip(1) {
        storage.write_at(i as u64 * u64::from(PIECE), piece).expect("written");
    }
    storage.write_zeros(&nothing(&storage).zeros, |_| true).expect("zeroed");
    let failure = finish(&storage, &image).expect_err("one is missing");
    assert!(failure.message.contains("not all pieces"), "{}", failure.message);
}

#[test]
fn a_disk_that_somebody_uses_is_refused_with_who_it_is() {
    let disk = LoopDisk::of(&vec![0; 24 << 20], 512);
    let first = claim(&disk.info(), LayoutMode::WholeDisk, &[]).expect("free");
    let held = claim(&disk.info(), LayoutMode::WholeDisk, &[]).expect_err("held");
    assert_eq!(held.class, Class::Refused);
    assert!(held.message.contains(&disk.path), "{}", held.message);
    drop(first);
    run_patiently("mkfs.ext4", &["-q", &disk.path]);
    let at = tempfile::tempdir().expect("a folder");
    let at = at.path().to_str().expect("text");
    run_patiently("mount", &[&disk.path, at]);
    let mounted = claim(&disk.info(), LayoutMode::WholeDisk, &[]);
    unmount(at);
    let mounted = mounted.expect_err("mounted");
    assert_eq!(mounted.class, Class::Refused);
    assert!(mounted.message.contains(&format!("mounted on {at}")), "{}", mounted.message);
    claim(&disk.info(), LayoutMode::WholeDisk, &[]).expect("free again");
}

#[test]
fn a_disk_that_refuses_a_write_is_a_failure_of_the_disk() {
    let source = gpt_source(512);
    let image = image_of(&source, 512, PIECE, keep_all);
    // The device's medium ends early: its file lies on a filesystem with less room than the disk has bytes.
    let dir = tempfile::tempdir().expect("a folder");
    let at = dir.path().join("small");
    std::fs::create_dir(&at).expect("a folder");
    let mount = at.to_str().expect("text").to_string();
    run("mount", &["-t", "tmpfs", "-o", "size=4m", "tmpfs", &mount]);
    let file = at.join("disk.img");
    std::fs::File::create(&file).and_then(|f| f.set_len(24 << 20)).expect("a sparse file");
    let disk = LoopDisk::on(dir, file, 512);
    let outcome = (|| {
        let claimed = claim(&disk.info(), LayoutMode::WholeDisk, &[])?;
        let planned = plan(&claimed, &image, LayoutMode::WholeDisk)?;
        disarm(claimed, planned).map(|disarmed| ImageStorage::new(disarmed, Arc::clone(&image.grid)))
    })();
    let failure = match outcome {
        Ok(storage) => {
            let mut pieces = image.payload.chunks(PIECE as usize).enumerate();
            let error =
                pieces.find_map(|(i, piece)| storage.write_at(i as u64 * u64::from(PIECE), piece).err());
            crate::io::disk::disarm::disk_failed(&error.expect("there is no room for all pieces"))
        }
        Err(failure) => failure,
    };
    drop(disk);
    unmount(&mount);
    assert_eq!(failure.class, Class::Disk);
    assert!(
        failure.message.contains("writing") || failure.message.contains("syncing"),
        "{}",
        failure.message
    );
}

#[test]
fn while_other_partitions_are_mounted_only_those_that_are_kept_may_be() {
    let disk = LoopDisk::of(&gpt_source(512), 512);
    let node = format!("{}p4", disk.path);
    run("partx", &["--add", &disk.path]);
    run("mkfs.ext4", &["-q", "-F", &node]);
    let at = tempfile::tempdir().expect("a folder");
    let at = at.path().to_str().expect("text");
    run_patiently("mount", &[&node, at]);
    let whole = claim(&disk.info(), LayoutMode::WholeDisk, &[2]).map(|_| ());
    let mounted = claim(&disk.info(), LayoutMode::Keep, &[2, 4]).map(|_| ());
    let missing = claim(&disk.info(), LayoutMode::Keep, &[3]).map(|_| ());
    let kept = claim(&disk.info(), LayoutMode::Keep, &[2]);
    let twice = claim(&disk.info(), LayoutMode::Keep, &[2]).map(|_| ());
    unmount(at);
    let facts = kept.as_ref().map(|claimed| claimed.facts().table.is_ok());
    assert_eq!(facts, Ok(true));
    drop(kept);
    disk.forget_partitions();
    for refused in [whole, mounted, twice, missing] {
        assert_eq!(refused.as_ref().map_err(|f| f.class), Err(Class::Refused), "{refused:?}");
    }
}

#[test]
fn boot_entries_name_the_partition_as_the_disk_has_it() {
    use crate::boot::entries::wanted;
    use crate::boot::option::PartitionId;
    use crate::manifest::{Entry, UefiLoader};
    let source = gpt_source(512);
    let image = image_of(&source, 512, PIECE, |manifest| {
        let loader =
            |path: &str, label: &str| UefiLoader { partition: 2, path: path.into(), label: label.into() };
        manifest.boot.uefi =
            vec![loader("/EFI/debian/shimx64.efi", "debian"), loader("/EFI/BOOT/BOOTX64.EFI", "fallback")];
    });
    let disk = LoopDisk::used(24 << 20, 512);
    let claimed = claim(&disk.info(), LayoutMode::WholeDisk, &[]).expect("free");
    let options = wanted(&plan(&claimed, &image, LayoutMode::WholeDisk).expect("it fits"));
    let Entry::Gpt { guid, .. } = image.manifest.partition(2).expect("the ESP").entry else {
        panic!("a GPT")
    };
    let [option] = options.as_slice() else { panic!("one entry, and none for the fallback: {options:?}") };
    assert_eq!((option.label.as_str(), option.path.as_str()), ("debian", "\\EFI\\debian\\shimx64.efi"));
    assert_eq!((option.id, option.partition), (PartitionId::Gpt(guid), 2));
    assert_eq!((option.first, option.sectors), (4096, 8192));
}
