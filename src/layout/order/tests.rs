//! Power cuts on a model disk: after each one nothing starts that is half old or half new.

use super::*;
use crate::manifest::{BootArea, Manifest, Table};
use crate::rng::Rng;
use crate::testkit::manifests::{gpt_manifest, gpt_partition, manifest, mbr_partition, plan, same_disk};
use crate::units::{DiskOffset, Lba};

const SECTOR: u64 = 512;
const MIB: u64 = 1 << 20;

/// An ESP, a BIOS boot partition and a root: a system that starts by either firmware.
fn gpt() -> Manifest {
    let mut manifest = gpt_manifest();
    manifest.partitions[0].role = Role::Esp;
    let core = gpt_partition(4, 24576, MIB, 512);
    manifest.partitions.push(crate::manifest::Partition { role: Role::BiosBoot, ..core });
    manifest
}

/// An ESP that stays; its loader starts the kernel on the root.
fn kept_esp() -> Manifest {
    let mut manifest = gpt();
    manifest.partitions[0].policy = crate::manifest::Policy::Keep;
    let (kernel, cmdline) = ("/vmlinuz".to_string(), String::new());
    manifest.boot.linux = Some(crate::manifest::LinuxBoot { partition: 3, kernel, initrd: None, cmdline });
    manifest
}

/// Boot code that starts the active partition.
fn mbr() -> Manifest {
    let partitions = vec![mbr_partition(1, 2048, 3 * MIB, None), mbr_partition(2, 8192, 8 * MIB, None)];
    manifest(Table::Mbr { signature: [1, 2, 3, 4], extended: Vec::new() }, partitions, 20 * MIB, 512)
}

fn with_boot_code(mut manifest: Manifest, mode: LayoutMode) -> LayoutPlan {
    let area = BootArea { kind: BootAreaKind::BootCode, offset: DiskOffset(0), length: 440, at: 0 };
    manifest.disk.boot_areas = vec![area];
    let mut disk = same_disk(&manifest, 64 * MIB);
    disk.backup_gpt = Some(Lba(64 * MIB / SECTOR - 1));
    plan(&manifest, &disk, mode).expect("it fits")
}

fn index(sector: u64) -> usize {
    usize::try_from(sector).expect("a small disk")
}

/// A sector's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Has {
    Old,
    Zeros,
    New,
}

/// A disk of which each sector is old, wiped or new.
struct Model {
    sectors: Vec<Has>,
}

impl Model {
    fn fill(&mut self, range: &Range<u64>, has: Has) {
        for sector in range.start / SECTOR..range.end.div_ceil(SECTOR) {
            self.sectors[index(sector)] = has;
        }
    }

    /// A device that loses its power keeps any part of the unsynced writes.
    fn fill_some(&mut self, ranges: &[Range<u64>], has: Has, rng: &mut Rng) {
        let keeps = rng.below(101);
        for range in ranges {
            for sector in range.start / SECTOR..range.end.div_ceil(SECTOR) {
                if rng.below(100) < keeps {
                    self.sectors[index(sector)] = has;
                }
            }
        }
    }

    fn at(&self, offset: u64) -> Has {
        self.sectors[index(offset / SECTOR)]
    }

    fn all(&self, range: Range<u64>, has: Has) -> bool {
        (range.start / SECTOR..range.end.div_ceil(SECTOR)).all(|sector| self.sectors[index(sector)] == has)
    }
}

/// Whether the system that a firmware would start is complete; true if none starts.
fn starts_whole_or_nothing(plan: &LayoutPlan, model: &Model, has: Has) -> bool {
    let whole = |place: &&Place| {
        model.all(place.start.0..place.start.0 + place.held, has)
            && (has == Has::New || model.all(place.end() - SECTOR..place.end(), has))
    };
    let replaced = || plan.places().iter().filter(|place| place.replaced);
    let bios = !starts_by_bios(plan, model, has) || replaced().all(|place| whole(&place));
    // UEFI does not read GRUB's core image for BIOS.
    let needed = |place: &&Place| place.role != Role::BiosBoot;
    bios && (!starts_by_uefi(plan, model, has) || replaced().filter(needed).all(|place| whole(&place)))
}

/// Whether an old table that is still found describes only old content. The old system may lie anywhere on
/// the disk.
fn table_is_whole_or_gone(plan: &LayoutPlan, model: &Model) -> bool {
    let is_table = |sector: u64| sector == 0 || plan.gpt_headers().contains(&(sector * SECTOR));
    let found = plan.gpt_headers().iter().any(|at| model.at(*at) == Has::Old) || model.at(0) == Has::Old;
    let sectors = 0..plan.disk_size() / SECTOR;
    plan.mode() == LayoutMode::Keep
        || !found
        || sectors.filter(|at| !is_table(*at)).all(|at| model.sectors[index(at)] == Has::Old)
}

/// Whether each filesystem of a partition that starts something is gone or unchanged, for every kind of
/// filesystem.
fn filesystems_are_whole_or_gone(plan: &LayoutPlan, model: &Model) -> bool {
    plan.places().iter().filter(|place| place.replaced && starts_something(plan, place)).all(|place| {
        (0..FINDABLE.len()).all(|kind| {
            // Sectors that are wiped earlier belong to other kinds.
            let others = &FINDABLE[kind + 1..];
            let range = place.start.0 / SECTOR..place.end() / SECTOR;
            let needed = |at: &u64| !others.contains(&(at * SECTOR - place.start.0));
            model.at(place.start.0 + FINDABLE[kind]) != Has::Old
                || range.filter(needed).all(|at| model.sectors[index(at)] == Has::Old)
        })
    })
}

fn starts_by_bios(plan: &LayoutPlan, model: &Model, has: Has) -> bool {
    let boot_code = plan.areas().iter().any(|area| area.kind == BootAreaKind::BootCode);
    (boot_code || plan.mode() == LayoutMode::WholeDisk) && model.at(0) == has
}

fn starts_by_uefi(plan: &LayoutPlan, model: &Model, has: Has) -> bool {
    let table = match has {
        // One good header is enough for a firmware.
        Has::Old => plan.gpt_headers().iter().any(|at| model.at(*at) == Has::Old),
        _ => plan.table().iter().any(|write| model.all(write.offset.0..write.end(), has)),
    };
    // A kept ESP starts only systems that are found on the other partitions: see
    // `filesystems_are_whole_or_gone`.
    let esp = plan.places().iter().find(|place| place.role == Role::Esp && place.replaced);
    esp.is_some_and(|esp| (table || plan.table().is_empty()) && model.at(esp.start.0) == has)
}

fn plans() -> Vec<(&'static str, LayoutPlan)> {
    vec![
        ("GPT", with_boot_code(gpt(), LayoutMode::WholeDisk)),
        ("GPT, kept table", with_boot_code(gpt(), LayoutMode::Keep)),
        ("MBR", with_boot_code(mbr(), LayoutMode::WholeDisk)),
        ("MBR, kept table", with_boot_code(mbr(), LayoutMode::Keep)),
        ("GPT, kept ESP", with_boot_code(kept_esp(), LayoutMode::Keep)),
    ]
}

#[test]
fn a_power_cut_while_disarming_leaves_the_old_system_whole_or_starts_nothing() {
    for (name, plan) in plans() {
        let steps = disarm(&plan);
        for seed in 0..200 {
            let rng = &mut Rng::new(seed);
            let cut = rng.below(steps.len());
            let mut model = Model { sectors: vec![Has::Old; index(plan.disk_size() / SECTOR)] };
            for step in &steps[..cut] {
                step.iter().for_each(|range| model.fill(range, Has::Zeros));
            }
            model.fill_some(&steps[cut], Has::Zeros, rng);
            let good = starts_whole_or_nothing(&plan, &model, Has::Old)
                && table_is_whole_or_gone(&plan, &model)
                && filesystems_are_whole_or_gone(&plan, &model);
            assert!(good, "{name}, seed {seed}, cut in step {cut}");
        }
        let mut model = Model { sectors: vec![Has::Old; index(plan.disk_size() / SECTOR)] };
        steps.iter().flatten().for_each(|range| model.fill(range, Has::Zeros));
        let starts = starts_by_bios(&plan, &model, Has::Old) || starts_by_uefi(&plan, &model, Has::Old);
        assert!(!starts, "{name}: nothing starts after the disarm");
    }
}

/// The ranges of the disk that a step of the commit writes.
fn ranges_of(plan: &LayoutPlan, step: &Step) -> Vec<Range<u64>> {
    match step {
        Step::Head { position, ranges, .. } => {
            let start = plan.places()[*position].start.0;
            ranges.iter().map(|range| start + range.start..start + range.end).collect()
        }
        Step::Table(at) => one(plan.table()[*at].offset.0..plan.table()[*at].end()),
        Step::Area(at) => {
            let area = &plan.areas()[*at];
            one(area.offset.0..area.offset.0 + area.bytes.len() as u64)
        }
    }
}

#[test]
fn a_power_cut_while_committing_starts_the_new_system_whole_or_nothing() {
    for (name, plan) in plans() {
        let steps: Vec<Vec<Range<u64>>> = commit(&plan).iter().map(|step| ranges_of(&plan, step)).collect();
        for seed in 0..400 {
            let rng = &mut Rng::new(seed);
            let cut = rng.below(steps.len());
            let mut model = Model { sectors: vec![Has::Zeros; index(plan.disk_size() / SECTOR)] };
            steps[..cut].iter().flatten().for_each(|range| model.fill(range, Has::New));
            model.fill_some(&steps[cut], Has::New, rng);
            // The table of an MBR is in the first sector, and the boot code comes there last.
            let boot_code_is_next =
                plan.areas().last().is_some_and(|area| area.kind == BootAreaKind::BootCode)
                    && cut + 1 < steps.len();
            if boot_code_is_next {
                model.sectors[0] = Has::Zeros;
            }
            let good = starts_whole_or_nothing(&plan, &model, Has::New);
            assert!(good, "{name}, seed {seed}, cut in step {cut}");
            for place in plan.places().iter().filter(|place| place.held > 0) {
                let head = place.start.0..place.start.0 + place.held;
                let found = model.at(place.start.0) == Has::New || model.at(place.start.0 + 1024) == Has::New;
                let rest = place.start.0 + 2048..place.start.0 + 4096;
                assert!(!found || model.all(rest, Has::New), "{name}, seed {seed}: a torn head is findable");
                assert!(
                    model.at(place.start.0) != Has::New || model.all(head, Has::New),
                    "{name}, seed {seed}"
                );
            }
        }
        let mut model = Model { sectors: vec![Has::Zeros; index(plan.disk_size() / SECTOR)] };
        steps.iter().flatten().for_each(|range| model.fill(range, Has::New));
        assert!(starts_by_bios(&plan, &model, Has::New), "{name}: it starts in the end");
        assert!(starts_whole_or_nothing(&plan, &model, Has::New), "{name}: with all that it needs");
    }
}

#[test]
fn each_byte_of_a_head_is_written_once_and_the_first_sector_comes_last() {
    for sector in [512, 4096] {
        for held in [512 * 8, 64 << 10, (64 << 10) + 4096, 1 << 20] {
            let parts = head_parts(held, sector);
            let mut all: Vec<Range<u64>> = parts.iter().flatten().cloned().collect();
            assert_eq!(parts.last(), Some(&one(0..sector.min(held))));
            assert!(parts[1..].iter().all(|part| part.len() == 1), "one sector at a time");
            all.sort_by_key(|range| range.start);
            assert!(all.windows(2).all(|pair| pair[0].end == pair[1].start), "{all:?}");
            assert_eq!((all[0].start, all[all.len() - 1].end), (0, held));
        }
    }
    let superblock_of_btrfs = head_parts(1 << 20, 512)[1].clone();
    assert_eq!(superblock_of_btrfs, one(64 << 10..(64 << 10) + 512));
}

#[test]
fn with_a_kept_esp_the_partition_that_starts_comes_last() {
    let mut manifest = gpt_manifest();
    let linux = crate::manifest::LinuxBoot {
        partition: 1,
        kernel: "/vmlinuz".into(),
        initrd: None,
        cmdline: String::new(),
    };
    manifest.partitions[0].role = Role::Data;
    manifest.boot.linux = Some(linux);
    let plan = with_boot_code(manifest, LayoutMode::Keep);
    let heads: Vec<usize> = commit(&plan)
        .into_iter()
        .filter_map(
            |step| if let Step::Head { position, last: true, .. } = step { Some(position) } else { None },
        )
        .collect();
    assert_eq!(heads, [1, 0]);
}
