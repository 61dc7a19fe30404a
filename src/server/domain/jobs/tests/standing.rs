//! Standing jobs, and several jobs of one terminal.

use super::*;

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
    let effects = tick(&mut jobs, 32 * HOUR + 24 * HOUR * 20);
    let slept = "the server did not run until the end of the window";
    assert_eq!(rows(&effects, 2), [("t0", State::Missed, slept)]);
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
fn a_terminal_whose_job_is_cancelled_after_its_commit_is_done_and_the_standing_job_spares_it() {
    let mut jobs = jobs(1, standing(false));
    jobs.add(job(2, 22 * HOUR, 30 * HOUR), &names(1), &moment(22 * HOUR));
    tick(&mut jobs, 22 * HOUR);
    jobs.take("t0", "2", 1, at(23 * HOUR));
    jobs.renew("t0", 1, true, at(23 * HOUR + 1));
    let effects = jobs.cancel(2, &moment(23 * HOUR + 2)).expect("open");
    assert!(effects.stops.is_empty(), "only its outcome is missing");
    assert_eq!(jobs.member(2, "t0").expect("in it").state, State::Done);
    assert_eq!(jobs.offer("t0", false, &moment(24 * HOUR)), Offer::Nothing, "not twice in one night");
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
fn what_a_terminal_was_told_in_one_night_does_not_explain_the_next() {
    let mut jobs = jobs(2, |job| {
        standing(false)(job);
        job.pace.wake = true;
        job.pace.wave = Some(1);
    });
    tick(&mut jobs, 22 * HOUR);
    jobs.take("t0", "1", 1, at(29 * HOUR));
    tick(&mut jobs, 29 * HOUR);
    let why = why(&jobs, "t1", 29 * HOUR + 1);
    jobs.asked("t1", &why);
    let (each, _) = jobs.cancel_terminals(&["t1".into()], &moment(29 * HOUR + 2));
    assert!(each[0].1.is_ok(), "it waits");
    let (each, _) = jobs.retry(1, Which::Named(&Meant::each(["t1"])), None, &moment(31 * HOUR));
    assert!(each[0].1.is_ok(), "it was cancelled");
    jobs.asked("t1", &why);
    for now in [46 * HOUR, 54 * HOUR] {
        tick(&mut jobs, now);
    }
    let member = jobs.member(1, "t1").expect("in it");
    assert_eq!((jobs.get(1).expect("there").run.number, member.state), (2, State::Asleep), "{member:?}");
}

/// What is stored of a run in the end.
fn rows(effects: &Effects, run: u32) -> Vec<(&str, State, &str)> {
    let row = |change| match change {
        &JobChange::Member { run: of, ref terminal, ref member, .. } if of == run => {
            Some((terminal.as_str(), member.state, member.reason.as_str()))
        }
        _ => None,
    };
    effects.changes.iter().filter_map(row).collect()
}

#[test]
fn a_run_that_ended_while_the_server_was_off_is_closed_before_the_next_one_begins() {
    let mut jobs = jobs(5, standing(false));
    tick(&mut jobs, 22 * HOUR);
    for (id, attempt) in [("t1", 1), ("t2", 2), ("t3", 3)] {
        jobs.take(id, "1", attempt, at(23 * HOUR));
    }
    jobs.outcome("t1", 1, &done(), at(23 * HOUR));
    jobs.outcome("t2", 2, &failed(Class::Retry, true), at(23 * HOUR));
    jobs.take("t4", "1", 4, at(23 * HOUR));
    jobs.renew("t4", 4, true, at(23 * HOUR));
    let members = jobs.members(1).map(|(id, member)| (id.into(), member.clone())).collect();
    let now = 46 * HOUR + 300;
    let mut jobs = Jobs::restore(at(now), vec![(jobs.get(1).expect("there").clone(), members)]);
    jobs.committed_before("t4", 4);
    let effects = tick(&mut jobs, now);
    let before = rows(&effects, 1);
    assert_eq!(
        before,
        [
            ("t0", State::Missed, "the server did not run until the end of the window"),
            ("t2", State::Failed, "writing sda failed; then the window ended"),
            ("t3", State::Failed, "it was under way when the next run began, and goes on in that one"),
            ("t4", State::Done, "its image is on the disk; it did not tell how it ended"),
        ]
    );
    let states: Vec<State> = rows(&effects, 2).into_iter().map(|(_, state, _)| state).collect();
    use State::{Running, Waiting};
    assert_eq!(states, [Waiting, Waiting, Waiting, Running, Waiting]);
    assert!(may(&jobs, "t4", now), "each night images it once");
}

#[test]
fn a_terminal_that_was_retried_after_its_run_has_missed_it_when_the_next_one_begins() {
    let mut jobs = jobs(1, standing(false));
    for now in [22 * HOUR, 30 * HOUR] {
        tick(&mut jobs, now);
    }
    let (each, _) = jobs.retry(1, Which::Unsuccessful, None, &moment(36 * HOUR));
    assert!(each[0].1.is_ok(), "it missed the run");
    let effects = tick(&mut jobs, 46 * HOUR);
    assert_eq!(rows(&effects, 1), [("t0", State::Missed, "it did not boot from the network")]);
}
