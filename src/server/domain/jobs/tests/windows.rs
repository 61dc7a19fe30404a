//! Windows: they open, close, pass while the server is down, and outlast a date that jumps.

use super::*;

#[test]
fn nobody_begins_before_the_window_opens_or_when_its_rest_is_too_short() {
    let mut jobs = jobs(1, |job| {
        job.run.opens = stamp(at(HOUR));
        job.needs = 2 * HOUR;
    });
    assert!(why(&jobs, "t0", HOUR - 1).contains("opens on"));
    tick(&mut jobs, HOUR);
    assert!(may(&jobs, "t0", HOUR) && may(&jobs, "t0", 8 * HOUR));
    assert!(why(&jobs, "t0", 8 * HOUR + 1).contains("imaging takes about"), "the promise of the end");
    tick(&mut jobs, 10 * HOUR);
    assert_eq!((state(&jobs, "t0"), jobs.get(1).expect("there").run.phase), (State::Missed, Phase::Over));
    assert_eq!(jobs.offer("t0", false, &moment(10 * HOUR)), Offer::Nothing);
}

#[test]
fn the_end_of_the_window_has_one_result_in_each_state() {
    for (overrun, running) in [(Overrun::Finish, State::Running), (Overrun::Stop, State::Cancelled)] {
        let mut jobs = jobs(7, |job| {
            job.pace.overrun = overrun;
            job.pace.wake = true;
        });
        jobs.take("t6", "1", 5, at(10 * HOUR - 5));
        jobs.renew("t6", 5, true, at(10 * HOUR - 4));
        jobs.take("t0", "1", 1, at(1));
        jobs.outcome("t0", 1, &done(), at(2));
        jobs.take("t1", "1", 2, at(1));
        jobs.outcome("t1", 2, &failed(Class::Disk, true), at(2));
        jobs.take("t2", "1", 3, at(10 * HOUR - 5));
        jobs.spoke("t3");
        jobs.take("t5", "1", 4, at(1));
        jobs.outcome("t5", 4, &failed(Class::Retry, true), at(2));
        let half = |id: &str| id == "t5";
        let effects = jobs.tick(&moment(10 * HOUR), &half, &|_| None);
        let states: Vec<State> = jobs.members(1).map(|(_, member)| member.state).collect();
        let interrupted = if overrun == Overrun::Finish { State::Waiting } else { State::Failed };
        use State::{Asleep, Done, Failed, Missed};
        let committed = State::Running;
        assert_eq!(states, [Done, Failed, running, Missed, Asleep, interrupted, committed]);
        assert_eq!(effects.stops.len(), usize::from(overrun == Overrun::Stop));
        let finishes = |now| matches!(jobs.offer("t5", true, &moment(now)), Offer::Now(_));
        assert_eq!(finishes(11 * HOUR), overrun == Overrun::Finish, "a half-written disk is finished");
        assert!(!finishes(12 * HOUR), "but not on the next day");
        jobs.tick(&moment(12 * HOUR), &half, &|_| None);
        assert_eq!((state(&jobs, "t5"), state(&jobs, "t6")), (State::Failed, State::Done));
    }
}

#[test]
fn a_window_that_passed_while_the_server_was_down_is_reported_and_one_that_has_not_opens_late() {
    let mut late = jobs(1, |job| job.run.opens = stamp(at(HOUR)));
    tick(&mut late, 5 * HOUR);
    assert!(may(&late, "t0", 5 * HOUR));
    let mut missed = jobs(1, |job| job.run.opens = stamp(at(HOUR)));
    tick(&mut missed, 11 * HOUR);
    let member = missed.member(1, "t0").expect("in it");
    assert_eq!(
        (member.state, member.reason.as_str()),
        (State::Missed, "the server did not run during the window")
    );
}

#[test]
fn a_date_that_jumps_back_opens_nothing_again() {
    let mut jobs = jobs(1, |_| {});
    tick(&mut jobs, 10 * HOUR);
    assert_eq!(state(&jobs, "t0"), State::Missed);
    tick(&mut jobs, HOUR);
    assert_eq!((state(&jobs, "t0"), may(&jobs, "t0", HOUR)), (State::Missed, false));
}

#[test]
fn a_backup_that_is_restored_weeks_later_images_nobody() {
    let mut before = jobs(2, |_| {});
    before.take("t0", "1", 1, at(1));
    let stored = (
        before.get(1).expect("there").clone(),
        before.members(1).map(|(id, m)| (id.into(), m.clone())).collect(),
    );
    let later = 35 * 24 * HOUR;
    let mut jobs = Jobs::restore(at(later), vec![stored]);
    for now in [later, later + 61, later + 62] {
        jobs.tick(&moment(now), &|_| true, &|_| None);
        assert!(!may(&jobs, "t1", now));
    }
    assert!(!matches!(jobs.offer("t0", true, &moment(later + 62)), Offer::Now(_)));
    assert_eq!((state(&jobs, "t0"), state(&jobs, "t1")), (State::Failed, State::Missed));
    assert!(jobs.get(1).expect("there").is_over());
}

#[test]
fn the_end_of_another_jobs_window_ends_no_lease() {
    let mut jobs = jobs(1, |_| {});
    let mut standing_one = job(2, 0, 20 * HOUR);
    standing(false)(&mut standing_one);
    (standing_one.run.opens, standing_one.run.closes) = (stamp(at(0)), stamp(at(HOUR)));
    jobs.add(standing_one, &names(1), &moment(0));
    jobs.take("t0", "1", 1, at(HOUR - 1));
    tick(&mut jobs, HOUR);
    assert_eq!(jobs.member(2, "t0").expect("in it").state, State::Missed);
    tick(&mut jobs, HOUR + 1);
    assert_eq!(state(&jobs, "t0"), State::Running, "it reported two seconds ago");
}

#[test]
fn a_date_that_was_years_ahead_for_a_moment_leaves_the_calendar_as_it_was() {
    let mut jobs = jobs(1, standing(false));
    let years = 10 * 365 * 24 * HOUR;
    let moment = |now, date| Moment { now: at(now), date: moment(date).date };
    jobs.tick(&moment(HOUR, years), &|_| false, &|_| None);
    jobs.tick(&moment(HOUR, HOUR), &|_| false, &|_| None);
    assert_eq!(jobs.offer("t0", false, &moment(HOUR, HOUR)), Offer::Nothing);
    jobs.tick(&moment(22 * HOUR, 22 * HOUR), &|_| false, &|_| None);
    assert!(matches!(jobs.offer("t0", false, &moment(22 * HOUR, 22 * HOUR)), Offer::Now(_)));
}

#[test]
fn a_run_that_moves_with_a_date_that_was_set_back_is_stored() {
    let mut nightly = job(1, 46 * HOUR, 54 * HOUR);
    standing(false)(&mut nightly);
    (nightly.run.opens, nightly.run.closes) = (stamp(at(46 * HOUR)), stamp(at(54 * HOUR)));
    nightly.next = Some(stamp(at(70 * HOUR)));
    let mut jobs = Jobs::default();
    jobs.add(nightly, &names(1), &moment(25 * HOUR));
    let effects = tick(&mut jobs, HOUR);
    let job = jobs.get(1).expect("there");
    assert_eq!((job.run.opens, job.next), (stamp(at(22 * HOUR)), Some(stamp(at(46 * HOUR)))));
    assert_eq!(effects.changes, [JobChange::Job(Box::new(job.clone()))]);
}

#[test]
fn a_terminal_that_asked_is_not_called_asleep() {
    let mut jobs = jobs(2, |job| job.pace.wake = true);
    jobs.asked("t0", "job 1 images 1 terminals at a time, and all places are taken");
    tick(&mut jobs, 10 * HOUR);
    let member = jobs.member(1, "t0").expect("in it");
    assert!(member.state == State::Missed && member.reason.starts_with("it asked, but job 1"), "{member:?}");
    assert_eq!(state(&jobs, "t1"), State::Asleep);
}

#[test]
fn sleeping_terminals_are_woken_as_the_wave_has_places_and_do_not_hold_up_the_others() {
    let mut jobs = jobs(4, |job| {
        job.pace.wave = Some(2);
        job.pace.wake = true;
    });
    assert_eq!(jobs.wanted_awake(&moment(0)), ["t0", "t1"]);
    jobs.spoke("t1");
    jobs.take("t1", "1", 1, at(30));
    assert_eq!(jobs.wanted_awake(&moment(40)), ["t0"]);
    jobs.renew("t1", 1, false, at(295));
    assert_eq!(
        jobs.wanted_awake(&moment(300)),
        ["t0", "t2"],
        "t0 does not answer, and is woken beside the next"
    );
}

#[test]
fn times_of_the_clock_are_dates() {
    assert_eq!(stamp(at(1_764_000_000)), "2025-11-24T16:00:00Z".parse::<Timestamp>().expect("a date"));
}

#[test]
fn a_terminal_that_asked_before_the_window_and_slept_in_it_is_called_asleep() {
    let mut jobs = jobs(1, |job| {
        job.run.opens = stamp(at(HOUR));
        job.pace.wake = true;
    });
    let why = why(&jobs, "t0", 60);
    jobs.asked("t0", &why);
    for now in [HOUR, 10 * HOUR] {
        tick(&mut jobs, now);
    }
    let member = jobs.member(1, "t0").expect("in it");
    assert_eq!((member.state, member.reason.as_str()), (State::Asleep, "it did not wake"));
}
