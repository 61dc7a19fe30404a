//! Disks that drivers find late: which one is taken, and which terminal waits for which.

use tokio::time::Instant;

use super::*;
use crate::agent::imaging::target::{choose, still_means};
use crate::api::DiskInfo;

const LATE: Duration = Duration::from_secs(30);

fn disk(name: &str, bus: &str, serial: &str, gib: u64) -> DiskInfo {
    DiskInfo {
        name: name.into(),
        bus: bus.into(),
        serial: Some(serial.into()),
        size: gib << 30,
        sector_size: 512,
        path: format!("pci/{name}"),
        ..DiskInfo::default()
    }
}

fn ssd() -> DiskInfo {
    disk("nvme0n1", "nvme", "SSD-1", 256)
}

fn hdd() -> DiskInfo {
    disk("sda", "ata", "HDD-1", 2048)
}

/// The disk that `rule` means on a terminal that had the disks `known`, and that finds its SSD only `after`
/// that time; and the time taken.
async fn chosen(rule: &str, known: &[DiskInfo], after: Duration) -> (Result<String, Failure>, Duration) {
    let (_, image) = small_image();
    let lab = Lab::new(&image).await;
    let mut assignment = lab.assignment(&LoopDisk::used(1 << 20, 512));
    assignment.task.disk = rule.into();
    assignment.known_disks = known.to_vec();
    let ctx = ImagingContext { late_disks: LATE, ..lab.context() };
    tokio::time::pause();
    let begun = Instant::now();
    let list = || Ok(if begun.elapsed() >= after { vec![hdd(), ssd()] } else { vec![hdd()] });
    let chosen = choose(&ctx, &assignment.task, &image.manifest, &assignment, list).await;
    let took = begun.elapsed();
    tokio::time::resume();
    (chosen.map(|disk| disk.name), took)
}

#[tokio::test]
async fn a_disk_that_comes_after_the_first_hello_counts_when_the_disk_is_chosen() {
    let at_the_first_hello = [hdd()];
    let (refused, _) = chosen("internal", &at_the_first_hello, Duration::ZERO).await;
    let refused = refused.expect_err("two disks");
    assert_eq!(refused.class, Class::Refused, "{refused:?}");
    assert!(refused.message.contains("SSD-1") && refused.message.contains("HDD-1"), "{refused:?}");
    let (named, took) = chosen("serial=SSD-1", &at_the_first_hello, Duration::ZERO).await;
    assert_eq!((named, took), (Ok("nvme0n1".into()), Duration::ZERO), "nobody waits");
}

#[tokio::test]
async fn a_disk_that_the_terminal_had_is_waited_for_and_no_other_is_taken_instead() {
    let known = [ssd(), hdd()];
    let (found, took) = chosen("bus=nvme", &known, Duration::from_secs(8)).await;
    assert_eq!(found, Ok("nvme0n1".into()));
    assert!((8..10).contains(&took.as_secs()), "{took:?}");
    let (never, took) = chosen("internal", &known, Duration::from_secs(3600)).await;
    let never = never.expect_err("it may be dead");
    assert!(never.message.contains("SSD-1") && never.message.contains("is not there"), "{never:?}");
    assert!((30..32).contains(&took.as_secs()), "{took:?}");
    let (named, took) = chosen("serial=HDD-1", &known, Duration::from_secs(3600)).await;
    assert_eq!(named, Ok("sda".into()), "nothing else fits it: {took:?}");
}

#[tokio::test]
async fn a_disk_that_comes_after_the_choice_is_noticed_before_anything_is_wiped() {
    let (_, image) = small_image();
    let lab = Lab::new(&image).await;
    let ctx = ImagingContext { attended: false, ..lab.context() };
    let mut task = lab.assignment(&LoopDisk::used(1 << 20, 512)).task;
    let mut look = |rule: &str, present: &[DiskInfo]| {
        task.disk = rule.into();
        still_means(&ctx, &task, &image.manifest, &hdd(), present)
    };
    assert_eq!(look("internal", &[hdd()]), Ok(()));
    let refused = look("internal", &[hdd(), ssd()]).expect_err("it means two now");
    assert_eq!(refused.class, Class::Refused);
    assert!(refused.message.contains("SSD-1"), "{refused:?}");
    assert_eq!(look("serial=HDD-1", &[hdd(), ssd()]), Ok(()));
    let renamed = DiskInfo { name: "sdb".into(), ..hdd() };
    assert!(look("internal", &[renamed]).is_err());
}
