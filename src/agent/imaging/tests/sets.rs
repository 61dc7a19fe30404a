//! Only some partitions of an image.

use super::*;
use crate::manifest::UefiLoader;
use crate::testkit::disks::MIB;
use crate::units::PieceIndex;

/// These bytes of a disk in memory.
fn at(from: u64, to: u64) -> std::ops::Range<usize> {
    let small = |position| usize::try_from(position).expect("small");
    small(from)..small(to)
}

/// The image's disk with all partitions' contents turned over.
fn other(source: &[u8]) -> Vec<u8> {
    let mut other = source.to_vec();
    other[at(MIB, 23 * MIB)].iter_mut().for_each(|byte| *byte ^= 0x55);
    other
}

#[tokio::test]
async fn only_the_chosen_partitions_travel_and_are_written_and_the_rest_stays_to_the_byte() {
    let (source, image) = small_image();
    let lab = Lab::new(&image).await;
    let content = other(&source);
    let disk = LoopDisk::of(&content, 512);
    let mut assignment = lab.assignment(&disk);
    assignment.task.only(vec![1, 4]);
    let ctx = lab.context();
    let status = ctx.status.clone();
    let imaged = tokio::time::timeout(DEADLINE, run(ctx, assignment.clone())).await.expect("in time");
    let imaged = imaged.expect("imaged");
    let wanted: u64 = [0, 2].map(|i| image.grid.pieces_of(i).len() as u64).into_iter().sum();
    let view = status.view();
    let bytes = wanted * u64::from(PIECE);
    assert_eq!((view.progress.bytes_total, view.progress.bytes_verified), (bytes, bytes));
    assert_eq!(view.progress.percent, 100.0);
    let data: u64 = [0, 2]
        .into_iter()
        .flat_map(|i| image.grid.pieces_of(i))
        .flat_map(|piece| image.grid.data_ranges(PieceIndex(piece)))
        .map(|range| u64::from(range.end - range.start))
        .sum();
    assert_eq!(imaged.traffic().0, data);
    assert_eq!(imaged.installed[0].partitions, Some(vec![1, 4]));
    imaged.stop().await;
    let after = disk.bytes();
    assert!(after[at(MIB, 2 * MIB)] == source[at(MIB, 2 * MIB)], "partition 1");
    assert!(after[at(6 * MIB, 23 * MIB - 1024)] == source[at(6 * MIB, 23 * MIB - 1024)], "partition 4");
    assert!(after[at(2 * MIB, 6 * MIB)] == content[at(2 * MIB, 6 * MIB)], "partition 2 stays");
    assert!(after[at(440, MIB)] == source[at(440, MIB)], "the table stays");
    assert!(after[..440] == source[..440], "boot code comes with the BIOS boot partition");

    // The remaining partition, afterwards; the others are neither fetched nor written.
    assignment.task.only(vec![2]);
    let (received, _) = fetched(&lab, assignment).await;
    assert!(received > 0 && received <= 4 * MIB, "{received}");
    image.assert_on(&disk.bytes(), &source);
}

#[tokio::test]
async fn a_choice_that_the_disk_or_the_image_does_not_have_is_refused_untouched() {
    let (source, image) = small_image();
    let lab = Lab::new(&image).await;
    let disk = LoopDisk::of(&source, 512);
    let mut assignment = lab.assignment(&disk);
    assignment.task.only(vec![3]);
    let failure = lab.refused(lab.context(), assignment.clone(), &disk).await;
    assert!(
        failure.message.contains("has no partition 3") && failure.advice.contains("1, 2, 4"),
        "{failure:?}"
    );
    // Partitions that are not chosen must exist too.
    crate::testkit::programs::run("sgdisk", &["--delete=2", &disk.path]);
    crate::testkit::programs::run("blockdev", &["--flushbufs", &disk.path]);
    assignment.task.only(vec![4]);
    let failure = lab.refused(lab.context(), assignment, &disk).await;
    assert!(failure.message.contains("partition 2") && failure.message.contains("not there"), "{failure:?}");
}

#[test]
fn firmware_gets_no_entry_for_an_esp_that_was_not_written() {
    let source = gpt_source(512);
    let image = image_of(&source, 512, PIECE, |manifest| {
        let loader =
            UefiLoader { partition: 2, path: "/EFI/debian/shimx64.efi".into(), label: "debian".into() };
        manifest.boot.uefi = vec![loader];
    });
    let disk = LoopDisk::of(&source, 512);
    let entries = |only: &[u32]| {
        let claimed = claim(&disk.info(), LayoutMode::Keep, only).expect("free");
        let trusted =
            crate::manifest::TrustedManifest::insecure(&image.manifest.to_bytes()).expect("consistent");
        let plan = crate::layout::plan::LayoutPlan::new(
            &trusted,
            &image.boot,
            claimed.facts(),
            LayoutMode::Keep,
            Some(only),
        );
        crate::boot::entries::wanted(&plan.expect("it fits")).len()
    };
    assert_eq!((entries(&[2, 4]), entries(&[4])), (1, 0));
}
