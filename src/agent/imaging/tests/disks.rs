//! Several disks in one attempt: all or nothing.

use super::*;
use crate::image_id::ImageId;
use crate::testkit::images::mbr_source;

/// A system image and one of data, for a disk each.
fn both() -> [(Vec<u8>, TestImage); 2] {
    let data = mbr_source();
    let image = image_of(&data, 512, PIECE, |manifest| manifest.name = "data".into());
    [small_image(), (data, image)]
}

fn task(name: &str, disk: &LoopDisk) -> Task {
    Task {
        id: ImageId::new(name, "1"),
        folder: format!("/images/{name}/1/"),
        disk: disk.path.clone(),
        layout: LayoutMode::WholeDisk,
        partitions: None,
        compare: Compare::Auto,
        ticket: None,
    }
}

#[tokio::test]
async fn two_images_go_onto_two_disks_in_one_attempt() {
    let [(system, first), (data, second)] = both();
    let lab = Lab::new(&first).await;
    lab.publish(&second);
    let disks = [LoopDisk::used(24 << 20, 512), LoopDisk::used(24 << 20, 512)];
    let mut assignment = lab.assignment(&disks[0]);
    assignment.also = vec![task("data", &disks[1])];
    let ctx = lab.context();
    let status = ctx.status.clone();
    let imaged = tokio::time::timeout(DEADLINE, run(ctx, assignment)).await.expect("in time");
    let imaged = imaged.expect("imaged");
    first.assert_on(&disks[0].bytes(), &system);
    second.assert_on(&disks[1].bytes(), &data);
    assert_eq!(imaged.traffic().0, first.grid.data_bytes() + second.grid.data_bytes());
    let named: Vec<_> = imaged.installed.iter().map(|one| (one.id.name.as_str(), &one.disk)).collect();
    assert_eq!((named[0].0, named[1].0), ("lab", "data"));
    assert!(named[0].1 != named[1].1);
    assert_eq!(status.view().progress.percent, 100.0);
    imaged.stop().await;
    for disk in &disks {
        given_back(disk).await;
    }
}

#[tokio::test]
async fn what_is_refused_for_one_disk_leaves_all_of_them_untouched() {
    let [(system, first), (_, second)] = both();
    let lab = Lab::new(&first).await;
    lab.publish(&second);
    let disk = LoopDisk::of(&system, 512);
    let small = LoopDisk::used(20 << 20, 512);
    let mut assignment = lab.assignment(&disk);
    for (task, why) in [
        (task("data", &small), "too few"),
        (task("data", &disk), "both choose the disk"),
        (
            Task { id: ImageId::new("data", "2"), folder: "/images/data/2/".into(), ..task("data", &small) },
            "has no http",
        ),
    ] {
        assignment.also = vec![task];
        let failure = lab.refused(lab.context(), assignment.clone(), &disk).await;
        assert!(failure.message.contains(why), "{failure:?}");
        assert!(small.bytes().iter().all(|byte| *byte == 0xaa), "not a byte was written to the other one");
    }
}

#[tokio::test]
async fn no_disk_is_committed_before_all_are_proved() {
    let [(_, first), (_, second)] = both();
    let (second, hashed) = super::unhashed::unhashed(second);
    let lab = Lab::new(&first).await;
    lab.publish(&second);
    let files = |name: &str| format!("/images/data/1/{name}");
    lab.files.lock().expect("whole").remove(&files(names::PIECES));
    let disks = [LoopDisk::used(24 << 20, 512), LoopDisk::used(24 << 20, 512)];
    let mut assignment = lab.assignment(&disks[0]);
    assignment.also = vec![task("data", &disks[1])];
    let ctx = lab.context();
    let mut views = ctx.status.subscribe();
    let attempt = tokio::spawn(run(ctx, assignment));
    // The first one is proved, the second one cannot be yet.
    let waits = views.wait_for(|view| view.progress.stage == Stage::Hashes);
    tokio::time::timeout(DEADLINE, waits).await.expect("in time").expect("it goes on");
    for disk in &disks {
        assert!(disk.bytes()[..1 << 20].iter().all(|byte| *byte == 0), "nothing starts from {}", disk.path);
    }
    let pieces: Vec<u8> = second.hashes.iter().flat_map(|hash| hash.0).collect();
    let manifest = hashed.to_bytes();
    let signature = minisign::sign(None, &lab.pair.sk, &manifest[..], None, None).expect("signed");
    {
        let mut all = lab.files.lock().expect("whole");
        all.insert(files(names::PIECES), pieces);
        all.insert(files(names::MANIFEST), manifest);
        all.insert(files(names::SIGNATURE), signature.into_string().into_bytes());
    }
    let imaged = tokio::time::timeout(DEADLINE, attempt).await.expect("in time").expect("no panic");
    imaged.expect("imaged").stop().await;
    assert!(disks.iter().all(|disk| disk.bytes()[510..512] == [0x55, 0xaa]));
}

#[tokio::test]
async fn each_disk_of_an_attempt_that_was_cut_off_is_found_and_one_that_was_changed_is_a_problem() {
    let [(system, first), (data, second)] = both();
    let lab = Lab::new(&first).await;
    lab.publish(&second);
    let disks = [LoopDisk::of(&system, 512), LoopDisk::of(&data, 512)];
    let other = LoopDisk::used(24 << 20, 512);
    let mut assignment = Assignment { finish: true, ..lab.assignment(&disks[0]) };
    assignment.also = vec![task("data", &other), task("data", &disks[1])];
    let found = personal::find_committed(&lab.context(), &assignment).await.expect("found");
    let all = found.system.iter().chain(&found.also);
    let names: Vec<_> = all.clone().map(|places| &*places.info.name).collect();
    assert_eq!(names, disks.each_ref().map(|disk| disk.info().name));
    assert!(all.clone().all(|places| !places.proved), "their systems may have been started since");
    let [problem] = &found.problems[..] else { panic!("{:?}", found.problems) };
    assert!(problem.starts_with("the disk of data@1: the disk's partitions are no longer"), "{problem}");
    assert!(disks[1].bytes() == data && other.bytes().iter().all(|byte| *byte == 0xaa));
}
