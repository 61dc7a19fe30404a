//! What people do: cancel, retry, take a terminal out; and what is forgotten.

use super::*;

#[test]
fn a_retry_after_the_window_opens_one_of_its_own() {
    let mut jobs = jobs(2, |_| {});
    tick(&mut jobs, 10 * HOUR);
    assert_eq!(again(&mut jobs, Which::Unsuccessful, 11 * HOUR), ["t0", "t1"], "both missed it");
    tick(&mut jobs, 11 * HOUR + 1);
    assert!(may(&jobs, "t0", 11 * HOUR + 1));
    assert_eq!(again(&mut jobs, Which::Unsuccessful, 11 * HOUR + 2), [""; 0], "they wait already");
    tick(&mut jobs, 23 * HOUR);
    assert_eq!(state(&jobs, "t0"), State::Missed, "it ends as well");
}

#[test]
fn a_retried_terminal_shows_the_end_of_its_own_window_and_all_attempts_of_the_run() {
    let mut jobs = jobs(1, |_| {});
    jobs.take("t0", "1", 1, at(1));
    jobs.outcome("t0", 1, &failed(Class::Disk, true), at(2));
    let view = |jobs: &Jobs| jobs.view(jobs.get(1).expect("there"));
    assert_eq!((view(&jobs).closes, view(&jobs).again_until), (stamp(at(10 * HOUR)), None));
    tick(&mut jobs, 10 * HOUR);
    assert_eq!(again(&mut jobs, Which::Unsuccessful, 11 * HOUR), ["t0"]);
    assert_eq!(view(&jobs).again_until, Some(stamp(at(23 * HOUR))));
    assert!(leaves(&mut jobs, "t0", 12 * HOUR));
    let tries = |jobs: &Jobs| MemberView::of("t0", jobs.member(1, "t0").expect("in it"), None).tries;
    assert_eq!((view(&jobs).again_until, tries(&jobs)), (None, 1), "the attempt before is not forgotten");
    again(&mut jobs, Which::Unsuccessful, 13 * HOUR);
    jobs.take("t0", "1", 2, at(13 * HOUR + 1));
    assert_eq!(tries(&jobs), 2);
    let member = jobs.member(1, "t0").expect("in it");
    assert_eq!(member.tries, 1, "of the attempts that it may make");
}

#[test]
fn a_terminal_that_a_person_takes_out_is_in_no_run_until_a_retry() {
    let mut jobs = jobs(1, standing(false));
    jobs.add(job(2, 22 * HOUR, 30 * HOUR), &names(1), &moment(22 * HOUR));
    tick(&mut jobs, 22 * HOUR);
    let (each, _) = jobs.cancel_terminals(&["t0".into()], &moment(22 * HOUR));
    assert_eq!(each, [("t0".into(), Ok(Left { jobs: vec![1, 2], running: false }))], "it waits in both");
    assert_eq!(jobs.offer("t0", false, &moment(22 * HOUR)), Offer::Nothing);
    assert!(!leaves(&mut jobs, "t0", 22 * HOUR), "nothing is left to cancel");
    tick(&mut jobs, 46 * HOUR);
    assert_eq!((state(&jobs, "t0"), may(&jobs, "t0", 46 * HOUR)), (State::Cancelled, false));
    assert_eq!(again(&mut jobs, Which::Named(&Meant::each(["t0"])), 47 * HOUR), ["t0"], "cancelled");
    assert!(may(&jobs, "t0", 47 * HOUR));
    tick(&mut jobs, 70 * HOUR);
    assert!(may(&jobs, "t0", 70 * HOUR));
}

#[test]
fn of_several_terminals_that_a_person_takes_out_those_without_work_stay_as_they_are() {
    let mut jobs = jobs(3, |_| {});
    jobs.take("t0", "1", 1, at(1));
    jobs.take("t1", "1", 2, at(1));
    jobs.outcome("t1", 2, &done(), at(2));
    let all: Vec<String> = names(3).into_iter().collect();
    let (each, effects) = jobs.cancel_terminals(&all, &moment(3));
    let left: Vec<Option<bool>> =
        each.iter().map(|(_, it)| it.as_ref().ok().map(|left| left.running)).collect();
    assert_eq!(left, [Some(true), None, Some(false)]);
    assert_eq!(effects.stops.iter().map(|stop| stop.terminal.as_str()).collect::<Vec<_>>(), ["t0"]);
    let states: Vec<State> = jobs.members(1).map(|(_, member)| member.state).collect();
    assert_eq!(states, [State::Cancelled, State::Done, State::Cancelled]);
}

#[test]
fn a_retry_before_the_window_waits_for_it() {
    let mut jobs = jobs(1, |job| job.run.opens = stamp(at(HOUR)));
    jobs.cancel(1, &moment(10)).expect("planned");
    assert_eq!(again(&mut jobs, Which::Unsuccessful, 20), ["t0"], "cancelled");
    assert!(why(&jobs, "t0", 30).contains("opens on"));
    tick(&mut jobs, 40);
    assert_eq!(jobs.get(1).map(|job| (job.run.phase, job.cancelled)), Some((Phase::Planned, false)));
    tick(&mut jobs, HOUR);
    assert!(may(&jobs, "t0", HOUR));
}

#[test]
fn a_cancelled_job_stops_everyone_and_begins_nothing() {
    let mut jobs = jobs(3, |_| {});
    jobs.take("t0", "1", 1, at(1));
    jobs.take("t1", "1", 2, at(1));
    jobs.outcome("t1", 2, &done(), at(2));
    let effects = jobs.cancel(1, &moment(3)).expect("open");
    assert_eq!(effects.stops.len(), 1);
    let states: Vec<State> = jobs.members(1).map(|(_, member)| member.state).collect();
    assert_eq!(states, [State::Cancelled, State::Done, State::Cancelled]);
    assert!(jobs.get(1).expect("there").is_over() && jobs.cancel(1, &moment(4)).is_err());
}

#[test]
fn a_job_is_over_when_nobody_is_left_in_it() {
    let mut jobs = Jobs::default();
    jobs.add(job(1, HOUR, 10 * HOUR), &names(2), &moment(0));
    tick(&mut jobs, 0);
    assert!(leaves(&mut jobs, "t0", 1), "planned");
    jobs.forget("t1");
    assert_eq!(jobs.get(1).expect("there").run.phase, Phase::Planned);
    tick(&mut jobs, HOUR);
    assert!(jobs.get(1).expect("there").is_over());
}

#[test]
fn old_jobs_are_forgotten_but_for_the_latest_whose_number_stays_taken() {
    let mut jobs = jobs(1, |_| {});
    jobs.add(job(2, 0, 10 * HOUR), &names(2), &moment(0));
    tick(&mut jobs, 10 * HOUR);
    jobs.forget_older(at(9 * HOUR));
    assert_eq!(jobs.iter().count(), 2);
    jobs.forget_older(at(11 * HOUR));
    assert_eq!(jobs.iter().map(|job| job.number).collect::<Vec<_>>(), [2]);
    assert_eq!((jobs.next_number(), jobs.of("t0").count()), (3, 1));
    assert!(!jobs.is_wanted("t0"));
}

#[test]
fn a_retry_shortly_before_the_end_of_the_window_gets_one_of_its_own() {
    let mut jobs = jobs(2, |job| job.needs = HOUR);
    jobs.cancel(1, &moment(8 * HOUR)).expect("open");
    let again = |jobs: &mut Jobs, id: &str, now| {
        let (each, _) = jobs.retry(1, Which::Named(&Meant::each([id])), None, &moment(now));
        assert_eq!(each, [(id.to_string(), Ok(()))]);
    };
    again(&mut jobs, "t0", 9 * HOUR);
    again(&mut jobs, "t1", 9 * HOUR + 1);
    assert!(may(&jobs, "t0", 9 * HOUR), "an hour is enough");
    assert!(may(&jobs, "t1", 9 * HOUR + 1));
    tick(&mut jobs, 10 * HOUR);
    assert_eq!((state(&jobs, "t0"), state(&jobs, "t1")), (State::Missed, State::Waiting));
    assert!(may(&jobs, "t1", 20 * HOUR));
}

#[test]
fn a_retry_after_the_date_was_set_back_leaves_an_open_run_open() {
    let mut jobs = jobs(2, |job| {
        job.run.opens = stamp(at(HOUR));
        job.pace.overrun = Overrun::Stop;
    });
    tick(&mut jobs, HOUR);
    jobs.take("t0", "1", 1, at(10 * HOUR - 1));
    assert!(leaves(&mut jobs, "t1", HOUR));
    assert_eq!(again(&mut jobs, Which::Named(&Meant::each(["t1"])), HOUR - 1), ["t1"]);
    assert_eq!(jobs.get(1).expect("there").run.phase, Phase::Open);
    tick(&mut jobs, 10 * HOUR);
    assert_eq!(state(&jobs, "t0"), State::Cancelled, "the window ended, and the job says stop");
}
