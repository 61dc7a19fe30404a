//! Plans and refusals, with handmade and random manifests and disks.

use super::*;
use crate::event::Class;
use crate::layout::table::gpt_entry_sectors;
use crate::manifest::{BootArea, Extended};
use crate::manifest::{BootAreaKind, Entry};
use crate::testkit::manifests::*;
use crate::units::{DiskOffset, Lba, SectorSize};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn refusal(manifest: &Manifest, disk: &DiskFacts, mode: LayoutMode) -> String {
    let failure = plan(manifest, disk, mode).expect_err("a refusal");
    assert_eq!(failure.class, Class::Refused);
    assert!(!failure.advice.is_empty());
    failure.message
}

#[test]
fn a_whole_disk_gets_its_table_at_its_own_ends_and_loses_what_was_bootable() {
    let mut disk = empty_disk(64 * MIB);
    disk.backup_gpt = Some(Lba(40 * MIB / 512));
    let plan = plan(&gpt_manifest(), &disk, LayoutMode::WholeDisk).expect("it fits");
    let starts: Vec<_> = plan.places().iter().map(|p| (p.number, p.start.0, p.held)).collect();
    assert_eq!(starts, [(1, MIB, MIB), (3, 4 * MIB, MIB)]);
    assert_eq!(plan.table().last().expect("three").what, "the protective MBR");
    assert_eq!(plan.table()[0].end(), 64 * MIB);
    let tail = 11 * MIB..12 * MIB;
    assert_eq!(
        plan.wipes(),
        [0..2 * MIB, 4 * MIB..5 * MIB, tail, 40 * MIB..40 * MIB + 512, 63 * MIB..64 * MIB]
    );
}

#[test]
fn a_kept_table_is_not_written_and_only_replaced_heads_and_tails_are_wiped() {
    let mut manifest = gpt_manifest();
    manifest.partitions[0].policy = Policy::Keep;
    let plan = plan(&manifest, &same_disk(&manifest, 64 * MIB), LayoutMode::Keep).expect("it matches");
    assert!(plan.table().is_empty());
    assert_eq!(plan.wipes(), [4 * MIB..5 * MIB, 11 * MIB..12 * MIB]);
    assert_eq!(plan.place(1).map(|p| (p.replaced, p.held)), Some((false, 0)));
    assert_eq!(plan.place(3).and_then(|p| p.guid), Some(Uuid::from_u128(103)));
    let whole = refusal(&manifest, &empty_disk(64 * MIB), LayoutMode::WholeDisk);
    assert!(whole.contains("keeps partition 1"), "{whole}");
}

#[test]
fn each_way_a_kept_partition_can_differ_is_refused_with_what_differs() {
    let manifest = gpt_manifest();
    let disk = |change: &dyn Fn(&mut Vec<ExistingPartition>)| {
        let mut disk = same_disk(&manifest, 64 * MIB);
        change(&mut disk.table.as_mut().expect("a table").partitions);
        refusal(&manifest, &disk, LayoutMode::Keep)
    };
    assert!(
        disk(&|p| p[1].number = 2).contains("partition 3 of sdx does not match the image's: it is not there")
    );
    assert!(disk(&|p| p[0].first = Lba(2049)).contains("begins at sector 2049, not 2048"));
    assert!(disk(&|p| p[1].size -= 512).contains("8388096 bytes, not 8388608"));
    let other = Entry::Gpt { kind: Uuid::nil(), guid: Uuid::nil(), attributes: 0, name: String::new() };
    assert!(disk(&|p| p[0].entry = other.clone()).contains("its type is 00000000"));
    assert!(disk(&|p| p[0].entry = Entry::Mbr { kind: 7, active: false, ebr: None }).contains("07 (MBR)"));
    let nothing = refusal(&manifest, &empty_disk(64 * MIB), LayoutMode::Keep);
    assert!(nothing.contains("there is none"), "{nothing}");
}

#[test]
fn disks_that_are_too_small_or_have_other_sectors_are_refused() {
    let manifest = gpt_manifest();
    let small = refusal(&manifest, &empty_disk(20 * MIB - 512), LayoutMode::WholeDisk);
    assert!(small.contains("needs a disk of 20971520 bytes"), "{small}");
    assert!(small.ends_with("has 20971008 bytes: 512 bytes too few"), "{small}");
    let other = DiskFacts { sector: SectorSize::new(4096).expect("4096"), ..empty_disk(64 * MIB) };
    assert!(refusal(&manifest, &other, LayoutMode::WholeDisk).contains("sectors of 4096 bytes"));
    // A manifest that promises too much: its last partition leaves no room for the backup GPT.
    let partitions = vec![gpt_partition(1, 2048, 15 * MIB, 512)];
    let tight = self::manifest(gpt_table(), partitions, 16 * MIB, 512);
    assert!(refusal(&tight, &empty_disk(16 * MIB), LayoutMode::WholeDisk).contains("overlap"));
    assert!(plan(&tight, &empty_disk(16 * MIB + 33 * 512), LayoutMode::WholeDisk).is_ok());
}

#[test]
fn tables_that_cannot_be_written_are_refused() {
    let gpt = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = gpt_manifest();
        change(&mut manifest);
        refusal(&manifest, &empty_disk(64 * MIB), LayoutMode::WholeDisk)
    };
    assert!(gpt(&|m| m.partitions[1].number = 129).contains("partition 129 in a table of 128"));
    assert!(gpt(&|m| m.partitions[0].first = Lba(33)).contains("begins before sector 34"));
    assert!(
        gpt(&|m| m.disk.table = Table::Gpt { guid: Uuid::nil(), entries: 128, first_usable: Lba(33) })
            .contains("sector 33 may not be used")
    );
    let name = "x".repeat(37);
    assert!(
        gpt(&move |m| m.partitions[0].entry =
            Entry::Gpt { kind: Uuid::nil(), guid: Uuid::nil(), attributes: 0, name: name.clone() })
        .contains("too long")
    );
    let extended = Extended { number: 2, kind: 5, first: Lba(4096), sectors: 20480 };
    let mbr = |extended: Vec<Extended>, partitions: Vec<Partition>| {
        let table = Table::Mbr { signature: [1, 2, 3, 4], extended };
        let manifest = self::manifest(table, partitions, 64 * MIB, 512);
        refusal(&manifest, &empty_disk(64 * MIB), LayoutMode::WholeDisk)
    };
    assert!(mbr(vec![], vec![mbr_partition(5, 6144, MIB, Some(4096))]).contains("outside the extended"));
    assert!(
        mbr(vec![extended.clone()], vec![mbr_partition(6, 6144, MIB, Some(4096))])
            .contains("count up from 5")
    );
    assert!(mbr(vec![extended.clone()], vec![mbr_partition(2, 32768, MIB, None)]).contains("[2, 2]"));
    assert!(mbr(vec![], vec![mbr_partition(5, 2048, MIB, None)]).contains("[5]"));
}

#[test]
fn boot_areas_may_lie_on_nothing_else() {
    let area = |kind, offset, length| BootArea { kind, offset: DiskOffset(offset), length, at: 0 };
    let with = |areas: Vec<BootArea>, mode| {
        let mut manifest = gpt_manifest();
        manifest.disk.boot_areas = areas;
        manifest.disk.minimum_size = 64 * MIB;
        plan(&manifest, &same_disk(&manifest, 64 * MIB), mode)
    };
    let good = vec![area(BootAreaKind::BootCode, 0, 440), area(BootAreaKind::Gap, 34 * 512, 2048)];
    for mode in [LayoutMode::WholeDisk, LayoutMode::Keep] {
        let plan = with(good.clone(), mode).expect("outside of everything");
        let kinds: Vec<_> = plan.areas().iter().map(|a| (a.kind, a.bytes.len())).collect();
        assert_eq!(kinds, [(BootAreaKind::Gap, 2048), (BootAreaKind::BootCode, 440)]);
        for bad in [
            area(BootAreaKind::Gap, MIB - 512, 1024),
            area(BootAreaKind::Gap, 512, 512),
            area(BootAreaKind::Gap, 34 * 512 + 1, 511),
            area(BootAreaKind::Gap, 64 * MIB - 512, 512),
            area(BootAreaKind::BootCode, 0, 446),
            area(BootAreaKind::BootCode, 512, 440),
            area(BootAreaKind::Gap, 34 * 512, 8192),
        ] {
            let failure = with(vec![bad.clone()], mode).map(|plan| plan.areas().to_vec());
            assert_eq!(failure.expect_err("refused").class, Class::Refused, "{mode:?} {bad:?}");
        }
    }
}

proptest! {
    #[test]
    fn plans_never_overlap_and_never_leave_the_disk(
        parts in proptest::collection::vec((0u64..5000, 1u64..40_000), 1..6),
        sectors in 100u64..200_000, four_k in any::<bool>(), gpt in any::<bool>(), backup in any::<u64>(),
    ) {
        let sector = if four_k { 4096 } else { 512 };
        let mut next = 1;
        let partitions: Vec<Partition> = (1u32..).zip(&parts).map(|(number, (gap, length))| {
            let first = next + gap;
            next = first + length;
            let size = length * u64::from(sector);
            if gpt { gpt_partition(number, first, size, sector) } else {
                Partition { size, pieces: gpt_partition(number, first, size, sector).pieces,
                            ..mbr_partition(number, first, 512, None) }
            }
        }).collect();
        let table = if gpt { gpt_table() } else { Table::Mbr { signature: [0; 4], extended: vec![] } };
        let minimum = next * u64::from(sector);
        let manifest = manifest(table, partitions, minimum, sector);
        let disk = DiskFacts {
            size: sectors * u64::from(sector),
            sector: SectorSize::new(sector).expect("a size"),
            backup_gpt: Some(Lba(backup)),
            ..empty_disk(0)
        };
        match plan(&manifest, &disk, LayoutMode::WholeDisk) {
            Ok(plan) => {
                let mut taken: Vec<(u64, u64)> = plan.places().iter().map(|p| (p.start.0, p.end())).collect();
                taken.extend(plan.table().iter().map(|w| (w.offset.0, w.end())));
                taken.sort_unstable();
                prop_assert!(taken.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{taken:?}");
                prop_assert!(taken.iter().all(|(_, end)| *end <= disk.size));
                prop_assert!(plan.wipes().iter().all(|w| w.start < w.end && w.end <= disk.size));
                prop_assert!(plan.wipes().windows(2).all(|pair| pair[0].end < pair[1].start));
                for place in plan.places() {
                    prop_assert!(plan.wipes().iter().any(|w| w.start <= place.start.0
                        && place.start.0 + place.held <= w.end));
                    let tail = place.end() - TAIL.min(place.size)..place.end();
                    prop_assert!(plan.wipes().iter().any(|w| w.start <= tail.start && tail.end <= w.end));
                }
            }
            Err(failure) => {
                prop_assert_eq!(failure.class, Class::Refused);
                let array = gpt_entry_sectors(128, disk.sector);
                let fits = disk.size >= minimum && if gpt {
                    next + array < sectors && manifest.partitions[0].first.0 >= 34 && !(four_k
                        && 34 < 2 + array)
                } else { manifest.partitions.len() <= 4 };
                prop_assert!(!fits, "{}", failure.message);
            }
        }
    }
}

fn chosen(manifest: &Manifest, mode: LayoutMode, only: &[u32]) -> Result<LayoutPlan, Failure> {
    let trusted = TrustedManifest::insecure(&manifest.to_bytes()).expect("a consistent manifest");
    LayoutPlan::new(&trusted, &[0x11; 4096], &same_disk(manifest, 64 * MIB), mode, Some(only))
}

#[test]
fn partitions_that_are_not_chosen_stay_and_must_be_there() {
    let mut manifest = gpt_manifest();
    let plan = chosen(&manifest, LayoutMode::Keep, &[3]).expect("it fits");
    let places: Vec<_> = plan.places().iter().map(|p| (p.number, p.replaced, p.held)).collect();
    assert_eq!(places, [(1, false, 0), (3, true, MIB)]);
    assert_eq!(plan.wipes(), [4 * MIB..5 * MIB, 11 * MIB..12 * MIB]);
    let refusal = |manifest: &Manifest, mode, only: &[u32]| {
        let failure = chosen(manifest, mode, only).expect_err("a refusal");
        assert_eq!(failure.class, Class::Refused);
        failure.message
    };
    assert!(refusal(&manifest, LayoutMode::Keep, &[2]).contains("has no partition 2"));
    assert!(refusal(&manifest, LayoutMode::WholeDisk, &[3]).contains("a new table as well"));
    manifest.partitions[0].policy = Policy::Keep;
    assert!(refusal(&manifest, LayoutMode::Keep, &[1]).contains("keeps partition 1"));
}

#[test]
fn boot_code_is_written_with_the_partition_it_leads_to_and_not_without() {
    let mut manifest = gpt_manifest();
    manifest.partitions[0].role = Role::BiosBoot;
    manifest.disk.boot_areas =
        vec![BootArea { kind: BootAreaKind::BootCode, offset: DiskOffset(0), length: 440, at: 0 }];
    let areas = |only: &[u32]| chosen(&manifest, LayoutMode::Keep, only).expect("it fits").areas().len();
    assert_eq!((areas(&[1]), areas(&[3]), areas(&[1, 3])), (1, 0, 1));
}

/// The GPT image on a disk with the same partitions, of which something is called otherwise.
fn kept(manifest: &Manifest, change: &dyn Fn(&mut Existing)) -> Result<LayoutPlan, Failure> {
    let mut disk = same_disk(manifest, 64 * MIB);
    change(disk.table.as_mut().expect("a table"));
    plan(manifest, &disk, LayoutMode::Keep)
}

fn other_guid(existing: &mut Existing) {
    let Entry::Gpt { guid, .. } = &mut existing.partitions[1].entry else { panic!("no GPT") };
    *guid = Uuid::from_u128(5);
}

fn other_disk(existing: &mut Existing) {
    existing.table = Table::Gpt { guid: Uuid::from_u128(6), entries: 128, first_usable: Lba(34) };
}

#[test]
fn a_kept_table_with_the_images_identity_needs_no_warning() {
    let manifest = gpt_manifest();
    let plan = kept(&manifest, &|_| {}).expect("it matches");
    assert_eq!(plan.warnings(), [""; 0]);
    assert_eq!(plan.identity().partitions, [Uuid::from_u128(101), Uuid::from_u128(103)]);
}

#[test]
fn another_identity_of_a_kept_table_is_a_warning_where_nothing_is_known_to_refer_to_it() {
    let manifest = gpt_manifest();
    for change in [other_guid, other_disk] {
        let plan = kept(&manifest, &change).expect("a warning only");
        assert!(
            plan.warnings().len() == 1 && plan.warnings()[0].contains("and not"),
            "{:?}",
            plan.warnings()
        );
    }
    let plan = kept(&manifest, &other_guid).expect("a warning only");
    assert_eq!(plan.identity().partitions, [Uuid::from_u128(101), Uuid::from_u128(5)]);
}

#[test]
fn windows_is_refused_where_it_would_not_find_its_partitions() {
    let loader =
        |path: &str| crate::manifest::UefiLoader { partition: 1, path: path.into(), label: "x".into() };
    let mut manifest = gpt_manifest();
    manifest.partitions[0].role = Role::Esp;
    manifest.partitions[1].filesystem = Some("ntfs".into());
    let bootmgr = "/EFI/Microsoft/Boot/bootmgfw.efi";
    for loaders in [vec![], vec![loader(bootmgr)], vec![loader("/EFI/debian/shimx64.efi"), loader(bootmgr)]] {
        manifest.boot.uefi = loaders;
        for change in [other_guid, other_disk] {
            let refusal = kept(&manifest, &change).expect_err("a refusal");
            assert_eq!(refusal.class, Class::Refused);
            assert!(refusal.message.contains("Windows") && refusal.advice.contains("sgdisk"), "{refusal:?}");
        }
        assert!(kept(&manifest, &|_| {}).is_ok());
    }
    // An NTFS beside another system only, or a Windows of which nothing is written.
    manifest.boot.uefi = vec![loader("/EFI/debian/shimx64.efi")];
    assert!(kept(&manifest, &other_guid).is_ok());
    manifest.boot.uefi = vec![loader(bootmgr)];
    manifest.partitions.push(gpt_partition(4, 32_768, MIB, 512));
    manifest.disk.minimum_size = 32 * MIB;
    for partition in &mut manifest.partitions[..2] {
        partition.policy = Policy::Keep;
    }
    assert_eq!(kept(&manifest, &other_guid).expect("kept").warnings().len(), 1);
}

#[test]
fn windows_on_an_mbr_is_refused_on_a_disk_with_another_signature() {
    let table = |signature| Table::Mbr { signature, extended: Vec::new() };
    let mut partition = mbr_partition(1, 2048, MIB, None);
    partition.filesystem = Some("ntfs".into());
    let mut manifest = manifest(table([1, 2, 3, 4]), vec![partition], 20 * MIB, 512);
    let other = |existing: &mut Existing| existing.table = table([9, 2, 3, 4]);
    let refusal = kept(&manifest, &other).expect_err("a refusal");
    assert!(refusal.message.contains("signature is 04030209 and not 04030201"), "{}", refusal.message);
    manifest.partitions[0].filesystem = Some("ext4".into());
    assert_eq!(kept(&manifest, &other).expect("a warning").warnings().len(), 1);
    manifest.boot.linux = Some(linux("root=PARTUUID=04030201-01 ro"));
    let refusal = kept(&manifest, &other).expect_err("a refusal");
    assert!(refusal.message.contains("PARTUUID"), "{}", refusal.message);
}

fn linux(cmdline: &str) -> crate::manifest::LinuxBoot {
    let partition = if cmdline.contains("PARTUUID=0403") { 1 } else { 3 };
    crate::manifest::LinuxBoot { partition, kernel: "/k".into(), initrd: None, cmdline: cmdline.into() }
}

#[test]
fn a_kernel_that_is_told_partuuid_or_partlabel_finds_its_partition_or_the_job_is_refused() {
    let mut manifest = gpt_manifest();
    let guid = Uuid::from_u128(103).to_string();
    for (cmdline, refused) in [
        (format!("root=PARTUUID={} ro", guid.to_uppercase()), true),
        (format!("root=PARTUUID={guid}/PARTNROFF=1"), true),
        (format!("cryptdevice=PARTUUID={guid}:root root=/dev/mapper/root"), true),
        (format!("root=PARTUUID={}", Uuid::from_u128(101)), false),
        ("root=UUID=1234".to_string(), false),
    ] {
        manifest.boot.linux = Some(linux(&cmdline));
        assert_eq!(kept(&manifest, &other_guid).is_err(), refused, "{cmdline}");
    }
    manifest.boot.linux = Some(linux("root=PARTLABEL=p3"));
    let renamed = |existing: &mut Existing| {
        let Entry::Gpt { name, .. } = &mut existing.partitions[1].entry else { panic!("no GPT") };
        *name = "root".into();
    };
    let refusal = kept(&manifest, &renamed).expect_err("a refusal");
    assert!(refusal.message.contains("named 'root' and not 'p3'"), "{}", refusal.message);
    manifest.boot.linux = None;
    assert_eq!(kept(&manifest, &renamed).expect("names are for people").warnings(), [""; 0]);
}

#[test]
fn boot_code_finds_its_active_partition_in_a_kept_table_or_the_job_is_refused() {
    let table = Table::Mbr { signature: [1, 2, 3, 4], extended: Vec::new() };
    let mut manifest = manifest(table, vec![mbr_partition(1, 2048, MIB, None)], 20 * MIB, 512);
    let passive = |existing: &mut Existing| {
        existing.partitions[0].entry = Entry::Mbr { kind: 0x83, active: false, ebr: None };
    };
    assert!(kept(&manifest, &passive).is_ok(), "there is no boot code");
    manifest.boot.bios = true;
    let refusal = kept(&manifest, &passive).expect_err("a refusal");
    assert!(refusal.message.contains("active flag"), "{}", refusal.message);
    let mut gpt = gpt_manifest();
    gpt.boot.bios = true;
    let Entry::Gpt { attributes, .. } = &mut gpt.partitions[1].entry else { panic!("no GPT") };
    *attributes = 4;
    assert!(kept(&gpt, &|_| {}).is_ok());
    let without = |existing: &mut Existing| {
        let Entry::Gpt { attributes, .. } = &mut existing.partitions[1].entry else { panic!("no GPT") };
        *attributes = 0;
    };
    assert!(kept(&gpt, &without).expect_err("a refusal").advice.contains("sgdisk --attributes=3:set:2"));
}

#[test]
fn bytes_of_the_golden_table_are_written_with_the_table_and_not_in_keep_mode() {
    let mut manifest = gpt_manifest();
    manifest.disk.boot_areas =
        vec![BootArea { kind: BootAreaKind::Table, offset: DiskOffset(444), length: 2, at: 0 }];
    let whole = plan(&manifest, &empty_disk(64 * MIB), LayoutMode::WholeDisk).expect("it fits");
    assert_eq!(whole.table().last().expect("the protective MBR").bytes[444..446], [0x11; 2]);
    assert!(whole.areas().is_empty());
    let kept = plan(&manifest, &same_disk(&manifest, 64 * MIB), LayoutMode::Keep).expect("it matches");
    assert!(kept.table().is_empty() && kept.areas().is_empty());
    manifest.disk.boot_areas[0].offset = DiskOffset(510);
    let refusal = refusal(&manifest, &empty_disk(64 * MIB), LayoutMode::WholeDisk);
    assert!(refusal.contains("say where partitions lie"), "{refusal}");
}

#[test]
fn an_empty_first_logical_partition_is_written() {
    let extended = Extended { number: 2, kind: 5, first: Lba(4096), sectors: 20480 };
    let table = Table::Mbr { signature: [1, 2, 3, 4], extended: vec![extended] };
    let manifest = manifest(table, vec![mbr_partition(5, 10_240, MIB, Some(8192))], 64 * MIB, 512);
    let plan = plan(&manifest, &empty_disk(64 * MIB), LayoutMode::WholeDisk).expect("it fits");
    let records: Vec<u64> = plan.table().iter().map(|write| write.offset.0 / 512).collect();
    assert_eq!(records, [0, 4096, 8192]);
}

/// The GPT image whose partition `number` grows.
fn growing(number: u32) -> Manifest {
    let mut manifest = gpt_manifest();
    manifest.partitions.iter_mut().for_each(|p| p.grow = p.number == number);
    manifest
}

#[test]
fn the_last_partition_takes_the_room_of_a_larger_disk_and_the_image_stays_where_it_is() {
    let disk = empty_disk(64 * MIB);
    let plan = plan(&growing(3), &disk, LayoutMode::WholeDisk).expect("it fits");
    let places: Vec<_> = plan.places().iter().map(|p| (p.number, p.start.0, p.size, p.room)).collect();
    // The backup GPT takes the last 33 sectors, so the room ends one MiB before the end of the disk.
    assert_eq!(places, [(1, MIB, MIB, MIB), (3, 4 * MIB, 8 * MIB, 59 * MIB)]);
    let last = u64::from_le_bytes(entry(&plan, 3)[40..48].try_into().expect("8 bytes"));
    assert_eq!(last, 63 * MIB / 512 - 1, "the table says so");
    assert!(plan.wipes().contains(&(62 * MIB..64 * MIB)), "labels at its new end go: {:?}", plan.wipes());
    assert!(plan.warnings().is_empty());
}

#[test]
fn partitions_behind_the_growing_one_move_to_the_end_of_the_disk() {
    let disk = empty_disk(64 * MIB);
    let plan = plan(&growing(1), &disk, LayoutMode::WholeDisk).expect("it fits");
    let places: Vec<_> = plan.places().iter().map(|p| (p.number, p.start.0, p.size, p.room)).collect();
    assert_eq!(places, [(1, MIB, MIB, 52 * MIB), (3, 55 * MIB, 8 * MIB, 8 * MIB)]);
    let first = u64::from_le_bytes(entry(&plan, 3)[32..40].try_into().expect("8 bytes"));
    assert_eq!(first, 55 * MIB / 512);
}

#[test]
fn what_is_found_by_its_place_does_not_move_and_the_unused_room_is_named() {
    let mut manifest = growing(1);
    manifest.partitions[1].role = Role::BiosBoot;
    let plan = plan(&manifest, &empty_disk(64 * MIB), LayoutMode::WholeDisk).expect("it fits");
    assert!(plan.places().iter().all(|place| place.room == place.size));
    assert_eq!(plan.place(3).map(|place| place.start.0), Some(4 * MIB));
    let [warning] = plan.warnings() else { panic!("{:?}", plan.warnings()) };
    assert!(warning.contains("partition 3") && warning.contains("found by its place"), "{warning}");
}

#[test]
fn a_disk_without_a_mebibyte_of_room_gets_the_golden_table_although_the_image_may_grow() {
    let size = 12 * MIB + 34 * 512;
    let on = |mut manifest: Manifest| {
        manifest.disk.minimum_size = size;
        plan(&manifest, &empty_disk(size), LayoutMode::WholeDisk).expect("it fits")
    };
    let (same, golden) = (on(growing(3)), on(gpt_manifest()));
    assert!(same.table() == golden.table() && same.places() == golden.places());
}

#[test]
fn a_kept_table_fits_that_an_earlier_image_has_grown_and_no_other() {
    let manifest = growing(1);
    let grown = plan(&manifest, &empty_disk(64 * MIB), LayoutMode::WholeDisk).expect("it fits");
    let mut disk = same_disk(&manifest, 64 * MIB);
    for (there, place) in disk.table.as_mut().expect("a table").partitions.iter_mut().zip(grown.places()) {
        (there.first, there.size) = (Lba(place.start.0 / 512), place.room);
    }
    let kept = plan(&manifest, &disk, LayoutMode::Keep).expect("it matches");
    let starts = |plan: &LayoutPlan| plan.places().iter().map(|p| (p.start, p.room)).collect::<Vec<_>>();
    assert_eq!(starts(&kept), starts(&grown));
    refusal(&gpt_manifest(), &disk, LayoutMode::Keep);
    disk.table.as_mut().expect("a table").partitions[1].first.0 += 1;
    assert!(refusal(&manifest, &disk, LayoutMode::Keep).contains("begins at sector"));
}

#[test]
fn only_the_table_that_a_plan_writes_is_its_own() {
    let manifest = gpt_manifest();
    let disk = same_disk(&manifest, 64 * MIB);
    let plan = plan(&manifest, &disk, LayoutMode::WholeDisk).expect("it fits");
    let own = disk.table.expect("a table");
    assert!(plan.is_on(&own));
    let changed = |change: &dyn Fn(&mut Existing)| {
        let mut other = own.clone();
        change(&mut other);
        !plan.is_on(&other)
    };
    assert!(changed(&|table| table.partitions[0].size += 512));
    assert!(changed(&|table| table.partitions[0].first.0 += 1));
    assert!(changed(&|table| table.partitions.truncate(1)));
    assert!(changed(&|table| table.table = Table::None));
}

/// A partition's entry in the primary GPT.
fn entry(plan: &LayoutPlan, number: usize) -> Vec<u8> {
    let primary = plan.table().iter().find(|write| write.what == "the primary GPT").expect("there");
    primary.bytes[512 + (number - 1) * 128..][..128].to_vec()
}

proptest! {
    #[test]
    fn grown_places_never_overlap_and_leave_room_for_the_backup(
        first in 1u64..4, second in 1u64..9, disk in 24u64..4096, which in 1u32..3,
    ) {
        let partitions = vec![
            Partition { grow: which == 1, ..gpt_partition(1, 2048, first * MIB, 512) },
            Partition { grow: which == 2, ..gpt_partition(2, (1 + first) * 2048, second * MIB, 512) },
        ];
        let manifest = manifest(gpt_table(), partitions, 16 * MIB, 512);
        let plan = plan(&manifest, &empty_disk(disk * MIB), LayoutMode::WholeDisk).expect("it fits");
        let [a, b] = plan.places() else { panic!("two") };
        prop_assert!(a.room_end() <= b.start.0 && b.room_end() <= disk * MIB - 33 * 512);
        prop_assert_eq!(b.room_end(), (disk - 1) * MIB, "all of the room is used");
    }
}
