//! Jobs in events: terminals that take, report, are cut off and end; people and windows between them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::event::{CheckFinding, Class, Outcome};
use crate::image_id::{ImageId, ImageRef};
use crate::testkit::lab::{at, checked, done, failed, job, moment};

const HOUR: u64 = 3600;

fn names(n: usize) -> BTreeSet<String> {
    (0..n).map(|i| format!("t{i}")).collect()
}

/// Job 1 of `n` terminals, open from 0 to ten hours, after `change`.
fn jobs(n: usize, change: impl FnOnce(&mut Job)) -> Jobs {
    let mut jobs = Jobs::default();
    let mut job = job(1, 0, 10 * HOUR);
    change(&mut job);
    jobs.add(job, &names(n), &moment(0));
    tick(&mut jobs, 0);
    jobs
}

fn tick(jobs: &mut Jobs, now: u64) -> Effects {
    jobs.tick(&moment(now), &|_| false, &|_| None)
}

fn state(jobs: &Jobs, id: &str) -> State {
    jobs.member(1, id).expect("in it").state
}

fn may(jobs: &Jobs, id: &str, now: u64) -> bool {
    matches!(jobs.offer(id, false, &moment(now)), Offer::Now(_))
}

fn why(jobs: &Jobs, id: &str, now: u64) -> String {
    match jobs.offer(id, false, &moment(now)) {
        Offer::Later(why) => why,
        other => panic!("{other:?}"),
    }
}

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
fn a_finished_job_never_starts_again_by_itself() {
    let mut jobs = jobs(1, |_| {});
    jobs.take("t0", "1", 1, at(1));
    jobs.outcome("t0", 1, &done(), at(60));
    for now in [61, HOUR, 9 * HOUR, 20 * HOUR] {
        tick(&mut jobs, now);
        assert_eq!(jobs.offer("t0", false, &moment(now)), Offer::Nothing);
    }
    assert!(jobs.get(1).expect("there").is_over());
    assert!(jobs.retry(1, Which::Unsuccessful, None, &moment(61)).is_err(), "done is not unsuccessful");
    jobs.retry(1, Which::Named(&["t0".into()]), None, &moment(62)).expect("a person names it");
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
    assert!(jobs.waits_for_a_place("t2", false, &moment(30)));
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
    jobs.grant("t0", "1", at(1));
    assert!(!may(&jobs, "t1", 100) && may(&jobs, "t0", 100));
    jobs.grant("t0", "1", at(150));
    assert!(may(&jobs, "t1", 182), "it never came, and whoever asks in its name keeps no place again");
}

#[test]
fn a_silent_attempt_that_comes_back_goes_on_unless_a_person_stopped_it() {
    let mut jobs = jobs(2, |_| {});
    for (id, attempt) in [("t0", 1), ("t1", 2)] {
        jobs.take(id, "1", attempt, at(1));
    }
    tick(&mut jobs, 100);
    jobs.cancel_terminal("t1", &moment(101)).expect("it waits");
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
fn the_end_of_the_window_has_one_result_in_each_state() {
    for (overrun, running) in [(Overrun::Finish, State::Running), (Overrun::Stop, State::Cancelled)] {
        let mut jobs = jobs(6, |job| {
            job.pace.overrun = overrun;
            job.pace.wake = true;
        });
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
        assert_eq!(states, [Done, Failed, running, Missed, Asleep, interrupted]);
        assert_eq!(effects.stops.len(), usize::from(overrun == Overrun::Stop));
        let finishes = |now| matches!(jobs.offer("t5", true, &moment(now)), Offer::Now(_));
        assert_eq!(finishes(11 * HOUR), overrun == Overrun::Finish, "a half-written disk is finished");
        assert!(!finishes(12 * HOUR), "but not on the next day");
        jobs.tick(&moment(12 * HOUR), &half, &|_| None);
        assert_eq!(state(&jobs, "t5"), State::Failed);
    }
}

#[test]
fn a_retry_after_the_window_opens_one_of_its_own() {
    let mut jobs = jobs(2, |_| {});
    tick(&mut jobs, 10 * HOUR);
    let (again, _) = jobs.retry(1, Which::Unsuccessful, None, &moment(11 * HOUR)).expect("both missed it");
    assert_eq!(again, ["t0", "t1"]);
    tick(&mut jobs, 11 * HOUR + 1);
    assert!(may(&jobs, "t0", 11 * HOUR + 1));
    assert!(jobs.retry(1, Which::Unsuccessful, None, &moment(11 * HOUR + 2)).is_err(), "they wait already");
    tick(&mut jobs, 23 * HOUR);
    assert_eq!(state(&jobs, "t0"), State::Missed, "it ends as well");
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

fn standing(follow: bool) -> impl FnOnce(&mut Job) {
    move |job| {
        let every = "daily 22:00".parse().expect("valid");
        job.standing = Some(Standing { every, closing: "06:00".parse().expect("valid"), follow });
        job.run.opens = stamp(at(22 * HOUR));
        job.run.closes = stamp(at(30 * HOUR));
        job.next = Some(stamp(at(46 * HOUR)));
    }
}

#[test]
fn a_standing_job_runs_each_night_with_the_same_version_unless_it_follows() {
    for (follow, version) in [(false, "1"), (true, "2")] {
        let mut jobs = jobs(1, standing(follow));
        let newest = |image: &ImageRef| Some((ImageId::new(&image.name, "2"), 1 << 30));
        jobs.tick(&moment(22 * HOUR), &|_| false, &newest);
        jobs.take("t0", "1", 1, at(22 * HOUR));
        jobs.outcome("t0", 1, &done(), at(23 * HOUR));
        assert_eq!(jobs.offer("t0", false, &moment(24 * HOUR)), Offer::Nothing, "once a night");
        jobs.tick(&moment(46 * HOUR), &|_| false, &newest);
        let job = jobs.get(1).expect("there");
        assert_eq!((job.run.number, job.terms.title()), (2, format!("debian@{version}")));
        assert!(may(&jobs, "t0", 46 * HOUR));
    }
}

#[test]
fn of_nights_that_the_server_slept_through_one_is_reported() {
    let mut jobs = jobs(1, standing(false));
    tick(&mut jobs, 22 * HOUR + 24 * HOUR * 6);
    let job = jobs.get(1).expect("there");
    assert_eq!((job.run.number, job.run.phase), (2, Phase::Open), "the seventh night has begun");
    tick(&mut jobs, 32 * HOUR + 24 * HOUR * 20);
    assert_eq!(jobs.get(1).expect("there").run.number, 3);
    assert_eq!(state(&jobs, "t0"), State::Missed);
}

#[test]
fn a_terminal_is_in_one_unfinished_single_job_and_it_goes_before_the_standing_one() {
    let mut jobs = jobs(1, standing(false));
    tick(&mut jobs, 22 * HOUR);
    let (single, standing) = (job(2, 0, 1).kind(), Kind { standing: true, preflight: false });
    assert!(jobs.free_for("t0", 2, standing).is_err() && jobs.free_for("t0", 2, single).is_ok());
    jobs.add(job(2, 22 * HOUR, 30 * HOUR), &names(1), &moment(22 * HOUR));
    tick(&mut jobs, 22 * HOUR);
    assert!(jobs.free_for("t0", 3, single).expect_err("busy").error.contains("in job 2 already"));
    let Offer::Now(target) = jobs.offer("t0", false, &moment(23 * HOUR)) else { panic!("it may") };
    assert_eq!(target.job, "2");
    jobs.take("t0", "2", 1, at(23 * HOUR));
    jobs.outcome("t0", 1, &done(), at(23 * HOUR));
    assert_eq!(jobs.offer("t0", false, &moment(24 * HOUR)), Offer::Nothing, "not twice in one night");
    assert_eq!(jobs.member(1, "t0").expect("in it").reason, "job 2 imaged it in this window");
    tick(&mut jobs, 46 * HOUR);
    assert!(may(&jobs, "t0", 46 * HOUR), "the next night is the standing job's");
}

#[test]
fn a_single_job_without_a_free_place_does_not_let_the_standing_one_go_before_it() {
    let mut jobs = jobs(2, standing(false));
    let mut single = job(2, 22 * HOUR, 30 * HOUR);
    single.pace.wave = Some(1);
    jobs.add(single, &names(2), &moment(22 * HOUR));
    tick(&mut jobs, 22 * HOUR);
    jobs.take("t0", "2", 1, at(22 * HOUR));
    assert!(why(&jobs, "t1", 22 * HOUR + 1).contains("1 terminals at a time"));
}

#[test]
fn a_terminal_that_a_person_takes_out_is_in_no_run_until_a_retry() {
    let mut jobs = jobs(1, standing(false));
    jobs.add(job(2, 22 * HOUR, 30 * HOUR), &names(1), &moment(22 * HOUR));
    tick(&mut jobs, 22 * HOUR);
    jobs.cancel_terminal("t0", &moment(22 * HOUR)).expect("it waits in both");
    assert_eq!(jobs.offer("t0", false, &moment(22 * HOUR)), Offer::Nothing);
    assert!(jobs.cancel_terminal("t0", &moment(22 * HOUR)).is_err(), "nothing is left to cancel");
    tick(&mut jobs, 46 * HOUR);
    assert_eq!((state(&jobs, "t0"), may(&jobs, "t0", 46 * HOUR)), (State::Cancelled, false));
    jobs.retry(1, Which::Named(&["t0".into()]), None, &moment(47 * HOUR)).expect("cancelled");
    assert!(may(&jobs, "t0", 47 * HOUR));
    tick(&mut jobs, 70 * HOUR);
    assert!(may(&jobs, "t0", 70 * HOUR));
}

#[test]
fn a_retry_before_the_window_waits_for_it() {
    let mut jobs = jobs(1, |job| job.run.opens = stamp(at(HOUR)));
    jobs.cancel(1, &moment(10)).expect("planned");
    jobs.retry(1, Which::Unsuccessful, None, &moment(20)).expect("cancelled");
    assert!(why(&jobs, "t0", 30).contains("opens on"));
    tick(&mut jobs, 40);
    assert_eq!(jobs.get(1).map(|job| (job.run.phase, job.cancelled)), Some((Phase::Planned, false)));
    tick(&mut jobs, HOUR);
    assert!(may(&jobs, "t0", HOUR));
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
fn another_job_neither_ends_nor_keeps_a_lease() {
    let mut jobs = jobs(1, standing(false));
    jobs.add(job(2, 22 * HOUR, 30 * HOUR), &names(1), &moment(22 * HOUR));
    tick(&mut jobs, 22 * HOUR);
    let start = 22 * HOUR;
    jobs.take("t0", "2", 1, at(start));
    jobs.cancel(1, &moment(start + 1)).expect("open");
    tick(&mut jobs, start + 100);
    assert_eq!(jobs.member(2, "t0").expect("in it").state, State::Waiting, "its lease has ended");
    jobs.retry(1, Which::Unsuccessful, None, &moment(start + 101)).expect("cancelled");
    jobs.take("t0", "2", 2, at(start + 102));
    jobs.take("t0", "1", 3, at(start + 103));
    assert_eq!(jobs.member(2, "t0").expect("in it").state, State::Waiting);
    assert_eq!(state(&jobs, "t0"), State::Running);
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
fn a_cancelled_job_stops_everyone_and_begins_nothing() {
    let mut jobs = jobs(3, |_| {});
    jobs.take("t0", "1", 1, at(1));
    jobs.take("t1", "1", 2, at(1));
    jobs.outcome("t1", 2, &done(), at(2));
    let effects = jobs.cancel(1, &moment(3)).expect("open");
    assert_eq!(effects.stops.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>(), ["t0"]);
    let states: Vec<State> = jobs.members(1).map(|(_, member)| member.state).collect();
    assert_eq!(states, [State::Cancelled, State::Done, State::Cancelled]);
    assert!(jobs.get(1).expect("there").is_over() && jobs.cancel(1, &moment(4)).is_err());
}

#[test]
fn a_job_is_over_when_nobody_is_left_in_it() {
    let mut jobs = Jobs::default();
    jobs.add(job(1, HOUR, 10 * HOUR), &names(2), &moment(0));
    tick(&mut jobs, 0);
    jobs.cancel_terminal("t0", &moment(1)).expect("planned");
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

/// One step of a random night.
#[derive(Debug, Clone)]
enum Event {
    Take(usize),
    Report(usize),
    Committed(usize),
    Outcome(usize, bool),
    Cancel(usize),
    CancelJob,
    Retry(usize),
    Restart,
    Pass(u64),
    Jump(i64),
}

fn event() -> impl Strategy<Value = Event> {
    let who = 0..4usize;
    prop_oneof![
        4 => who.clone().prop_map(Event::Take),
        4 => who.clone().prop_map(Event::Report),
        1 => who.clone().prop_map(Event::Committed),
        3 => (who.clone(), any::<bool>()).prop_map(|(id, good)| Event::Outcome(id, good)),
        1 => who.clone().prop_map(Event::Cancel),
        1 => Just(Event::CancelJob),
        2 => who.prop_map(Event::Retry),
        2 => Just(Event::Restart),
        4 => (1..200u64).prop_map(Event::Pass),
        1 => (-40_000..40_000i64).prop_map(Event::Jump),
    ]
}

/// The database: the latest value of each row.
#[derive(Default)]
struct Rows {
    job: Option<Job>,
    members: BTreeMap<String, Member>,
}

impl Rows {
    fn write(&mut self, effects: &Effects) {
        for change in &effects.changes {
            match change {
                JobChange::Job(job) => self.job = Some((**job).clone()),
                JobChange::Member { terminal, member, .. } => {
                    self.members.insert(terminal.clone(), (**member).clone());
                }
            }
        }
    }
}

proptest! {
    /// In any order of events: never two live leases of a terminal, never more than the wave has places,
    /// never a terminal that is done twice without a person, and no acknowledged word lost by a restart.
    #[test]
    fn a_random_night_keeps_its_promises(events in prop::collection::vec(event(), 1..120), wave in 1..4u32) {
        let mut lab = Jobs::default();
        let mut order = job(1, 1000, 1000 + 10 * HOUR);
        order.pace.wave = Some(wave);
        let mut rows = Rows::default();
        rows.write(&lab.add(order, &names(4), &moment(1000)));
        let (mut now, mut shift, mut number) = (1000u64, 0i64, 0u64);
        // The last attempt of each terminal, whether its outcome is known, and how often a person said so.
        let mut last = [(0u64, true); 4];
        let (mut finished, mut allowed) = ([0u32; 4], [1u32; 4]);
        for event in events {
            let date = u64::try_from(i64::try_from(now).unwrap() + shift).unwrap_or(0);
            let here = Moment { now: at(now), date: moment(date).date };
            let effects = match &event {
                Event::Take(i) => {
                    let id = format!("t{i}");
                    let Offer::Now(target) = lab.offer(&id, false, &here) else { continue };
                    prop_assert!(lab.taken(1, Some(&id), at(now)) < wave as usize, "the wave is full");
                    number += 1;
                    last[*i] = (number, false);
                    lab.take(&id, &target.job, number, at(now))
                }
                Event::Report(i) if !last[*i].1 => lab.renew(&format!("t{i}"), last[*i].0, false, at(now)),
                Event::Committed(i) if !last[*i].1 => lab.renew(&format!("t{i}"), last[*i].0, true, at(now)),
                Event::Outcome(i, good) if !last[*i].1 => {
                    let outcome: Outcome = if *good { done() } else { failed(Class::Retry, true) };
                    last[*i].1 = true;
                    finished[*i] += u32::from(*good);
                    let effects = lab.outcome(&format!("t{i}"), last[*i].0, &outcome, at(now));
                    if *good {
                        prop_assert_eq!(state(&lab, &format!("t{i}")), State::Done);
                    }
                    effects
                }
                Event::Cancel(i) => lab.cancel_terminal(&format!("t{i}"), &here).unwrap_or_default(),
                Event::CancelJob => lab.cancel(1, &here).unwrap_or_default(),
                Event::Retry(i) => match lab.retry(1, Which::Named(&[format!("t{i}")]), None, &here) {
                    Ok((_, effects)) => {
                        allowed[*i] = finished[*i] + 1;
                        effects
                    }
                    Err(_) => continue,
                },
                Event::Restart => {
                    let members = rows.members.clone().into_iter().collect();
                    let stored = rows.job.clone().map(|job| (job, members));
                    lab = Jobs::restore(at(now), stored.into_iter().collect());
                    Effects::default()
                }
                Event::Pass(seconds) => {
                    now += seconds;
                    Effects::default()
                }
                Event::Jump(seconds) => {
                    shift += seconds;
                    Effects::default()
                }
                _ => continue,
            };
            rows.write(&effects);
            let date = u64::try_from(i64::try_from(now).unwrap() + shift).unwrap_or(0);
            let here = Moment { now: at(now), date: moment(date).date };
            rows.write(&lab.tick(&here, &|_| false, &|_| None));
            for i in 0..4 {
                prop_assert!(finished[i] <= allowed[i], "t{i} was imaged twice");
                let id = format!("t{i}");
                let member = lab.member(1, &id).expect("in it");
                prop_assert_eq!(Some(member), rows.members.get(&id), "what is stored is what holds");
                prop_assert_eq!(lab.leases.contains_key(&id), member.state == State::Running);
            }
            prop_assert_eq!(lab.get(1), rows.job.as_ref());
        }
    }
}

#[test]
fn times_of_the_clock_are_dates() {
    assert_eq!(stamp(at(1_764_000_000)), "2025-11-24T16:00:00Z".parse::<Timestamp>().expect("a date"));
}

#[test]
fn a_preflight_ends_by_its_worst_finding_and_never_as_an_image() {
    let (error, warning) = (CheckFinding::error("no disk", "Look."), CheckFinding::warning("slow", "Look."));
    for (findings, ends, reason) in [
        (vec![], State::Done, ""),
        (vec![warning.clone()], State::Done, "slow"),
        (vec![warning, error], State::Failed, "no disk"),
    ] {
        let mut jobs = jobs(1, |job| job.terms.preflight = true);
        jobs.take("t0", "1", 7, at(1));
        jobs.outcome("t0", 7, &checked(findings.clone()), at(2));
        let member = jobs.member(1, "t0").expect("in it");
        assert_eq!((member.state, member.reason.as_str()), (ends, reason));
        assert_eq!(member.findings.len(), findings.len());
        assert_eq!(jobs.offer("t0", false, &moment(3)), Offer::Nothing, "once is enough");
    }
    let mut jobs = jobs(1, |_| ());
    jobs.take("t0", "1", 7, at(1));
    jobs.outcome("t0", 7, &checked(vec![]), at(2));
    assert_eq!(state(&jobs, "t0"), State::Failed, "a job with images is not done by looking");
}

#[test]
fn a_preflight_and_a_job_with_images_do_not_exclude_each_other() {
    let jobs = jobs(1, |job| job.terms.preflight = true);
    let kind = |preflight| Kind { standing: false, preflight };
    assert!(jobs.free_for("t0", 2, kind(true)).is_err() && jobs.free_for("t0", 2, kind(false)).is_ok());
}

#[test]
fn a_half_written_terminal_gets_no_preflight_after_the_window() {
    let mut jobs = jobs(1, |job| job.terms.preflight = true);
    assert!(matches!(jobs.offer("t0", true, &moment(1)), Offer::Now(_)));
    jobs.take("t0", "1", 7, at(1));
    assert!(matches!(jobs.offer("t0", true, &moment(10 * HOUR)), Offer::Later(_)));
}
