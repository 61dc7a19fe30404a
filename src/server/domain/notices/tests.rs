//! What is news, and when it is sent.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::event::Class;
use crate::testkit::lab::{at, done, failed, job, moment};

const HOUR: u64 = 3600;

fn jobs() -> Jobs {
    let mut jobs = Jobs::default();
    let mut job = job(1, 0, 10 * HOUR);
    job.pace.attempts = 1;
    jobs.add(job, &BTreeSet::from(["a".into(), "b".into()]), &moment(0));
    jobs.tick(&moment(0), &|_| false, &|_| None);
    jobs
}

fn texts(watcher: &mut Watcher, jobs: &Jobs, problems: &[Problem]) -> Vec<String> {
    let label = |id: &str| Some(format!("lab-{id}"));
    watcher.look(Timestamp::UNIX_EPOCH, jobs, problems, label).into_iter().map(|n| n.text).collect()
}

#[test]
fn a_failure_and_the_end_of_a_job_are_told_once() {
    let (mut watcher, mut jobs) = (Watcher::default(), jobs());
    assert_eq!(texts(&mut watcher, &jobs, &[]), [""; 0]);
    jobs.take("a", "1", 1, at(1));
    jobs.take("b", "1", 2, at(1));
    assert_eq!(texts(&mut watcher, &jobs, &[]), [""; 0]);
    jobs.outcome("a", 1, &failed(Class::Disk, true), at(60));
    let told = texts(&mut watcher, &jobs, &[]);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("lab-a failed in job 1: "), "{told:?}");
    jobs.outcome("b", 2, &done(), at(70));
    jobs.tick(&moment(71), &|_| false, &|_| None);
    assert_eq!(texts(&mut watcher, &jobs, &[]), ["Job 1 (debian@1) is over: 1 done, 1 failed"]);
    assert_eq!(texts(&mut watcher, &jobs, &[]), [""; 0]);
}

#[test]
fn a_second_failure_after_a_retry_is_news_again() {
    let (mut watcher, mut jobs) = (Watcher::default(), jobs());
    texts(&mut watcher, &jobs, &[]);
    for (attempt, now) in [(1, 10), (2, 100)] {
        jobs.take("a", "1", attempt, at(now));
        jobs.outcome("a", attempt, &failed(Class::Disk, true), at(now + 5));
        assert_eq!(texts(&mut watcher, &jobs, &[]).len(), 1);
        jobs.cancel_terminals(&["b".into()], &moment(now + 6));
        texts(&mut watcher, &jobs, &[]);
        let unsuccessful = crate::server::domain::jobs::Which::Unsuccessful;
        let (each, _) = jobs.retry(1, unsuccessful, None, &moment(now + 7));
        assert!(each.iter().all(|(_, answer)| answer.is_ok()), "again: {each:?}");
    }
}

#[test]
fn what_is_so_at_the_first_look_is_not_news_and_a_problem_that_returns_is() {
    let mut watcher = Watcher::default();
    let problem = |what: &str| Problem { what: what.into(), error: "is full".into(), advice: "Look.".into() };
    let none = Jobs::default();
    assert_eq!(texts(&mut watcher, &none, &[problem("old")]), [""; 0]);
    assert_eq!(texts(&mut watcher, &none, &[problem("old"), problem("new")]), ["new: is full. Look."]);
    assert_eq!(texts(&mut watcher, &none, &[]), [""; 0]);
    assert_eq!(texts(&mut watcher, &none, &[problem("old")]), ["old: is full. Look."]);
}

fn notice(text: &str) -> Notice {
    Notice::new(Kind::NeedsMe, Timestamp::UNIX_EPOCH, text.into())
}

#[test]
fn a_receiver_that_is_away_gets_all_in_order_when_it_is_back() {
    let mut outbox = Outbox::default();
    outbox.put(at(0), notice("1"));
    outbox.put(at(0), notice("2"));
    let mut tries = Vec::new();
    for now in 0..2000 {
        if outbox.due(at(now)).is_some() {
            tries.push(now);
            assert!(!outbox.sent(at(now), Sent::NotNow));
        }
    }
    assert_eq!(tries, [0, 1, 6, 36, 156, 456, 1056, 1656]);
    let mut got = Vec::new();
    while let Some(notice) = outbox.due(at(3000)).cloned() {
        got.push(notice.text);
        outbox.sent(at(3000), Sent::Taken);
    }
    assert_eq!(got, ["1", "2"]);
}

#[test]
fn an_outbox_is_bounded_and_gives_up_after_a_day_or_when_refused() {
    let mut outbox = Outbox::default();
    let dropped: usize = (0..1005).map(|n| outbox.put(at(0), notice(&n.to_string()))).sum();
    assert_eq!(dropped, 5);
    assert_eq!(outbox.due(at(0)).expect("due").text, "5");
    assert!(outbox.sent(at(0), Sent::Refused), "given up at once");
    assert_eq!(outbox.due(at(0)).expect("due").text, "6");
    let day = Duration::from_secs(24 * 3600);
    assert!(outbox.sent(day, Sent::NotNow));
    assert_eq!(outbox.due(day + at(1)).expect("due").text, "7");
}
