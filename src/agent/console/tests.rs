//! Screens as people see them.

use super::*;
use crate::agent::status::Status;
use crate::event::Failure;
use proptest::prelude::*;

fn plain(screen: &str) -> Vec<String> {
    let mut text = String::new();
    let mut escape = false;
    for c in screen.chars() {
        match c {
            '\x1b' => escape = true,
            c if escape => escape = !c.is_ascii_alphabetic(),
            c => text.push(c),
        }
    }
    text.lines().map(|line| line.trim_end().to_owned()).collect()
}

fn fetching() -> View {
    let status = Status::new();
    status.change(|view| {
        view.machine = "QEMU Standard PC".into();
        view.address = "10.0.0.7/24 on eth0".into();
        view.server = "http://10.0.0.1:6969".into();
        view.image = "debian@1".into();
        view.disk = "vda, 2.0 GiB".into();
    });
    status.stage(Stage::Fetch);
    status.progress(|p| {
        p.percent = 42.9;
        p.rate_in = 88_149_000;
        p.rate_out = 35_000_000;
        p.peers = 3;
        p.seconds_left = Some(21);
    });
    status.note("the server does not answer; the swarm goes on");
    status.view()
}

#[test]
fn a_log_of_an_outcome_has_no_controls_of_a_server() {
    let failure = Failure::refused("no\x1b[2Jimage", "\r\x07advice");
    let text = outcome_text(&Outcome::Failed { stage: Stage::Discover, failure, disk_touched: false });
    assert!(text.contains("no[2Jimage") && text.contains("advice"), "{text}");
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
}

#[test]
fn the_screen_shows_what_a_person_asks() {
    let lines = plain(&screen(&fetching(), 80, 25));
    let expected = "  flashmob

  machine  QEMU Standard PC
  address  10.0.0.7/24 on eth0
  server   http://10.0.0.1:6969
  image    debian@1
  disk     vda, 2.0 GiB

  ██    ██    ████████    ████    ██
  ██    ██            ██  ████  ██
  ██████████    ██████        ██
        ██    ██            ██  ████
        ██    ██████████  ██    ████

  fetching the image

  [██████████████████████████████░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░]
  88.1 MB/s in 35.0 MB/s out 3 peers 0:21 left

  the server does not answer; the swarm goes on";
    assert_eq!(lines.join("\n").trim_end(), expected);
}

#[test]
fn a_log_line_has_the_facts() {
    assert_eq!(
        line(&fetching().progress),
        "flashmob: fetching the image 42% 88.1 MB/s in 35.0 MB/s out 3 peers 0:21 left"
    );
    assert_eq!(line(&Progress::at(Stage::Network)), "flashmob: waiting for the network");
}

#[test]
fn a_failure_says_class_reason_and_what_to_do() {
    let mut view = fetching();
    view.outcome = Some(Outcome::Failed {
        stage: Stage::Claim,
        failure: Failure::refused("disk sda is too small", "use a disk of 8 GiB or more"),
        disk_touched: false,
    });
    let text = screen(&view, 80, 25);
    assert!(text.contains(RED));
    let lines = plain(&text);
    for fact in [
        "  refused (class 3) while claiming the disk",
        "  why: disk sda is too small",
        "  what to do: use a disk of 8 GiB or more",
        "  the disk is as it was",
    ] {
        assert!(lines.iter().any(|line| line == fact), "{fact} is not in {lines:#?}");
    }
    assert!(outcome_text(view.outcome.as_ref().unwrap()).contains("flashmob: why: disk sda is too small"));
}

#[test]
fn success_is_green() {
    let mut view = fetching();
    view.outcome = Some(Outcome::Done {
        seconds: 3725,
        bytes_in: 1 << 30,
        bytes_out: 0,
        disk: "vda".into(),
        installed: vec![],
        warnings: vec!["partition 3 has another GUID".into()],
    });
    let text = screen(&view, 80, 25);
    assert!(text.contains("warning: partition 3 has another GUID"));
    assert!(text.contains(GREEN) && !text.contains(RED));
    assert!(plain(&text).iter().any(|line| line == "  took 1:02:05, received 1.0 GiB, sent 0 B"), "{text}");
}

proptest! {
    #[test]
    fn nothing_is_wider_or_higher_than_the_screen(
        columns in 40usize..220, rows in 16usize..80, note in "\\PC{0,300}", message in "\\PC{0,300}",
            failed: bool,
    ) {
        let status = Status::new();
        for n in 0..10 {
            status.note(format!("{n}{note}\n\x1b[2J"));
        }
        let mut view = status.view();
        if failed {
            let failure = Failure::disk(message.clone(), message);
            view.outcome = Some(Outcome::Failed { stage: Stage::Fetch, failure, disk_touched: true });
        }
        let lines = plain(&screen(&view, columns, rows));
        prop_assert!(lines.len() <= rows, "{} lines", lines.len());
        for line in lines {
            prop_assert!(line.chars().count() < columns, "{line}");
        }
    }
}
