//! Preflights of loop devices: everything is looked at, and nothing is written.

use std::fs;
use std::time::SystemTime;

use super::*;
use crate::event::{CheckFinding, Severity};

/// Looks at `disk`, which must stay as it is.
async fn checked(lab: &Lab, assignment: Assignment, disk: &LoopDisk) -> Checked {
    let state =
        || (disk.bytes(), fs::metadata(&disk.file).and_then(|file| file.modified()).expect("its time"));
    let before = state();
    let ctx = lab.context();
    let assignment = Assignment { preflight: true, ..assignment };
    let result = tokio::time::timeout(DEADLINE, check(&ctx, &assignment)).await.expect("in time");
    assert!(ctx.status.view().progress.stage < Stage::Disarm);
    assert!(ctx.status.view().chosen.is_empty(), "no rule is bound to a disk");
    assert!(state() == before, "neither the bytes nor the time of the last write");
    result.expect("looked at")
}

fn errors(checked: &Checked) -> Vec<&CheckFinding> {
    checked.findings.iter().filter(|finding| finding.severity == Severity::Error).collect()
}

fn fact<'a>(checked: &'a Checked, name: &str) -> &'a str {
    checked.facts.iter().find(|fact| fact.name == name).map_or("", |fact| fact.value.as_str())
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_secs()).expect("a date")
}

#[tokio::test]
async fn a_preflight_looks_at_everything_writes_nothing_and_gives_the_disk_back() {
    let (source, image) = small_image();
    let lab = Lab::new(&image).await;
    let disk = LoopDisk::used(40 << 20, 512);
    let date = Some(now() - 3600);
    let seen = checked(&lab, Assignment { date, ..lab.assignment(&disk) }, &disk).await;
    assert_eq!(errors(&seen), Vec::<&CheckFinding>::new());
    let name = disk.path.trim_start_matches("/dev/");
    assert!(fact(&seen, "disk").contains(name) && fact(&seen, "disk").contains("sectors of 512 bytes"));
    assert!(fact(&seen, "read speed").ends_with("MB/s"), "{:?}", seen.facts);
    assert_eq!(
        (fact(&seen, "image"), fact(&seen, "health")),
        ("lab@1, the manifest is accepted", "not known")
    );
    assert!(!fact(&seen, "firmware").is_empty() && !fact(&seen, "memory").is_empty());
    assert!(seen.findings.iter().any(|finding| finding.what.contains("clock is 60 min ahead")), "{seen:?}");
    assert!(lab.seeded().iter().all(|stats| stats.bytes_out == 0), "no swarm is joined");

    let imaged = tokio::time::timeout(DEADLINE, run(lab.context(), lab.assignment(&disk))).await;
    imaged.expect("in time").expect("imaged").stop().await;
    image.assert_on(&disk.bytes(), &source);
}

#[tokio::test]
async fn what_imaging_would_fail_for_is_an_error_and_the_rest_is_looked_at_as_well() {
    let (_, image) = small_image();
    let lab = Lab::new(&image).await;
    let small = LoopDisk::used(1 << 20, 512);
    let seen = checked(&lab, lab.assignment(&small), &small).await;
    assert_eq!(errors(&seen).len(), 1, "{seen:?}");
    assert_eq!(seen.findings[0].severity, Severity::Error, "errors come first");
    assert!(!fact(&seen, "memory").is_empty());

    let disk = LoopDisk::used(40 << 20, 512);
    let other_sectors = LoopDisk::used(40 << 20, 4096);
    let seen = checked(&lab, lab.assignment(&other_sectors), &other_sectors).await;
    assert!(errors(&seen)[0].what.contains("sectors"), "{seen:?}");

    let mut keeps = lab.assignment(&disk);
    keeps.task.layout = LayoutMode::Keep;
    let seen = checked(&lab, keeps, &disk).await;
    assert_eq!(errors(&seen).len(), 1, "its table does not fit: {seen:?}");

    let _held = claim(&disk.info(), LayoutMode::WholeDisk, &[]).expect("nobody holds it");
    let seen = checked(&lab, lab.assignment(&disk), &disk).await;
    assert!(errors(&seen)[0].what.contains("in use"), "{seen:?}");

    lab.sign(&image.manifest.to_bytes(), &KeyPair::generate_unencrypted_keypair().expect("another pair"));
    let seen = checked(&lab, lab.assignment(&disk), &disk).await;
    assert!(errors(&seen)[0].what.contains("not signed"), "{seen:?}");
}

#[test]
fn the_kernel_refuses_a_write_through_a_disk_that_is_only_looked_at() {
    let disk = LoopDisk::used(1 << 20, 512);
    let open = crate::io::disk::claim::examine(&disk.info(), LayoutMode::WholeDisk).expect("readable");
    assert!(open.disk.write_at(0, &[0; 4096]).is_err());
    assert!(disk.bytes().iter().all(|byte| *byte == 0xaa));
}
