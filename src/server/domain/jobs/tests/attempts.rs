//! Attempts and their leases: taken, renewed, cut off, ended.

use super::*;

#[test]
fn a_finished_job_never_starts_again_by_itself() {
    let mut jobs = jobs(1, |_| {});
    jobs.take("t0", "1", 1, at(1));
    jobs.outcome("t0", 1, &done(), at(60));
    for now in [61, HOUR, 9 * HOUR, 20 * HOUR] {
        tick(&mut jobs, now);
        assert_eq!(jobs.offer("t0", false, &moment(now)), Offer::Nothing);
    }
    assert!(jobs.get(1).expect("there").is_over());
    assert_eq!(again(&mut jobs, Which::Unsuccessful, 61), [""; 0], "done is not unsuccessful");
    assert_eq!(again(&mut jobs, Which::Named(&Meant::each(["t0"])), 62), ["t0"], "a person names it");
    assert!(may(&jobs, "t0", 63) && jobs.get(1).expect("there").run.phase == Phase::Open);
}

#[test]
fn a_terminal_whose_image_was_committed_is_done_although_it_could_not_tell() {
    let mut jobs = jobs(1, |job| job.pace.attempts = 1);
    jobs.take("t0", "1", 1, at(1));
    jobs.renew("t0", 1, true, at(50));
    tick(&mut jobs, 200);
    assert_eq!(state(&jobs, "t0"), State::Done);
    assert_eq!(jobs.offer("t0", false, &moment(300)), Offer::Nothing, "a person may use it by now");
    jobs.outcome("t0", 1, &done(), at(400));
    assert_eq!(state(&jobs, "t0"), State::Done);
}

#[test]
fn a_call_that_is_repeated_because_its_answer_was_lost_costs_no_try() {
    let mut jobs = jobs(1, |job| job.pace.attempts = 1);
    for attempt in 1..=4 {
        assert!(may(&jobs, "t0", 3 * attempt), "also on its last try");
        jobs.take("t0", "1", attempt, at(3 * attempt));
        assert_eq!(jobs.member(1, "t0").expect("in it").tries, 1);
    }
    jobs.renew("t0", 4, false, at(20));
    assert!(!may(&jobs, "t0", 21), "it has restarted since its report");
}

#[test]
fn a_dead_terminal_frees_its_place_and_fails_after_the_allowed_attempts() {
    let mut jobs = jobs(3, |job| job.pace.wave = Some(2));
    jobs.take("t0", "1", 1, at(1));
    jobs.take("t1", "1", 2, at(1));
    assert!(why(&jobs, "t2", 30).contains("2 terminals at a time"));
    assert!(matches!(jobs.offer("t2", false, &moment(30)), Offer::Queued(_)));
    jobs.renew("t1", 2, false, at(50));
    tick(&mut jobs, 62);
    assert_eq!((state(&jobs, "t0"), state(&jobs, "t1")), (State::Waiting, State::Running));
    assert!(may(&jobs, "t2", 62));
    for (attempt, now) in [(3, 100), (4, 200)] {
        jobs.take("t0", "1", attempt, at(now));
        tick(&mut jobs, now + 61);
    }
    let member = jobs.member(1, "t0").expect("in it");
    assert_eq!((member.state, member.reason.as_str()), (State::Failed, "it was cut off 3 times in a row"));
}

#[test]
fn a_terminal_that_restarts_within_its_lease_uses_up_a_try() {
    let mut jobs = jobs(1, |_| {});
    for attempt in 1..=3 {
        assert!(may(&jobs, "t0", attempt));
        jobs.take("t0", "1", attempt, at(attempt));
        jobs.renew("t0", attempt, false, at(attempt));
    }
    assert!(why(&jobs, "t0", 4).contains("interrupted 3 times"));
}

#[test]
fn a_place_is_kept_for_a_terminal_that_was_sent_the_agent() {
    let mut jobs = jobs(2, |job| job.pace.wave = Some(1));
    jobs.grant("t0", "1", ip(9), at(1));
    assert!(!may(&jobs, "t1", 100) && may(&jobs, "t0", 100));
    jobs.grant("t0", "1", ip(9), at(150));
    assert!(may(&jobs, "t1", 182), "it never came, and whoever asks in its name keeps no place again");
}

#[test]
fn whoever_asks_in_the_names_of_others_keeps_one_place_and_only_for_a_while() {
    let mut jobs = jobs(120, |job| job.pace.wave = Some(2));
    let mut kept = 0;
    for second in (0..7200).step_by(10) {
        for n in 0..60 {
            jobs.grant(&format!("t{n}"), "1", ip(66), at(second));
        }
        assert!(may(&jobs, "t100", second), "one that comes from its own address, after {second} s");
        kept += 10 * jobs.taken(1, None, at(second));
    }
    assert!(kept < 7200 / 8, "{kept} s");
}

#[test]
fn a_room_behind_one_address_begins_and_waits_by_the_wave() {
    let mut jobs = jobs(5, |job| job.pace.wave = Some(2));
    for n in 0..5 {
        let id = format!("t{n}");
        assert!(may(&jobs, &id, 1), "{id} is sent the agent");
        jobs.grant(&id, "1", ip(1), at(1));
    }
    assert!(may(&jobs, "t1", 40));
    jobs.take("t1", "1", 1, at(40));
    let offer = jobs.offer("t3", false, &moment(41));
    assert!(matches!(offer, Offer::Queued(_)), "its agent asks again: t4 has the other place");
    jobs.take("t4", "1", 2, at(42));
    jobs.outcome("t1", 1, &done(), at(50));
    assert!(may(&jobs, "t3", 50));
}

#[test]
fn a_silent_attempt_that_comes_back_goes_on_unless_a_person_stopped_it() {
    let mut jobs = jobs(2, |_| {});
    for (id, attempt) in [("t0", 1), ("t1", 2)] {
        jobs.take(id, "1", attempt, at(1));
    }
    tick(&mut jobs, 100);
    assert!(leaves(&mut jobs, "t1", 101), "it waits");
    for (id, attempt) in [("t0", 1), ("t1", 2)] {
        jobs.renew(id, attempt, false, at(102));
    }
    assert_eq!((state(&jobs, "t0"), state(&jobs, "t1")), (State::Running, State::Cancelled));
    jobs.outcome("t1", 2, &failed(Class::Retry, true), at(103));
    assert_eq!(state(&jobs, "t1"), State::Cancelled);
    jobs.outcome("t1", 2, &done(), at(104));
    assert_eq!(state(&jobs, "t1"), State::Done, "its image is on the disk, whatever was said");
}

#[test]
fn a_half_written_disk_of_another_job_promises_nothing_in_this_one() {
    let mut jobs = jobs(1, |job| job.needs = HOUR);
    let half = |now| jobs.offer("t0", true, &moment(now));
    assert!(matches!(half(9 * HOUR - 1), Offer::Now(_)));
    assert!(matches!(half(9 * HOUR + 1), Offer::Later(_)), "the rest of the window is too short");
    jobs.tick(&moment(10 * HOUR), &|_| true, &|_| None);
    assert_eq!(state(&jobs, "t0"), State::Missed);
}

#[test]
fn another_job_neither_ends_nor_keeps_a_lease() {
    let mut jobs = jobs(1, standing(false));
    jobs.add(job(2, 22 * HOUR, 30 * HOUR), &names(1), &moment(22 * HOUR));
    tick(&mut jobs, 22 * HOUR);
    let start = 22 * HOUR;
    jobs.take("t0", "2", 1, at(start));
    jobs.cancel(1, &moment(start + 1)).expect("open");
    tick(&mut jobs, start + 100);
    assert_eq!(jobs.member(2, "t0").expect("in it").state, State::Waiting, "its lease has ended");
    assert_eq!(again(&mut jobs, Which::Unsuccessful, start + 101), ["t0"]);
    jobs.take("t0", "2", 2, at(start + 102));
    jobs.take("t0", "1", 3, at(start + 103));
    assert_eq!(jobs.member(2, "t0").expect("in it").state, State::Waiting);
    assert_eq!(state(&jobs, "t0"), State::Running);
}

#[test]
fn a_terminal_that_crashes_right_after_each_take_fails_and_frees_its_place() {
    let mut jobs = jobs(2, |job| job.pace.wave = Some(1));
    let takes = (1..100).take_while(|attempt| {
        let now = 10 * attempt;
        tick(&mut jobs, now);
        let may = may(&jobs, "t0", now);
        if may {
            jobs.take("t0", "1", *attempt, at(now));
        }
        may
    });
    let takes = takes.count() as u64;
    assert!((3..=9).contains(&takes), "three tries of at most 30 s: {takes} takes");
    tick(&mut jobs, 10 * takes + 60);
    assert_eq!((state(&jobs, "t0"), may(&jobs, "t1", 10 * takes + 60)), (State::Failed, true));
}

#[test]
fn the_late_failure_of_an_attempt_lets_nobody_begin_again() {
    let mut jobs = jobs(1, standing(false));
    tick(&mut jobs, 22 * HOUR);
    jobs.take("t0", "1", 1, at(22 * HOUR));
    tick(&mut jobs, 22 * HOUR + 61);
    let set_back = Moment { now: at(22 * HOUR + 62), date: moment(19 * HOUR).date };
    jobs.tick(&set_back, &|_| false, &|_| None);
    assert_eq!(state(&jobs, "t0"), State::Missed);
    jobs.outcome("t0", 1, &failed(Class::Retry, true), at(22 * HOUR + 63));
    assert_eq!(state(&jobs, "t0"), State::Missed);
}
