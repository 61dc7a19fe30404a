//! Terminals that are cut off: by a restart of the server, by their network, by their power.

use super::*;
use crate::testkit::lab::standing;

/// The server's next start, with everything that it had written down.
fn restarted(before: &Lab, now: u64) -> Lab {
    let (mut lab, _) = Lab::restore(at(now), before.iter().cloned().collect(), before.last_number);
    let members = |number| before.jobs().members(number).map(|(id, member)| (id.to_string(), member.clone()));
    let stored = before.jobs().iter().map(|job| (job.clone(), members(job.number).collect()));
    lab.restore_jobs(Jobs::restore(at(now), stored.collect()));
    lab
}

fn report(lab: &mut Lab, now: u64, (number, token): (u64, &str), stage: Stage) -> Orders {
    lab.progress(at(now), number, token, Progress::at(stage), &Ties::default()).expect("taken").0
}

fn place(lab: &Lab, job: u64, id: &str) -> State {
    lab.jobs().member(job, id).expect("in it").state
}

#[test]
fn a_committed_terminal_is_not_imaged_again_after_a_restart_although_it_could_not_tell_its_outcome() {
    let mut lab = lab();
    let (a, b) = (begin(&mut lab, 1, A, "a"), begin(&mut lab, 1, B, "b"));
    report(&mut lab, 50, (a, "a"), Stage::Serve);
    report(&mut lab, 50, (b, "b"), Stage::Fetch);
    let mut lab = restarted(&lab, 3600);
    assert_eq!(lab.next_step(A, &moment(3601)), AtBoot::Disk, "a person may use it by now");
    lab.tick(&moment(3660), &|_| None);
    assert_eq!((place(&lab, 1, A), place(&lab, 1, B)), (State::Done, State::Waiting));
    assert_eq!(lab.next_step(A, &moment(3661)), AtBoot::Disk);
    assert!(matches!(lab.next_step(B, &moment(3661)), AtBoot::Agent(_)), "its disk is half written");
}

#[test]
fn a_terminal_that_restarts_at_once_after_its_commit_boots_its_disk() {
    let mut lab = lab();
    let a = begin(&mut lab, 1, A, "a");
    report(&mut lab, 50, (a, "a"), Stage::Serve);
    assert_eq!(lab.next_step(A, &moment(52)), AtBoot::Disk);
}

#[test]
fn a_committed_terminal_that_fell_silent_is_not_imaged_by_the_standing_job_of_the_same_night() {
    let mut lab = Lab::default();
    lab.hello(at(0), String::new(), hello_of(A)).expect("room");
    let open = |number| job(number, 0, 1_000_000);
    lab.add_job(standing(open(1)), &[A.to_string()].into(), &moment(0));
    lab.add_job(open(2), &[A.to_string()].into(), &moment(0));
    let a = begin(&mut lab, 1, A, "a");
    report(&mut lab, 50, (a, "a"), Stage::Serve);
    lab.tick(&moment(111), &|_| None);
    assert_eq!((place(&lab, 1, A), place(&lab, 2, A)), (State::Missed, State::Done));
    assert_eq!(lab.offer(A, &moment(112)), Offer::Nothing);
}

#[test]
fn a_terminal_that_was_cut_off_for_a_moment_stops_when_a_person_cancels_meanwhile() {
    for whole_job in [false, true] {
        let mut lab = lab();
        let a = begin(&mut lab, 1, A, "a");
        report(&mut lab, 2, (a, "a"), Stage::Fetch);
        lab.tick(&moment(63), &|_| None);
        assert_eq!(place(&lab, 1, A), State::Waiting, "it is silent for 61 s");
        match whole_job {
            true => lab.cancel_job(1, &moment(64)).expect("open"),
            false => lab.cancel(&moment(64), A).expect("it waits"),
        };
        assert!(report(&mut lab, 65, (a, "a"), Stage::Fetch).cancel, "its network is back");
        assert_eq!(place(&lab, 1, A), State::Cancelled);
        assert!(lab.is_half_written(A));
    }
}

#[test]
fn a_terminal_that_failed_because_it_was_silent_does_not_come_back_into_a_cancelled_job() {
    let mut lab = lab();
    let tokens = ["one", "two", "three"];
    let mut last = 0;
    for (token, now) in tokens.iter().zip([1, 101, 201]) {
        last = begin(&mut lab, now, A, token);
        report(&mut lab, now + 1, (last, token), Stage::Fetch);
        lab.tick(&moment(now + 62), &|_| None);
    }
    assert_eq!(place(&lab, 1, A), State::Failed);
    lab.cancel_job(1, &moment(300)).expect("B waits");
    assert!(report(&mut lab, 301, (last, "three"), Stage::Fetch).cancel);
    assert_eq!(place(&lab, 1, A), State::Failed);
    assert!(lab.jobs().get(1).expect("there").is_over());
}

#[test]
fn a_cancel_leaves_the_outcome_of_an_earlier_attempt_as_it_was() {
    let mut lab = lab();
    let a = begin(&mut lab, 1, A, "a");
    lab.outcome(at(2), a, "a", failed(Class::Retry, true), &Ties::default()).expect("taken");
    lab.cancel(&moment(3), A).expect("it waits for its next attempt");
    let last = lab.get(A).and_then(|t| t.last.clone()).expect("attempt");
    assert!(!last.cancelled && last.outcome == Some(failed(Class::Retry, true)));
}

#[test]
fn a_repeated_outcome_of_a_cancelled_attempt_does_not_undo_a_retry() {
    let mut lab = lab();
    let a = begin(&mut lab, 1, A, "a");
    report(&mut lab, 2, (a, "a"), Stage::Commit);
    lab.cancel(&moment(3), A).expect("running");
    let tells_done = |lab: &mut Lab, now| {
        lab.outcome(at(now), a, "a", done(), &Ties::default()).expect("taken");
        place(lab, 1, A)
    };
    assert_eq!(tells_done(&mut lab, 4), State::Done, "the order came too late");
    lab.retry(&moment(5), A, None, false).expect("a person wants it again");
    assert_eq!(tells_done(&mut lab, 6), State::Waiting, "its first answer was lost");
}

#[test]
fn a_disk_that_the_agent_touched_before_it_heard_of_a_cancel_is_not_booted() {
    let mut lab = lab();
    let a = begin(&mut lab, 1, A, "a");
    report(&mut lab, 2, (a, "a"), Stage::Claim);
    lab.cancel(&moment(3), A).expect("running");
    assert!(report(&mut lab, 4, (a, "a"), Stage::Disarm).cancel);
    assert!(matches!(lab.next_step(A, &moment(60)), AtBoot::Hold { .. }), "its own outcome never came");
    assert!(lab.get(A).and_then(|t| t.last.as_ref()).expect("attempt").leaves_installed().is_empty());
}
