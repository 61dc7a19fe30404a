//! Systems that stay as they were captured and whose filesystems grow: finished after a power cut.

use super::*;
use crate::api::PersonalReport;
use crate::event::Stage;
use crate::manifest::{Entry, Manifest, Table};
use crate::testkit::lab::done;
use crate::units::Lba;

const KNOWS: fn() -> Take =
    || Take { preflight: true, personal: true, files: true, growth: true, ..Take::default() };

/// A server whose golden image lets a partition grow, with a job that leaves it as it was captured.
async fn world() -> World {
    let mut world = World::new(QUIET).await;
    let path = world.at("images/golden/format-1/manifest.json");
    let mut manifest = Manifest::parse(&fs::read(&path).expect("read")).expect("sound");
    manifest.disk.table = Table::Mbr { signature: [1, 2, 3, 4], extended: Vec::new() };
    manifest.disk.minimum_size += 1 << 20;
    let partition = &mut manifest.partitions[0];
    partition.first = Lba(2048);
    partition.entry = Entry::Mbr { kind: 0x83, active: false, ebr: None };
    partition.grow = true;
    fs::write(&path, manifest.to_bytes()).expect("written");
    world.restart().await;
    for mac in [A, B] {
        world.hello(mac).await;
    }
    create(&world).await;
    world
}

async fn create(world: &World) {
    let order =
        JobOrder { image: "golden".into(), targets: vec![A.into()], as_is: true, ..JobOrder::default() };
    let answer = world.http.post(world.url("/api/v1/jobs")).json(&order).send().await.expect("an answer");
    let status = answer.status();
    assert!(status.is_success(), "{status}: {}", answer.text().await.expect("text"));
}

async fn take(world: &World, mac: &str, wish: Take) -> Assignment {
    let terminal = world.hello(mac).await;
    world.take(&terminal, wish).await.expect("work waits")
}

async fn report(world: &World, job: &Assignment, done: bool) {
    let report = PersonalReport { token: job.token.clone(), done, ..PersonalReport::default() };
    let url = world.url(&format!("/api/v1/attempts/{}/personal", job.attempt));
    let answer = world.http.post(url).json(&report).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_terminal_that_is_cut_off_while_its_filesystems_grow_is_finished_and_stays_as_captured() {
    let mut world = world().await;
    let first = take(&world, A, KNOWS()).await;
    assert!(first.growth && first.personal.is_none() && !first.finish);
    // The outcome was lost with the power; the terminal has said that its image is on the disk.
    world.progress(&first, crate::event::Progress::at(Stage::Serve)).await.expect("taken");
    assert_eq!(world.row(A).await.system.as_deref(), Some("imaged, growth not yet reported"));
    world.restart().await;
    assert!(world.ipxe(A, "efi").await.contains("/boot/vmlinuz"), "the agent comes again");
    let again = take(&world, A, KNOWS()).await;
    assert_eq!((again.attempt, &again.token), (first.attempt, &first.token));
    assert!(again.finish && again.growth && again.personal.is_none());
    world.outcome(&first, done()).await.expect("taken");
    report(&world, &again, true).await;
    assert_eq!(world.row(A).await.system.as_deref(), Some("imaged"));
    assert!(!world.ipxe(A, "efi").await.contains("/boot/vmlinuz"), "its disk boots");
    // The next attempt does not hear of a system that was made the terminal's own.
    world.decide(A, "retry").await;
    let next = take(&world, A, KNOWS()).await;
    assert!(next.installed.iter().all(|one| !one.personalised) && !next.installed.is_empty());
}

#[tokio::test]
async fn one_that_is_cut_off_each_time_while_its_filesystems_grow_boots_its_disk_in_the_end() {
    let world = world().await;
    let job = take(&world, A, KNOWS()).await;
    world.outcome(&job, done()).await.expect("taken");
    for _ in 0..3 {
        assert!(take(&world, A, KNOWS()).await.finish);
    }
    assert!(!world.ipxe(A, "efi").await.contains("/boot/vmlinuz"));
    assert!(world.row(A).await.system.is_some_and(|words| words.contains("perhaps not grown")));
}

#[tokio::test]
async fn an_agent_that_would_not_report_its_growth_and_an_image_by_hand_are_not_sent_again() {
    let world = world().await;
    let old = take(&world, A, Take { growth: false, ..KNOWS() }).await;
    let by_hand = take(&world, B, Take { image: Some("golden".into()), ..KNOWS() }).await;
    for (mac, job) in [(A, old), (B, by_hand)] {
        assert!(!job.growth && job.personal.is_none());
        world.outcome(&job, done()).await.expect("taken");
        assert_eq!(world.row(mac).await.system.as_deref(), Some("imaged"));
        assert!(!world.ipxe(mac, "efi").await.contains("/boot/vmlinuz"), "{mac}");
    }
}
