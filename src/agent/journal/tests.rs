//! The journal: what is in it, how much, and what survives a crash.

use super::*;

const KERNEL: &str = "4,1,999000000000,-;sda: I/O error";

/// The lines without their times.
fn lines(journal: &Journal) -> Vec<String> {
    let text = journal.text(MAX_LOG);
    text.lines().map(|line| line.split_once("] ").map_or(line, |(_, text)| text).to_owned()).collect()
}

fn unfinished() -> Unfinished {
    Unfinished { server: "http://10.0.0.1:6969".into(), attempt: 7, token: "0123456789".into() }
}

#[test]
fn lines_of_agent_and_kernel_stand_by_their_time() {
    let journal = Journal::default();
    journal.kernel("4,1,1000,-;nvme nvme0: reset");
    journal.kernel("6,1,1000,-;input: a keyboard");
    journal.say("one\ntwo");
    journal.kernel(KERNEL);
    assert_eq!(lines(&journal), ["kernel: nvme nvme0: reset", "one", "two", "kernel: sda: I/O error"]);
    assert!(journal.text(MAX_LOG).ends_with("[999000.000000] kernel: sda: I/O error\n"));
    assert_eq!(journal.text(50), "[999000.000000] kernel: sda: I/O error\n", "whole lines only");
    assert_eq!(journal.text(5), "");
}

#[test]
fn a_secret_leaves_neither_from_lines_before_it_was_named_nor_from_later_ones() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log");
    let journal = Journal::with_file(&file);
    journal.say("before: 0123456789abcdef");
    journal.hide("0123456789abcdef");
    journal.hide("e");
    journal.say("after: 0123456789abcdef");
    journal.kernel("3,1,2,-;sda: 0123456789abcdef");
    let text = journal.text(MAX_LOG);
    assert!(!text.contains("0123456789abcdef") && text.contains("after: •••"), "{text}");
    assert_eq!(std::fs::read_to_string(&file).unwrap().matches("0123456789abcdef").count(), 1);
}

#[test]
fn a_log_is_bounded_raw_and_packed() {
    let journal = Journal::default();
    let mut seed = 1u64;
    for n in 0..20_000 {
        // Digits that do not compress well.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        journal.say(&format!("{n} {seed:x}{:x}", seed.rotate_left(17)));
    }
    for n in 0..20_000 {
        journal.kernel(&format!("4,{n},{n},-;sda: I/O error, sector {n}"));
    }
    let text = journal.text(MAX_LOG);
    assert!(text.len() <= MAX_LOG && text.len() > MAX_LOG / 2, "{}", text.len());
    assert!(text.starts_with('(') && text.contains(" older lines of the kernel are gone)\n"));
    assert!(text.contains("sector 19999") && text.contains("] 19999 "), "the newest of both");
    let packed = journal.pack(MAX_LOG).unwrap();
    assert!(packed.len() <= MAX_PACKED_LOG, "{}", packed.len());
    let unpacked = zstd::bulk::decompress(&packed, MAX_LOG).unwrap();
    assert!(text.as_bytes().ends_with(&unpacked) && unpacked.len() > 50_000);
    assert!(zstd::bulk::decompress(&journal.pack(1000).unwrap(), 1000).unwrap().len() > 900);
}

#[test]
fn the_worker_after_a_crash_goes_on_with_the_lines_and_knows_the_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log");
    let first = Journal::with_file(&file);
    assert_eq!(first.crashed("http://10.0.0.1:6969"), None);
    first.say("writing sda");
    first.attempt(Some(&unfinished()));
    crate::io::host::mirror::append(&file, "the worker was killed by signal 9\n").unwrap();

    let second = Journal::with_file(&file);
    second.say("starting");
    assert_eq!(lines(&second)[0], "writing sda");
    assert_eq!(lines(&second)[1..], ["the worker was killed by signal 9", "starting"]);
    assert_eq!(second.crashed("http://10.0.0.2:6969"), None, "another server");
    assert_eq!(second.crashed("http://10.0.0.1:6969"), Some(unfinished()));
    assert_eq!(second.crashed("http://10.0.0.1:6969"), None, "once");

    second.attempt(None);
    assert_eq!(Journal::with_file(&file).crashed("http://10.0.0.1:6969"), None);
}
