//! A terminal's next step, from its latest attempt and its target.

use super::*;
use crate::event::{Installed, Progress, Stage};
use crate::image_id::ImageId;
use crate::server::domain::attempt::TRIES;
use crate::server::domain::config::Job;
use crate::testkit::lab::{done, failed};

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn target(version: &str) -> Target {
    let image = "debian".parse().expect("valid");
    let job = Job { name: "lab".into(), ..Job::by_hand(image) };
    Target { job, image: ImageId::new("debian", version), also: Vec::new() }
}

fn attempt(outcome: Option<Outcome>) -> Attempt {
    Attempt {
        number: 1,
        token: "t".into(),
        job: "lab".into(),
        image: ImageId::new("debian", "1"),
        also: Vec::new(),
        started: at(1000),
        heard: at(1000),
        progress: None,
        ended: outcome.as_ref().map(|_| at(1000)),
        outcome,
        tries: 1,
        dirty: false,
        retried: false,
        retried_as: None,
        installed: Vec::new(),
        cancelled: false,
    }
}

fn in_stage(stage: Stage) -> Attempt {
    Attempt { progress: Some(Progress::at(stage)), ..attempt(None) }
}

#[test]
fn a_terminal_without_a_job_boots_its_disk_untouched() {
    assert_eq!(state(None, None, at(0)), TerminalState::Idle);
    assert_eq!(at_boot("x", None, None), AtBoot::Disk);
}

#[test]
fn a_job_waits_until_it_is_done() {
    let target = target("1");
    assert_eq!(state(None, Some(&target), at(0)), TerminalState::Waiting);
    assert_eq!(at_boot("x", None, Some(&target)), AtBoot::Agent);
    let done = attempt(Some(done()));
    assert_eq!(state(Some(&done), Some(&target), at(1000)), TerminalState::Done);
    assert_eq!(at_boot("x", Some(&done), Some(&target)), AtBoot::Disk);
    assert_eq!(state(Some(&done), None, at(1000)), TerminalState::Done);
}

#[test]
fn a_new_version_or_a_person_makes_it_wait_again() {
    let done = attempt(Some(done()));
    assert!(waits(Some(&done), Some(&target("2"))));
    assert_eq!(state(Some(&done), Some(&target("2")), at(1000)), TerminalState::Waiting);
    let retried = Attempt { retried: true, ..done };
    assert!(waits(Some(&retried), Some(&target("1"))));
    assert_eq!(retried.tries_of_next(&target("1")), 1);
}

#[test]
fn a_new_version_of_a_further_image_makes_it_wait_again() {
    let of = |data: &str| Target { also: vec![data.parse().expect("valid")], ..target("1") };
    let done = Attempt { also: vec![ImageId::new("data", "1")], ..attempt(Some(done())) };
    assert!(!waits(Some(&done), Some(&of("data@1"))));
    assert!(waits(Some(&done), Some(&of("data@2"))) && waits(Some(&done), Some(&target("1"))));
    assert_eq!(
        (done.title(), of("data@2").title()),
        ("debian@1 + data@1".into(), "debian@1 + data@2".into())
    );
}

#[test]
fn an_attempt_is_imaging_while_heard_and_interrupted_when_silent() {
    let (running, target) = (in_stage(Stage::Fetch), target("1"));
    assert_eq!(state(Some(&running), Some(&target), at(1059)), TerminalState::Imaging);
    assert_eq!(state(Some(&running), Some(&target), at(1060)), TerminalState::Interrupted);
    // A netbooting terminal is not imaging, even if it reported a second ago.
    assert_eq!(at_boot("x", Some(&running), Some(&target)), AtBoot::Agent);
    assert_eq!(running.tries_of_next(&target), 2);
}

#[test]
fn failures_that_may_pass_are_tried_three_times_and_others_once() {
    let target = target("1");
    let mut last = attempt(Some(failed(Class::Retry, true)));
    for tries in 1..TRIES {
        assert_eq!(last.tries, tries);
        assert_eq!(state(Some(&last), Some(&target), at(1000)), TerminalState::Waiting);
        last.tries = last.tries_of_next(&target);
    }
    assert_eq!(state(Some(&last), Some(&target), at(1000)), TerminalState::Failed);
    for class in [Class::Usage, Class::Refused, Class::Untrusted, Class::Disk] {
        let last = attempt(Some(failed(class, false)));
        assert_eq!(state(Some(&last), Some(&target), at(1000)), TerminalState::Failed, "{class:?}");
    }
}

#[test]
fn a_terminal_that_crashes_each_time_is_held_after_three_tries() {
    let target = target("1");
    let mut last = in_stage(Stage::Disarm);
    for tries in 1..TRIES {
        assert_eq!(last.tries, tries);
        assert_eq!(at_boot("x", Some(&last), Some(&target)), AtBoot::Agent);
        last.tries = last.tries_of_next(&target);
    }
    let held = at_boot("x", Some(&last), Some(&target));
    assert!(matches!(&held, AtBoot::Hold { error, .. } if error.contains("3 times")), "{held:?}");
    assert_eq!(state(Some(&last), Some(&target), at(1060)), TerminalState::Interrupted);
    let untouched = Attempt { tries: TRIES, ..in_stage(Stage::Claim) };
    assert_eq!(at_boot("x", Some(&untouched), Some(&target)), AtBoot::Disk, "its old system is whole");
    assert!(waits(Some(&Attempt { retried: true, ..last }), Some(&target)), "a person may start it again");
}

#[test]
fn a_terminal_that_is_interrupted_while_it_serves_has_not_crashed() {
    let serving = Attempt { tries: TRIES, ..in_stage(Stage::Serve) };
    assert_eq!(at_boot("x", Some(&serving), Some(&target("1"))), AtBoot::Agent);
    assert_eq!(serving.tries_of_next(&target("1")), TRIES);
}

#[test]
fn after_an_attempt_without_outcome_the_disk_is_compared_whatever_was_heard_last() {
    let mut target = target("1");
    target.job.compare = Compare::Full;
    for stage in [Stage::Claim, Stage::Fetch, Stage::Serve] {
        assert_eq!(compare_of_next(Some(&in_stage(stage)), &target), Compare::Auto, "{stage:?}");
    }
    assert_eq!(
        compare_of_next(Some(&attempt(None)), &target),
        Compare::Auto,
        "it took the job and was cut off"
    );
    let refused = attempt(Some(failed(Class::Refused, false)));
    assert_eq!(compare_of_next(Some(&refused), &target), Compare::Full);
}

#[test]
fn a_failure_before_the_first_write_boots_the_old_system() {
    let last = attempt(Some(failed(Class::Refused, false)));
    assert_eq!(at_boot("x", Some(&last), Some(&target("1"))), AtBoot::Disk);
}

#[test]
fn half_a_system_is_never_booted() {
    let held = |last: &Attempt, target: Option<&Target>| {
        matches!(at_boot("lab-01", Some(last), target),
        AtBoot::Hold { advice, .. } if advice.contains("job retry lab-01"))
    };
    assert!(held(&attempt(Some(failed(Class::Disk, true))), Some(&target("1"))));
    // Interrupted, and then the job was taken away.
    assert!(held(&in_stage(Stage::Disarm), None));
    assert!(!held(&in_stage(Stage::Claim), None));
    // The next attempt failed before its first write, so the disk is as the first one left it.
    let refused = attempt(Some(failed(Class::Refused, false)));
    assert!(held(&Attempt { dirty: true, ..refused }, Some(&target("1"))));
    assert!(!held(&Attempt { dirty: true, ..attempt(Some(done())) }, None));
}

#[test]
fn a_terminal_leaves_when_nobody_fetches_its_image_any_more() {
    let me = attempt(Some(done()));
    let other = Attempt { number: 2, ..in_stage(Stage::Fetch) };
    let leaves = |others: &[&Attempt], coming: &[(Duration, ImageId)], now| {
        may_leave(&me, others.iter().copied(), coming.iter(), at(now))
    };
    assert!(leaves(&[&me], &[], 1000));
    assert!(!leaves(&[&me, &other], &[], 1000));
    assert!(leaves(&[&me, &other], &[], 1060), "the other one is silent");
    assert!(leaves(&[&Attempt { image: ImageId::new("debian", "2"), ..other.clone() }], &[], 1000));
    assert!(leaves(&[&Attempt { outcome: Some(done()), ..other.clone() }], &[], 1000));
    assert!(!leaves(&[], &[(at(900), ImageId::new("debian", "1"))], 1000), "one is on its way");
    assert!(leaves(
        &[],
        &[(at(900), ImageId::new("debian", "2")), (at(820), ImageId::new("debian", "1"))],
        1000
    ));
    let both =
        Attempt { image: ImageId::new("debian", "2"), also: vec![ImageId::new("debian", "1")], ..other };
    assert!(!leaves(&[&me, &both], &[], 1000), "it fetches this one for another disk");
    let unfinished = attempt(None);
    assert!(!may_leave(&unfinished, [].into_iter(), [].into_iter(), at(1000)));
}

#[test]
fn a_record_of_a_disk_holds_until_something_is_written_there() {
    let on = |version: &str, disk: &str| Installed {
        id: ImageId::new("debian", version),
        disk: disk.into(),
        ..Installed::default()
    };
    let before = vec![on("0", "sda"), on("7", "sdb")];
    let after =
        |outcome, dirty| Attempt { installed: before.clone(), dirty, ..attempt(outcome) }.leaves_installed();
    let Outcome::Done { installed: new, .. } = done() else { unreachable!("it is done") };
    assert_eq!(after(Some(done()), true), [new[0].clone(), on("7", "sdb")]);
    assert_eq!(after(Some(failed(Class::Refused, false)), false), before);
    assert_eq!(after(Some(failed(Class::Refused, false)), true), []);
    assert_eq!(after(Some(failed(Class::Disk, true)), false), []);
    assert_eq!(after(None, false), [], "nobody knows how far it came");
}

#[test]
fn an_interrupted_attempt_is_resumed_by_looking_whatever_the_job_says() {
    let mut target = target("1");
    target.job.compare = Compare::Full;
    let of = |last: Option<&Attempt>| compare_of_next(last, &target);
    assert_eq!(of(None), Compare::Full);
    assert_eq!(of(Some(&in_stage(Stage::Fetch))), Compare::Auto);
    assert_eq!(
        of(Some(&Attempt { image: ImageId::new("debian", "0"), ..in_stage(Stage::Fetch) })),
        Compare::Full
    );
    let retried = Attempt { retried: true, ..attempt(Some(failed(Class::Disk, true))) };
    assert_eq!(of(Some(&retried)), Compare::Full, "a person may mean it");
    let trusting = Attempt { retried_as: Some(Compare::Trust), ..retried };
    assert_eq!(of(Some(&trusting)), Compare::Trust);
}

#[test]
fn a_cancelled_attempt_does_not_start_again_by_itself() {
    let last = Attempt { cancelled: true, ..attempt(Some(failed(Class::Retry, true))) };
    assert!(!waits(Some(&last), Some(&target("1"))));
}
