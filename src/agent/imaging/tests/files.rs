//! The administrator's files for a terminal: fetched with the ticket before the first write, and proved.

use super::*;
use crate::api::Personal;
use crate::digest::sha256;
use crate::manifest::after::{self, AfterFile, Rule};

const TICKET: &str = "0f0f-the-ticket";

/// Publishes an image with one file for everybody and one for the room 101.
fn publish(lab: &Lab, image: &TestImage) -> [String; 2] {
    let contents: [&[u8]; 2] = [b"welcome", b"join"];
    let rule = |name: &str, path: &str, mode: &str, content: &[u8]| Rule {
        name: name.into(),
        files: vec![AfterFile {
            path: path.into(),
            mode: mode.into(),
            size: content.len() as u64,
            sha256: sha256(content),
        }],
        ..Rule::default()
    };
    let mut rules = vec![rule("all", "etc/motd", "0644", contents[0])];
    rules.push(Rule { rooms: vec!["101".into()], ..rule("101", "opt/join", "0755", contents[1]) });
    let list = after::After { format: after::FORMAT, rules }.to_bytes();
    let mut manifest = image.manifest.clone();
    manifest.sidecars.insert(names::AFTER_LIST.into(), sha256(&list));
    lab.put(names::AFTER_LIST, list);
    lab.sign(&manifest.to_bytes(), &lab.pair);
    contents.map(|content| {
        let at = format!("/images/t={TICKET}/lab/1/after/{}", sha256(content));
        lab.files.lock().expect("whole").insert(at.clone(), content.to_vec());
        at
    })
}

fn assignment(lab: &Lab, disk: &LoopDisk, room: &str) -> Assignment {
    let mut assignment = lab.assignment(disk);
    assignment.task.ticket = Some(TICKET.into());
    assignment.personal = Some(Personal { room: Some(room.into()), ..Personal::default() });
    assignment
}

#[tokio::test]
async fn a_terminal_has_the_files_of_its_rules_when_its_image_is_on_the_disk() {
    let (_, image) = small_image();
    let lab = Lab::new(&image).await;
    publish(&lab, &image);
    for (room, expected) in [("101", &["etc/motd", "opt/join"][..]), ("102", &["etc/motd"])] {
        let disk = LoopDisk::used(24 << 20, 512);
        let work = run(lab.context(), assignment(&lab, &disk, room));
        let imaged = tokio::time::timeout(DEADLINE, work).await.expect("in time").expect("imaged");
        let files = imaged.system.clone().expect("a system").files;
        assert_eq!(files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), expected);
        assert_eq!((files[0].mode, &files[0].content[..]), (0o644, &b"welcome"[..]));
        imaged.stop().await;
        // Found again after a power cut.
        let again =
            personal::find_committed(&lab.context(), &assignment(&lab, &disk, room)).await.expect("found");
        assert_eq!(again.system.expect("a system").files, files);
    }
    // A job that leaves the image as it is.
    let disk = LoopDisk::used(24 << 20, 512);
    let as_is = Assignment { personal: None, ..assignment(&lab, &disk, "101") };
    let imaged = run(lab.context(), as_is).await.expect("imaged");
    assert!(imaged.system.as_ref().expect("a system").files.is_empty());
    imaged.stop().await;
}

#[tokio::test]
async fn a_file_that_is_not_the_signed_one_or_not_there_stops_the_attempt_before_the_first_write() {
    let (_, image) = small_image();
    let lab = Lab::new(&image).await;
    let [motd, join] = publish(&lab, &image);
    let disk = LoopDisk::used(24 << 20, 512);
    let put = |at: &String, content: &[u8]| {
        lab.files.lock().expect("whole").insert(at.clone(), content.to_vec());
    };
    put(&join, b"evil");
    let failure = lab.refused(lab.context(), assignment(&lab, &disk, "101"), &disk).await;
    assert!(failure.class == Class::Untrusted && failure.message.contains("/opt/join"), "{failure:?}");
    put(&join, b"longer than it is");
    let failure = lab.refused(lab.context(), assignment(&lab, &disk, "101"), &disk).await;
    assert!(failure.message.contains("is longer than"), "{failure:?}");
    lab.files.lock().expect("whole").remove(&motd);
    let failure = lab.refused(lab.context(), assignment(&lab, &disk, "102"), &disk).await;
    assert!(failure.class == Class::Retry && failure.message.contains("has no"), "{failure:?}");
}

/// What people read of an attempt that failed: its failure, its notes, its log.
fn told(failure: &Failure, status: &Status) -> [String; 3] {
    let (notes, log) = (status.view().notes.join("\n"), status.journal().text(1 << 20));
    [format!("{failure:?}"), notes, log]
}

#[tokio::test]
async fn nobody_reads_the_ticket_in_what_is_told_of_a_file_that_does_not_come() {
    let (_, image) = small_image();
    let lab = Lab::new(&image).await;
    let [motd, _] = publish(&lab, &image);
    let disk = LoopDisk::used(24 << 20, 512);
    let assignment = assignment(&lab, &disk, "102");
    let description = download::describe(&lab.context(), &assignment.task).await.expect("described");
    let failed = async |server: &str| {
        let ctx = ImagingContext { server: server.into(), ..lab.context() };
        let failure = download::files(&ctx, &assignment, &description).await.map(drop).expect_err("it fails");
        for text in told(&failure, &ctx.status) {
            assert!(!text.contains(TICKET), "{text}");
        }
        failure.message
    };
    lab.files.lock().expect("whole").insert(motd.clone(), vec![0; 100]);
    assert!(failed(&lab.url).await.contains("is longer than"));
    lab.files.lock().expect("whole").remove(&motd);
    let hash = sha256(b"welcome");
    assert_eq!(failed(&lab.url).await, format!("the server has no {}/images/lab/1/after/{hash}", lab.url));
    // Nobody listens on port 1.
    let gone = "http://127.0.0.1:1";
    assert!(failed(gone).await.starts_with(&format!("fetching {gone}/images/lab/1/after/{hash}: ")));
}

#[tokio::test]
async fn nobody_reads_the_ticket_in_what_is_told_of_a_tracker_that_does_not_answer() {
    let (_, image) = small_image();
    let lab = Lab::new(&image).await;
    publish(&lab, &image);
    lab.files.lock().expect("whole").remove("/announce");
    let disk = LoopDisk::used(24 << 20, 512);
    let mut ctx = lab.context();
    ctx.bounds.piece = Duration::from_secs(3);
    let status = ctx.status.clone();
    let result = tokio::time::timeout(DEADLINE, run(ctx, assignment(&lab, &disk, "102"))).await;
    let (failure, _) = result.expect("in time").map(drop).expect_err("no piece comes");
    assert!(failure.message.contains(&format!("tracker {}/announce: ", lab.url)), "{failure:?}");
    for text in told(&failure, &status) {
        assert!(!text.contains(TICKET), "{text}");
    }
}
